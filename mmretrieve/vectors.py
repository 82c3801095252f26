"""The array contract of the library: float32, C-contiguous and finite, with unit rows where vectors are compared.

No function changes its input.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmretrieve.errors import VectorError

Float32 = NDArray[np.float32]
MIN_SQUARE, MAX_SQUARE = 1e-200, 1e200  # squared lengths that float64 computes with all its digits
UNIT_TOLERANCE = 1e-3
ZERO_VECTOR, NOT_FINITE = "its vector is zero, which has no direction", "its vector contains NaN or infinity"
ROW_BATCH_SIZE = 256  # rows normalized at a time: their float64 copies stay in the caches of a processor


def as_rows(values: ArrayLike, name: str, *, dim: int | None = None) -> Float32:
    """Converts an array to (n, d) float32, C-contiguous and finite.

    Parameters
    ----------
    values : array-like of shape (n, d)
        Real numbers.
    name : str
        The name of the array in error messages.
    dim : int, optional
        The required number of columns.

    Returns
    -------
    ndarray of shape (n, d), float32

    Raises
    ------
    VectorError
        The shape is wrong, or a value is not a finite float32.
    """
    return _check_finite(_shaped_rows(values, name, dim, np.float32), name)


def unit(values: ArrayLike, name: str = "vectors", *, dim: int | None = None) -> Float32:
    """Scales the rows of an array to length 1.

    Parameters
    ----------
    values : array-like of shape (n, d)
        Rows of any length except 0.
    name : str, default="vectors"
        The name of the array in error messages.
    dim : int, optional
        The required number of columns.

    Returns
    -------
    ndarray of shape (n, d), float32

    Raises
    ------
    VectorError
        The shape is wrong, a value is not finite, or a row is zero.

    Examples
    --------
    >>> unit([[3, 4]])
    array([[0.6, 0.8]], dtype=float32)
    """
    array = as_array(values, name)
    if array.ndim != 2 or len(array) <= ROW_BATCH_SIZE:
        return _normalize(array, name, dim, 0)
    rows = np.empty(array.shape, dtype=np.float32)
    for first in range(0, len(array), ROW_BATCH_SIZE):
        rows[first : first + ROW_BATCH_SIZE] = _normalize(array[first : first + ROW_BATCH_SIZE], name, dim, first)
    return rows


def check_unit(values: ArrayLike, name: str, *, dim: int | None = None) -> Float32:
    """`as_rows` for arrays that must have unit rows. Raises VectorError if a length differs from 1 by more than 1e-3."""
    rows = as_rows(values, name, dim=dim)
    norms = np.linalg.norm(rows, axis=1)
    if rows.size and (worst := float(np.abs(norms - 1).max())) > UNIT_TOLERANCE:
        row = int(np.abs(norms - 1).argmax())
        raise VectorError(f"{name}: expected unit rows, row {row} has length {norms[row]:.6g} ({worst:.2g} off)")
    return rows


def bad_rows(values: ArrayLike) -> dict[int, str]:
    """The rows of an array that have no direction, with the reason. What else `unit` refuses, such as a wrong shape, is left to it.

    >>> bad_rows([[1, 2], [0, 0], [1, float("nan")]])
    {1: 'its vector is zero, which has no direction', 2: 'its vector contains NaN or infinity'}
    """
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        return {}
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        return {}
    problems: dict[int, str] = {}
    for first in range(0, len(array), ROW_BATCH_SIZE):
        batch = array[first : first + ROW_BATCH_SIZE]
        finite, zero = np.isfinite(batch).all(axis=1), (batch == 0).all(axis=1)
        for row in np.flatnonzero(zero | ~finite):
            problems[first + int(row)] = ZERO_VECTOR if zero[row] else NOT_FINITE
    return problems


def _normalize(array: NDArray[Any], name: str, dim: int | None, first: int) -> Float32:
    rows = _shaped_rows(array, name, dim, np.float64)
    squares = _squares(rows)
    if not ((squares > MIN_SQUARE) & (squares < MAX_SQUARE)).all():  # they may have overflowed, or lost digits
        largest = np.abs(_check_finite(rows, name, first)).max(axis=1, keepdims=True)
        if not largest.all():
            raise VectorError(f"{name}: row {first + int(np.argmin(largest))} is a zero vector, which has no direction")
        rows = rows / largest
        squares = _squares(rows)
    units: Float32 = np.empty(rows.shape, np.float32)
    np.divide(rows, np.sqrt(squares)[:, None], out=units, casting="same_kind")
    return units


def _squares(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) the squared length of each row."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares: NDArray[np.float64] = np.matmul(rows[:, None], rows[:, :, None])[:, 0, 0]
    return squares


def as_array(values: ArrayLike, name: str) -> NDArray[Any]:
    """An array of any shape. Raises VectorError for rows of different lengths, and for complex numbers."""
    try:
        array = np.asarray(values)
        if array.dtype.kind == "c":
            raise TypeError("complex numbers")
        return array
    except (TypeError, ValueError, RuntimeError) as error:
        raise _not_rows(values, name) from error


def _not_rows(values: ArrayLike, name: str) -> VectorError:
    return VectorError(f"{name}: expected an array of real numbers of shape (n, d), got {type(values).__name__}")


def _shaped_rows(values: ArrayLike, name: str, dim: int | None, dtype: type[np.floating]) -> NDArray[Any]:
    """The values as (n, d) of that dtype."""
    array = as_array(values, name)
    if array.dtype == dtype and array.flags.c_contiguous:
        rows = array
    else:
        try:
            with nullcontext() if np.can_cast(array.dtype, dtype) else np.errstate(over="ignore"):
                rows = np.ascontiguousarray(array, dtype=dtype)
        except (TypeError, ValueError) as error:
            raise _not_rows(values, name) from error
    if array.ndim != 2 or rows.shape[1] == 0:
        raise VectorError(f"{name}: expected shape (n, d), got {array.shape}")
    if dim is not None and rows.shape[1] != dim:
        raise VectorError(f"{name}: expected {dim} columns, got {rows.shape[1]}")
    return rows


def _check_finite(rows: NDArray[Any], name: str, first: int = 0) -> NDArray[Any]:
    """Returns the rows. `first` is the number of the first row in error messages."""
    if not np.isfinite(rows).all():
        row = first + int(np.argmin(np.isfinite(rows).all(1)))
        raise VectorError(f"{name}: row {row} contains NaN, infinity or a number beyond the range of {rows.dtype}")
    return rows
