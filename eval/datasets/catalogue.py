"""A product catalogue: `items.csv` (id, file, …) and `queries.jsonl` (reference, prompt, caption, targets).

The reference leaves the ranking; mAP@10 has the divisor min(|targets|, 10).
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from eval.benchmark import Benchmark, BenchmarkQuery
from mmretrieve import MMRetrieveError


def load(root: Path) -> Benchmark:
    """Raises MMRetrieveError naming the file, and the line, that cannot be read."""
    files = _items(root / "items.csv")
    queries = tuple(_queries(root / "queries.jsonl"))
    return Benchmark("catalogue", tuple(files), queries, lambda id_: root / files[id_])


def _items(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        files = {row["id"]: row["file"] for row in rows}
    except (OSError, KeyError) as error:
        raise MMRetrieveError(f"{path}: expected a CSV with the columns id and file ({error})") from error
    if len(files) != len(rows):
        raise MMRetrieveError(f"{path}: an id comes twice")
    return files


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
