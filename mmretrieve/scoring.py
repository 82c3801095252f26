"""Scores: what each term gives each item, their linear fold, and which items come first.

Term scores are float64 inner products rounded to float32, so that equal vectors get equal scores wherever they stand
and however the gallery is cut into blocks; ties are then real ties, broken by the lower row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import OptionError
from mmretrieve.vectors import Float32

BLOCK = 16_384  # rows scored at once: bounds the float64 copy


def term_scores(terms_td: Float32, rows_nd: Float32) -> Float32:
    """(t, d) terms and (n, d) items → (t, n) float32 inner products."""
    scores = np.empty((len(terms_td), len(rows_nd)), dtype=np.float32)
    exact_terms = terms_td.astype(np.float64)
    for start in range(0, len(rows_nd), BLOCK):
        block = rows_nd[start : start + BLOCK].astype(np.float64)
        scores[:, start : start + BLOCK] = (block @ exact_terms.T).T
    return scores


def linear_contributions(scores_tn: NDArray[np.floating], weights: Sequence[float]) -> NDArray[np.float64]:
    """What each term adds to each item's score: (t, n) weight × term score."""
    return np.asarray(weights, dtype=np.float64)[:, None] * scores_tn


def linear(scores_tn: Float32, weights: Sequence[float]) -> NDArray[np.float64]:
    """The linear rule: (n,) Σ weight × term score."""
    return np.asarray(linear_contributions(scores_tn, weights).sum(axis=0))


def top_k(scores_n: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """Positions of the k highest scores, best first; equal scores in order of position. k above n gives all n.

    `top_k([1, 3, 3], 2)` is `[1, 2]`. Raises OptionError for k < 1.
    """
    k = check_k(k)
    scores = np.asarray(scores_n)
    if k < len(scores):
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= threshold)
    else:
        candidates = np.arange(len(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]


def check_k(k: int) -> int:
    """k as a plain int. OptionError unless it is a whole number of at least 1."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise OptionError(f"k must be a whole number of at least 1, got {k!r}")
    return int(k)
