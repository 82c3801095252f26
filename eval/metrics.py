"""Retrieval metrics in numpy: the ranks of the targets of each query, and every metric that is computed from them.

A tie always counts against the target. Values are per query, ×100; means are taken last. Sources: recall as in the evaluators of CIRR, FashionIQ and GeneCIS; average
precision as in CIRCO's evaluator, with the divisor min(|targets|, K).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from mmretrieve import MMRetrieveError

Floats = NDArray[np.floating]
Ranks = NDArray[np.int64]
TaskKey = tuple[bool, bool]
"""(subset, first): whether only a query's candidates are ranked, and whether only its first target counts."""
UNRANKED = np.iinfo(np.int32).max
"""The rank of a target that a ranked list does not contain: below every k."""
WHOLE_RANKING = UNRANKED - 1
"""The k of a metric of the whole ranking, however long it is."""


@dataclass(frozen=True)
class RankingTask:
    """What is ranked for one query: rows of the `targets` and of their `distractors`.

    Parameters
    ----------
    targets : rows of the gallery.
    distractors : rows of the gallery; None means every row that is neither a target nor `hidden`.
    hidden : rows that are not in the ranking.
    depth : the largest rank that a metric distinguishes. A rank beyond it may be inexact but stays beyond it. None: all ranks.
    """

    targets: Sequence[int]
    distractors: Sequence[int] | None = None
    hidden: Sequence[int] = ()
    depth: int | None = None

    def size(self, items: int) -> int:
        """The length of the ranking in a gallery of `items` rows."""
        count = items - len({*self.targets, *self.hidden}) if self.distractors is None else len(self.distractors)
        return len(self.targets) + count


def target_ranks(scores: Floats, task: RankingTask) -> Ranks:
    """(…, items) scores → (…, targets) ranks, best first, starting at 1. A distractor that ties with a target ranks above it.

    >>> target_ranks(np.array([3, 5, 3]), RankingTask([0]))
    array([3])
    """
    scores = np.asarray(scores)
    target_scores = scores[..., list(task.targets)]
    if task.distractors is not None:
        return ranks_from_counts(_count_above(scores[..., list(task.distractors)], target_scores))
    excluded = sorted({*task.targets, *task.hidden})
    return ranks_from_counts(_count_above(scores, target_scores) - _count_above(scores[..., excluded], target_scores))


def list_ranks(ranking: Sequence[int], task: RankingTask) -> Ranks:
    """Rows of a ranked list, best first → (targets,) ranks, best first; UNRANKED for targets that the list does not contain.

    A list contains a row once. A distractor that is a copy of the target ties with it and ranks above it, as in `target_ranks`.

    >>> list_ranks([4, 2, 7], RankingTask([7, 2]))
    array([2, 3])
    """
    if task.distractors is None:
        hidden = {*task.hidden}
        copies = {row: 1 for row in ranking if row not in hidden}
    else:
        counts = Counter([*task.targets, *task.distractors])
        copies = {row: counts[row] for row in ranking if row in counts}
    row2rank = dict(zip(copies, accumulate(copies.values()), strict=True))
    return np.sort([row2rank.get(row, UNRANKED) for row in task.targets])


def ranks_from_counts(above: Ranks) -> Ranks:
    """(…, targets) numbers of distractors above each target → (…, targets) ranks, best first.

    >>> ranks_from_counts(np.array([3, 0]))
    array([1, 5])
    """
    if above.shape[-1] == 1:
        return above + 1
    return np.asarray(np.sort(above, axis=-1) + np.arange(1, above.shape[-1] + 1))


def recall_at(ranks: Ranks, k: int) -> Floats:
    """(…, targets) ranks, best first → (…) 100 where a target is among the best k, else 0.

    >>> recall_at(np.array([[2, 9], [6, 7]]), 5).tolist()
    [100.0, 0.0]
    """
    return 100.0 * (ranks[..., 0] <= k)


def average_precision_at(ranks: Ranks, k: int) -> Floats:
    """(…, targets) ranks, best first → (…) 100 · Σ_{i≤K} precision_i · relevant_i / min(targets, K).

    Source: CIRCO's evaluator, arXiv 2303.15247. Ranks 1 and 3 give 100 · (1/1 + 2/3) / 2:

    >>> round(float(average_precision_at(np.array([1, 3]), 5)), 2)
    83.33
    """
    hits = np.arange(1, ranks.shape[-1] + 1)
    return np.asarray(100.0 * np.where(ranks <= k, hits / ranks, 0.0).sum(axis=-1) / min(ranks.shape[-1], k))


def reciprocal_rank_at(ranks: Ranks, k: int) -> Floats:
    """(…, targets) ranks, best first → (…) 100 / the rank of the first target, 0 beyond k. Its mean is MRR.

    >>> reciprocal_rank_at(np.array([[4, 9], [11, 12]]), 10).tolist()
    [25.0, 0.0]
    """
    first = ranks[..., 0]
    return np.asarray(np.where(first <= k, 100.0 / first, 0.0))


def ndcg_at(ranks: Ranks, k: int) -> Floats:
    """(…, targets) ranks, best first → (…) 100 · Σ_{targets among the best k} 1 / log₂(rank + 1), divided by the largest such sum.

    Every target has the gain 1. Ranks 1 and 3 give 100 · (1 + 1/2) / (1 + 1/log₂ 3):

    >>> round(float(ndcg_at(np.array([1, 3]), 10)), 2)
    91.97
    """
    best = 1 / np.log2(np.arange(2, min(ranks.shape[-1], k) + 2))
    return np.asarray(100.0 * np.where(ranks <= k, 1 / np.log2(ranks + 1.0), 0.0).sum(axis=-1) / best.sum())


def trapezoidal_precision_at(ranks: Ranks, k: int) -> Floats:
    """(…, targets) ranks, best first → (…) 100 · the area under the precision-recall curve, by the trapezoidal rule.

    Each target among the best k adds the mean of the precision before it and at it, which is 1 before the first item. Source:
    i-CIR's evaluator, arXiv 2510.25387, whose divisor is targets + 1e-5. Ranks 1 and 3 give 100 · (1 + (1/2 + 2/3) / 2) / 2:

    >>> round(float(trapezoidal_precision_at(np.array([1, 3]), WHOLE_RANKING)), 2)
    79.17
    """
    hits = np.arange(ranks.shape[-1])
    before = np.where(ranks == 1, 1.0, hits / np.maximum(ranks - 1, 1))
    precision = np.where(ranks <= k, (before + (hits + 1) / ranks) / 2, 0.0)
    return np.asarray(100.0 * precision.sum(axis=-1) / (ranks.shape[-1] + 1e-5))


def check_depth(k: int, items: int) -> None:
    """MMRetrieveError where a ranking of `items` has no rank k: such a metric could not be compared with any other."""
    if k > items and k != WHOLE_RANKING:
        raise MMRetrieveError(f"k = {k} is larger than the ranking of {items} items")


@dataclass(frozen=True)
class Metric:
    """One number of a protocol: `measure` of the ranks at `k`, averaged over the queries that carry `tag` (None: all)."""

    name: str
    k: int
    measure: Callable[[Ranks, int], Floats]
    subset: bool = False
    first: bool = False
    tag: str | None = None

    @property
    def task_key(self) -> TaskKey:
        """The ranking task that this metric reads."""
        return self.subset, self.first


class RankTable:
    """The ranks of all queries' targets by ranking task. Metrics are computed on request: those of all points of a PDV plane
    would need too much memory.

    Parameters
    ----------
    metrics : what is computed, in the order of the last axis of `values`.
    tags : the tags of each query.
    ranks : for each ranking task, the (…, targets) ranks of each query; None where they are not known.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        tags: Sequence[tuple[str, ...]],
        ranks: Mapping[TaskKey, Sequence[Ranks | None]],
    ) -> None:
        self.metrics, self.tags = metrics, tags
        self._groups = {key: _group_by_targets(query_ranks) for key, query_ranks in ranks.items()}

    @property
    def values(self) -> NDArray[np.float64]:
        """(queries, …, metrics) ×100; NaN where a query does not carry the aspect, or its ranks are not known."""
        return np.stack([self.value(metric) for metric in self.metrics], axis=-1)

    def means(self, queries: slice = slice(None)) -> NDArray[np.float64]:
        """(…, metrics) means over those of the selected queries that have a value; NaN where there are none."""
        return np.stack([_mean_of_defined(self.value(metric)[queries]) for metric in self.metrics], axis=-1)

    def value(self, metric: Metric) -> NDArray[np.float64]:
        """(queries, …) of one metric."""
        groups = self._groups[metric.task_key]
        if len(groups) == 1 and len(groups[0][0]) == len(self.tags):
            values = np.asarray(metric.measure(groups[0][1], metric.k), dtype=np.float64)
        else:
            shape = next((ranks.shape[1:-1] for others in self._groups.values() for _, ranks in others), ())
            values = np.full((len(self.tags), *shape), np.nan)
            for rows, ranks in groups:
                values[rows] = metric.measure(ranks, metric.k)
        if metric.tag is not None:
            values[[metric.tag not in tags for tags in self.tags]] = np.nan
        return values


def _group_by_targets(query_ranks: Sequence[Ranks | None]) -> list[tuple[NDArray[np.intp], Ranks]]:
    """Queries with the same number of targets: their (q,) rows among all queries, and their (q, …, targets) ranks."""
    rows: dict[int, list[int]] = {}
    for i, ranks in enumerate(query_ranks):
        if ranks is not None:
            rows.setdefault(ranks.shape[-1], []).append(i)
    return [
        (np.array(group), np.stack([ranks for i in group if (ranks := query_ranks[i]) is not None])) for group in rows.values()
    ]


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(queries, …) → (…); a query is NaN at every point or at none."""
    defined = ~np.isnan(values.reshape(len(values), -1)[:, :1]).any(axis=1)
    if not defined.any():
        return np.full(values.shape[1:], np.nan)
    return np.asarray((values if defined.all() else values[defined]).mean(axis=0))


def _count_above(distractors: Floats, targets: Floats) -> Ranks:
    """(…, distractors) and (…, targets) scores → (…, targets) how many distractors score at least as high as each target."""
    counts = [np.count_nonzero(distractors >= targets[..., i, None], axis=-1) for i in range(targets.shape[-1])]
    return np.stack(counts, axis=-1).astype(np.int64)
