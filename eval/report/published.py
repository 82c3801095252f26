"""Numbers printed in papers, shown beside the runs. They come from other weights, captions and often another split, so no gain is
claimed against them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eval.report.formatting import format_number, format_signed, metric_name
from eval.report.groups import ComparisonGroup

FILE = Path(__file__).with_name("published.json")
NOT_RELEASED = "not the released"
"""A remark with these words says that a benchmark only has the layout of the one in the papers."""
BACKBONES = {"ViT-B-32": "ViT-B/32", "ViT-L-14": "ViT-L/14", "ViT-bigG-14": "ViT-bigG/14"}
BACKBONE_SUFFIXES = ("", "-quickgelu")
PHI_COMPOSERS = ("lincir",)


@dataclass(frozen=True)
class PublishedRow:
    """The numbers of a method on one backbone: metric → value ×100; metrics that the paper does not give are absent."""

    method: str
    backbone: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class PublishedResults:
    """The published rows of a benchmark, with their metrics and `split`."""

    benchmark: str
    split: str
    metrics: tuple[str, ...]
    rows: tuple[PublishedRow, ...]

    @property
    def backbones(self) -> tuple[str, ...]:
        """Every backbone of the rows, once."""
        return tuple(dict.fromkeys(row.backbone for row in self.rows))


@dataclass(frozen=True)
class CheckpointResults:
    """What a released checkpoint gives with open weights of the `backbone`: metric → value ×100 on a `split`."""

    checkpoint: str
    backbone: str
    split: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TableBlock:
    """Rows under one title, of runs or of papers."""

    title: str
    is_ours: bool
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class PublishedComparison:
    """Published rows and runs. `near` has the runs and the rows of their backbone, `far` the other backbones."""

    split: str
    metrics: tuple[str, ...]
    same_split: bool
    near: tuple[TableBlock, ...]
    far: tuple[TableBlock, ...]


@dataclass(frozen=True)
class CheckpointComparison:
    """The expected numbers of a released checkpoint and those of a run; `rows`: metric, expected, measured, difference."""

    checkpoint: str
    backbone: str
    split: str
    label: str
    rows: tuple[tuple[str, str, str, str], ...]


def find_published(benchmark: str, remarks: Sequence[str] = ()) -> PublishedResults | None:
    """The published rows of a benchmark ("cirr"); None where there are none, or a remark says that the data differ."""
    columns = [column for column in _read_table()["columns"] if column["benchmark"] == benchmark]
    if not columns or _has_other_data(remarks):
        return None
    metrics = tuple(column["metric"] for column in columns)
    rows = [
        PublishedRow(row["method"], backbone, values)
        for row in _read_table()["rows"]
        for backbone in BACKBONES.values()
        if (values := _select_values(row[backbone], benchmark))
    ]
    return PublishedResults(benchmark, columns[0]["split"], metrics, tuple(rows))


def find_checkpoint_results(benchmark: str, model: str, remarks: Sequence[str] = ()) -> CheckpointResults | None:
    """The expected numbers of LinCIR's released phi, where the encoder ("ViT-L-14/openai") is the one that it belongs to."""
    expected = _read_table()["acceptance"]
    if benchmark not in expected or find_backbone(model) != expected["backbone"] or _has_other_data(remarks):
        return None
    return CheckpointResults(
        expected["checkpoint"], expected["backbone"], expected[benchmark]["split"], expected[benchmark]["metrics"]
    )


def find_backbone(model: str) -> str | None:
    """The papers' name of an encoder's architecture; None for one that they do not use.

    >>> find_backbone("ViT-bigG-14/laion2b_s39b_b160k")
    'ViT-bigG/14'
    """
    architecture = model.partition("/")[0]
    return next((name for ours, name in BACKBONES.items() if architecture.removeprefix(ours) in BACKBONE_SUFFIXES), None)


def compare_published(group: ComparisonGroup) -> PublishedComparison | None:
    """The runs of a group and the published rows; None where there is nothing to compare."""
    published = find_published(group.benchmark, group.data_remarks)
    if published is None or not group.runs:
        return None
    ours = TableBlock(
        f"Here: {group.split}, {group.encoder.model}",
        True,
        tuple((group.title(run), _format_values(run.metrics, published.metrics)) for run in group.runs),
    )
    blocks = {
        name: TableBlock(
            f"Published: {published.split}, {name}",
            False,
            tuple(
                (row.method, _format_values(row.values, published.metrics)) for row in published.rows if row.backbone == name
            ),
        )
        for name in published.backbones
    }
    backbone = find_backbone(group.encoder.model)
    near = (ours, *(block for name, block in blocks.items() if backbone in (name, None)))
    far = tuple(block for name, block in blocks.items() if backbone not in (name, None))
    metrics = tuple(map(metric_name, published.metrics))
    return PublishedComparison(published.split, metrics, published.split == group.split, near, far)


def compare_checkpoint(group: ComparisonGroup) -> CheckpointComparison | None:
    """A run of a released phi and its expected numbers; None where there is no such run, or nothing to expect."""
    expected = find_checkpoint_results(group.benchmark, group.encoder.model, group.data_remarks)
    run = next((run for run in group.runs if run.composer in PHI_COMPOSERS and run.is_base), None)
    if expected is None or run is None or expected.split != group.split:
        return None
    rows = [
        (metric_name(name), f"{value:.2f}", f"{run.metrics[name]:.2f}", format_signed(run.metrics[name] - value, 2))
        for name, value in expected.metrics.items()
        if name in run.metrics
    ]
    return CheckpointComparison(expected.checkpoint, expected.backbone, expected.split, run.label, tuple(rows))


def _format_values(values: Mapping[str, float], metrics: Sequence[str]) -> tuple[str, ...]:
    return tuple(format_number(values.get(name), 2) for name in metrics)


def _select_values(numbers: Sequence[float | None] | None, benchmark: str) -> dict[str, float]:
    pairs = zip(_read_table()["columns"], numbers or (), strict=False)
    return {column["metric"]: value for column, value in pairs if column["benchmark"] == benchmark and value is not None}


def _has_other_data(remarks: Sequence[str]) -> bool:
    return any(NOT_RELEASED in remark for remark in remarks)


@cache
def _read_table() -> Any:
    return json.loads(FILE.read_text(encoding="utf-8"))
