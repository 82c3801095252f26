"""Selects the queries to show: those that a run answers best and worst, and those that other weights change most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import log

from eval.report.loading import EvaluatedRun
from eval.runs.records import QueryResult

MAX_CASES = 3


@dataclass(frozen=True, eq=False)
class QueryCase:
    """A query of `part` with its result in one run, and in `other`, where two runs are compared."""

    part: str
    result: QueryResult
    other: QueryResult | None = None

    @property
    def improvement(self) -> float:
        """How far the target moved up: the logarithm of the ratio of its ranks, so that 100 → 10 equals 10 → 1."""
        if self.other is None or self.other.target is None or self.result.target is None:
            return 0.0
        return log(self.other.target.rank / self.result.target.rank)


def select_best(run: EvaluatedRun, count: int = MAX_CASES) -> tuple[QueryCase, ...]:
    """Highest headline first; among equals the better rank, then the larger lead over the best hit that is not a target."""
    cases = _cases_with_values(run)
    return tuple(sorted(cases, key=lambda case: (-_value(run, case), _rank(case), -_lead(case.result)))[:count])


def select_worst(run: EvaluatedRun, count: int = MAX_CASES) -> tuple[QueryCase, ...]:
    """Lowest headline first; among equals the target with the highest rank number."""
    return tuple(sorted(_cases_with_values(run), key=lambda case: (_value(run, case), -_rank(case)))[:count])


def select_improved(run: EvaluatedRun, other: EvaluatedRun, count: int = MAX_CASES) -> tuple[QueryCase, ...]:
    """The queries whose target moves up most from `other` to `run`."""
    cases = [case for case in _paired_cases(run, other) if case.improvement > 0]
    return tuple(sorted(cases, key=lambda case: -case.improvement)[:count])


def select_worsened(run: EvaluatedRun, other: EvaluatedRun, count: int = MAX_CASES) -> tuple[QueryCase, ...]:
    """The queries whose target moves down most from `other` to `run`."""
    cases = [case for case in _paired_cases(run, other) if case.improvement < 0]
    return tuple(sorted(cases, key=lambda case: case.improvement)[:count])


def count_changes(run: EvaluatedRun, other: EvaluatedRun) -> tuple[int, int, int]:
    """How many queries have a higher, a lower and the same headline value in `run` as in `other`."""
    column, other_column = run.headline_column, other.column(run.headline)
    pairs = [
        (result.values[column], before.values[other_column])
        for part, results in run.results.items()
        for result, before in zip(results, other.results[part], strict=True)
    ]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    up, down = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return up, down, len(differences) - up - down


def _cases_with_values(run: EvaluatedRun) -> list[QueryCase]:
    column = run.headline_column
    return [
        QueryCase(part, result)
        for part, results in run.results.items()
        for result in results
        if result.target is not None and result.values[column] is not None
    ]


def _paired_cases(run: EvaluatedRun, other: EvaluatedRun) -> Iterable[QueryCase]:
    for part, results in run.results.items():
        for result, before in zip(results, other.results[part], strict=True):
            yield QueryCase(part, result, before)


def _value(run: EvaluatedRun, case: QueryCase) -> float:
    return case.result.values[run.headline_column] or 0.0


def _rank(case: QueryCase) -> int:
    return case.result.target.rank if case.result.target else 0


def _lead(result: QueryResult) -> float:
    others = [hit.score for hit in result.hits if hit.id not in result.targets]
    return result.target.score - max(others) if result.target and others else 0.0
