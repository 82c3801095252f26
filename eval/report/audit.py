"""The audit: which queries one modality solves alone, which need the image and the prompt together, and which no run solves.

Source: the audits of arXiv 2605.14787 (queries by the modalities that solve them) and arXiv 2510.25387 (composed queries beside
the best single modality). A query is solved where its best target is among the first k, the k of the headline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eval.report.groups import ComparisonGroup
from eval.report.loading import EvaluatedRun
from eval.runs.records import QueryResult
from mmretrieve.options import OptionEnum

IMAGE, PROMPT = "image", "prompt"
DEFAULT_K = 10  # of a headline without a k
QueryKey = tuple[str, int]
"""The part of a query and its position in it."""


class Need(OptionEnum):
    """What a query needs to be solved."""

    IMAGE = "image alone"
    PROMPT = "prompt alone"
    EITHER = "either alone"
    BOTH = "both needed"
    UNSOLVED = "not solved"


@dataclass(frozen=True, eq=False)
class Audit:
    """The needs of the queries of one group of runs.

    Parameters
    ----------
    k : how many hits are searched for a target.
    needs : of every query. `BOTH` if one of the runs solves it, and neither the image nor the prompt alone.
    reference : the run whose records of single terms are used.
    """

    k: int
    needs: Mapping[QueryKey, Need]
    reference: EvaluatedRun

    @cached_property
    def queries(self) -> Mapping[Need, frozenset[QueryKey]]:
        """The queries of each need, in the order of `Need`."""
        return {need: frozenset(key for key, other in self.needs.items() if other is need) for need in Need}

    @property
    def solved(self) -> int:
        """How many queries any run or a single term solves."""
        return len(self.needs) - len(self.queries[Need.UNSOLVED])

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that the single terms were measured by."""
        return tuple(metric for metric in self.reference.metrics if metric in self.reference.queries_record.metrics)

    def best_single(self, metric: str, part: str | None = None) -> tuple[str, float]:
        """The single term with the highest value of one of `metrics` ×100, on one part or as the mean of all, and the value."""
        parts = [one for one in self.reference.parts if part in (None, one)]
        values = {term: _mean_of_parts(self.reference, metric, term, parts) for term in (IMAGE, PROMPT)}
        best = max(values, key=lambda term: values[term])
        return best, values[best]


def audit_queries(group: ComparisonGroup, k: int | None = None) -> Audit | None:
    """The audit of a group for the first k hits, by default the k of the headline.

    None where no run recorded the single terms of all of its queries.
    """
    reference = next((run for run in group.runs if _has_single_terms(run)), None)
    if reference is None:
        return None
    depth = _headline_k(reference) if k is None else k
    needs = {
        (part, i): _find_need(result, [run.results[part][i] for run in group.runs], depth)
        for part, results in reference.results.items()
        for i, result in enumerate(results)
    }
    return Audit(depth, needs, reference)


def split_metric(run: EvaluatedRun, metric: str, audit: Audit, term: str | None = None) -> dict[Need, float | None]:
    """Need → mean of a metric ×100 over its queries, of a run or of one of its single terms; None where there are none."""
    return {need: _mean(values_of(run, metric, keys, term)) for need, keys in audit.queries.items()}


def values_of(run: EvaluatedRun, metric: str, keys: Iterable[QueryKey], term: str | None = None) -> list[float]:
    """The values of a metric for some queries, as far as it is defined for them."""
    column = run.column(metric)
    results = (run.results[part][i] for part, i in keys)
    rows = (result.values if term is None else result.single_terms[term].values for result in results)
    return [value for row in rows if (value := row[column]) is not None]


def _headline_k(run: EvaluatedRun) -> int:
    _, _, k = run.headline.partition("@")
    return int(k) if k.isdecimal() else DEFAULT_K


def _has_single_terms(run: EvaluatedRun) -> bool:
    return all({IMAGE, PROMPT} <= result.single_terms.keys() for results in run.results.values() for result in results)


def _find_need(single: QueryResult, composed: Sequence[QueryResult], k: int) -> Need:
    solved = {term for term in (IMAGE, PROMPT) if single.single_terms[term].rank <= k}
    if solved:
        return Need.EITHER if len(solved) > 1 else Need.IMAGE if IMAGE in solved else Need.PROMPT
    return Need.BOTH if any(one.target is not None and one.target.rank <= k for one in composed) else Need.UNSOLVED


def _mean_of_parts(run: EvaluatedRun, metric: str, term: str, parts: Sequence[str]) -> float:
    values = [values_of(run, metric, [(part, i) for i in range(len(run.results[part]))], term) for part in parts]
    return float(np.mean([np.mean(one) for one in values]))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
