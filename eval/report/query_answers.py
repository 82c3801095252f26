"""NAME.queries.json: what a run answered to each query, and what that was worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmarks.json_files import JsonRecord, read_object


@dataclass(frozen=True)
class AnswerItem:
    """An image of the gallery, its score, and what each term gave to it; `rank` counts from 1."""

    id: str
    rank: int
    score: float
    contributions: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class QueryAnswer:
    """One query: `values` ×100 per metric, None where it is not defined; `words` of the terms; the best hits, best first.

    `target` is the best-ranked one of the `targets`; None where they are hidden.
    """

    id: str
    reference: str
    prompt: str
    targets: tuple[str, ...]
    values: tuple[float | None, ...]
    words: Mapping[str, str]
    target: AnswerItem | None
    hits: tuple[AnswerItem, ...]


def read_answers(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[QueryAnswer, ...]]]:
    """The metrics' names, and the answers by part. MMRetrieveError naming the file, and the query, where they do not fit."""
    record = read_object(path)
    metrics = record.texts("metrics")
    parts = record.part("parts")
    return metrics, {name: tuple(_answer(query, len(metrics)) for query in parts.parts(name)) for name in parts.fields}


def number(record: JsonRecord, name: str) -> float:
    """A finite number of a record."""
    value = record.fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise record.error(f"{name!r} should be a finite number, not {value!r:.60}")
    return float(value)


def numbers(record: JsonRecord) -> dict[str, float]:
    """An object of finite numbers."""
    return {name: number(record, name) for name in record.fields}


def _answer(record: JsonRecord, metrics: int) -> QueryAnswer:
    words = record.part("words")
    target = record.fields.get("target")
    return QueryAnswer(
        record.text("id"),
        record.text("reference"),
        record.text("prompt"),
        record.texts("targets"),
        _values(record, metrics),
        {name: words.text(name) for name in words.fields},
        None if target is None else _item(record.part("target"), None),
        tuple(_item(hit, rank) for rank, hit in enumerate(record.parts("hits"), start=1)),
    )


def _item(record: JsonRecord, rank: int | None) -> AnswerItem:
    return AnswerItem(
        record.text("id"), rank or record.number("rank"), number(record, "score"), numbers(record.part("contributions"))
    )


def _values(record: JsonRecord, metrics: int) -> tuple[float | None, ...]:
    values: Any = record.fields.get("values")
    if not isinstance(values, list) or len(values) != metrics:
        raise record.error(f"'values' should be a list, one for each of the {metrics} metrics, not {values!r:.60}")
    named = JsonRecord(record.where, {f"values[{i}]": value for i, value in enumerate(values)})
    return tuple(None if value is None else number(named, f"values[{i}]") for i, value in enumerate(values))
