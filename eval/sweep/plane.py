"""A grid on the plane of every ranking that PDV can give, the PDV plane of two numbers: beta and gamma."""

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
MOST = 1_000_000  # points: their bins are counted in float32
SPANS = 3  # of betas: over the fewer betas, the more rivals are surely too far down to be counted


@dataclass(frozen=True)
class Plane:
    """(b,) betas and (g,) evenly spaced, rising gammas; `named` settings are measured beside the grid, on which they need not lie."""

    betas: Floats
    gammas: Floats
    named: Mapping[str, PDV] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = np.diff(self.gammas)
        if len(steps) < 1 or steps.min() <= 0 or np.ptp(steps) > 1e-9 * max(1, np.abs(self.gammas).max()):
            raise MMRetrieveError("a plane needs at least two gammas, which rise in even steps")
        if len(self.betas) < 1 or self.betas.min() < 0 or self.betas.max() > 1:
            raise MMRetrieveError("a plane needs betas, which are from 0 to 1")
        if self.size + len(self.betas) > MOST:
            raise MMRetrieveError(
                f"a plane of {len(self.betas)} × {len(self.gammas)} points is too fine; at most {MOST:,} are counted"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(b, g) of the grid."""
        return len(self.betas), len(self.gammas)

    @property
    def size(self) -> int:
        """How many points the grid has."""
        return math.prod(self.shape)

    @cached_property
    def weights(self) -> Floats:
        """(3, points) of image, text and composed: the grid beta by beta, then the named settings."""
        points = [plane_weights(float(beta), float(gamma)) for beta in self.betas for gamma in self.gammas]
        return np.ascontiguousarray(np.array([*points, *(pdv.weights for pdv in self.named.values())]).T)

    @cached_property
    def step(self) -> float:
        return float(self.gammas[-1] - self.gammas[0]) / (len(self.gammas) - 1)

    @cached_property
    def lines(self) -> Float32:
        """(b, 2) one and beta: times the offset and the drift of a threshold, where it lies."""
        return _lines(self.betas)

    @cached_property
    def nodes(self) -> Float32:
        """(n, 2) the same for a few betas from the lowest to the highest."""
        return _lines(np.linspace(self.betas.min(), self.betas.max(), SPANS + 1))

    @cached_property
    def starts(self) -> Float32:
        """(b, 1) where the bins of each beta begin: one for each gamma, and one behind them."""
        return (len(self.gammas) + 1) * np.arange(len(self.betas), dtype=np.float32)[:, None]


def _lines(betas: Floats) -> Float32:
    return np.stack([np.ones_like(betas), betas], axis=1, dtype=np.float32)
