"""Calls encoders and checks what they return. Any object can be an encoder, and a wrong row must reach no gallery and no ranking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from mmretrieve.encoders.base import Encoder, PairEncoder, identity_of
from mmretrieve.encoders.checkpoints import one_line
from mmretrieve.errors import EncoderError, MMRetrieveError
from mmretrieve.images import ImageLike
from mmretrieve.vectors import UNIT_TOLERANCE, Float32, bad_rows

T = TypeVar("T")


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> Float32:
    """(n, dim) unit rows of n texts. Raises EncoderError if the encoder fails, or returns anything else."""
    return _rows_of_texts(encoder, lambda: encoder.encode_texts(texts), texts)


def encode_pairs(encoder: PairEncoder, images: Sequence[ImageLike], texts: Sequence[str]) -> Float32:
    """(n, dim) unit rows of n pairs. Raises EncoderError as `encode_texts`."""
    return _rows_of_texts(cast(Encoder, encoder), lambda: encoder.encode_pairs(images, texts), texts)


def encode_images(encoder: Encoder, images: Iterable[ImageLike]) -> Float32:
    """(n, dim) rows of n images: unit rows, and those that `bad_rows` names. Raises EncoderError as `encode_texts`."""
    count = 0

    def counted() -> Iterator[ImageLike]:
        nonlocal count
        for image in images:
            count += 1
            yield image

    rows = call_encoder(encoder, lambda: encoder.encode_images(counted()))
    return check_rows(encoder, rows, count, "images")


def check_rows(encoder: Encoder, rows: Any, count: int, what: str) -> Float32:
    """Rows that an encoder returned. Raises EncoderError unless each is a unit row or has no direction, as `check_shape` else."""
    vectors = check_shape(encoder, rows, count, what)
    lengths = np.delete(np.linalg.norm(vectors, axis=1), list(bad_rows(vectors)))
    if len(lengths) and abs(worst := lengths[np.abs(lengths - 1).argmax()] - 1) > UNIT_TOLERANCE:
        raise EncoderError(
            f"{_name(encoder)} returned a row of length {1 + worst:.6g} for {what}; "
            f"an encoder returns unit rows: divide each by its length"
        )
    return vectors


def check_shape(encoder: Encoder, rows: Any, count: int, what: str) -> Float32:
    """Rows of any length that an encoder returned. Raises EncoderError unless they are numbers of shape (count, dim)."""
    try:
        array = np.asarray(rows)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths, a tensor that is part of a graph
        array = np.empty(0, object)
    if array.dtype.kind not in "fiu" or array.shape != (count, encoder.dim):
        got = f"shape {array.shape}" if array.dtype.kind in "fiu" else f"a {type(rows).__name__}, which is no array of numbers,"
        raise EncoderError(
            f"{_name(encoder)} returned {got} for {count} {what}; expected an array of shape ({count}, {encoder.dim})"
        )
    vectors: Float32 = np.ascontiguousarray(array, dtype=np.float32)
    return vectors


def _rows_of_texts(encoder: Encoder, encode: Callable[[], Float32], texts: Sequence[str]) -> Float32:
    rows = check_rows(encoder, call_encoder(encoder, encode), len(texts), "texts")
    for row, problem in bad_rows(rows).items():
        raise EncoderError(f"{_name(encoder)} cannot encode {texts[row]!r:.80}: {problem}")
    return rows


def call_encoder(encoder: Encoder, call: Callable[[], T]) -> T:
    """What the encoder returns. What it raises becomes an EncoderError that names it, unless it is an error of this library."""
    try:
        return call()
    except (MMRetrieveError, MemoryError):
        raise
    except Exception as error:
        raise EncoderError(f"{_name(encoder)} failed: {type(error).__name__}: {one_line(error)}") from error


def _name(encoder: Encoder) -> str:
    return f"encoder {identity_of(encoder).model!r}"
