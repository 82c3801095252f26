"""Tables as rows of texts: what runs measured, and how far they are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.report.bootstrap import Interval
from eval.report.groups import ComparisonGroup
from eval.report.records import RunRecord
from eval.report.words import benchmark_name, bracket, metric_name, number, signed

MEAN = "mean"


@dataclass(frozen=True)
class TableCell:
    """A number; `best` where nothing in its column is higher."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Whisker:
    """An interval drawn from left to right, in percent of a width that all rows share; `zero` is where no difference is."""

    left: float
    width: float
    middle: float
    zero: float


@dataclass(frozen=True)
class TableRow:
    """A run: its numbers, and how far it is from its base; `notes` are numbers of remarks below the table,
    of those that are not true of every run."""

    label: str
    notes: tuple[int, ...]
    cells: tuple[TableCell, ...]
    is_base: bool
    gain: Interval | None
    whisker: Whisker | None


@dataclass(frozen=True)
class ReportTable:
    """`heads`: (title, how many columns) of parts, where there are several; `columns`: metrics, the headline marked."""

    heads: tuple[tuple[str, int], ...]
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]


def results(group: ComparisonGroup) -> ReportTable:
    """Runs by metrics, best first: the mean, then each part of a suite."""
    names = [name for name in group.runs[0].metrics if "/" not in name]
    parts = list(group.runs[0].parts) if len(group.runs[0].parts) > 1 else []
    places: list[tuple[str | None, str]] = [(part, name) for part in [None, *parts] for name in names]
    heads = [(MEAN, len(names)), *((_part(part), len(names)) for part in parts)] if parts else []
    return _table(group, places, heads)


def aspects(group: ComparisonGroup) -> ReportTable | None:
    """Runs by the aspects of a benchmark, where it has some."""
    names = [name for name in group.runs[0].metrics if "/" in name]
    return _table(group, [(None, name) for name in names], []) if names else None


def _table(group: ComparisonGroup, places: Sequence[tuple[str | None, str]], heads: Sequence[tuple[str, int]]) -> ReportTable:
    values = [[_value(run, *place) for place in places] for run in group.runs]
    tops = [max((v for v in column if v is not None), default=None) for column in zip(*values, strict=True)]
    gains = [group.gain(run) for run in group.runs]
    drawn = [gain for gain in gains if gain is not None]
    shared = set.intersection(*(set(run.remarks) for run in group.runs)) if len(group.runs) > 1 else set()
    remarks = list(dict.fromkeys(remark for run in group.runs for remark in run.remarks if remark not in shared))
    rows = [
        TableRow(
            group.title(run),
            tuple(remarks.index(remark) + 1 for remark in run.remarks if remark not in shared),
            tuple(TableCell(number(value), value is not None and value == top) for value, top in zip(row, tops, strict=True)),
            run.is_base,
            gain,
            None if gain is None else _whisker(gain, drawn),
        )
        for run, row, gain in zip(group.runs, values, gains, strict=True)
    ]
    columns = tuple((metric_name(name), name == group.runs[0].headline) for _, name in places)
    return ReportTable(tuple(heads), columns, tuple(rows), tuple(remarks))


def _whisker(gain: Interval, all_: Sequence[Interval]) -> Whisker:
    low, high = min(0.0, *(g.low for g in all_)), max(0.0, *(g.high for g in all_))
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return round(100 * (value - low) / span, 2)

    return Whisker(at(gain.low), round(at(gain.high) - at(gain.low), 2), at(gain.difference), at(0.0))


@dataclass(frozen=True)
class RunDistance:
    """How far the run of a row is ahead of the run of a column."""

    difference: str
    interval: str
    clear: bool


def distances(group: ComparisonGroup) -> list[tuple[str, list[RunDistance | None]]]:
    """Each run but the last with its lead over each run but the first; None below the diagonal. Best first."""

    def lead(i: int, j: int) -> RunDistance | None:
        if j <= i:
            return None
        found = group.interval(group.runs[i], group.runs[j])
        return RunDistance(signed(found.difference), bracket(found), found.clear)

    numbers = range(len(group.runs))
    return [(group.title(group.runs[i]), [lead(i, j) for j in numbers[1:]]) for i in numbers[:-1]]


def _value(run: RunRecord, part: str | None, metric: str) -> float | None:
    return (run.metrics if part is None else run.parts[part].metrics).get(metric)


def _part(name: str) -> str:
    return benchmark_name(name).partition(": ")[2] or name
