"""CIRCUS: which queries of CIRR, CIRCO and FashionIQ an audit of thirteen retrievers found to require composition, and metrics by it.

Reads the released `{benchmark}_shortcut_free.csv` or `{benchmark}_validated.csv`, with a row for each query that requires composition,
whose images are paths in the data of the benchmark. Source: arXiv 2605.14787 and its repository, croissant/exports.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.report.formatting import format_number, metric_name
from eval.report.groups import ComparisonGroup
from eval.report.loading import EvaluatedRun
from eval.runs.records import QueryResult
from mmretrieve import MMRetrieveError
from mmretrieve.language.files import bare_name
from mmretrieve.options import check_regular

REFERENCE, TARGET, CATEGORY = "query_image_ref", "target_image_ref", "hidden_category"
REQUIRED = "composition_required"
Pair = tuple[str, str]


@dataclass(frozen=True)
class CircusLabels:
    """The queries that require composition, by their reference and target: names without folder, suffix and leading zeros."""

    name: str
    pairs: frozenset[Pair]

    @classmethod
    def read(cls, path: Path) -> CircusLabels:
        """Reads a file of CIRCUS. MMRetrieveError, naming the file, if it is none or labels no query."""
        try:
            with check_regular(path).open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise MMRetrieveError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        if not rows or not {REFERENCE, TARGET, CATEGORY} <= rows[0].keys():
            columns = ", ".join(rows[0]) if rows else "none"
            raise MMRetrieveError(f"{path}: expected the columns {REFERENCE}, {TARGET} and {CATEGORY}, got {columns}")
        pairs = frozenset((bare_name(row[REFERENCE]), bare_name(row[TARGET])) for row in rows if row[CATEGORY] == REQUIRED)
        if not pairs:
            raise MMRetrieveError(f"{path}: no row has the {CATEGORY} {REQUIRED!r}")
        return cls(path.stem, pairs)

    def requires_composition(self, result: QueryResult) -> bool:
        """Whether a query is labeled, with its reference and the first of its targets or another one."""
        return any((bare_name(result.reference), bare_name(target)) in self.pairs for target in result.targets)


def describe_circus(group: ComparisonGroup, labels: CircusLabels | None) -> dict[str, Any] | None:
    """Every metric of every run by label, as `templates/tables.html` shows it; None without labels or runs.

    MMRetrieveError if no query of the group is labeled: then the file belongs to another benchmark or split.
    """
    if labels is None or not group.runs:
        return None
    results = [result for part in group.runs[0].results.values() for result in part]
    required = sum(map(labels.requires_composition, results))
    if not required:
        raise MMRetrieveError(
            f"{labels.name}: labels no query of {group.benchmark} {group.split}; is it the file of another benchmark?"
        )
    return {
        "name": labels.name,
        "columns": [f"composition required, {required:,}", f"others, {len(results) - required:,}"],
        "tables": [_describe_metric(group, labels, metric) for metric in group.runs[0].queries_record.metrics],
    }


def _describe_metric(group: ComparisonGroup, labels: CircusLabels, metric: str) -> dict[str, Any]:
    runs = [run for run in group.runs if metric in run.queries_record.metrics]
    return {
        "metric": metric_name(metric),
        "rows": [(group.title(run), [_mean(run, labels, metric, required=one) for one in (True, False)]) for run in runs],
    }


def _mean(run: EvaluatedRun, labels: CircusLabels, metric: str, *, required: bool) -> str:
    column = run.column(metric)
    results = [result for part in run.results.values() for result in part if labels.requires_composition(result) is required]
    values = [value for result in results if (value := result.values[column]) is not None]
    return format_number(float(np.mean(values)) if values else None)
