"""Groups runs that may be compared: the same queries of one benchmark and split, the same gallery, the same encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from eval.report.bootstrap import RESAMPLES, Interval, correct_p_values, suite_interval
from eval.report.loading import EvaluatedRun
from eval.runs.records import Record, SweepRecord
from mmretrieve import EncoderIdentity, MMRetrieveError


@dataclass(frozen=True, eq=False)
class ComparisonGroup:
    """Comparable runs, best first by their headline, and sweeps; `intervals` of every pair of names, the better run first.

    The p-values of the intervals are corrected for the number of pairs.
    """

    benchmark: str
    split: str
    encoder: EncoderIdentity
    runs: tuple[EvaluatedRun, ...]
    sweeps: tuple[SweepRecord, ...]
    intervals: Mapping[tuple[str, str], Interval]
    resamples: int = RESAMPLES

    @property
    def records(self) -> tuple[Record, ...]:
        """Runs, then sweeps."""
        return (*self.runs, *self.sweeps)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know about any of the records, each remark once."""
        return tuple(dict.fromkeys([*self.data_remarks, *(remark for record in self.records for remark in record.remarks)]))

    @property
    def data_remarks(self) -> tuple[str, ...]:
        """What a reader must know about the benchmark's data."""
        remarks = (part.remark for record in self.records for part in record.parts.values())
        return tuple(dict.fromkeys(filter(None, remarks)))

    def title(self, run: EvaluatedRun) -> str:
        """The run's label; where another run has the same label, with the options that differ, or else with its name."""
        others = [other for other in self.runs if other.label == run.label and other is not run]
        if not others:
            return run.label
        differing = sorted({name for other in others for name, _ in _options(other) ^ _options(run)})
        is_unique = all(any(other.options.get(name) != run.options.get(name) for name in differing) for other in others)
        details = ", ".join(f"{name} {run.options.get(name, 'not named')}" for name in differing)
        return f"{run.label} ({details if is_unique else run.name})"

    def interval(self, a: EvaluatedRun, b: EvaluatedRun) -> Interval:
        """a − b in points of the headline, with its interval."""
        interval = self.intervals.get((a.name, b.name))
        if interval is not None:
            return interval
        return self.intervals[b.name, a.name].reverse

    def part_interval(self, a: EvaluatedRun, b: EvaluatedRun, metric: str, part: str | None = None) -> Interval:
        """a − b of one metric in points, on one part or as the mean of all, with its interval over the queries that have the metric."""
        parts = [one for one in a.parts if part in (None, one)]
        return suite_interval([paired_values(a, b, metric, one) for one in parts], resamples=self.resamples)

    def interval_around(self, run: EvaluatedRun, metric: str, expected: float) -> Interval | None:
        """The metric of a run minus an expected number, with its interval; None where the values of queries were not stored."""
        if metric not in run.queries_record.metrics:
            return None
        values = [paired_values(run, run, metric, part)[0] for part in run.parts]
        return suite_interval([(part, [expected] * len(part)) for part in values], resamples=self.resamples)

    def gain(self, run: EvaluatedRun) -> Interval | None:
        """The lead of a run over its base; None where it is a base, or has none."""
        base = self.base_of(run)
        return None if base is None else self.interval(run, base)

    def base_of(self, run: EvaluatedRun) -> EvaluatedRun | None:
        """The run of the same composer with base weights; among several, the one with the most similar options. None for a base."""
        if run.is_base:
            return None
        bases = [other for other in self.runs if other.is_base and other.composer == run.composer]
        return min(bases, key=lambda base: (len(_options(base) ^ _options(run)), base.name), default=None)


def paired_values(a: EvaluatedRun, b: EvaluatedRun, metric: str, part: str) -> tuple[list[float], list[float]]:
    """The values of a metric in both runs, for the queries of a part for which it is defined."""
    columns = a.column(metric), b.column(metric)
    pairs = [
        (first, second)
        for one, other in zip(a.results[part], b.results[part], strict=True)
        if (first := one.values[columns[0]]) is not None and (second := other.values[columns[1]]) is not None
    ]
    return [first for first, _ in pairs], [second for _, second in pairs]


def group_records(
    runs: Iterable[EvaluatedRun], sweeps: Iterable[SweepRecord] = (), *, resamples: int = RESAMPLES
) -> tuple[ComparisonGroup, ...]:
    """Groups in the order of benchmark, split and encoder. MMRetrieveError where the runs of a group have different queries."""
    groups: dict[tuple[Any, ...], tuple[list[EvaluatedRun], list[SweepRecord]]] = {}
    for run in runs:
        groups.setdefault(_group_key(run), ([], []))[0].append(run)
    for sweep in sweeps:
        groups.setdefault(_group_key(sweep), ([], []))[1].append(sweep)
    return tuple(_build_group(*groups[key], resamples) for key in sorted(groups, key=str))


def _group_key(record: Record) -> tuple[Any, ...]:
    data = tuple((name, part.checksum, part.queries, part.gallery, part.keeps_reference) for name, part in record.parts.items())
    encoder = record.encoder
    return record.benchmark, record.split, encoder.model, encoder.weights, encoder.preprocessing, data


def _build_group(runs: list[EvaluatedRun], sweeps: list[SweepRecord], resamples: int) -> ComparisonGroup:
    for run in runs[1:]:
        _check_comparable(runs[0], run)
    ordered = sorted(runs, key=lambda run: (-run.value, not run.is_base, run.name))
    values = {run.name: run.headline_values for run in runs}
    intervals = {
        (a.name, b.name): suite_interval(list(zip(values[a.name], values[b.name], strict=True)), resamples=resamples)
        for a, b in combinations(ordered, 2)
    }
    corrected = correct_p_values([interval.p or 0.0 for interval in intervals.values()])
    intervals = {pair: replace(intervals[pair], p=p) for pair, p in zip(intervals, corrected, strict=True)}
    first: Record = (*runs, *sweeps)[0]
    return ComparisonGroup(first.benchmark, first.split, first.encoder, tuple(ordered), tuple(sweeps), intervals, resamples)


def _check_comparable(one: EvaluatedRun, other: EvaluatedRun) -> None:
    if one.headline != other.headline:
        raise MMRetrieveError(
            f"runs {one.name!r} and {other.name!r} cannot be compared: their headlines are {one.headline} and {other.headline}"
        )
    for part, results in one.results.items():
        if [result.id for result in results] != [result.id for result in other.results[part]]:
            raise MMRetrieveError(
                f"runs {one.name!r} and {other.name!r} cannot be compared: their queries of {part} differ, or are in another order"
            )


def _options(run: EvaluatedRun) -> set[tuple[str, str]]:
    return {(name, repr(value)) for name, value in run.options.items()}
