"""A logistic regression, and how well numbers tell two cases apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmretrieve.vectors import Float32

Floats = NDArray[np.float64]
STEPS = 50  # of Newton's method: it settles in less than ten
RIDGE = 1e-4  # keeps weights finite where the cases do not overlap


def fitted(features_nf: Floats, right_n: NDArray[np.bool_], share_n: Floats) -> Floats:
    """(n, f) features, (n,) whether a case is right, (n,) how much it counts → (f + 1,) log-odds of each feature and of 1."""
    rows = np.c_[features_nf, np.ones(len(features_nf))]
    share = share_n / share_n.sum()
    weights = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        chance = chances(features_nf, weights)
        gradient = rows.T @ (share * (right_n - chance)) - RIDGE * weights
        curvature = (rows * (share * chance * (1 - chance))[:, None]).T @ rows + RIDGE * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, gradient)
    return weights


def chances(features_nf: Floats, weights: Floats) -> Floats:
    """(n,) how likely each case is right."""
    return np.asarray(1 / (1 + np.exp(-(features_nf @ weights[:-1] + weights[-1]))))


def auroc(right: Floats | Float32, wrong: Floats | Float32) -> float:
    """How often a right case has the larger number than a wrong one, 0 to 1; a tie counts half.

    >>> auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    above = (right[:, None] > wrong[None]).mean()
    return float(above + (right[:, None] == wrong[None]).mean() / 2)
