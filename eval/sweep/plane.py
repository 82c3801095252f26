"""A grid on the PDV plane, and the ranks of targets at every point of it, equal to those of a separate run to the last tie.

Every ranking that PDV can produce is a point (beta, gamma). All ranks take little more time than those of one run: at a fixed
beta, the score of a distractor minus the score of the target is linear in gamma, so the distractor ranks above the target on one
side of one threshold gamma. Thresholds are computed for all betas at once and counted into the cells of the grid, in float32.
Where a threshold is too near to a grid point for float32 to decide, both scores are computed exactly as a run does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eval.metrics import RankingTask, Ranks, ranks_from_counts
from mmretrieve import PDV, MMRetrieveError
from mmretrieve.directions import plane_weights
from mmretrieve.vectors import Float32

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
MAX_POINTS = 1_000_000  # thresholds are counted in float32 bins
BETA_SPANS = 3  # the narrower a span of betas, the more distractors are certainly too far down to matter in it
LEAD_TOLERANCE = 1e-12  # smaller score differences are decided exactly; a thousand times the rounding of a weighted sum
FLOAT32_ROUNDING = np.float32(4e-7)  # of a threshold, relative to the numbers it is the sum of
UNCERTAINTY = np.array([FLOAT32_ROUNDING, FLOAT32_ROUNDING, LEAD_TOLERANCE], np.float32)  # per offset, drift and scale
MAX_UNCERTAINTY = 0.25  # of a step: a distractor with a less certain threshold is scored at every point instead
HALF = np.float32(0.5)
SAMPLE_SIZE = 128  # distractors from which the position of the depth is estimated
DEPTH_MARGIN = 4  # times the depth: of so many sampled distractors, at least `depth` most probably rank above at both nodes
MAX_SCORED_DISTRACTORS = 24  # so many or fewer are scored at every point faster than their thresholds are counted


@dataclass(frozen=True)
class Plane:
    """A grid of settings.

    Parameters
    ----------
    betas : (b,), each in [0, 1].
    gammas : (g,), at least two, increasing in equal steps.
    named : settings that are measured in addition to the grid; they need not lie on it.

    Raises
    ------
    MMRetrieveError : the betas or gammas do not form such a grid, or it has too many points.

    >>> Plane(np.array([0.0, 1.0]), np.array([0.0, 1.0, 2.0])).shape
    (2, 3)
    """

    betas: Floats
    gammas: Floats
    named: Mapping[str, PDV] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = np.diff(self.gammas)
        if len(steps) < 1 or steps.min() <= 0 or np.ptp(steps) > 1e-9 * max(1, np.abs(self.gammas).max()):
            raise MMRetrieveError("a plane needs at least two gammas that increase in equal steps")
        if len(self.betas) < 1 or self.betas.min() < 0 or self.betas.max() > 1:
            raise MMRetrieveError("a plane needs at least one beta, and every beta must be from 0 to 1")
        if self.size + len(self.betas) > MAX_POINTS:
            raise MMRetrieveError(
                f"a plane of {len(self.betas)} × {len(self.gammas)} points is too large; at most {MAX_POINTS:,} are possible"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(b, g) of the grid."""
        return len(self.betas), len(self.gammas)

    @property
    def size(self) -> int:
        """The number of grid points."""
        return math.prod(self.shape)

    @cached_property
    def weights(self) -> Floats:
        """(3, points) weights of image, text and composed: the grid beta by beta, then the named settings."""
        points = [plane_weights(float(beta), float(gamma)) for beta in self.betas for gamma in self.gammas]
        return np.ascontiguousarray(np.array([*points, *(pdv.weights for pdv in self.named.values())]).T)

    @cached_property
    def step(self) -> float:
        """The distance between two gammas."""
        return float(self.gammas[-1] - self.gammas[0]) / (len(self.gammas) - 1)

    @cached_property
    def beta_basis(self) -> Float32:
        """(b, 2) one and beta: multiplied by the offset and drift of a threshold, its position at each beta."""
        return _line_basis(self.betas)

    @cached_property
    def node_basis(self) -> Float32:
        """(n, 2) the same for a few betas from the lowest to the highest."""
        return _line_basis(np.linspace(self.betas.min(), self.betas.max(), BETA_SPANS + 1))

    @cached_property
    def bin_starts(self) -> Float32:
        """(b, 1) the first bin of each beta: it has one bin for each gamma, and one beyond them."""
        return (len(self.gammas) + 1) * np.arange(len(self.betas), dtype=np.float32)[:, None]


def plane_ranks(scores_3n: Float32, plane: Plane, task: RankingTask) -> Ranks:
    """The ranks of the targets at every point of a plane.

    Parameters
    ----------
    scores_3n : (3, items) scores of image, text and composed.
    plane : the grid and its named settings.
    task : targets, distractors and the depth to which ranks must be exact.

    Returns
    -------
    (points, targets) ranks, best first: those of `target_ranks` at each point, down to the task's depth.
    """
    distractors = _distractor_scores(scores_3n, task)
    above = []
    for row in task.targets:
        target = scores_3n[:, [row]].astype(np.float64)
        if distractors.shape[1] <= MAX_SCORED_DISTRACTORS:
            above.append(_count_by_scores(distractors, target, plane.weights))
        else:
            grid = _count_by_thresholds(distractors, target, plane, task.depth)
            named = _count_by_scores(distractors, target, plane.weights[:, plane.size :])
            above.append(np.concatenate([grid.ravel(), named]))
    return ranks_from_counts(np.array(above).T)


def _distractor_scores(scores_3n: Float32, task: RankingTask) -> Floats:
    """(3, m) the scores of a task's distractors."""
    if task.distractors is not None:
        return scores_3n[:, list(task.distractors)].astype(np.float64)
    excluded = [-1, *sorted({*task.targets, *task.hidden}), scores_3n.shape[1]]
    return np.concatenate([scores_3n[:, left + 1 : right] for left, right in pairwise(excluded)], axis=1, dtype=np.float64)


def weighted_sum(weights: Floats, scores: Floats) -> Floats:
    """(3, …) weights and scores → (…) Σ weight × score, added in the order of `Composition.contributions`: equal to the last bit."""
    return np.asarray((weights[0] * scores[0] + weights[1] * scores[1]) + weights[2] * scores[2])


def _count_by_scores(distractors: Floats, target: Floats, weights_3p: Floats) -> Ranks:
    """(3, m) distractors, (3, 1) target and (3, p) weights → (p,) how many distractors rank above the target."""
    if distractors.shape[1] > weights_3p.shape[1]:
        is_above = (weighted_sum(point, distractors) >= weighted_sum(point, target) for point in weights_3p.T)
        return np.array([np.count_nonzero(flags) for flags in is_above], dtype=np.int64)
    target_scores = weighted_sum(weights_3p, target)
    return np.asarray((weighted_sum(weights_3p[:, None, :], distractors[..., None]) >= target_scores).sum(axis=0))


def _count_by_thresholds(distractors: Floats, target: Floats, plane: Plane, depth: int | None) -> Ranks:
    """(b, g) the same counts at every grid point; where `depth` or more rank above the target, at least `depth` are counted.

    At each beta a distractor comes to rank above the target at the threshold `offset + beta · drift`, measured in steps from the
    first gamma upwards where its lead grows with gamma, and from the last gamma downwards where it shrinks.
    """
    leads = distractors - target
    slope = leads[2] - leads[1]
    rises = slope > 0
    lines = np.empty((3, distractors.shape[1]), np.float32)  # offset, drift and uncertainty
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a slope of 0 has no threshold
        scale = np.abs((1 / plane.step) / slope)
        lines[0] = np.where(rises, -plane.gammas[0] / plane.step, plane.gammas[-1] / plane.step) - leads[0] * scale
        lines[1] = (leads[0] - leads[1]) * scale
        lines[2] = scale
        lines[2] = UNCERTAINTY @ np.abs(lines) + FLOAT32_ROUNDING
    certain = lines[2] < MAX_UNCERTAINTY
    above = np.zeros(plane.shape, np.int64)
    if not certain.all():
        above += _count_by_scores(distractors[:, ~certain], target, plane.weights[:, : plane.size]).reshape(plane.shape)
    for direction, rows in (1, np.flatnonzero(certain & rises)), (-1, np.flatnonzero(certain & ~rises)):
        if len(rows):
            relevant = rows[_select_relevant(lines[:, rows], plane, depth)]
            first, undecided = _round_thresholds(lines[:, relevant], plane)
            if len(undecided):
                weights = plane.weights[:, : plane.size].reshape(3, *plane.shape)[..., ::direction]
                _decide_by_scores(first, undecided, distractors[:, relevant[undecided % len(relevant)]], target, weights)
            above += _count_into_cells(first, plane)[:, ::direction]
    return above


def _select_relevant(lines: Float32, plane: Plane, depth: int | None) -> Rows:
    """(3, m) distractors → those to count: without thresholds beyond the grid, and without distractors beyond the depth.

    Thresholds are linear in beta: a distractor that is behind `depth` others at two betas is so between them too.
    """
    at_nodes = plane.node_basis @ lines[:2]
    earliest = at_nodes - lines[2]
    relevant = (earliest < len(plane.gammas)).any(axis=0)
    if depth is not None:
        step = math.ceil(lines.shape[1] / SAMPLE_SIZE)
        position = DEPTH_MARGIN * depth // step
        if position < math.ceil(lines.shape[1] / step):
            bound = np.partition(at_nodes[:, ::step], position, axis=1)[:, position, None]
            before = at_nodes + lines[2] <= bound
            if (before[:-1] & before[1:]).sum(axis=1).min() >= depth:
                relevant &= (earliest <= bound).any(axis=0)
    return np.flatnonzero(relevant)


def _round_thresholds(lines: Float32, plane: Plane) -> tuple[Float32, Rows]:
    """(3, m) distractors → (b, m) the first gamma at which each ranks above the target, and the flat indices that are undecided.

    An undecided entry is the gamma that the threshold coincides with, as far as float32 can tell.
    """
    thresholds = plane.beta_basis @ lines[:2]
    thresholds += HALF
    first = np.rint(thresholds)
    remainder = np.subtract(thresholds, first, out=thresholds)  # half a step at a gamma, 0 midway between two
    undecided = np.flatnonzero(np.abs(remainder) > HALF - lines[2])
    first.ravel()[undecided] -= remainder.ravel()[undecided] < 0
    return first, undecided


def _decide_by_scores(first: Float32, undecided: Rows, distractors: Floats, target: Floats, weights: Floats) -> None:
    """Compares the scores of the (3, undecided) distractors and the target, under the (3, b, g) weights, at undecided gammas."""
    row, gamma = undecided // first.shape[1], first.ravel()[undecided]
    point = weights[:, row, np.clip(gamma, 0, weights.shape[2] - 1).astype(np.intp)]
    first.ravel()[undecided] += weighted_sum(point, distractors) < weighted_sum(point, target)


def _count_into_cells(first: Float32, plane: Plane) -> Ranks:
    """(b, m) first gammas → (b, g) how many distractors rank above the target."""
    np.clip(first, 0, len(plane.gammas), out=first)
    first += plane.bin_starts
    counts = np.bincount(first.astype(np.int32).ravel(), minlength=plane.size + len(plane.betas))
    return np.asarray(counts.reshape(len(plane.betas), -1).cumsum(axis=1)[:, :-1])


def _line_basis(betas: Floats) -> Float32:
    return np.stack([np.ones_like(betas), betas], axis=1, dtype=np.float32)
