"""A product catalogue: `items.csv` (id, file, …) and `queries.jsonl` (reference, prompt, caption, targets).

The reference leaves the ranking; mAP@10 has the divisor min(|targets|, 10).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from eval.benchmark import Benchmark, BenchmarkQuery
from mmretrieve import MMRetrieveError, Vocabulary
from mmretrieve.language.vocabulary import Group


def load(root: Path) -> Benchmark:
    """Raises MMRetrieveError naming the file, and the line, that cannot be read."""
    items = _items(root / "items.csv")
    queries = tuple(_queries(root / "queries.jsonl"))
    return Benchmark(
        "catalogue", tuple(items), queries, lambda id_: root / items[id_]["file"], vocabulary=_vocabulary(items.values())
    )


def _vocabulary(items: Iterable[Mapping[str, str]]) -> Vocabulary:
    """The shop's own words for what it sells and in which colours."""
    articles, colours = (tuple(sorted({item[column] for item in items})) for column in ("article", "colour"))
    return Vocabulary("a photo of a {colour} {article}", (Group("article", articles), Group("colour", colours)))


def _items(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        items = {row["id"]: {name: row[name] for name in ("file", "article", "colour")} for row in rows}
    except (OSError, KeyError) as error:
        raise MMRetrieveError(f"{path}: expected a CSV with the columns id, file, article and colour ({error})") from error
    if len(items) != len(rows):
        raise MMRetrieveError(f"{path}: an id comes twice")
    return items


def _queries(path: Path) -> list[BenchmarkQuery]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise MMRetrieveError(f"{path}: {error.strerror}") from error
    queries = []
    for number, line in enumerate(lines, start=1):
        try:
            q = json.loads(line)
            queries.append(
                BenchmarkQuery(
                    str(q["id"]), q["reference"], (q["prompt"],), tuple(q["targets"]), q["caption"], (q["attribute"],)
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise MMRetrieveError(f"{path}, line {number}: not a query ({error!r})") from error
    return queries
