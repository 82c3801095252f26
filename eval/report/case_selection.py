"""Which queries to look at: those a run answers best and worst, and those that other weights change most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import log

from eval.report.query_answers import QueryAnswer
from eval.report.records import RunRecord

SHOWN = 3


@dataclass(frozen=True, eq=False)
class QueryCase:
    """A query of `part`, as a run answers it, and as another does, where two are compared."""

    part: str
    answer: QueryAnswer
    other: QueryAnswer | None = None

    @property
    def change(self) -> float:
        """How far the target came up, as the logarithm of the ratio of its ranks: from 100 to 10 is as far as from 10 to 1."""
        if self.other is None or self.other.target is None or self.answer.target is None:
            return 0.0
        return log(self.other.target.rank / self.answer.target.rank)


def best(run: RunRecord, count: int = SHOWN) -> tuple[QueryCase, ...]:
    """Highest headline first; among equals the better rank, then the wider lead over the best hit that is no target."""
    cases = _known(run)
    return tuple(sorted(cases, key=lambda case: (-_value(run, case), _rank(case), -_lead(case.answer)))[:count])


def worst(run: RunRecord, count: int = SHOWN) -> tuple[QueryCase, ...]:
    """Lowest headline first; among equals the target that is furthest down."""
    return tuple(sorted(_known(run), key=lambda case: (_value(run, case), -_rank(case)))[:count])


def risen(run: RunRecord, other: RunRecord, count: int = SHOWN) -> tuple[QueryCase, ...]:
    """Queries whose target `run` ranks most further up than `other` does."""
    return tuple(sorted((c for c in _pairs(run, other) if c.change > 0), key=lambda c: -c.change)[:count])


def fallen(run: RunRecord, other: RunRecord, count: int = SHOWN) -> tuple[QueryCase, ...]:
    """Queries whose target `run` ranks most further down than `other` does."""
    return tuple(sorted((c for c in _pairs(run, other) if c.change < 0), key=lambda c: c.change)[:count])


def moved(run: RunRecord, other: RunRecord) -> tuple[int, int, int]:
    """How many queries have a higher, a lower and the same headline value under `run` than under `other`."""
    ours, theirs = run.measured.index(run.headline), other.measured.index(run.headline)
    pairs = [
        (a.values[ours], b.values[theirs])
        for part, answers in run.answers.items()
        for a, b in zip(answers, other.answers[part], strict=True)
    ]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    up, down = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return up, down, len(differences) - up - down


def _known(run: RunRecord) -> list[QueryCase]:
    column = run.measured.index(run.headline)
    return [
        QueryCase(part, answer)
        for part, answers in run.answers.items()
        for answer in answers
        if answer.target is not None and answer.values[column] is not None
    ]


def _pairs(run: RunRecord, other: RunRecord) -> Iterable[QueryCase]:
    for part, answers in run.answers.items():
        for answer, before in zip(answers, other.answers[part], strict=True):
            yield QueryCase(part, answer, before)


def _value(run: RunRecord, case: QueryCase) -> float:
    return case.answer.values[run.measured.index(run.headline)] or 0.0


def _rank(case: QueryCase) -> int:
    return case.answer.target.rank if case.answer.target else 0


def _lead(answer: QueryAnswer) -> float:
    others = [hit.score for hit in answer.hits if hit.id not in answer.targets]
    return answer.target.score - max(others) if answer.target and others else 0.0
