"""Paired bootstrap: how sure a difference between two runs is, from the same queries answered by both.

Source: percentile intervals as in Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; queries are
drawn with both runs' values together, as in Koehn, "Statistical Significance Tests for Machine Translation Evaluation"
(EMNLP 2004). Means of a suite draw each of its parts for itself, as strata.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmretrieve import MMRetrieveError

Floats = NDArray[np.float64]
RESAMPLES, LEVEL = 10_000, 0.95
CELLS = 2_000_000  # numbers held at once
FEW = 8  # with so many queries to a distinct difference, counting the differences is quicker than drawing queries


@dataclass(frozen=True)
class Interval:
    """`difference` in points (a − b), and the interval around it, `low` to `high`."""

    difference: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0: the two can be told apart."""
        return self.low > 0 or self.high < 0


def paired_interval(a: ArrayLike, b: ArrayLike, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Interval:
    """Mean of a − b over the queries, with its percentile interval: equal values give `Interval(d, d, d)`.

    a, b: (queries,) values ×100 of the same queries in the same order. level: inside (0, 1). The same seed gives the same
    interval. Raises MMRetrieveError for shapes that differ, no queries, values that are not finite, or a wrong level.
    """
    return suite_interval([(a, b)], resamples=resamples, level=level, seed=seed)


def suite_interval(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]], *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """As `paired_interval`, for the unweighted mean of several parts: a pair of (queries,) values for each, drawn on its own."""
    if not pairs or resamples < 1 or not 0 < level < 1:
        raise MMRetrieveError(
            f"an interval needs queries, resamples and 0 < level < 1, got {resamples} resamples, level {level}"
        )
    differences = [_difference(a, b) for a, b in pairs]
    rng = np.random.default_rng(seed)
    means = np.mean([_resampled(part, resamples, rng) for part in differences], axis=0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean([part.mean() for part in differences])), float(low), float(high))


def _difference(a: ArrayLike, b: ArrayLike) -> Floats:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise MMRetrieveError(f"paired values need one shape (queries,), got {first.shape} and {second.shape}")
    difference = first - second
    if not np.isfinite(difference).all():
        raise MMRetrieveError(f"query {int(np.argmin(np.isfinite(difference)))} has a value that is not finite")
    return difference


def _resampled(difference: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """(queries,) → (resamples,) means of as many queries, drawn with replacement. Both ways draw from the same distribution."""
    values, counts = np.unique(difference, return_counts=True)
    n = len(difference)
    few = len(values) * FEW <= n
    step = max(1, CELLS // (len(values) if few else n))
    means = np.empty(resamples)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if few:
            means[start : start + size] = rng.multinomial(n, counts / n, size=size) @ values / n
        else:
            means[start : start + size] = difference[rng.integers(n, size=(size, n), dtype=np.int32)].mean(axis=1)
    return means
