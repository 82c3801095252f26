"""Retrieval metrics in numpy, all computed from the ranks of a query's targets. A tie always counts against the target.

Values are per query, ×100; means are taken last. Sources: recall as in the evaluators of CIRR, FashionIQ and GeneCIS; average
precision as in CIRCO's evaluator, with the divisor min(|targets|, K).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from mmretrieve import MMRetrieveError

Floats = NDArray[np.floating]
Ranks = NDArray[np.int64]
UNRANKED = np.iinfo(np.int32).max
"""The rank of a target that a ranked list does not contain: below every k."""


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


def check_depth(k: int, items: int) -> None:
    """MMRetrieveError where a ranking of `items` has no rank k: such a metric could not be compared with any other."""
    if k > items:
        raise MMRetrieveError(f"k = {k} is larger than the ranking of {items} items")


def _count_above(distractors: Floats, targets: Floats) -> Ranks:
    """(…, distractors) and (…, targets) scores → (…, targets) how many distractors score at least as high as each target."""
    counts = [np.count_nonzero(distractors >= targets[..., i, None], axis=-1) for i in range(targets.shape[-1])]
    return np.stack(counts, axis=-1).astype(np.int64)
