"""A product catalogue: `items.csv` (id, file, …) and `queries.jsonl` (reference, prompt, caption, targets).

The reference is not ranked; mAP@10 has the divisor min(|targets|, 10).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from eval.benchmarks.annotations import JsonRecord, check_references, find_file
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.files import check_unique, file_checksum, read_text
from mmretrieve import MMRetrieveError, Vocabulary
from mmretrieve.language.vocabulary import WordGroup
from mmretrieve.options import load_json

NAME = "catalogue"
SPLITS = ("test",)
LOCAL_ENCODER = (
    "The encoder is a small model from a local folder, not a released one: its numbers are valid for this catalogue only."
)
ROOT_CONTENTS = "items.csv and queries.jsonl"
COLUMNS = ("id", "file", "article", "colour")


def load(root: Path) -> Benchmark:
    """Loads the catalogue. Raises MMRetrieveError naming the file and line that cannot be read."""
    items_path, queries_path = (find_file(root, [name]) for name in ("items.csv", "queries.jsonl"))
    items = _read_items(items_path)
    queries = tuple(_read_queries(queries_path))
    check_unique((query.id for query in queries), queries_path)
    check_references(queries, queries_path, items, items_path)
    protocol = Protocol(
        headline="map@10", recalls=(1, 5, 10), precisions=(10,), aspects=tuple(sorted({q.tags[0] for q in queries}))
    )
    return Benchmark(
        NAME,
        SPLITS[0],
        tuple(items),
        queries,
        lambda id_: root / items[id_]["file"],
        protocol,
        checksum=file_checksum(items_path, queries_path),
        vocabulary=_build_vocabulary(items.values()),
        fields={id_: {name: row[name] for name in row if name and name not in ("id", "file")} for id_, row in items.items()},
    )


def _build_vocabulary(items: Iterable[Mapping[str, str]]) -> Vocabulary:
    """The catalogue's own words for articles and colors."""
    articles, colours = (tuple(sorted({item[column] for item in items})) for column in ("article", "colour"))
    return Vocabulary("a photo of a {colour} {article}", (WordGroup("article", articles), WordGroup("colour", colours)))


def _read_items(path: Path) -> dict[str, dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    items: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, start=1):
        if missing := [name for name in COLUMNS if not row.get(name)]:
            raise MMRetrieveError(f"{path}, record {number}: there is no {missing[0]}; expected {', '.join(COLUMNS)}")
        items[row["id"]] = row
    check_unique((row["id"] for row in rows), path)
    return items


def _read_queries(path: Path) -> Iterator[BenchmarkQuery]:
    for number, line in enumerate(read_text(path).removesuffix("\n").split("\n"), start=1):
        where = f"{path}, line {number}"
        try:
            fields = load_json(line)
        except ValueError as error:
            raise MMRetrieveError(f"{where}: not JSON ({getattr(error, 'msg', error)})") from error
        if not isinstance(fields, dict):
            raise MMRetrieveError(f"{where}: expected an object, not {fields!r:.60}")
        query = JsonRecord(where, fields)
        yield BenchmarkQuery(
            str(query.number("id")),
            query.text("reference"),
            (query.text("prompt"),),
            query.texts("targets"),
            query.text("caption"),
            tags=(query.text("attribute"),),
        )
