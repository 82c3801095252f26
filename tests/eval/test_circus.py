"""Labels of CIRCUS: files in its layout split the metrics of the report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from eval.cli.main import main
from eval.report.circus import CATEGORY, REFERENCE, REQUIRED, TARGET, CircusLabels
from mmretrieve.errors import MMRetrieveError

HEADER = f"dataset,{CATEGORY},validated,query_idx,query_text,{REFERENCE},{TARGET},rank_multimodal"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("circus")
    assert main(["run", "wardrobe", "--composer", "sum", "--out", str(folder), "--name", "sum"]) == 0
    return folder


def written(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(HEADER.split(","))
        for category, reference, target in rows:
            table.writerow(["w", category, "true", 1, "a, b", f"W/images/{reference}", f"W/images/{target}", 1])
    return path


def test_the_report_splits_metrics_by_labels(records: Path, tmp_path: Path) -> None:
    queries = json.loads((records / "sum.queries.json").read_text())
    results = queries["parts"]["wardrobe"]
    rows = [(REQUIRED, one["reference"], one["targets"][-1]) for one in results[:150]]
    rows += [("image_only", one["reference"], one["targets"][0]) for one in results[150:200]]
    labels = written(tmp_path / "wardrobe_validated.csv", rows)
    page = tmp_path / "report.html"
    assert main(["report", str(records), "--circus", f"wardrobe={labels}", "--out", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    pairs = {(reference, target) for category, reference, target in rows if category == REQUIRED}
    required = [any((one["reference"], target) in pairs for target in one["targets"]) for one in results]
    column = queries["metrics"].index("recall@1")
    values = np.array([one["values"][column] for one in results], dtype=float)
    assert 150 <= sum(required) < 500
    section = html.partition("Composition required</h3>")[2].partition("<h3>")[0]
    assert f"composition required, {sum(required)}" in section
    for mean in (values[required].mean(), values[np.logical_not(required)].mean()):
        assert f">{mean:.1f}</td>" in section.partition("R@1</th>")[2].partition("</table>")[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", f"expected the columns {REFERENCE}, {TARGET} and {CATEGORY}, got a, b"),
        ("", f"expected the columns {REFERENCE}, {TARGET} and {CATEGORY}, got none"),
        (f"{HEADER}\nw,image_only,true,1,a,b,c,1\n", f"no row has the {CATEGORY} '{REQUIRED}'"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(MMRetrieveError, match=message):
        CircusLabels.read(tmp_path / "labels.csv")


def test_labels_of_another_benchmark_are_named(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = written(tmp_path / "circo_validated.csv", [(REQUIRED, "000000007705.jpg", "000000344036.jpg")])
    assert main(["report", str(records), "--circus", f"wardrobe={labels}", "--out", str(tmp_path / "r.html")]) == 1
    assert "circo_validated: labels no query of wardrobe test; is it the file of another benchmark?" in capsys.readouterr().err
