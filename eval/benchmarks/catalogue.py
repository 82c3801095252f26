"""A product catalogue: `items.csv` (id, file, …) and `queries.jsonl` (reference, prompt, caption, targets).

The reference leaves the ranking; mAP@10 has the divisor min(|targets|, 10).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.benchmarks.json_files import JsonRecord, check_named, checksum, find_file, read_text, unique
from mmretrieve import MMRetrieveError, Vocabulary
from mmretrieve.language.vocabulary import WordGroup

SPLITS = ("test",)
HOLDS = "items.csv and queries.jsonl"
COLUMNS = ("id", "file", "article", "colour")


def load(root: Path) -> Benchmark:
    """Raises MMRetrieveError naming the file, and the line, that cannot be read."""
    listed, asked = (find_file(root, [name]) for name in ("items.csv", "queries.jsonl"))
    items = _items(listed)
    queries = tuple(_queries(asked))
    unique((query.id for query in queries), asked)
    check_named(queries, asked, items, listed)
    protocol = Protocol(
        headline="map@10", recalls=(1, 5, 10), precisions=(10,), aspects=tuple(sorted({q.tags[0] for q in queries}))
    )
    return Benchmark(
        "catalogue",
        "test",
        tuple(items),
        queries,
        lambda id_: root / items[id_]["file"],
        protocol,
        checksum=checksum(listed, asked),
        vocabulary=_vocabulary(items.values()),
        fields={id_: {name: row[name] for name in row if name and name not in ("id", "file")} for id_, row in items.items()},
    )


def _vocabulary(items: Iterable[Mapping[str, str]]) -> Vocabulary:
    """The shop's own words for what it sells and in which colours."""
    articles, colours = (tuple(sorted({item[column] for item in items})) for column in ("article", "colour"))
    return Vocabulary("a photo of a {colour} {article}", (WordGroup("article", articles), WordGroup("colour", colours)))


def _items(path: Path) -> dict[str, dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    items: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, start=1):
        if missing := [name for name in COLUMNS if not row.get(name)]:
            raise MMRetrieveError(f"{path}, record {number}: there is no {missing[0]}; expected {', '.join(COLUMNS)}")
        items[row["id"]] = row
    unique((row["id"] for row in rows), path)
    return items


def _queries(path: Path) -> Iterator[BenchmarkQuery]:
    for number, line in enumerate(read_text(path).removesuffix("\n").split("\n"), start=1):
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise MMRetrieveError(f"{where}: not JSON ({error.msg})") from error
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
