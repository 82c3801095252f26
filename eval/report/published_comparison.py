"""What papers print, beside what was measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.report.groups import ComparisonGroup
from eval.report.published import acceptance_for, backbone, published_for
from eval.report.words import metric_name, number, signed

PHI_METHODS = ("lincir",)


@dataclass(frozen=True)
class TableBlock:
    """Rows under one title, of our own runs or of papers."""

    title: str
    ours: bool
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class PublishedComparison:
    """Published numbers beside ours: `same_split` where both are of one split."""

    split: str
    metrics: tuple[str, ...]
    same_split: bool
    near: tuple[TableBlock, ...]
    far: tuple[TableBlock, ...]


def beside_published(group: ComparisonGroup) -> PublishedComparison | None:
    """Our runs and the published rows, those of our backbone first; None where there is nothing to set beside."""
    found = published_for(group.benchmark, group.data_remarks)
    if found is None or not group.runs:
        return None
    ours = TableBlock(
        f"Here: {group.split}, {group.encoder.model}",
        True,
        tuple((group.title(run), _numbers(run.metrics, found.metrics)) for run in group.runs),
    )
    blocks = {
        name: TableBlock(
            f"Published: {found.split}, {name}",
            False,
            tuple((row.method, _numbers(row.values, found.metrics)) for row in found.rows if row.backbone == name),
        )
        for name in found.backbones
    }
    own = backbone(group.encoder.model)
    near = (ours, *(block for name, block in blocks.items() if own in (name, None)))
    far = tuple(block for name, block in blocks.items() if own not in (name, None))
    return PublishedComparison(found.split, tuple(map(metric_name, found.metrics)), found.split == group.split, near, far)


@dataclass(frozen=True)
class AcceptanceRow:
    """What a released checkpoint is known to give, beside what it gave here; `rows`: metric, known, ours, difference."""

    checkpoint: str
    backbone: str
    split: str
    label: str
    rows: tuple[tuple[str, str, str, str], ...]


def accepted(group: ComparisonGroup) -> AcceptanceRow | None:
    """For the encoder and the split that a released phi has known numbers on, where a run of its method is here."""
    known = acceptance_for(group.benchmark, group.encoder.model, group.data_remarks)
    run = next((run for run in group.runs if run.composer in PHI_METHODS and run.is_base), None)
    if known is None or run is None or known.split != group.split:
        return None
    rows = [
        (metric_name(name), f"{value:.2f}", f"{run.metrics[name]:.2f}", signed(run.metrics[name] - value, 2))
        for name, value in known.metrics.items()
        if name in run.metrics
    ]
    return AcceptanceRow(known.checkpoint, known.backbone, known.split, run.label, tuple(rows))


def _numbers(values: Mapping[str, float], metrics: Sequence[str]) -> tuple[str, ...]:
    return tuple(number(values.get(name), 2) for name in metrics)
