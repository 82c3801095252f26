"""The tables of the report: metrics of runs, differences between them, and where records come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.audit import audit_queries
from eval.report.bootstrap import Interval
from eval.report.formatting import benchmark_name, format_number, metric_name
from eval.report.groups import ComparisonGroup
from eval.report.loading import EvaluatedRun
from eval.runs.records import Record

MEAN = "mean"
MAX_COLUMNS = 6  # runs beside each other in a table of differences, so that none is cut off
MAX_METRICS = 9  # columns of metrics in full size
REFERENCE_NOTES = {True: ", reference in the ranking", False: ", reference not in the ranking", None: ""}


@dataclass(frozen=True)
class TableRow:
    """A run: its metrics, and its gain over its base.

    `notes` are numbers of remarks that do not apply to every run; `cells` are (text, whether no other number of the column is
    higher); `whisker` has the positions of the gain's interval.
    """

    label: str
    notes: tuple[int, ...]
    cells: tuple[tuple[str, bool], ...]
    is_base: bool
    gain: Interval | None
    whisker: Mapping[str, float] | None


@dataclass(frozen=True)
class ReportTable:
    """`heads`: (title, number of columns) of parts, where there are several; `columns`: (metric, whether it is the headline).

    `single`: what the best single term reaches in each column, where runs recorded it.
    `cell_labels`: the full name of each column, for a narrow page, on which every cell has its own.
    """

    heads: tuple[tuple[str, int], ...]
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]
    single: tuple[str, ...] = ()

    @property
    def is_wide(self) -> bool:
        """Whether it has more columns than fit beside the gain in full size."""
        return len(self.columns) > MAX_METRICS

    @property
    def cell_labels(self) -> tuple[str, ...]:
        parts = [title for title, count in self.heads for _ in range(count)] or [""] * len(self.columns)
        return tuple(f"{part} {name}".strip() for part, (name, _) in zip(parts, self.columns, strict=True))


def results_table(group: ComparisonGroup) -> ReportTable:
    """Runs by metrics, best first: the mean, then each part of a suite."""
    metrics = [name for name in group.runs[0].metrics if "/" not in name]
    parts = list(group.runs[0].parts) if len(group.runs[0].parts) > 1 else []
    columns: list[tuple[str | None, str]] = [(part, metric) for part in [None, *parts] for metric in metrics]
    heads = [(MEAN, len(metrics)), *((_part_name(part), len(metrics)) for part in parts)] if parts else []
    return _build_table(group, columns, heads)


def aspects_table(group: ComparisonGroup) -> ReportTable | None:
    """Runs by the aspects of a benchmark; None where it has none."""
    metrics = [name for name in group.runs[0].metrics if "/" in name]
    return _build_table(group, [(None, metric) for metric in metrics], []) if metrics else None


@dataclass(frozen=True)
class DifferencesTable:
    """Leads of the runs in the rows over those in `columns`; None where the row is not the better run."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Interval | None, ...]], ...]


def differences_tables(group: ComparisonGroup) -> list[DifferencesTable]:
    """The lead of each run over each run behind it, best first; a new table after every MAX_COLUMNS runs, which fit on a page."""
    places = range(1, len(group.runs))
    return [_differences_table(group, places[start : start + MAX_COLUMNS]) for start in range(0, len(places), MAX_COLUMNS)]


def _differences_table(group: ComparisonGroup, columns: Sequence[int]) -> DifferencesTable:
    rows = [
        (group.title(run), tuple(group.interval(run, group.runs[j]) if j > i else None for j in columns))
        for i, run in enumerate(group.runs[: columns[-1]])
    ]
    return DifferencesTable(tuple(group.title(group.runs[j]) for j in columns), tuple(rows))


def provenance_rows(record: Record) -> list[tuple[str, str]]:
    """Names and values of everything needed to repeat a run or a sweep."""
    encoder = record.encoder
    rows = [
        ("record", record.name),
        ("encoder", f"{encoder.model}, weights {encoder.weights[:12]}, {encoder.preprocessing}"),
        *((name, _format_value(value)) for name, value in record.provenance.items()),
        ("options", _format_value(record.options)),
    ]
    rows += [
        (
            name,
            f"{part.queries:,} queries, {part.gallery:,} images, annotations {part.checksum[:12]}{REFERENCE_NOTES[part.keeps_reference]}",
        )
        for name, part in record.parts.items()
    ]
    remarks = [*(part.remark for part in record.parts.values() if part.remark), *record.remarks]
    return [*rows, *(("remark", remark) for remark in dict.fromkeys(remarks))]


def _build_table(
    group: ComparisonGroup, columns: Sequence[tuple[str | None, str]], heads: Sequence[tuple[str, int]]
) -> ReportTable:
    values = [[_value(run, *column) for column in columns] for run in group.runs]
    best = [max((v for v in column if v is not None), default=None) for column in zip(*values, strict=True)]
    gains = [group.gain(run) for run in group.runs]
    shared = set.intersection(*(set(run.remarks) for run in group.runs)) if len(group.runs) > 1 else set()
    remarks = list(dict.fromkeys(remark for run in group.runs for remark in run.remarks if remark not in shared))
    rows = [
        TableRow(
            group.title(run),
            tuple(remarks.index(remark) + 1 for remark in run.remarks if remark not in shared),
            tuple((format_number(v), v is not None and v == top) for v, top in zip(row, best, strict=True)),
            run.is_base,
            gain,
            None if gain is None else _build_whisker(gain, [other for other in gains if other is not None]),
        )
        for run, row, gain in zip(group.runs, values, gains, strict=True)
    ]
    names = tuple((metric_name(metric), metric == group.runs[0].headline) for _, metric in columns)
    return ReportTable(tuple(heads), names, tuple(rows), tuple(remarks), _best_single_terms(group, columns))


def _best_single_terms(group: ComparisonGroup, columns: Sequence[tuple[str | None, str]]) -> tuple[str, ...]:
    audit = audit_queries(group)
    if audit is None:
        return ()
    best = (audit.best_single(metric, part) if metric in audit.metrics else ("", None) for part, metric in columns)
    return tuple(f"{format_number(value)} ({term})" if term else format_number(value) for term, value in best)


def _build_whisker(gain: Interval, gains: Sequence[Interval]) -> dict[str, float]:
    """An interval as a line, in percent of a width that all rows share; `zero` is the position of no difference."""
    low, high = min(0.0, *(g.low for g in gains)), max(0.0, *(g.high for g in gains))
    span = (high - low) or 1.0

    def position(value: float) -> float:
        return round(100 * (value - low) / span, 2)

    left = position(gain.low)
    return {
        "left": left,
        "width": round(position(gain.high) - left, 2),
        "middle": position(gain.difference),
        "zero": position(0.0),
    }


def _value(run: EvaluatedRun, part: str | None, metric: str) -> float | None:
    return (run.metrics if part is None else run.parts[part].metrics).get(metric)


def _part_name(name: str) -> str:
    return benchmark_name(name).partition(": ")[2] or name


def _format_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_format_value(item)}" for name, item in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(map(_format_value, value)) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)
