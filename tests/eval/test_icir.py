"""i-CIR: made-up files in the released layout, and its trapezoidal precision against a slow implementation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eval import load_benchmark
from eval.cli.main import main
from eval.metrics import UNRANKED, WHOLE_RANKING, trapezoidal_precision_at
from mmretrieve import MMRetrieveError

INSTANCES = ("temple", "statue", "mascot")
TEXTS = ("at night", "as a drawing")
Row = tuple[str, str, str]
Change = Callable[[list[Any], list[Any]], object]


def slow_precision(right: list[bool]) -> float:
    """As the evaluator walks a ranking: the area between precision before and at each right answer, a step of recall wide."""
    area, seen, total = 0.0, 0, sum(right)
    for position, is_right in enumerate(right):
        if is_right:
            before = seen / position if position else 1.0
            seen += 1
            area += (before + seen / (position + 1)) / 2
    return 100 * area / (total + 1e-5)


def rows_of(random: Random) -> tuple[list[Row], list[Row]]:
    """Queries and database; one image is in the database twice, for both texts."""
    queries, database = [], []
    for instance in INSTANCES:
        queries += [(f"icir/query/{instance}/{i}.jpg", text, instance) for i in range(2) for text in TEXTS]
        database += [
            (f"icir/database/{instance}/{i}.jpg", random.choice([*TEXTS, "hard negative"]), instance) for i in range(20)
        ]
        database += [(f"icir/database/{instance}/both.jpg", text, instance) for text in TEXTS]
    random.shuffle(database)
    return queries, database


def write_files(folder: Path, queries: list[Row], database: list[Row]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in ("query_files.csv", queries), ("database_files.csv", database):
        (folder / name).write_text("".join(",".join(row) + "\n" for row in rows))
    return folder


def draw_images(root: Path, rows: list[Row]) -> None:
    for i, (path, _, _) in enumerate(rows):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i * 29 % 256, i * 53 % 256, i * 97 % 256)).save(root / path)


def test_precision_by_hand() -> None:
    assert trapezoidal_precision_at(np.array([1]), WHOLE_RANKING) == pytest.approx(100, rel=1e-4)
    assert trapezoidal_precision_at(np.array([2]), WHOLE_RANKING) == pytest.approx(100 * (0 + 1 / 2) / 2, rel=1e-4)
    assert trapezoidal_precision_at(np.array([1, 4]), 3) == pytest.approx(100 * 1 / 2, rel=1e-4)
    assert trapezoidal_precision_at(np.array([1, UNRANKED]), WHOLE_RANKING) == pytest.approx(50, rel=1e-4)


@given(st.lists(st.booleans(), min_size=1, max_size=60).filter(any))
def test_precision_equals_a_slow_implementation(right: list[bool]) -> None:
    ranks = np.flatnonzero(right) + 1
    assert trapezoidal_precision_at(ranks, WHOLE_RANKING) == pytest.approx(slow_precision(right), rel=1e-12)


def test_each_query_ranks_the_database_of_its_instance(tmp_path: Path) -> None:
    queries, database = rows_of(Random(1))
    bench = load_benchmark("icir", write_files(tmp_path, queries, database))
    rng = np.random.default_rng(0)
    gallery, vectors = rng.normal(size=(len(bench.gallery_ids), 5)), rng.normal(size=(len(queries), 5))
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    expected = []
    for (_, text, instance), query in zip(queries, vectors, strict=True):
        scored = [
            (-float(query @ gallery[bench.id2row[path]]), text == other) for path, other, owner in database if owner == instance
        ]
        expected.append(slow_precision([right for _, right in sorted(scored)]))  # a copy of a target ranks above it
    assert bench.score(vectors, gallery) == {"map": pytest.approx(np.mean(expected), rel=1e-6)}
    assert bench.remark == ("12 queries over 3 instances in i-CIR's layout: not the released i-CIR (1,883 over 202)")
    assert Counter(map(len, (query.candidates or () for query in bench.queries))) == {22: 12}


def test_a_run_finds_images_in_either_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries, database = rows_of(Random(2))
    draw_images(tmp_path, [*queries, *database])  # icir/query/… below the folder that contains icir/
    root = write_files(tmp_path / "icir", queries, database)
    assert load_benchmark("icir", root).load_image(queries[0][0]) == tmp_path / queries[0][0]
    assert load_benchmark("icir", tmp_path).load_image(queries[0][0]) == tmp_path / queries[0][0]
    words = ["run", "icir", "--root", str(root), "--composer", "sum", "--encoder", "wardrobe"]
    assert main([*words, "--features", str(tmp_path / "f"), "--out", str(tmp_path / "out")]) == 0
    assert "map  " in capsys.readouterr().out
    assert main(["report", str(tmp_path / "out"), "--root", f"icir={root}", "--out", str(tmp_path / "r.html")]) == 0
    assert "i-CIR test" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((lambda queries, _: queries.insert(1, ("a.jpg", "temple"))), "query_files.csv, line 2: expected image path, text, instance, got"),
        ((lambda queries, _: queries.append(("a.jpg", "", "temple"))), "query_files.csv, line 13: expected image path"),
        ((lambda queries, _: queries.append(("a.jpg", "in snow", "temple"))), "line 13: no image of 'temple' in the database has"),
        ((lambda _, database: database.clear()), "database_files.csv: expected lines of image path, text, instance, not an empty"),
    ],
)  # fmt: skip
def test_the_error_of_a_damaged_file_names_its_line(tmp_path: Path, change: Change, message: str) -> None:
    queries, database = rows_of(Random(3))
    change(queries, database)
    with pytest.raises(MMRetrieveError, match=message):
        load_benchmark("icir", write_files(tmp_path, queries, database))


def test_a_copy_that_lacks_some_queries_is_damaged(tmp_path: Path) -> None:
    database = [(f"d/{i}.jpg", "at night", str(i)) for i in range(202)]
    queries = [(f"q/{i}.jpg", "at night", str(i % 202)) for i in range(1882)]
    with pytest.raises(MMRetrieveError, match="damaged: expected 1883 records, found 1882"):
        load_benchmark("icir", write_files(tmp_path, queries, database))
    assert load_benchmark("icir", write_files(tmp_path, [*queries, queries[0]], database)).remark is None
