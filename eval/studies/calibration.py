"""Logistic regression, AUROC, and a reliability diagram: how well a probability separates two cases, and whether it is right."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mmretrieve.vectors import Float32

Floats = NDArray[np.float64]
NEWTON_STEPS = 50  # converges in less than ten
RIDGE = 1e-4  # keeps weights finite where the cases are separable
SIZE, DPI = (4.0, 3.4), 130
GRAY = "#b8b0a6"


class ReliabilityBin(NamedTuple):
    """The mean probability in a bin, the share of its cases that are right, and its weight among all cases."""

    mean: float
    share: float
    weight: float


def fit_logistic(features_nf: Floats, right_n: NDArray[np.bool_], share_n: Floats) -> Floats:
    """Fits a logistic regression by Newton's method, with a small ridge.

    Parameters
    ----------
    features_nf : (n, f) features.
    right_n : (n,) whether each case is right.
    share_n : (n,) the weight of each case.

    Returns
    -------
    (f + 1,) log-odds per unit of each feature, then the intercept.
    """
    rows = np.c_[features_nf, np.ones(len(features_nf))]
    share = share_n / share_n.sum()
    weights = np.zeros(rows.shape[1])
    for _ in range(NEWTON_STEPS):
        probability = predict_logistic(features_nf, weights)
        gradient = rows.T @ (share * (right_n - probability)) - RIDGE * weights
        curvature = (rows * (share * probability * (1 - probability))[:, None]).T @ rows + RIDGE * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, gradient)
    return weights


def predict_logistic(features_nf: Floats, weights: Floats) -> Floats:
    """(n, f) features and (f + 1,) weights → (n,) the probability that each case is right."""
    return np.asarray(1 / (1 + np.exp(-(features_nf @ weights[:-1] + weights[-1]))))


def auroc(right: Floats | Float32, wrong: Floats | Float32) -> float:
    """The probability that a right case has a larger number than a wrong one, 0 to 1; a tie counts half.

    >>> auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    above = (right[:, None] > wrong[None]).mean()
    return float(above + (right[:, None] == wrong[None]).mean() / 2)


def bin_reliability(probability_n: Floats, right_n: NDArray[np.bool_], share_n: Floats, bins: int = 10) -> list[ReliabilityBin]:
    """(n,) probabilities, whether each case is right, and its weight → the bins of equal width that are not empty."""
    indices = np.minimum((probability_n * bins).astype(int), bins - 1)
    members = [indices == i for i in range(bins) if (indices == i).any()]
    return [
        ReliabilityBin(
            float(np.average(probability_n[own], weights=share_n[own])),
            float(np.average(right_n[own], weights=share_n[own])),
            float(share_n[own].sum()),
        )
        for own in members
    ]


def draw_reliability(lines: Mapping[str, list[ReliabilityBin]], threshold: float) -> bytes:
    """A reliability diagram as PNG: probability against the share of right cases; larger points have more weight."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=1, zorder=0)
    axes.axvline(threshold, color=GRAY, linewidth=1, linestyle=":", zorder=0)
    for name, bins in lines.items():
        mean, share, weight = np.array(bins).T
        (line,) = axes.plot(mean, share, linewidth=1.2, label=name)
        axes.scatter(mean, share, s=8 + 160 * weight / weight.sum(), color=line.get_color())
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="answerable", ylabel="share that has an answer")
    axes.legend(fontsize=7.5, frameon=False, loc="upper left")
    file = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
