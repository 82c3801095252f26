"""i-CIR: composed queries for particular objects. Each instance has a database of its own, with hard negatives.

Reads query_files.csv and database_files.csv, without a header: image path, text, instance. Source of the layout and the
protocol: arXiv 2510.25387 and its evaluator. A query ranks the database of its instance; its targets are the images of this
database with the same text; mAP is the mean over queries of the trapezoidal average precision over the whole ranking.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.benchmarks.annotations import check_counts, find_file
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.files import file_checksum, read_text
from mmretrieve import MMRetrieveError

NAME = "icir"
SPLITS = ("test",)
ROOT_CONTENTS = "query_files.csv, database_files.csv, query/ and database/"
RELEASED_QUERIES, RELEASED_INSTANCES = 1883, 202
FOLDERS = (".", "annotations", "icir", "icir/annotations")
COLUMNS = ("image path", "text", "instance")
PROTOCOL = Protocol(headline="map", whole_precision=True, keeps_reference=True, candidates_alone=True)


@dataclass(frozen=True)
class ImageRow:
    """One line of a file: an image, the text that fits it, and its instance."""

    image: str
    text: str
    instance: str


def load(root: Path) -> Benchmark:
    """Loads i-CIR. Raises MMRetrieveError naming the file and line that is missing or invalid. Images may be absent.

    Paths of images are relative to the folder, or to the folder that contains it, as in the released evaluator.
    """
    queries_path, database_path = (
        find_file(root, [f"{base}/{name}" for base in FOLDERS]) for name in ("query_files.csv", "database_files.csv")
    )
    queries, database = _read_rows(queries_path), _read_rows(database_path)
    by_instance: dict[str, list[ImageRow]] = {}
    for row in database:
        by_instance.setdefault(row.instance, []).append(row)
    folder = next((base for base in (root, root.parent) if (base / queries[0].image).is_file()), root)
    return Benchmark(
        NAME,
        SPLITS[0],
        tuple(dict.fromkeys(row.image for row in (*database, *queries))),
        tuple(_make_queries(queries, by_instance, queries_path)),
        lambda id_: folder / id_,
        PROTOCOL,
        checksum=file_checksum(queries_path, database_path),
        remark=check_counts(
            "i-CIR",
            (queries_path, len(queries), RELEASED_QUERIES),
            (database_path, len(by_instance), RELEASED_INSTANCES),
            "instances",
        ),
    )


def _read_rows(path: Path) -> list[ImageRow]:
    rows = []
    for number, cells in enumerate(csv.reader(io.StringIO(read_text(path), newline="")), start=1):
        if len(cells) != len(COLUMNS) or not all(cells):
            raise MMRetrieveError(f"{path}, line {number}: expected {', '.join(COLUMNS)}, got {cells!r:.60}")
        rows.append(ImageRow(*cells))
    if not rows:
        raise MMRetrieveError(f"{path}: expected lines of {', '.join(COLUMNS)}, not an empty file")
    return rows


def _make_queries(rows: Iterable[ImageRow], by_instance: Mapping[str, list[ImageRow]], path: Path) -> Iterable[BenchmarkQuery]:
    """Queries whose ids are their positions; those of one instance share their tuple of candidates."""
    candidates = {instance: tuple(row.image for row in database) for instance, database in by_instance.items()}
    for number, row in enumerate(rows, start=1):
        targets = tuple(other.image for other in by_instance.get(row.instance, ()) if other.text == row.text)
        if not targets:
            raise MMRetrieveError(
                f"{path}, line {number}: no image of {row.instance!r} in the database has the text {row.text!r:.60}: "
                "is database_files.csv incomplete?"
            )
        yield BenchmarkQuery(str(number - 1), row.image, (row.text,), targets, candidates=candidates[row.instance])
