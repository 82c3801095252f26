"""Paired bootstrap: how certain the difference between two runs is, given the values of both for the same queries.

Source: percentile intervals as in Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; queries are
resampled with both runs' values together, as in Koehn, "Statistical Significance Tests for Machine Translation Evaluation"
(EMNLP 2004). For the mean of a suite, each part is resampled separately, as a stratum. Corrected p-values as in Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import erfc, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmretrieve import MMRetrieveError

Floats = NDArray[np.float64]
RESAMPLES, LEVEL = 10_000, 0.95
MAX_BATCH_VALUES = 2_000_000  # numbers in memory at once
MIN_REPEATS = 8  # with so many queries for each distinct difference, drawing counts is faster than drawing queries


@dataclass(frozen=True)
class Interval:
    """A difference a − b in points, and the confidence interval from `low` to `high` around it.

    `p` is the two-sided p-value of no difference; a comparison of several runs corrects it. None where there was no test.
    """

    difference: float
    low: float
    high: float
    p: float | None = field(default=None, repr=False, compare=False)

    @property
    def is_significant(self) -> bool:
        """Whether the interval does not contain 0, and the p-value, where there is one, is below 1 − LEVEL."""
        return (self.low > 0 or self.high < 0) and (self.p is None or self.p < 1 - LEVEL)

    @property
    def reverse(self) -> Interval:
        """The interval of b − a."""
        return Interval(-self.difference, -self.high, -self.low, self.p)


def paired_interval(a: ArrayLike, b: ArrayLike, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Interval:
    """The mean of a − b over the queries, with its percentile interval. The same seed gives the same interval.

    Parameters
    ----------
    a, b : (queries,) finite values ×100 of the same queries in the same order.
    resamples : the number of bootstrap samples, at least 1.
    level : of confidence, inside (0, 1).
    seed : of the random generator.

    Raises
    ------
    MMRetrieveError : the shapes differ, there are no queries, a value is not finite, or an option is out of range.

    >>> paired_interval([3, 4], [1, 2])
    Interval(difference=2.0, low=2.0, high=2.0)
    """
    return suite_interval([(a, b)], resamples=resamples, level=level, seed=seed)


def suite_interval(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]], *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Interval:
    """As `paired_interval`, for the unweighted mean of several parts; each pair of (queries,) values is resampled separately."""
    if not pairs or resamples < 1 or not 0 < level < 1:
        raise MMRetrieveError(
            f"an interval needs queries, at least 1 resample and 0 < level < 1, got {resamples} resamples, level {level}"
        )
    differences = [_paired_difference(a, b) for a, b in pairs]
    rng = np.random.default_rng(seed)
    means = np.mean([_resample_means(part, resamples, rng) for part in differences], axis=0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    difference = float(np.mean([part.mean() for part in differences]))
    return Interval(difference, float(low), float(high), _p_value(difference, float(means.std())))


def correct_p_values(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected by Holm's method: the chance of one wrong rejection among all stays at the level.

    >>> correct_p_values([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    scaled = (min(1.0, p_values[i] * (len(order) - step)) for step, i in enumerate(order))
    corrected = dict(zip(order, accumulate(scaled, max), strict=True))
    return [corrected[i] for i in range(len(order))]


def _p_value(difference: float, error: float) -> float:
    """Two-sided, of a normal distribution with the standard error of the resamples: counting them could not show a small p-value."""
    if difference == 0:
        return 1.0
    return erfc(abs(difference) / error / sqrt(2)) if error else 0.0


def _paired_difference(a: ArrayLike, b: ArrayLike) -> Floats:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise MMRetrieveError(f"paired values need the same shape (queries,), got {first.shape} and {second.shape}")
    difference = first - second
    if not np.isfinite(difference).all():
        raise MMRetrieveError(f"the value of query {int(np.argmin(np.isfinite(difference)))} is not finite")
    return difference


def _resample_means(difference: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """(queries,) → (resamples,) means of as many queries, drawn with replacement. Both branches have the same distribution."""
    values, counts = np.unique(difference, return_counts=True)
    n = len(difference)
    draw_counts = len(values) * MIN_REPEATS <= n
    batch_size = max(1, MAX_BATCH_VALUES // (len(values) if draw_counts else n))
    means = np.empty(resamples)
    for start in range(0, resamples, batch_size):
        size = min(batch_size, resamples - start)
        if draw_counts:
            means[start : start + size] = rng.multinomial(n, counts / n, size=size) @ values / n
        else:
            means[start : start + size] = difference[rng.integers(n, size=(size, n), dtype=np.int32)].mean(axis=1)
    return means
