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
class PublishedResults:
    """The published results of a benchmark on one `split`: backbone → method → metric → value ×100, where the paper gives it."""

    split: str
    metrics: tuple[str, ...]
    values: Mapping[str, Mapping[str, Mapping[str, float]]]


def find_published(benchmark: str, remarks: Sequence[str] = ()) -> PublishedResults | None:
    """The published results of a benchmark ("cirr"); None where there are none, or a remark says that the data differ."""
    table = _read_table()
    columns = [(i, column) for i, column in enumerate(table["columns"]) if column["benchmark"] == benchmark]
    if not columns or _has_other_data(remarks):
        return None
    results: dict[str, dict[str, dict[str, float]]] = {}
    for backbone in BACKBONES.values():
        for row in table["rows"]:
            numbers = row[backbone] or [None] * len(table["columns"])
            values = {column["metric"]: numbers[i] for i, column in columns if numbers[i] is not None}
            if values:
                results.setdefault(backbone, {})[row["method"]] = values
    return PublishedResults(columns[0][1]["split"], tuple(column["metric"] for _, column in columns), results)


def find_backbone(model: str) -> str | None:
    """The papers' name of an encoder's architecture; None for one that they do not use.

    >>> find_backbone("ViT-bigG-14/laion2b_s39b_b160k")
    'ViT-bigG/14'
    """
    architecture = model.partition("/")[0]
    return next((name for ours, name in BACKBONES.items() if architecture.removeprefix(ours) in BACKBONE_SUFFIXES), None)


def compare_published(group: ComparisonGroup) -> dict[str, Any] | None:
    """The runs of a group and the published rows, as `templates/tables.html` shows them; None where there is nothing to compare.

    `near` has the runs and the rows of their backbone, `far` the other backbones.
    """
    published = find_published(group.benchmark, group.data_remarks)
    if published is None or not group.runs:
        return None

    def format_values(values: Mapping[str, float]) -> list[str]:
        return [format_number(values.get(name), 2) for name in published.metrics]

    ours = {
        "title": f"Here: {group.split}, {group.encoder.model}",
        "is_ours": True,
        "rows": [(group.title(run), format_values(run.metrics)) for run in group.runs],
    }
    blocks = {
        backbone: {
            "title": f"Published: {published.split}, {backbone}",
            "is_ours": False,
            "rows": [(method, format_values(values)) for method, values in methods.items()],
        }
        for backbone, methods in published.values.items()
    }
    own_backbone = find_backbone(group.encoder.model)
    return {
        "split": published.split,
        "metrics": [metric_name(metric) for metric in published.metrics],
        "same_split": published.split == group.split,
        "near": [ours, *(block for backbone, block in blocks.items() if own_backbone in (backbone, None))],
        "far": [block for backbone, block in blocks.items() if own_backbone not in (backbone, None)],
    }


def compare_checkpoint(group: ComparisonGroup) -> dict[str, Any] | None:
    """A run of LinCIR's released phi and its expected numbers; None where there is no such run, or nothing to expect.

    `rows`: metric, expected, measured, difference, and its interval over the queries; None where their values were not stored.
    """
    released = _read_table()["acceptance"]
    expected = released.get(group.benchmark)
    run = next((run for run in group.runs if run.composer in PHI_COMPOSERS and run.is_base), None)
    if expected is None or run is None or expected["split"] != group.split or _has_other_data(group.data_remarks):
        return None
    if find_backbone(group.encoder.model) != released["backbone"]:
        return None
    return {
        "checkpoint": released["checkpoint"],
        "backbone": released["backbone"],
        "split": expected["split"],
        "label": run.label,
        "rows": [
            (
                metric_name(name),
                f"{value:.2f}",
                f"{run.metrics[name]:.2f}",
                format_signed(run.metrics[name] - value, 2),
                group.interval_around(run, name, value),
            )
            for name, value in expected["metrics"].items()
            if name in run.metrics
        ],
    }


def _has_other_data(remarks: Sequence[str]) -> bool:
    return any(NOT_RELEASED in remark for remark in remarks)


@cache
def _read_table() -> Any:
    return json.loads(FILE.read_text(encoding="utf-8"))
