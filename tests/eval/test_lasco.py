"""LaSCo: made-up files in the released layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.benchmarks import load_benchmark
from eval.cli.main import main
from mmretrieve import MMRetrieveError

IDS = (42, 73, 74, 133, 28714, *range(1000, 1100))  # recall@100 needs as many


def path_of(number: int) -> str:
    return f"val2014/COCO_val2014_{number:012}.jpg"


def triplet(reference: int, text: str, target: int) -> dict[str, Any]:
    return {
        "qid": reference * 1000,
        "query-image": [reference, path_of(reference)],
        "query-text": text,
        "target-image": [target, path_of(target)],
    }


def write_files(root: Path, triplets: object, ids: tuple[int, ...] = IDS) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "lasco_val.json").write_text(json.dumps(triplets))
    corpus = [{"id": number, "path": f"val/{path_of(number)}"} for number in ids]
    (root / "lasco_val_corpus.json").write_text(json.dumps(corpus))
    return root


TRIPLETS = [triplet(28714, "The person is riding the bike", 42), triplet(42, "it is red", 73), triplet(42, "it is blue", 133)]


def test_the_released_layout(tmp_path: Path) -> None:
    bench = load_benchmark("lasco", write_files(tmp_path, TRIPLETS))
    assert (bench.split, bench.gallery_ids) == ("val", tuple(map(str, IDS)))
    first = bench.queries[0]
    assert (first.id, first.reference, first.prompts, first.targets) == (
        "0",
        "28714",
        ("The person is riding the bike",),
        ("42",),
    )
    assert [query.id for query in bench.queries] == ["0", "1", "2"], "two queries have one question"
    assert bench.image_path("42") == tmp_path / path_of(42)
    assert bench.remark == "3 queries over 105 images in LaSCo's layout: not the released LaSCo (30,037 over 39,826)"


def test_recalls_rank_the_whole_corpus_with_the_reference(tmp_path: Path) -> None:
    bench = load_benchmark("lasco", write_files(tmp_path, TRIPLETS))
    gallery = np.eye(105, dtype=np.float32)
    scores = [[0.9, 0, 0, 0, 1], [0, 1, 0, 0, 0], [3, 2, 1, 0.5, 0]]  # the targets have the ranks 2, 1 and 4
    queries = np.pad(np.array(scores, np.float32), ((0, 0), (0, 100)))
    metrics = bench.score(queries, gallery)
    assert metrics["recall@1"] == pytest.approx(100 / 3)
    assert metrics["recall@5"] == pytest.approx(100)


def test_the_shell_runs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_files(tmp_path / "LaSCo", TRIPLETS * 40)
    (root / "val2014").mkdir()
    for number in IDS:
        Image.new("RGB", (64, 64), (number % 250, 90, 20)).save(root / path_of(number))
    words = [
        "run",
        "lasco",
        "--root",
        str(tmp_path),
        "--composer",
        "sum",
        "--encoder",
        "wardrobe",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    assert "recall@100" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("triplets", "message"),
    [
        ([triplet(42, "it is red", 7)], "record 1: mentions '7', which is not in .*lasco_val_corpus.json"),
        (
            [triplet(42, "it is red", 73) | {"target-image": 73}],
            "record 1: 'target-image' should be a number and a path, not 73",
        ),
        ([{"qid": 1, "query-image": [42, "a"], "target-image": [73, "b"]}], "there is no field 'query-text'"),
        ({}, "expected a list of records"),
    ],
)
def test_wrong_files_are_one_line(triplets: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(MMRetrieveError, match=message) as caught:
        load_benchmark("lasco", write_files(tmp_path, triplets))
    assert "\n" not in str(caught.value)
