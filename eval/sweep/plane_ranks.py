"""Where a query's targets stand at every point of the PDV plane, for less than twice the price of one.

At (beta, gamma) an item outscores a target where (1 − beta) · d_image + beta · d_text + gamma · (d_composed − d_text) ≥ 0,
with d its lead in each term's score. That is linear in gamma: each item has one threshold for each beta, and counting
thresholds gives the rank at all gammas at once. Where a threshold lies so near to a point of the grid that rounding could
decide, the two scores themselves are folded and compared, so that a point equals a separate run to the last tie.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eval.metrics.ranks import RankingTask, Ranks, placed
from eval.sweep.plane import Floats, Plane
from mmretrieve.vectors import Float32

Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]
DOUBT = 1e-12  # leads smaller than this are folded and compared: a thousand times the rounding of a fold
ROUNDING = np.float32(4e-7)  # of a float32 threshold, relative to the numbers it is the sum of
UNCERTAINTY = np.array([ROUNDING, ROUNDING, DOUBT], np.float32)  # of a threshold, for its offset, drift and scale
VAGUE = 0.25  # of a step: a threshold less certain than this is not counted, its rival is folded at every point
HALF = np.float32(0.5)
SAMPLE = 128  # rivals that tell about where the depth lies
GENEROUS = 4  # times the depth: so far behind, most probably, at least the depth lies before at both ends
FEW = 24  # rivals that are quicker folded at every point than counted by thresholds


def plane_ranks(scores_3n: Float32, plane: Plane, contest: RankingTask) -> Ranks:
    """(3, items) scores of image, text and composed → (points, targets) ranks, best first.

    At each point they are those of `target_ranks`, down to the contest's depth.
    """
    rivals = _rivals(scores_3n, contest)
    above = []
    for row in contest.targets:
        target = scores_3n[:, [row]].astype(np.float64)
        if rivals.shape[1] <= FEW:
            above.append(_by_folding(rivals, target, plane.weights))
        else:
            grid = _by_thresholds(rivals, target, plane, contest.depth)
            above.append(np.concatenate([grid.ravel(), _by_folding(rivals, target, plane.weights[:, plane.size :])]))
    return placed(np.array(above).T)


def _rivals(scores_3n: Float32, contest: RankingTask) -> Floats:
    """(3, m) the scores of a contest's rivals."""
    if contest.rivals is not None:
        return scores_3n[:, list(contest.rivals)].astype(np.float64)
    out = [-1, *sorted({*contest.targets, *contest.hidden}), scores_3n.shape[1]]
    return np.concatenate([scores_3n[:, left + 1 : right] for left, right in pairwise(out)], axis=1, dtype=np.float64)


def folded(weights: Floats, scores: Floats) -> Floats:
    """(3, …) weights and scores → (…) Σ weight × score, added in the order of a composition's own fold: equal to the last bit."""
    return np.asarray((weights[0] * scores[0] + weights[1] * scores[1]) + weights[2] * scores[2])


def _by_folding(rivals: Floats, target: Floats, weights_3p: Floats) -> Ranks:
    """(3, m) rivals, (3, 1) target and (3, p) weights → (p,) how many rivals stand above the target."""
    if rivals.shape[1] > weights_3p.shape[1]:
        stands = (folded(point, rivals) >= folded(point, target) for point in weights_3p.T)
        return np.array([np.count_nonzero(one) for one in stands], dtype=np.int64)
    level = folded(weights_3p, target)
    return np.asarray((folded(weights_3p[:, None, :], rivals[..., None]) >= level).sum(axis=0))


def _by_thresholds(rivals: Floats, target: Floats, plane: Plane, depth: int | None) -> Ranks:
    """The same at every point of the grid, (b, g); where `depth` or more stand above the target, at least `depth` are counted.

    At each beta a rival comes to stand above it at `offset + beta · drift`: in steps from the first gamma upwards where the
    rival rises with gamma, and from the last gamma downwards where it falls.
    """
    leads = rivals - target
    slope = leads[2] - leads[1]
    rises = slope > 0
    lines = np.empty((3, rivals.shape[1]), np.float32)  # offset, drift and doubt
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a rival that gamma does not move has no threshold
        scale = np.abs((1 / plane.step) / slope)
        lines[0] = np.where(rises, -plane.gammas[0] / plane.step, plane.gammas[-1] / plane.step) - leads[0] * scale
        lines[1] = (leads[0] - leads[1]) * scale
        lines[2] = scale
        lines[2] = UNCERTAINTY @ np.abs(lines) + ROUNDING
    clear = lines[2] < VAGUE
    above = np.zeros(plane.shape, np.int64)
    if not clear.all():
        above += _by_folding(rivals[:, ~clear], target, plane.weights[:, : plane.size]).reshape(plane.shape)
    for way, which in (1, np.flatnonzero(clear & rises)), (-1, np.flatnonzero(clear & ~rises)):
        if len(which):
            soon = which[_soonest(lines[:, which], plane, depth)]
            first, doubted = _first_gammas(lines[:, soon], plane)
            if len(doubted):
                weights = plane.weights[:, : plane.size].reshape(3, *plane.shape)[..., ::way]
                _settle(first, doubted, rivals[:, soon[doubted % len(soon)]], target, weights)
            above += _counted(first, plane)[:, ::way]
    return above


def _soonest(lines: Float32, plane: Plane, depth: int | None) -> Rows:
    """(3, m) rivals → which of them have to be counted: not who comes to stand above the target beyond the grid, or the depth.

    Thresholds are linear in beta: who is behind `depth` others at two nodes is so between them too.
    """
    at_nodes = plane.nodes @ lines[:2]
    soonest = at_nodes - lines[2]
    counted = (soonest < len(plane.gammas)).any(axis=0)
    if depth is not None:
        step = math.ceil(lines.shape[1] / SAMPLE)
        place = GENEROUS * depth // step
        if place < math.ceil(lines.shape[1] / step):
            guess = np.partition(at_nodes[:, ::step], place, axis=1)[:, place, None]
            before = at_nodes + lines[2] <= guess
            if (before[:-1] & before[1:]).sum(axis=1).min() >= depth:
                counted &= (soonest <= guess).any(axis=0)
    return np.flatnonzero(counted)


def _first_gammas(lines: Float32, plane: Plane) -> tuple[Float32, Rows]:
    """(3, m) rivals → (b, m) the gammas from which on they stand above the target, and the places in it where that is doubted.

    There it is the gamma on which the threshold lies, as far as can be told.
    """
    thresholds = plane.lines @ lines[:2]
    thresholds += HALF
    first = np.rint(thresholds)
    off = np.subtract(thresholds, first, out=thresholds)  # half a step at a gamma, nothing midway
    doubted = np.flatnonzero(np.abs(off) > HALF - lines[2])
    first.ravel()[doubted] -= off.ravel()[doubted] < 0
    return first, doubted


def _settle(first: Float32, doubted: Rows, rivals: Floats, target: Floats, weights: Floats) -> None:
    """Has the scores of the (3, doubted) rivals and the target folded, with the (3, b, g) weights, at the gammas in doubt."""
    row, gamma = doubted // first.shape[1], first.ravel()[doubted]
    point = weights[:, row, np.clip(gamma, 0, weights.shape[2] - 1).astype(np.intp)]
    first.ravel()[doubted] += folded(point, rivals) < folded(point, target)


def _counted(first: Float32, plane: Plane) -> Ranks:
    """(b, m) first gammas → (b, g) how many rivals stand above the target."""
    np.clip(first, 0, len(plane.gammas), out=first)
    first += plane.starts
    counts = np.bincount(first.astype(np.int32).ravel(), minlength=plane.size + len(plane.betas))
    return np.asarray(counts.reshape(len(plane.betas), -1).cumsum(axis=1)[:, :-1])
