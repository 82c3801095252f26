"""Term scores, their weighted sum, and the selection of the k best items.

Term scores are float64 inner products rounded to float32. So equal vectors get equal scores regardless of their position
and of the batch size; ties are exact and are broken by the lower row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmretrieve.forks import FORK_GATE
from mmretrieve.options import check_count
from mmretrieve.vectors import Float32

ROW_BATCH_SIZE = 256  # rows scored at a time: their float64 copy stays in the caches of a processor
MAX_DOT_TERMS = 4  # of so few terms, inner products of each row are as fast as a matrix product, and start no threads


def term_scores(terms_td: Float32, rows_nd: Float32) -> Float32:
    """The inner products of (t, d) terms and (n, d) items: (t, n) float32.

    >>> term_scores(np.eye(2, dtype=np.float32), np.array([[0.6, 0.8]], dtype=np.float32))
    array([[0.6],
           [0.8]], dtype=float32)
    """
    scores = np.empty((len(terms_td), len(rows_nd)), dtype=np.float32)
    exact_terms = terms_td.astype(np.float64)
    for start in range(0, len(rows_nd), ROW_BATCH_SIZE):
        batch = slice(start, start + ROW_BATCH_SIZE)
        with FORK_GATE.no_fork():  # the OpenBLAS of numpy 1.26 hangs if its threads are ended by a fork meanwhile
            _multiply(exact_terms, rows_nd[batch].astype(np.float64), out=scores[:, batch])
    return scores


def _multiply(terms_td: NDArray[np.float64], rows_md: NDArray[np.float64], out: Float32) -> None:
    """Writes (t, m) inner products."""
    if len(terms_td) > MAX_DOT_TERMS:
        out[:] = (rows_md @ terms_td.T).T
    else:
        for scores_m, term in zip(out, terms_td, strict=True):
            scores_m[:] = np.matmul(rows_md[:, None], term[:, None])[:, 0, 0]


def linear_contributions(scores_tn: NDArray[np.floating], weights: Sequence[float]) -> NDArray[np.float64]:
    """The contribution of each term to the score of each item: (t, n) weight × term score."""
    return np.asarray(weights, dtype=np.float64)[:, None] * scores_tn


def linear(scores_tn: Float32, weights: Sequence[float]) -> NDArray[np.float64]:
    """The linear rule: (n,) Σ weight × term score."""
    return np.asarray(linear_contributions(scores_tn, weights).sum(axis=0))


def top_k(scores_n: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """The positions of the k highest scores, best first. Equal scores are in order of position.

    Parameters
    ----------
    scores_n : ndarray of shape (n,)
    k : int
        At least 1. If k is larger than n, all positions are returned.

    Returns
    -------
    ndarray of shape (min(k, n),)

    Raises
    ------
    OptionError
        k is not a whole number of at least 1.

    Examples
    --------
    >>> top_k(np.array([1, 3, 3]), 2)
    array([1, 2])
    """
    k = check_count("k", k)
    scores = np.asarray(scores_n)
    if k < len(scores):
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= threshold)
    else:
        candidates = np.arange(len(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]
