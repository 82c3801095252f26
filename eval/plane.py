"""The ranks of a query's targets at every point of the PDV plane, at about the price of one.

At (beta, gamma) an item outscores a target where (1 − beta) · d_image + beta · d_text + gamma · (d_composed − d_text) ≥ 0,
with d its lead in each term's score. That is linear in gamma: each item has one threshold for each beta, and counting
thresholds gives the rank at all gammas at once. Where a threshold lies so near to a point of the grid that rounding could
decide, the two scores themselves are folded and compared, so that a point equals a separate run to the last tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eval.metrics import Contest, Ranks, placed
from mmretrieve import MMRetrieveError
from mmretrieve.directions import plane_weights
from mmretrieve.vectors import Float32

Floats = NDArray[np.float64]
DOUBT = 1e-12  # leads smaller than this are folded and compared: a thousand times the rounding of a fold
ROUNDING = 4e-7  # of a float32 threshold, relative to the numbers it is the sum of
STEEPEST = 2e5  # steps of the grid: beyond it a float32 could not tell one gamma from the next
FEW = 24  # rivals that are quicker folded at every point than counted by thresholds


@dataclass(frozen=True)
class Plane:
    """A grid on the plane of every ranking that PDV can give: (b,) betas and (g,) evenly spaced, rising gammas."""

    betas: Floats
    gammas: Floats

    def __post_init__(self) -> None:
        steps = np.diff(self.gammas)
        if (
            not len(self.betas)
            or not len(steps)
            or steps.min() <= 0
            or np.ptp(steps) > 1e-9 * max(1, np.abs(self.gammas).max())
        ):
            raise MMRetrieveError("a plane needs betas, and at least two gammas that rise in even steps")

    @cached_property
    def weights(self) -> Floats:
        """(3, b, g) of image, text and composed."""
        points = [[plane_weights(float(beta), float(gamma)) for gamma in self.gammas] for beta in self.betas]
        return np.ascontiguousarray(np.moveaxis(np.array(points), -1, 0))

    @cached_property
    def step(self) -> float:
        return float(self.gammas[-1] - self.gammas[0]) / (len(self.gammas) - 1)


def plane_ranks(scores_3n: Float32, plane: Plane, contest: Contest) -> Ranks:
    """(3, items) scores of image, text and composed → (b, g, targets) ranks, best first, as `target_ranks` gives at each point."""
    if contest.rivals is not None:
        rivals = scores_3n[:, list(contest.rivals)]
    else:
        rivals = np.delete(scores_3n, sorted({*contest.targets, *contest.hidden}), axis=1)
    count = _by_folding if rivals.shape[1] <= FEW else _by_thresholds
    above = [count(rivals, scores_3n[:, [target]], plane) for target in contest.targets]
    return placed(np.stack(above, axis=-1))


def _fold(weights: Floats, scores: Floats | Float32) -> Floats:
    """Σ weight × score, in the order of a composition's own fold."""
    return np.asarray((weights[0] * scores[0] + weights[1] * scores[1]) + weights[2] * scores[2])


def _by_folding(rivals: Float32, target: Float32, plane: Plane) -> Ranks:
    """(3, m) rivals and (3, 1) target → (b, g) how many stand above it."""
    weights = plane.weights[..., None]
    stands = _fold(weights, rivals[:, None, None, :]) >= _fold(weights, target[:, None, None, :])
    return np.asarray(np.count_nonzero(stands, axis=-1), dtype=np.int64)


def _by_thresholds(rivals: Float32, target: Float32, plane: Plane) -> Ranks:
    """The same, for many: at each beta a rival changes sides at `offset + beta · drift`, in steps from the first gamma."""
    image, text, composed = rivals.astype(np.float64) - target
    slope = (composed - text) * plane.step
    steep = np.abs(slope) * STEEPEST > np.abs(image) + np.abs(text) + DOUBT
    above = np.zeros(plane.weights.shape[1:], np.int64) if steep.all() else _by_folding(rivals[:, ~steep], target, plane)
    scale = 1 / np.where(steep, slope, 1.0)
    offset, drift = -image * scale - plane.gammas[0] / plane.step, (image - text) * scale
    doubt = ROUNDING * (np.abs(offset) + np.abs(drift)) + DOUBT * np.abs(scale)
    one, other = offset + plane.betas.min() * drift, offset + plane.betas.max() * drift
    before = np.maximum(one, other) < -doubt
    behind = np.minimum(one, other) > len(plane.gammas) - 1 + doubt
    rising, inside = slope > 0, steep & ~(before | behind)
    above += np.count_nonzero(np.where(rising, before, behind) & steep)
    up, down = np.flatnonzero(inside & rising), np.flatnonzero(inside & ~rising)
    both = np.concatenate([up, down])
    thresholds = np.multiply.outer(plane.betas.astype(np.float32), drift[both].astype(np.float32))
    thresholds += offset[both].astype(np.float32)
    first = _first_gammas(thresholds, doubt[both].astype(np.float32), rivals[:, both], target, plane)
    above += _changed(first[:, : len(up)], plane) + len(down) - _changed(first[:, len(up) :], plane)
    return above


def _first_gammas(thresholds: Float32, doubt: Float32, rivals: Float32, target: Float32, plane: Plane) -> Float32:
    """(b, m) the place of the first gamma at which a rival has changed sides; behind the last where it never does."""
    nearest = np.rint(thresholds)
    thresholds -= nearest
    first = nearest + (thresholds > 0)
    doubted = np.flatnonzero(np.abs(thresholds, out=thresholds) < doubt)
    if len(doubted):
        row, column = np.divmod(doubted, first.shape[1])
        place = nearest[row, column]
        weights = plane.weights[:, row, np.clip(place, 0, len(plane.gammas) - 1).astype(np.intp)]
        doubtful = rivals[:, column]
        stands = _fold(weights, doubtful) >= _fold(weights, target)
        rises = (doubtful[2].astype(np.float64) - doubtful[1]) > target[2].astype(np.float64) - target[1]
        first[row, column] = place + (stands != rises)
    return np.clip(first, 0, len(plane.gammas), out=first)


def _changed(first: Float32, plane: Plane) -> Ranks:
    """(b, m) first gammas → (b, g) how many have changed sides there."""
    bins = len(plane.gammas) + 1
    places = (first + np.arange(0, bins * len(first), bins, dtype=np.float32)[:, None]).astype(np.intp)
    counts = np.bincount(places.ravel(), minlength=bins * len(first)).reshape(-1, bins)
    return np.asarray(counts.cumsum(axis=1)[:, :-1])
