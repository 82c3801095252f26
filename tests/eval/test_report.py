"""The report: intervals, sentences, selected queries and tables by hand; the page as text and in a browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.report import build_report
from eval.report.bootstrap import Interval, paired_interval, suite_interval
from eval.report.cases import select_best, select_improved, select_worsened, select_worst
from eval.report.formatting import (
    benchmark_name,
    format_number,
    format_preprocessing,
    format_signed,
    metric_name,
    pdv_option,
)
from eval.report.groups import ComparisonGroup, group_records
from eval.report.heatmap import draw_heatmap
from eval.report.loading import read_records, shorten_paths
from eval.report.page import mark_code
from eval.report.published import (
    compare_checkpoint,
    compare_published,
    find_backbone,
    find_published,
)
from eval.report.tables import MAX_COLUMNS, aspects_table, differences_tables, results_table
from eval.report.verdict import count_changes, equal_to_best, write_verdict
from eval.runs.records import SweepRecord, read_record, write_record
from mmretrieve import MMRetrieveError
from mmretrieve.errors import OptionError
from mmretrieve.wardrobe import drawings
from mmretrieve.wardrobe.draw import draw

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "<img src=x onerror=alert(1)>"
IDS = [drawing.id for drawing in drawings()[:12]]
NOT_RELEASED = "40 queries over 20 images in CIRR's layout: not the released CIRR (4,181 over 2,297)"
FOUND, LOST = (100.0, 1), (0.0, 50)
Outcome = tuple[float, int]


def answer(i: int, outcome: Outcome, metrics: int = 1, **changes: Any) -> dict[str, Any]:
    """Query i: its reference is drawing i, its target drawing i + 1, with a value and a rank."""
    value, rank = outcome
    reference, target, *others = (IDS[(i + step) % len(IDS)] for step in range(5))
    hits = [target, *others] if rank == 1 else others
    scored = [
        {"id": id_, "score": 0.9 - 0.1 * n, "contributions": {"image": 0.3, "text": -0.2, "composed": 0.8 - 0.1 * n}}
        for n, id_ in enumerate(hits)
    ]
    at = {"id": target, "rank": rank, "score": 0.9 if rank == 1 else 0.2, "contributions": {"image": 0.1, "composed": 0.1}}
    words = {"text": "a photo of a dress", "composed": "a photo of a dress, in red"}
    return {
        "id": str(i),
        "reference": reference,
        "prompt": f"in red, number {i}",
        "targets": [target],
        "values": [value] * metrics,
        "words": words,
        "target": at,
        "hits": scored,
    } | changes


def common(name: str, benchmark: str, label: str, composer: str, model: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "benchmark": benchmark,
        "split": "val",
        "label": label,
        "composer": composer,
        "remarks": [],
        "options": {"composer": composer, "captioner": "tagger"},
        "encoder": {"model": model, "weights": "96099055ab12cd34ef56", "preprocessing": "plain"},
        "provenance": {
            "versions": {"torch": "2.9.1"},
            "commit": "e9ecf7b",
            "machine": "Linux x86_64",
            "device": "cpu",
            "dtype": "float32",
            "seconds": {"compose": 4.25},
        },
    } | changes


def write_run(
    folder: Path,
    name: str,
    outcomes: Sequence[Outcome] | dict[str, Sequence[Outcome]],
    *,
    benchmark: str = "cirr",
    weighing: str = "base",
    label: str | None = None,
    composer: str = "captions",
    model: str = "ViT-L-14/openai",
    remark: str | None = None,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda query: query,
    **changes: Any,
) -> Path:
    """The two files of a run, measured by R@1; every part has the queries of its outcomes."""
    parts = outcomes if isinstance(outcomes, dict) else {benchmark: outcomes}
    means = {part: {"recall@1": float(np.mean([value for value, _ in some]))} for part, some in parts.items()}
    queries = {part: [change(answer(i, outcome)) for i, outcome in enumerate(some)] for part, some in parts.items()}
    record = {
        "kind": "run",
        **common(name, benchmark, label or (composer if weighing == "base" else f"{composer} + {weighing}"), composer, model),
        "rule": "linear",
        "weighing": weighing,
        "headline": "recall@1",
        "metrics": {"recall@1": float(np.mean([result["recall@1"] for result in means.values()]))},
        "parts": {
            part: {"metrics": means[part], "queries": len(some), "gallery": 2297, "checksum": "c0ffee", "remark": remark}
            for part, some in parts.items()
        },
    } | changes
    file = folder / f"{name}.json"
    file.write_text(json.dumps(record))
    (folder / f"{name}.queries.json").write_text(json.dumps({"name": name, "metrics": ["recall@1"], "parts": queries}))
    return file


def write_sweep(folder: Path, name: str = "plane", *, halves: bool = False, best_value: float = 42.0, **changes: Any) -> Path:
    """A sweep over 3 × 5 points, the best at beta 0.5 and gamma 2."""
    plane = np.arange(15.0).reshape(3, 5)
    on = ("even queries", "odd queries") if halves else ("all queries", "all queries")
    record = {
        "kind": "sweep",
        **common(name, "cirr", "captions", "captions", "ViT-L-14/openai"),
        "metric": "recall@1",
        "queries": 20 if halves else 40,
        "betas": [0.0, 0.5, 1.0],
        "gammas": [-1.0, 0.0, 1.0, 2.0, 3.0],
        "plane": {"recall@1": plane.tolist(), "recall@5": (plane * 2).tolist()},
        "points": {
            "base": {"beta": 1, "gamma": 1, "metrics": {"recall@1": 20.0}},
            "published": {"beta": 0.75, "gamma": 1.25, "metrics": {"recall@1": 30.0}, "setting": "cirevl"},
            "best": {"beta": 0.5, "gamma": 2.0, "metrics": {"recall@1": best_value}},
        },
        "tuning": {"tuned on": on[0], "reported on": on[1]},
        "parts": {"cirr": {"queries": 40, "gallery": 2297, "checksum": "c0ffee", "remark": None}},
    } | changes
    file = folder / f"{name}.sweep.json"
    file.write_text(json.dumps(record))
    return file


def group_of(folder: Path) -> ComparisonGroup:
    records = read_records(folder)
    (group,) = group_records(records.runs, records.sweeps, resamples=2000)
    return group


CLEAR = ([FOUND] * 30 + [LOST] * 10, [FOUND] * 8 + [LOST] * 32)  # 75 against 20 of 40
CLOSE = ([FOUND] * 21 + [LOST] * 19, [LOST] * 2 + [FOUND] * 18 + [LOST] * 20)  # 52.5 against 45


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs, far apart, and a sweep."""
    write_run(tmp_path, "pdv", CLEAR[0], weighing="PDV-F 1.4/1.2/0.75")
    write_run(tmp_path, "base", CLEAR[1])
    write_sweep(tmp_path)
    return tmp_path


def pictures(_part: str, id_: str) -> Image.Image:
    drawing = next(drawing for drawing in drawings() if drawing.id == id_)
    return draw(drawing.garment, drawing.detail, seed=drawing.seed, size=64)


# intervals


@pytest.mark.parametrize("kind", ["recall", "precision"])
def test_an_interval_is_that_of_the_normal_approximation(kind: str) -> None:
    rng = np.random.default_rng(3)
    n = 4000
    a, b = (
        (100.0 * (rng.random(n) < share) for share in (0.5, 0.4))
        if kind == "recall"
        else (100 * rng.random(n) ** p for p in (1, 2))
    )
    result = paired_interval(a, b)
    error = (a - b).std() / math.sqrt(n)
    assert result.difference == pytest.approx((a - b).mean())
    assert result.low == pytest.approx((a - b).mean() - 1.96 * error, abs=0.06 * error)
    assert result.high == pytest.approx((a - b).mean() + 1.96 * error, abs=0.06 * error)


def test_an_interval_equals_a_slow_implementation() -> None:
    rng = np.random.default_rng(5)
    parts = [(100 * rng.random(n), 100 * rng.random(n)) for n in (20, 35)]
    draws = np.random.default_rng(6)
    means = []
    for _ in range(10_000):
        one = []
        for a, b in parts:
            chosen = [draws.integers(len(a)) for _ in range(len(a))]
            one.append(sum(a[i] - b[i] for i in chosen) / len(chosen))
        means.append(sum(one) / len(one))
    result = suite_interval(parts)
    assert result.low == pytest.approx(np.quantile(means, 0.025), abs=0.5)
    assert result.high == pytest.approx(np.quantile(means, 0.975), abs=0.5)
    assert result.difference == pytest.approx(sum((a - b).mean() for a, b in parts) / 2)


def test_intervals_are_repeatable_and_refuse_unpaired_values() -> None:
    a, b = np.arange(50.0), np.arange(50.0)[::-1].copy()
    assert paired_interval(a, b) == paired_interval(a, b)
    assert paired_interval(a, b) != paired_interval(a, b, seed=1)
    assert paired_interval(a + 3, a) == Interval(3, 3, 3)
    assert paired_interval(a, b, level=0.5).high < paired_interval(a, b, level=0.99).high
    for x, y in ((a, b[:-1]), ([], []), ([np.nan], [1.0])):
        with pytest.raises(MMRetrieveError):
            paired_interval(x, y)
    with pytest.raises(MMRetrieveError, match="level 1"):
        paired_interval(a, b, level=1)
    assert [Interval(1, *ends).is_significant for ends in ((0.1, 2), (-0.1, 2), (0, 2), (-2, -0.1))] == [
        True,
        False,
        False,
        True,
    ]


# the answer


def test_verdict_of_a_significant_difference(folder: Path) -> None:
    verdict = write_verdict(group_of(folder))
    assert verdict.lead == "Use `captions + PDV-F 1.4/1.2/0.75`."
    assert verdict.reasons[0].startswith(
        "It reaches R@1 75.0, 55.0 points more than its base, `captions` (20.0); 95% interval "
    )
    assert verdict.reasons[1] == "Compared with this base, 22 queries improve, 0 worsen and 18 stay the same."
    assert verdict.setting[0] == "Its setting is `--pdv 1.4,1.2,0.75`; the weights are image 0.25, text −0.5, composed 1.25."
    assert "not significant" not in " ".join((verdict.lead, *verdict.reasons))


def test_verdict_of_differences_that_are_not_significant(tmp_path: Path) -> None:
    write_run(tmp_path, "pdv", CLOSE[0], weighing="PDV-F 1.4/1.2/0.75")
    write_run(tmp_path, "base", CLOSE[1])
    write_run(tmp_path, "sum", CLOSE[0][:20] + [LOST] * 20, composer="sum", label="image + prompt")
    group = group_of(tmp_path)
    verdict = write_verdict(group)
    assert [run.name for run in group.runs] == ["pdv", "sum", "base"]
    assert [run.name for run in equal_to_best(group)] == ["sum", "base"]
    assert verdict.lead == (
        "Use `captions + PDV-F 1.4/1.2/0.75`, or `image + prompt` or `captions`: the differences are not significant."
    )
    assert ", which is not significant; 95% interval" in verdict.reasons[0]
    assert re.search(
        r"The runner-up, `image \+ prompt`, reaches 50.0, 2.5 less: the difference is not significant on 40 queries",
        verdict.reasons[2],
    )


def test_gains_are_measured_against_a_base(tmp_path: Path) -> None:
    write_run(tmp_path, "pdv", CLEAR[0], weighing="balanced")
    assert write_verdict(group_of(tmp_path)).lead == "There is only one run here: `captions + balanced`."
    write_run(tmp_path, "sum", CLEAR[1], composer="sum")
    verdict = write_verdict(group_of(tmp_path))
    assert verdict.reasons[0] == (
        "It reaches R@1 75.0. There is no run of captions with base weights here, so its gain is unknown."
    )
    assert "the difference is significant" in verdict.reasons[1]
    write_run(tmp_path, "best", [FOUND] * 39 + [LOST], composer="captions")
    group = group_of(tmp_path)
    assert (
        write_verdict(group)
        .reasons[0]
        .startswith("It reaches R@1 97.5 with base weights: no other weights of captions score higher")
    )
    assert group.base_of(group.runs[0]) is None
    assert group.base_of(group.runs[1]) is group.runs[0]


def test_of_two_bases_the_one_with_similar_options_is_used(tmp_path: Path) -> None:
    options = {"composer": "captions", "captioner": "a model"}
    write_run(tmp_path, "a", CLEAR[1])
    write_run(tmp_path, "b", CLEAR[1], options=options)
    write_run(tmp_path, "pdv", CLEAR[0], weighing="balanced", options={**options, "pdv": "balanced"})
    group = group_of(tmp_path)
    base = group.base_of(group.runs[0])
    assert base is not None
    assert base.name == "b"
    assert group.title(base) == "captions (captioner a model)"
    write_run(tmp_path, "c", CLEAR[1], options=options)
    group = group_of(tmp_path)
    assert {group.title(run) for run in group.runs if run.is_base} == {
        "captions (captioner tagger)",
        "captions (b)",  # as c in all options
        "captions (c)",
    }


def test_verdict_describes_the_tuning_of_a_sweep(folder: Path) -> None:
    verdict = write_verdict(group_of(folder))
    assert verdict.setting[1] == (
        "The best PDV setting in the sweep of captions is `--pdv 2,2,0.5` (beta 0.5, gamma 2): R@1 42.0, compared with 20.0 at "
        "the base and 30.0 at the published setting (cirevl, `--pdv 1.4,1.2,0.75`), tuned and reported on the same queries (all queries)."
    )
    assert any("chosen on the queries that it is reported on" in caution for caution in verdict.cautions)
    write_sweep(folder, best_value=80.0)
    assert (
        write_verdict(group_of(folder))
        .setting[1]
        .endswith("No run here scores as high: run this setting to compare it query by query.")
    )
    write_sweep(folder, halves=True, best_value=80.0)
    verdict = write_verdict(group_of(folder))
    assert verdict.setting[1].endswith(
        "tuned on the even queries, reported on the odd queries. "
        "Its gain is larger than that of the best run here: run this setting to compare it query by query."
    )
    assert verdict.cautions == ()
    write_sweep(folder, halves=True, best_value=21.0)
    assert write_verdict(group_of(folder)).setting[1].endswith("tuned on the even queries, reported on the odd queries.")
    write_sweep(folder, halves=True, gammas=[-2.0, -1.0, 0.0, 1.0, 2.0])
    assert write_verdict(group_of(folder)).cautions == (
        "The best point in the sweep of captions lies on the edge of its grid (gamma 2): a wider grid may contain a better one.",
    )


def test_cautions_about_small_encoders_and_other_data(tmp_path: Path) -> None:
    write_run(tmp_path, "a", CLEAR[0], model="wardrobe", remark=NOT_RELEASED, remarks=["transductive: looked at the gallery"])
    cautions = write_verdict(group_of(tmp_path)).cautions
    assert "knows drawn clothes and nothing else" in cautions[0]
    assert cautions[1] == "This is not the released data of CIRR: no number here is comparable with a paper's."
    assert cautions[-1] == "Transductive: looked at the gallery."
    write_run(tmp_path, "a", CLEAR[0], benchmark="catalogue", model="model")
    assert "for this catalogue only" in write_verdict(group_of(tmp_path)).cautions[0]


def test_verdict_of_a_suite(tmp_path: Path) -> None:
    dress, shirt = [FOUND] * 30 + [LOST] * 10, [FOUND] * 10 + [LOST] * 30
    write_run(tmp_path, "pdv", {"fashioniq:dress": dress, "fashioniq:shirt": shirt}, benchmark="fashioniq", weighing="balanced")
    write_run(tmp_path, "base", {"fashioniq:dress": shirt, "fashioniq:shirt": shirt}, benchmark="fashioniq")
    group = group_of(tmp_path)
    assert group.interval(*group.runs).difference == pytest.approx((50 + 0) / 2)
    assert write_verdict(group).reasons[-1] == (
        "The gain is largest on dress (+50.0, 95% interval 35.0 to 67.5) and smallest on shirt (0.0, 95% interval 0.0 to 0.0)."
    )
    table = results_table(group)
    assert table.heads == (("mean", 1), ("dress", 1), ("shirt", 1))
    assert [[text for text, _ in row.cells] for row in table.rows] == [["50.0", "75.0", "25.0"], ["25.0", "25.0", "25.0"]]
    assert [is_best for _, is_best in table.rows[1].cells] == [False, False, True]


# tables


def test_differences_in_both_directions(folder: Path) -> None:
    group = group_of(folder)
    first, second = group.runs
    forth, back = group.interval(first, second), group.interval(second, first)
    assert (back.difference, back.low, back.high) == (-forth.difference, -forth.high, -forth.low)
    (table,) = differences_tables(group)
    ((label, cells),) = table.rows
    assert (label, table.columns) == (first.label, (second.label,))
    assert cells == (forth,)
    assert forth.difference == pytest.approx(55)
    assert forth.is_significant
    row, base = results_table(group).rows
    assert row.gain == forth
    assert row.whisker is not None
    left, width, middle, zero = (row.whisker[name] for name in ("left", "width", "middle", "zero"))
    assert left < middle < left + width <= 100
    assert zero == 0
    assert base.is_base
    assert base.gain is None
    assert aspects_table(group) is None
    write_run(folder, "pdv", CLEAR[0], weighing="balanced", remarks=["of all", "transductive"])
    write_run(folder, "base", CLEAR[1], remarks=["of all"])
    table = results_table(group_of(folder))
    assert table.notes == ("transductive",)
    assert [row.notes for row in table.rows] == [(1,), ()]


def write_aspects(
    folder: Path, name: str, negation: Sequence[float | None], addressing: Sequence[float | None], **more: Any
) -> None:
    """A run whose queries have a recall of 0 under base weights, else 100, and the values of two aspects where they carry them."""
    names = ("recall@1", "map@10/negation", "map@10/direct_addressing")
    recall = 100.0 if more else 0.0
    values = [[recall, *pair] for pair in zip(negation, addressing, strict=True)]
    means = {metric: float(np.mean([row[i] for row in values if row[i] is not None])) for i, metric in enumerate(names)}
    path = write_run(
        folder,
        name,
        [LOST] * len(values),
        metrics=means,
        change=lambda query: query | {"values": values[int(query["id"])]},
        **more,
    )
    queries = json.loads(path.with_name(f"{name}.queries.json").read_text())
    path.with_name(f"{name}.queries.json").write_text(json.dumps(queries | {"metrics": names}))


def test_aspects_have_a_table_of_their_own(tmp_path: Path) -> None:
    write_aspects(tmp_path, "a", [12.0, 14.0, None, 13.0], [None, 30.0, 20.0, 40.0], weighing="balanced")
    write_aspects(tmp_path, "b", [13.0, 15.0, None, 14.0], [None, 10.0, 10.0, 10.0])
    group = group_of(tmp_path)
    table = aspects_table(group)
    assert table is not None
    assert [name for name, _ in table.columns] == ["mAP@10, negation", "mAP@10, direct addressing"]
    assert [name for name, _ in results_table(group).columns] == ["R@1"]
    assert write_verdict(group).reasons[-1] == (
        "The gain is largest on direct addressing (+20.0, 95% interval 10.0 to 30.0) "
        "and smallest on negation (−1.0, 95% interval −1.0 to −1.0)."
    )


def test_every_difference_has_its_interval(tmp_path: Path) -> None:
    write_run(tmp_path, "pdv", CLEAR[0], weighing="PDV-F 1.4/1.2/0.75")
    write_run(tmp_path, "base", CLEAR[1])
    write_run(tmp_path, "auto", CLOSE[0], weighing="auto")
    write_sweep(tmp_path, halves=True, best_value=90.0)
    text = re.sub(r"<[^>]+>", " ", build_report(tmp_path, resamples=50).partition("<main>")[2].partition("<h3>Queries</h3>")[0])
    text = re.sub(r"the weights are [^;]*?composed [\d.]+\.", "", text)
    signed = re.findall(r"[+−]\d+\.\d\S*\s+\S+", re.sub(r"\[[^\]]*\]", "[]", text))
    assert len(signed) >= 5
    assert all(re.search(r"\[\]|95%", one) for one in signed), signed
    assert "Its gain is larger than that of the best run here" in text


def test_a_checkpoint_differs_by_an_interval(tmp_path: Path) -> None:
    outcomes = [FOUND] * 25 + [LOST] * 75
    write_run(tmp_path, "a", outcomes, benchmark="cirr", composer="lincir", split="test1")
    comparison = compare_checkpoint(group_of(tmp_path))
    assert comparison is not None
    ((name, expected, measured, difference, interval),) = comparison["rows"]
    assert (name, expected, measured, difference) == ("R@1", "25.40", "25.00", "−0.40")
    assert interval.difference == pytest.approx(-0.4)
    assert interval.low == pytest.approx(-0.4 - 1.96 * 4.33, abs=1)
    assert interval.high == pytest.approx(-0.4 + 1.96 * 4.33, abs=1)
    assert not interval.is_significant


def test_a_published_setting_is_shown_as_it_is_published(folder: Path) -> None:
    html = build_report(folder, resamples=50)
    assert "<code>--pdv 1.4,1.2,0.75</code>" in html
    assert "--pdv 1.25,1.25,0.75" not in html  # the same point, in other numbers than those of the paper
    write_sweep(folder, points={"published": {"beta": 0.7, "gamma": 1.25, "metrics": {"recall@1": 3.0}, "setting": "cirevl"}})
    assert "--pdv 1.25,1.25,0.7" in build_report(folder, resamples=50)  # the paper's numbers would be another point


def test_differences_of_many_runs_are_several_tables(tmp_path: Path) -> None:
    for number in range(MAX_COLUMNS + 3):
        write_run(tmp_path, f"run {number}", [FOUND] * (30 - number) + [LOST] * (10 + number), composer=f"c{number}")
    group = group_of(tmp_path)
    tables = differences_tables(group)
    assert [len(table.columns) for table in tables] == [MAX_COLUMNS, 2]
    pairs = [
        (row, column)
        for table in tables
        for row, cells in table.rows
        for column, cell in zip(table.columns, cells, strict=True)
        if cell
    ]
    titles = [group.title(run) for run in group.runs]
    assert sorted(pairs) == sorted((a, b) for i, a in enumerate(titles) for b in titles[i + 1 :])


def test_published_rows_are_shown_for_released_data_only(tmp_path: Path) -> None:
    assert find_published("cirr", [NOT_RELEASED]) is None
    assert find_published("wardrobe") is None
    circo = find_published("circo")
    assert circo is not None
    assert circo.values["ViT-L/14"]["MulVec"] == {"map@5": 37.83}
    assert [find_backbone(model) for model in ("ViT-bigG-14/laion2b", "ViT-L-14-quickgelu/openai", "ViT-L-14-336/openai")] == [
        "ViT-bigG/14",
        "ViT-L/14",
        None,
    ]
    write_run(tmp_path, "a", CLEAR[0])
    beside = compare_published(group_of(tmp_path))
    assert beside is not None
    assert (beside["split"], beside["same_split"]) == ("test1", False)
    assert [block["title"] for block in beside["near"]] == ["Here: val, ViT-L-14/openai", "Published: test1, ViT-L/14"]
    assert ("CIReVL", ["24.55"]) in beside["near"][1]["rows"]
    assert len(beside["far"]) == 2
    html = build_report(tmp_path, resamples=50)
    assert (
        "Published rows were measured on test1 and the runs here on val, which has other queries, so they are not comparable"
        in html
    )
    write_run(tmp_path, "a", CLEAR[0], remark=NOT_RELEASED)
    assert compare_published(group_of(tmp_path)) is None
    assert "Published" not in build_report(tmp_path, resamples=50)


def test_a_released_checkpoint_is_compared_with_its_expected_numbers(tmp_path: Path) -> None:
    result = {"recall@1": 75.0, "recall@10": 26.08, "recall@50": 46.25}
    write_run(tmp_path, "a", CLEAR[0], benchmark="fashioniq", composer="lincir", metrics=result)
    comparison = compare_checkpoint(group_of(tmp_path))
    assert comparison is not None
    assert comparison["rows"] == [("R@10", "26.10", "26.08", "−0.02", None), ("R@50", "46.25", "46.25", "0.00", None)]
    write_run(tmp_path, "a", CLEAR[0], benchmark="fashioniq", composer="lincir", metrics=result, model="ViT-B-32/openai")
    assert compare_checkpoint(group_of(tmp_path)) is None
    write_run(tmp_path, "a", CLEAR[0], benchmark="fashioniq", composer="searle", metrics=result)
    assert compare_checkpoint(group_of(tmp_path)) is None


# chosen queries


def test_selected_queries_by_hand(tmp_path: Path) -> None:
    now = [(100.0, 1), (0.0, 9), (0.0, 40), (100.0, 1), (0.0, 12), (0.0, 300)]
    then = [(0.0, 20), (0.0, 18), (100.0, 1), (100.0, 1), (0.0, 10), (0.0, 200)]

    def closer(query: dict[str, Any]) -> dict[str, Any]:
        if query["id"] == "3":  # a second hit close behind: query 0 leads by more
            query["hits"][1]["score"] = 0.89
        return query

    write_run(tmp_path, "pdv", now, weighing="balanced", change=closer)
    write_run(tmp_path, "base", then)
    records = read_records(tmp_path)
    run = next(run for run in records.runs if run.name == "pdv")
    base = next(run for run in records.runs if run.name == "base")
    assert [case.result.id for case in select_best(run)] == ["0", "3", "1"]
    assert [case.result.id for case in select_worst(run)] == ["5", "2", "4"]
    assert [case.result.id for case in select_improved(run, base)] == ["0", "1"]  # 20 → 1, 18 → 9
    assert [case.result.id for case in select_worsened(run, base)] == ["2", "5", "4"]  # × 40, × 1.5, × 1.2
    assert select_improved(run, base)[0].improvement == pytest.approx(math.log(20 / 1))
    assert count_changes(run, base) == (1, 1, 4)


def test_queries_with_hidden_targets_are_not_shown(tmp_path: Path) -> None:
    write_run(tmp_path, "a", CLEAR[0], change=lambda query: query | {"target": None})
    (run,) = read_records(tmp_path).runs
    assert select_best(run) == select_worst(run) == ()
    assert "Most worsened" not in build_report(tmp_path, resamples=50)


# heat maps


def test_draw_heatmap(tmp_path: Path) -> None:
    sweep = read_record(write_sweep(tmp_path))
    assert isinstance(sweep, SweepRecord)
    image = draw_heatmap(sweep)
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", image[16:24]) == (1280, 980)
    assert draw_heatmap(sweep) == image
    assert draw_heatmap(sweep, "recall@5") != image
    with pytest.raises(MMRetrieveError, match="does not contain 'map@5'; it contains: recall@1, recall@5"):
        draw_heatmap(sweep, "map@5")


@pytest.mark.parametrize("write", [write_run, write_sweep])
def test_a_record_is_written_as_it_was_read(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path, "a", CLEAR[0]) if write is write_run else write(tmp_path, "a")
    record = read_record(path)
    assert record is not None
    before = json.loads(path.read_text())
    assert json.loads(write_record(tmp_path / "again.json", record).read_text()) == before


# the page


def test_the_page_loads_no_external_resource(folder: Path) -> None:
    html = build_report(folder, {"cirr": pictures}, resamples=50)
    loaded = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", html)
    assert {address.partition(":")[0] if address.startswith("data:") else address[0] for address in loaded} == {"data", "#"}
    assert not re.search(r"<script|@import|https?://|<iframe|<link(?! rel=\"icon\")", html)
    assert html.count('src="data:image/png') == 1
    assert html.count('src="data:image/jpeg') > 30
    assert "Use <code>captions + <span" in html
    assert "To show them" not in html
    assert build_report(folder, {"cirr": pictures}, resamples=50) == html


def test_ids_are_shown_without_a_root(folder: Path) -> None:
    html = build_report(folder, {"cirr": None}, resamples=50)
    assert "data:image/jpeg" not in html
    assert "<code>--root cirr=FOLDER</code>" in html
    assert f'<span class="id">{IDS[1]}</span>' in html


def test_an_unreadable_image_is_named_without_its_path(folder: Path, tmp_path: Path) -> None:
    def load(part: str, id_: str) -> Path | Image.Image:
        return tmp_path / "nowhere" / id_ if id_ == IDS[1] else pictures(part, id_)

    html = build_report(folder, {"cirr": load}, resamples=50)
    assert f"1 image could not be read, including {IDS[1]}." in html
    assert str(tmp_path) not in html


def test_everything_is_escaped(tmp_path: Path) -> None:
    hostile = {
        "reference": HOSTILE,
        "prompt": HOSTILE,
        "words": {"text": HOSTILE, "composed": f"`{HOSTILE}`"},
        "targets": [HOSTILE],
    }

    def change(query: dict[str, Any]) -> dict[str, Any]:
        item = query["target"] | {"id": HOSTILE, "contributions": {HOSTILE: 0.2}}
        return query | hostile | {"id": query["id"] + HOSTILE, "target": item, "hits": [item]}

    things = {"label": HOSTILE, "options": {HOSTILE: HOSTILE}, "remarks": [HOSTILE], "split": HOSTILE}
    encoder = {"model": HOSTILE, "weights": HOSTILE, "preprocessing": HOSTILE}
    write_run(tmp_path, "a", CLEAR[0], change=change, encoder=encoder, **things)
    write_run(tmp_path, "b", CLEAR[1], change=change, encoder=encoder, weighing=HOSTILE, **things)
    write_sweep(tmp_path, **things)
    html = build_report(tmp_path, resamples=50)
    assert "<img src=x" not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") > 50
    assert mark_code("a `<b>` c ` d") == "a `&lt;b&gt;` c ` d"
    assert mark_code("a `<b>`") == "a <code>&lt;b&gt;</code>"


def test_no_path_of_a_machine_is_in_the_page(tmp_path: Path) -> None:
    write_run(
        tmp_path,
        "a",
        CLEAR[0],
        model="/home/somebody/models/small clip",
        label="captions of /home/somebody/captions.json",
        options={"root": "/data/cirr", "phi": r"C:\Users\somebody\phi.pt", "composer": "captions", "weights": ["~/a/b.pt"]},
        remarks=["12 captions of /home/somebody/captions.json are empty"],
    )
    html = build_report(tmp_path, resamples=50)
    assert "somebody" not in html
    assert "/data" not in html
    assert "captions of captions.json" in html
    assert "small clip" in html
    for text in ("ViT-B-32/laion2b", "PDV-F 1.4/1.2/0.75", "red and/or blue", "hf-hub:org/name", "R@1 / R@5", "see a://b/c/d"):
        assert shorten_paths(text) == text


def test_files_that_cannot_be_compared_are_listed(folder: Path) -> None:
    (folder / "submission.json").write_text('{"version": "rc2", "0": ["a"]}')
    write_run(folder, "hidden", CLEAR[0], split="test1", metrics={})
    html = build_report(folder, resamples=50)
    assert "submission.json (not the record of a run or a sweep)" in html
    assert "hidden.json (no values, because the targets of its split are not public)" in html
    with pytest.raises(MMRetrieveError, match=r"submission\.json: expected the record of a run or a sweep"):
        build_report([folder / "submission.json"])
    server = common("server", "cirr", "captions", "captions", "ViT-L-14/openai", kind="submission", weighing="base", parts={})
    (folder / "server.json").write_text(json.dumps(server))
    assert "server.json (a submission, which its server scores)" in build_report(folder, resamples=50)
    assert "1 run and 0 sweeps on 1 benchmark." in build_report([folder / "base.json"], resamples=50)
    assert "There are only sweeps here" in build_report(folder / "plane.sweep.json")


def damaged(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("pdv.json", '"kind"', '"kind', r"pdv\.json, line 1.*: not JSON"),
        (
            "pdv.json",
            '"headline": "recall@1"',
            '"headline": "map@5"',
            r"pdv\.json: the headline 'map@5' is not among its metrics: recall@1",
        ),
        (
            "pdv.json",
            '"recall@1": 75.0',
            '"recall@1": NaN',
            r"pdv\.json, metrics: 'recall@1' should be a finite number, not nan",
        ),
        (
            "pdv.json",
            '"recall@1": 75.0',
            '"recall@1": 74.0',
            r"pdv\.queries\.json belongs to another run: its recall@1 is 75\.0000",
        ),
        ("pdv.json", '"queries": 40', '"queries": 41', r"pdv\.queries\.json belongs to another run"),
        ("pdv.json", '"label"', '"title"', r"pdv\.json: there is no field 'label'"),
        ("pdv.json", '"name": "pdv"', '"name": "base"', "the name 'base' occurs twice"),
        ("pdv.queries.json", '"rank": 1', '"rank": "first"', r"pdv\.queries\.json, .*'rank' should be a whole number"),
        ("pdv.queries.json", "[100.0]", "[100.0, 3]", r"'values' should be a list, one for each of the 1 metrics"),
        ("pdv.queries.json", "[100.0]", '["yes"]', r"should be a finite number, not 'yes'"),
        ("base.queries.json", '"id": "0"', '"id": "zero"', "runs .* cannot be compared: their queries"),
        ("plane.sweep.json", '"betas": [0.0', '"betas": ["a"', r"plane\.sweep\.json: 'betas\[0\]' should be a finite number"),
        ("plane.sweep.json", '"gammas": [-1.0, ', '"gammas": [', r"plane\.sweep\.json: .*\(3, 5\), expected .* = \(3, 4\)"),
        (
            "plane.sweep.json",
            "[[0.0",
            '[["a"',
            r"plane, recall@1\[0\]\[0\]|'recall@1\[0\]\[0\]' should be a finite number, not 'a'",
        ),
        ("plane.sweep.json", '"beta": 0.5', '"beta": null', r"best: 'beta' should be a finite number"),
    ],
)
def test_the_error_of_a_damaged_file_is_one_line_that_names_it(
    folder: Path, name: str, old: str, new: str, message: str
) -> None:
    damaged(folder, name, old, new)
    with pytest.raises(MMRetrieveError, match=message) as caught:
        build_report(folder, resamples=50)
    assert "\n" not in str(caught.value)


def test_the_error_without_records_lists_the_expected_files(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(OptionError, match="no such folder"):
        build_report(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MMRetrieveError, match=r"no record with values: expected NAME\.json beside NAME\.queries\.json"):
        build_report(empty)
    (folder / "pdv.queries.json").unlink()
    with pytest.raises(MMRetrieveError, match=r"pdv\.queries\.json: cannot be read"):
        build_report(folder)


def test_other_encoders_and_data_are_separate_groups(folder: Path) -> None:
    write_run(folder, "other", CLEAR[0], model="ViT-B-32/openai", composer="sum")
    html = build_report(folder, resamples=50)
    assert html.count('<article class="verdict">') == 2
    assert html.count("There is only one run here") == 1
    write_run(folder, "kept", CLEAR[0], composer="sum")
    text = (folder / "kept.json").read_text()
    (folder / "kept.json").write_text(text.replace('"gallery"', '"reference in the ranking": true, "gallery"'))
    html = build_report(folder, resamples=50)
    assert html.count('<article class="verdict">') == 3
    assert "2,297 images · reference kept · plain" in html


def test_formatting() -> None:
    assert [metric_name(m) for m in ("recall@1", "recall_subset@3", "map@10/compare_change", "odd")] == [
        "R@1",
        "R_subset@3",
        "mAP@10, compare change",
        "odd",
    ]
    assert benchmark_name("genecis:focus_object") == "GeneCIS: focus object"
    assert [format_number(v) for v in (1.25, -1.26, -0.01, None)] == ["1.2", "−1.3", "0.0", "–"]
    assert [format_signed(v) for v in (1.26, -1.26, 0.01, -0.01)] == ["+1.3", "−1.3", "0.0", "0.0"]
    assert pdv_option(0.75, 1.25) == "--pdv 1.25,1.25,0.75"
    whole = '{"mean":[0.5],"size":[224,224],"target_pad":1.25}'
    assert [format_preprocessing(p) for p in (whole, '{"size":64}', "plain", "[1]", '{"size":[]}')] == [
        "224 px, TargetPad 1.25",
        "64 px",
        "plain",
        "[1]",
        '{"size":[]}',
    ]
    assert pdv_option(0.2, -0.5) == "--pdv=-0.5,-0.5,0.2"


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_report_in_a_browser(folder: Path, width: int, scheme: str) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    def change(query: dict[str, Any]) -> dict[str, Any]:
        return query | {"prompt": HOSTILE}

    write_run(folder, "pdv", CLEAR[0], weighing="PDV-F 1.4/1.2/0.75", change=change)
    file = folder / "report.html"
    file.write_text(build_report(folder, {"cirr": pictures}, resamples=50), encoding="utf-8")
    requested: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("request", lambda r: requested.append(r.url))
        page.on("console", lambda m: errors.append(m.text))
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(file.as_uri())
        assert page.locator(".verdict h2").inner_text() == "Use captions + PDV-F 1.4/1.2/0.75."
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.locator(".hit.is-target").count() > 0
        assert HOSTILE in page.locator("blockquote").first.inner_text()
        page.locator("details.facts summary").first.click()
        assert "96099055ab12" in page.locator("details.facts dl").first.inner_text()
        browser.close()
    assert [address for address in requested if not address.startswith(("data:", file.as_uri()))] == []
    assert errors == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 1100, 768, 390])
def test_no_table_is_clipped(tmp_path: Path, width: int) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    setting = "PDV-F 1.4/1.2/0.75 (cirevl-fashioniq-large)"
    for number in range(9):
        outcomes = {
            f"genecis:{kind}_{what}": [FOUND] * (30 - number) + [LOST] * (10 + number)
            for kind in ("focus", "change")
            for what in ("attribute", "object")
        }
        metrics = {"recall@1": 100.0 * (30 - number) / 40, "recall@2": 100.0, "recall@3": 100.0}
        part = {"metrics": metrics, "queries": 40, "gallery": 15, "checksum": "c0ffee", "remark": None}
        write_run(tmp_path, f"run {number}", outcomes, benchmark="genecis", composer="captions", weighing=setting if number % 2 else "base",
                  label=f"captions (a file of captions {number}.json, template) + {setting}", metrics=metrics, parts=dict.fromkeys(outcomes, part))  # fmt: skip
    write_run(tmp_path, "lincir", CLEAR[0], benchmark="cirr", composer="lincir", split="test1")
    write_sweep(tmp_path)
    file = tmp_path / "report.html"
    file.write_text(build_report(tmp_path, resamples=50), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        sizes = page.evaluate(
            "[...document.querySelectorAll('.scroll')].map(one => [one.ariaLabel, one.scrollWidth - one.clientWidth])"
        )
        assert len(sizes) >= 5
        assert [name for name, beyond in sizes if beyond > 0] == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        browser.close()
