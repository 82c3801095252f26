"""The ranks of a query's targets at every point of the PDV plane, at about twice the price of one.

At (beta, gamma) an item outscores a target where (1 − beta) · d_image + beta · d_text + gamma · (d_composed − d_text) ≥ 0,
with d its lead in each term's score. That is linear in gamma: each item has one threshold for each beta, and counting
thresholds gives the rank at all gammas at once. Where a threshold lies so near to a point of the grid that rounding could
decide, the two scores themselves are folded and compared, so that a point equals a separate run to the last tie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

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
MOST = 1_000_000  # points: their bins are counted in float32
HALF = np.float32(0.5)
FEW = 24  # rivals that are quicker folded at every point than counted by thresholds


@dataclass(frozen=True)
class Plane:
    """A grid on the plane of every ranking that PDV can give: (b,) betas and (g,) evenly spaced, rising gammas."""

    betas: Floats
    gammas: Floats

    def __post_init__(self) -> None:
        steps = np.diff(self.gammas)
        if len(steps) < 1 or steps.min() <= 0 or np.ptp(steps) > 1e-9 * max(1, np.abs(self.gammas).max()):
            raise MMRetrieveError("a plane needs at least two gammas, which rise in even steps")
        if len(self.betas) < 1 or self.betas.min() < 0 or self.betas.max() > 1:
            raise MMRetrieveError("a plane needs betas, which are from 0 to 1")
        if len(self.betas) * (len(self.gammas) + 1) > MOST:
            raise MMRetrieveError(
                f"a plane of {len(self.betas)} × {len(self.gammas)} points is too fine; at most {MOST:,} are counted"
            )

    @cached_property
    def weights(self) -> Floats:
        """(3, b, g) of image, text and composed."""
        points = [[plane_weights(float(beta), float(gamma)) for gamma in self.gammas] for beta in self.betas]
        return np.ascontiguousarray(np.moveaxis(np.array(points), -1, 0))

    @cached_property
    def step(self) -> float:
        return float(self.gammas[-1] - self.gammas[0]) / (len(self.gammas) - 1)

    @cached_property
    def column(self) -> Float32:
        """(b, 1) the betas."""
        return self.betas.astype(np.float32)[:, None]

    @cached_property
    def ends(self) -> Float32:
        """(2, 1) the lowest and the highest beta."""
        return np.array([[self.betas.min()], [self.betas.max()]], dtype=np.float32)

    @cached_property
    def bins(self) -> Float32:
        """(b, 1) where the counts of a beta begin: one for each gamma, and one behind them."""
        return np.arange(0, len(self.betas) * (len(self.gammas) + 1), len(self.gammas) + 1, dtype=np.float32)[:, None]


def plane_ranks(scores_3n: Float32, plane: Plane, contest: Contest) -> Ranks:
    """(3, items) scores of image, text and composed → (b, g, targets) ranks, best first, as `target_ranks` gives at each point."""
    rivals = _rivals(scores_3n, contest)
    if rivals.shape[1] <= FEW:
        return ranks_at(plane.weights.reshape(3, -1), scores_3n, contest).reshape(*plane.weights.shape[1:], -1)
    above = [_by_thresholds(rivals, scores_3n[:, [target]], plane) for target in contest.targets]
    return placed(np.stack(above, axis=-1))


def ranks_at(weights_3p: Floats, scores_3n: Float32, contest: Contest) -> Ranks:
    """The same at any points, (3, p) weights, by folding: (p, targets) ranks."""
    rivals = _rivals(scores_3n, contest)
    above = [_by_folding(rivals, scores_3n[:, [target]], weights_3p) for target in contest.targets]
    return placed(np.stack(above, axis=-1))


def _rivals(scores_3n: Float32, contest: Contest) -> Float32:
    """(3, m) the scores of a contest's rivals."""
    if contest.rivals is not None:
        return scores_3n[:, list(contest.rivals)]
    out = [-1, *sorted({*contest.targets, *contest.hidden}), scores_3n.shape[1]]
    return np.concatenate([scores_3n[:, left + 1 : right] for left, right in pairwise(out)], axis=1)


def folded(weights: Floats, scores: Float32) -> Floats:
    """(3, …) weights and scores → (…) Σ weight × score, added in the order of a composition's own fold: equal to the last bit."""
    return np.asarray((weights[0] * scores[0] + weights[1] * scores[1]) + weights[2] * scores[2])


def _by_folding(rivals: Float32, target: Float32, weights_3p: Floats) -> Ranks:
    """(3, m) rivals and (3, 1) target → (p,) how many stand above it."""
    scores = folded(weights_3p[:, None, :], np.concatenate([target, rivals], axis=1)[..., None])
    return np.asarray((scores[1:] >= scores[0]).sum(axis=0))


def _by_thresholds(rivals: Float32, target: Float32, plane: Plane) -> Ranks:
    """The same, for many: at each beta a rival changes sides at `offset + beta · drift`, in steps from the first gamma."""
    leads = rivals.astype(np.float64) - target
    slope = (leads[2] - leads[1]) * plane.step
    steep = np.abs(slope) * STEEPEST > np.abs(leads[0]) + np.abs(leads[1]) + DOUBT
    if not steep.all():
        rest = _by_folding(rivals[:, ~steep], target, plane.weights.reshape(3, -1))
        return rest.reshape(plane.weights.shape[1:]) + _by_thresholds(rivals[:, steep], target, plane)
    scale = 1 / slope
    offset = (leads[0] * -scale - plane.gammas[0] / plane.step).astype(np.float32)
    drift = ((leads[0] - leads[1]) * scale).astype(np.float32)
    doubt = (1 + np.abs(offset) + np.abs(drift)) * ROUNDING + np.abs(scale).astype(np.float32) * DOUBT
    ends = offset + plane.ends * drift
    before, behind = ends.max(axis=0) < -doubt, ends.min(axis=0) > len(plane.gammas) - 1 + doubt
    rising = slope > 0
    always = np.count_nonzero(before & rising) + np.count_nonzero(behind & ~rising)
    inside = ~(before | behind)
    up, down = np.flatnonzero(inside & rising), np.flatnonzero(inside & ~rising)
    both = np.concatenate([up, down])
    thresholds = plane.column * drift[both]
    thresholds += offset[both]
    first = _first_gammas(thresholds, doubt[both], rivals, both, target, plane)
    first[:, len(up) :] += plane.bins[-1] + len(plane.gammas) + 1  # who falls is counted apart
    risen, fallen = _changed(first, plane)
    return np.asarray(risen + (always + len(down)) - fallen)


def _first_gammas(
    thresholds: Float32, doubt: Float32, rivals: Float32, which: NDArray[np.intp], target: Float32, plane: Plane
) -> Float32:
    """(b, m) the place of the first gamma at which a rival has changed sides; behind the last where it never does."""
    first = np.ceil(thresholds)
    off = np.subtract(first, thresholds, out=thresholds)
    off -= HALF  # half a step at a point of the grid, nothing midway
    doubted = np.flatnonzero(np.abs(off) > HALF - doubt)
    if len(doubted):
        row, column = np.divmod(doubted, len(which))
        place, doubtful = first[row, column] - (off[row, column] > 0), rivals[:, which[column]]
        weights = plane.weights[:, row, np.clip(place, 0, len(plane.gammas) - 1).astype(np.intp)]
        stands = folded(weights, doubtful) >= folded(weights, target)
        rises = doubtful[2].astype(np.float64) - doubtful[1] > target[2].astype(np.float64) - target[1]
        first[row, column] = place + (stands != rises)
    return np.clip(first, 0, len(plane.gammas), out=first)


def _changed(first: Float32, plane: Plane) -> Ranks:
    """(b, m) first gammas, those of the falling shifted behind all bins → (2, b, g) how many risen and fallen have changed sides."""
    shape = 2, len(plane.betas), len(plane.gammas) + 1
    places = np.add(first, plane.bins, out=np.empty(first.shape, np.intp), casting="unsafe")
    counts = np.bincount(places.ravel(), minlength=math.prod(shape)).reshape(shape)
    return np.asarray(counts.cumsum(axis=-1)[..., :-1])
