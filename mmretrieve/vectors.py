"""The array contract: float32, C-contiguous, finite; unit rows where vectors are compared. Nothing here changes its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmretrieve.errors import VectorError
from mmretrieve.options import is_number as is_number  # for rooms that compute; `options` needs no numpy

Float32 = NDArray[np.float32]
UNIT_TOLERANCE = 1e-3
BLOCK = 16_384  # rows normalised at once: bounds the float64 copies


def as_rows(values: ArrayLike, name: str, *, dim: int | None = None) -> Float32:
    """`values` as (n, d) float32, C-contiguous and finite; d must equal `dim` where one is given.

    Raises VectorError naming the array and what is wrong with it.
    """
    return _checked(values, name, dim, np.float32)


def unit(values: ArrayLike, name: str = "vectors", *, dim: int | None = None) -> Float32:
    """(n, d) of any length → (n, d) unit float32: `unit([[3, 4]])` is `[[0.6, 0.8]]`. A zero row raises VectorError."""
    given = _as_array(values, name)
    if given.ndim != 2 or len(given) <= BLOCK:
        return _unit(given, name, dim, 0)
    whole = np.empty(given.shape, dtype=np.float32)
    for first in range(0, len(given), BLOCK):
        whole[first : first + BLOCK] = _unit(given[first : first + BLOCK], name, dim, first)
    return whole


def check_unit(values: ArrayLike, name: str, *, dim: int | None = None) -> Float32:
    """`as_rows`, and every row within 1e-3 of length 1; otherwise VectorError with the offending length."""
    rows = as_rows(values, name, dim=dim)
    norms = np.linalg.norm(rows, axis=1)
    if rows.size and (worst := float(np.abs(norms - 1).max())) > UNIT_TOLERANCE:
        row = int(np.abs(norms - 1).argmax())
        raise VectorError(f"{name}: expected unit rows, row {row} has length {norms[row]:.6g} ({worst:.2g} off)")
    return rows


def _unit(given: NDArray[Any], name: str, dim: int | None, first: int) -> Float32:
    rows = _checked(given, name, dim, np.float64, first)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    if not largest.all():
        raise VectorError(f"{name}: row {first + int(np.argmin(largest))} is a zero vector, which has no direction")
    rows = rows / largest  # so that squares neither overflow nor vanish
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _as_array(values: ArrayLike, name: str) -> NDArray[Any]:
    try:
        given = np.asarray(values)
        if np.iscomplexobj(given):
            raise TypeError("complex numbers")
        return given
    except (TypeError, ValueError, RuntimeError) as error:
        raise _not_rows(values, name) from error


def _not_rows(values: ArrayLike, name: str) -> VectorError:
    return VectorError(f"{name}: expected an array of real numbers of shape (n, d), got {type(values).__name__}")


def _checked(values: ArrayLike, name: str, dim: int | None, dtype: type[np.floating], first: int = 0) -> NDArray[Any]:
    """(n, d) of that dtype, checked; `first` is the number of its first row in an error."""
    given = _as_array(values, name)
    try:
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(given, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise _not_rows(values, name) from error
    if given.ndim != 2 or rows.shape[1] == 0:
        raise VectorError(f"{name}: expected shape (n, d), got {given.shape}")
    if dim is not None and rows.shape[1] != dim:
        raise VectorError(f"{name}: expected {dim} columns, got {rows.shape[1]}")
    if not np.isfinite(rows).all():
        raise VectorError(
            f"{name}: row {first + int(np.argmin(np.isfinite(rows).all(1)))} holds NaN, infinity or more than {np.dtype(dtype)} can hold"
        )
    return rows
