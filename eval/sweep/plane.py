"""A grid on the PDV plane: every ranking that PDV can produce is a point (beta, gamma)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmretrieve import PDV, MMRetrieveError
from mmretrieve.directions import plane_weights
from mmretrieve.vectors import Float32

Floats = NDArray[np.float64]
MAX_POINTS = 1_000_000  # `plane_ranks` counts in float32 bins
BETA_SPANS = 3  # the narrower a span of betas, the more distractors are certainly too far down to matter in it


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


def _line_basis(betas: Floats) -> Float32:
    return np.stack([np.ones_like(betas), betas], axis=1, dtype=np.float32)
