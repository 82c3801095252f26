"""Retrieval metrics in numpy, all from one thing: the ranks of a query's targets. Ties count against the target, always.

Per-query values ×100 first, means last. Sources: recall as in the evaluators of CIRR, FashionIQ and GeneCIS; average
precision as in CIRCO's, with the divisor min(|targets|, K).
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
BEYOND = np.iinfo(np.int32).max
"""The rank of a target that is not in a ranked list: further down than any k."""


@dataclass(frozen=True)
class RankingTask:
    """Who is ranked: rows of the `targets`, and of their `rivals`; None means all that are neither targets nor `hidden`.

    No metric looks further down than `depth`: a rank beyond it need not be exact, so long as it is beyond.
    """

    targets: Sequence[int]
    rivals: Sequence[int] | None = None
    hidden: Sequence[int] = ()
    depth: int | None = None

    def size(self, items: int) -> int:
        """How many places its ranking has, in a gallery of so many items."""
        rivals = items - len({*self.targets, *self.hidden}) if self.rivals is None else len(self.rivals)
        return len(self.targets) + rivals


def target_ranks(scores: Floats, contest: RankingTask) -> Ranks:
    """(…, items) scores → (…, targets) ranks, best first, starting at 1: scores 3, 5, 3 and the target 0 give `[3]`.

    A rival that ties with a target stands before it.
    """
    scores = np.asarray(scores)
    right = scores[..., list(contest.targets)]
    if contest.rivals is not None:
        return placed(_above(scores[..., list(contest.rivals)], right))
    out = sorted({*contest.targets, *contest.hidden})
    return placed(_above(scores, right) - _above(scores[..., out], right))


def list_ranks(ranking: Sequence[int], contest: RankingTask) -> Ranks:
    """Rows of a ranked list, best first → (targets,) ranks, best first; BEYOND for targets that it does not name.

    A list names a row once. A rival that is the target's own copy ties with it, and stands before it as in `target_ranks`.
    """
    if contest.rivals is None:
        hidden = {*contest.hidden}
        named = {row: 1 for row in ranking if row not in hidden}
    else:
        times = Counter([*contest.targets, *contest.rivals])
        named = {row: times[row] for row in ranking if row in times}
    place = dict(zip(named, accumulate(named.values()), strict=True))
    return np.sort([place.get(row, BEYOND) for row in contest.targets])


def placed(above: Ranks) -> Ranks:
    """(…, targets) how many rivals stand before each target → (…, targets) their ranks, best first."""
    if above.shape[-1] == 1:
        return above + 1
    return np.asarray(np.sort(above, axis=-1) + np.arange(1, above.shape[-1] + 1))


def recall_at(ranks: Ranks, k: int) -> Floats:
    """(…, targets) ranks → (…) 100 where a target is among the k best, else 0."""
    return 100.0 * (ranks[..., 0] <= k)


def average_precision_at(ranks: Ranks, k: int) -> Floats:
    """(…, targets) ranks → (…) 100 · Σ_{i≤K} precision_i · relevant_i / min(targets, K): ranks 1 and 3 give 100 · (1/1 + 2/3) / 2."""
    found = np.arange(1, ranks.shape[-1] + 1)
    return np.asarray(100.0 * np.where(ranks <= k, found / ranks, 0.0).sum(axis=-1) / min(ranks.shape[-1], k))


def check_depth(k: int, items: int) -> None:
    """MMRetrieveError where a ranking of `items` has no k-th place: such a metric would be comparable with nothing."""
    if k > items:
        raise MMRetrieveError(f"k = {k} is larger than the ranking of {items} items")


def _above(rivals: Floats, right: Floats) -> Ranks:
    """(…, rivals), (…, targets) → (…, targets): how many rivals score as much as each target, or more."""
    counts = [np.count_nonzero(rivals >= right[..., i, None], axis=-1) for i in range(right.shape[-1])]
    return np.stack(counts, axis=-1).astype(np.int64)
