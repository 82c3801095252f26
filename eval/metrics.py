"""Retrieval metrics in numpy, all from one thing: the ranks of a query's targets. Ties count against the target, always.

Per-query values ×100 first, means last. Sources: recall as in the evaluators of CIRR and FashionIQ; average precision
as in CIRCO's, with the divisor min(|targets|, K).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmretrieve import MMRetrieveError

Floats = NDArray[np.floating]


def target_ranks(scores: Floats, targets: Sequence[int], hidden: Sequence[int] = ()) -> NDArray[np.int64]:
    """(…, items) scores → (…, targets) ranks, best first, starting at 1: `target_ranks([3, 5, 3], [0])` is `[3]`.

    `hidden` items leave the ranking. An item that ties with a target stands before it.
    """
    scores = np.asarray(scores)
    right = -np.sort(-scores[..., list(targets)], axis=-1)
    wrong = np.delete(scores, [*targets, *hidden], axis=-1)
    above = (wrong[..., None, :] >= right[..., :, None]).sum(axis=-1)
    return np.asarray(above + np.arange(1, len(targets) + 1))


def recall_at(ranks: NDArray[np.int64], k: int) -> Floats:
    """(…, targets) ranks → (…) 100 where a target is among the k best, else 0."""
    return 100.0 * (ranks[..., 0] <= k)


def average_precision_at(ranks: NDArray[np.int64], k: int) -> Floats:
    """(…, targets) ranks → (…) 100 · Σ_{i≤K} precision_i · relevant_i / min(targets, K): ranks 1 and 3 give 100 · (1/1 + 2/3) / 2."""
    found = np.arange(1, ranks.shape[-1] + 1)
    return np.asarray(100.0 * np.where(ranks <= k, found / ranks, 0.0).sum(axis=-1) / min(ranks.shape[-1], k))


def check_depth(k: int, items: int) -> None:
    """MMRetrieveError where a ranking of `items` has no k-th place: such a metric would be comparable with nothing."""
    if k > items:
        raise MMRetrieveError(f"k = {k} is larger than the ranking of {items} items")
