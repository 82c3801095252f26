"""A contract is a list of clauses: functions that raise AssertionError, and whose names are what they require. All get the same small inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
from PIL import Image

from mmretrieve.errors import printable
from mmretrieve.vectors import Float32

DEFAULT_TOLERANCE = 1e-3  # between vectors of one input: their difference has this length at most

TEXTS = (
    "a photo of a red dress",
    "a blue shirt with long sleeves",
    "green",
    "two black shoes on a white floor beside an open door",
)

T = TypeVar("T")


def check_clauses(subject: str, case: T, clauses: Iterable[Callable[[T], None]]) -> None:
    """Checks the clauses in order. The error of the first one that is violated names the subject and the clause.

    >>> def dim_is_even(dim: int) -> None:
    ...     require(dim % 2 == 0, f"got {dim}")
    >>> try:
    ...     check_clauses("encoder Thirds", 3, [dim_is_even])
    ... except AssertionError as error:
    ...     print(error)
    encoder Thirds violates "dim is even": got 3
    """
    for clause in clauses:
        try:
            clause(case)
        except Exception as error:  # of an object that others wrote
            reason = str(error) if type(error) is AssertionError else f"{type(error).__name__}: {error}"
            name = clause.__name__.replace("_", " ")
            raise AssertionError(printable(f'{subject} violates "{name}": {reason}')) from error


def require(condition: object, reason: str) -> None:
    """Raises AssertionError with the reason unless the condition is true; unlike `assert`, also under `python -O`."""
    if not condition:
        raise AssertionError(reason)


def require_close(actual: Float32, expected: Float32, tolerance: float, what: str) -> None:
    """Raises AssertionError, naming the first row, if rows differ by more than the tolerance."""
    require(np.shape(actual) == np.shape(expected), f"{what}: got shape {np.shape(actual)}, expected {np.shape(expected)}")
    differences = np.linalg.norm(np.asarray(actual, np.float64) - expected, axis=-1)
    wrong = np.flatnonzero(~(differences <= tolerance))  # NaN is wrong, too
    if len(wrong):
        raise AssertionError(f"{what}: row {wrong[0]} is {differences[wrong[0]]:.2g} off, expected at most {tolerance:g}")


def sample_images() -> list[Image.Image]:
    """Four mosaics of random colors, two of them upright."""
    colors = np.random.default_rng(0).integers(256, size=(4, 4, 4, 3), dtype=np.uint8)
    sizes = ((96, 64), (64, 96), (64, 96), (80, 80))
    return [Image.fromarray(tiles).resize(size, Image.Resampling.NEAREST) for tiles, size in zip(colors, sizes, strict=True)]
