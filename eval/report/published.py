"""What papers print, to stand beside our numbers. Other weights, other captions, often another split: never a base to gain on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("published.json")
NOT_RELEASED = "not the released"
"""A remark with these words says that a benchmark only has the layout of the one in the papers."""
BACKBONES = {"ViT-B-32": "ViT-B/32", "ViT-L-14": "ViT-L/14", "ViT-bigG-14": "ViT-bigG/14"}
PLAIN = ("", "-quickgelu")


@dataclass(frozen=True)
class PublishedRow:
    """A method's numbers on one backbone: metric → value ×100; metrics that its paper does not give are absent."""

    method: str
    backbone: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Published:
    """The published rows of a benchmark, and the metrics and the `split` that they were measured on."""

    benchmark: str
    split: str
    metrics: tuple[str, ...]
    rows: tuple[PublishedRow, ...]

    @property
    def backbones(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.backbone for row in self.rows))


@dataclass(frozen=True)
class Acceptance:
    """What a released checkpoint is known to give: metric → value ×100, on a `split`, with open weights of the `backbone`."""

    checkpoint: str
    backbone: str
    split: str
    metrics: Mapping[str, float]


def published_for(benchmark: str, remarks: Sequence[str] = ()) -> Published | None:
    """The rows to print beside records of a benchmark ("cirr"); None where papers have none, or a remark says the data differ."""
    columns = [column for column in _table()["columns"] if column["benchmark"] == benchmark]
    if not columns or _other_data(remarks):
        return None
    metrics = tuple(column["metric"] for column in columns)
    rows = [
        PublishedRow(row["method"], backbone, values)
        for row in _table()["rows"]
        for backbone in BACKBONES.values()
        if (values := _values(row[backbone], benchmark))
    ]
    return Published(benchmark, columns[0]["split"], metrics, tuple(rows))


def acceptance_for(benchmark: str, model: str, remarks: Sequence[str] = ()) -> Acceptance | None:
    """What LinCIR's released phi gives on a benchmark, where the encoder ("ViT-L-14/openai") is the one it belongs to."""
    known = _table()["acceptance"]
    if benchmark not in known or backbone(model) != known["backbone"] or _other_data(remarks):
        return None
    found = known[benchmark]
    return Acceptance(known["checkpoint"], known["backbone"], found["split"], found["metrics"])


def backbone(model: str) -> str | None:
    """The papers' name of an encoder's architecture: "ViT-bigG-14/laion2b" is ViT-bigG/14; None for any that they do not have."""
    architecture = model.partition("/")[0]
    return next((name for ours, name in BACKBONES.items() if architecture.removeprefix(ours) in PLAIN), None)


def _values(numbers: Sequence[float | None] | None, benchmark: str) -> dict[str, float]:
    pairs = zip(_table()["columns"], numbers or (), strict=False)
    return {column["metric"]: value for column, value in pairs if column["benchmark"] == benchmark and value is not None}


def _other_data(remarks: Sequence[str]) -> bool:
    return any(NOT_RELEASED in remark for remark in remarks)


@cache
def _table() -> Any:
    return json.loads(FILE.read_text(encoding="utf-8"))
