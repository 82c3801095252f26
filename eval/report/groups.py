"""Runs that may be compared: the same queries of one benchmark and split, over the same gallery, by the same encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from eval.report.bootstrap import RESAMPLES, Interval, suite_interval
from eval.report.records import EncoderRecord, RunRecord, SourceRecord, SweepRecord
from mmretrieve import MMRetrieveError


@dataclass(frozen=True, eq=False)
class ComparisonGroup:
    """`runs` best first by their headline; `intervals` of every pair, by their names, the better one first."""

    benchmark: str
    split: str
    encoder: EncoderRecord
    runs: tuple[RunRecord, ...]
    sweeps: tuple[SweepRecord, ...]
    intervals: Mapping[tuple[str, str], Interval]

    @property
    def sources(self) -> tuple[SourceRecord, ...]:
        return (*self.runs, *self.sweeps)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know of any of them, each once."""
        parts = (part.remark for source in self.sources for part in source.parts.values())
        said = (remark for source in self.sources for remark in source.remarks)
        return tuple(dict.fromkeys([*filter(None, parts), *said]))

    @property
    def data_remarks(self) -> tuple[str, ...]:
        """What is to be known of the benchmark's own data."""
        parts = (part.remark for source in self.sources for part in source.parts.values())
        return tuple(dict.fromkeys(filter(None, parts)))

    def title(self, run: RunRecord) -> str:
        """The run's label, with its name where another run has the same label."""
        twins = sum(other.label == run.label for other in self.runs)
        return run.label if twins == 1 else f"{run.label} ({run.name})"

    def interval(self, a: RunRecord, b: RunRecord) -> Interval:
        """a − b in points of the headline, with its interval."""
        found = self.intervals.get((a.name, b.name))
        if found is not None:
            return found
        other = self.intervals[b.name, a.name]
        return Interval(-other.difference, -other.high, -other.low)

    def gain(self, run: RunRecord) -> Interval | None:
        """How far a run is ahead of its base; None where it is one, or there is none."""
        base = self.base_of(run)
        return None if base is None else self.interval(run, base)

    def base_of(self, run: RunRecord) -> RunRecord | None:
        """The run of the same composer under base weights, of several the one whose options are most alike; None for a base itself."""
        if run.is_base:
            return None
        bases = [other for other in self.runs if other.is_base and other.composer == run.composer]
        return min(bases, key=lambda base: (len(_options(base) ^ _options(run)), base.name), default=None)


def grouped(
    runs: Iterable[RunRecord], sweeps: Iterable[SweepRecord] = (), *, resamples: int = RESAMPLES
) -> tuple[ComparisonGroup, ...]:
    """Groups in the order of benchmark, split and encoder. MMRetrieveError where runs of one group answer other queries."""
    found: dict[tuple[Any, ...], tuple[list[RunRecord], list[SweepRecord]]] = {}
    for run in runs:
        found.setdefault(_ground(run), ([], []))[0].append(run)
    for sweep in sweeps:
        found.setdefault(_ground(sweep), ([], []))[1].append(sweep)
    return tuple(_group(*found[key], resamples) for key in sorted(found, key=str))


def _ground(source: SourceRecord) -> tuple[Any, ...]:
    data = tuple((name, part.checksum, part.queries, part.gallery, part.keeps_reference) for name, part in source.parts.items())
    encoder = source.encoder
    return source.benchmark, source.split, encoder.model, encoder.weights, encoder.preprocessing, data


def _group(runs: list[RunRecord], sweeps: list[SweepRecord], resamples: int) -> ComparisonGroup:
    for run in runs[1:]:
        _check_alike(runs[0], run)
    ordered = sorted(runs, key=lambda run: (-run.value, not run.is_base, run.name))
    values = {run.name: _values(run) for run in runs}
    intervals = {
        (a.name, b.name): suite_interval(list(zip(values[a.name], values[b.name], strict=True)), resamples=resamples)
        for a, b in combinations(ordered, 2)
    }
    any_ = (runs or sweeps)[0]
    return ComparisonGroup(any_.benchmark, any_.split, any_.encoder, tuple(ordered), tuple(sweeps), intervals)


def _check_alike(one: RunRecord, other: RunRecord) -> None:
    if one.headline != other.headline:
        raise MMRetrieveError(
            f"runs {one.name!r} and {other.name!r} cannot be compared: by {one.headline} the one, by {other.headline} the other"
        )
    for part, answers in one.answers.items():
        ids, others = [a.id for a in answers], [a.id for a in other.answers[part]]
        if ids != others:
            raise MMRetrieveError(
                f"runs {one.name!r} and {other.name!r} cannot be paired: they answer different queries of {part}, or in another order"
            )


def _values(run: RunRecord) -> list[list[float]]:
    """The headline's values of each part; a query for which it is not defined has no say in either run."""
    column = run.measured.index(run.headline)
    return [[v for a in answers if (v := a.values[column]) is not None] for answers in run.answers.values()]


def _options(run: RunRecord) -> set[tuple[str, str]]:
    return {(name, repr(value)) for name, value in run.options.items()}
