"""Composers that need nothing but the encoder: image only, prompt only, their sum, and Slerp between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import OptionError, VectorError
from mmretrieve.query import Query
from mmretrieve.vectors import Float32

NEARLY_PARALLEL = 1e-4  # radians; below it the sines of Slerp lose their digits


class ImageOnly:
    """The reference image and nothing else."""

    def compose(self, queries: Sequence[Query]) -> list[Composition]:
        return [Composition((Term.IMAGE,), query.reference()[None], (1.0,)) for query in queries]


@dataclass(frozen=True)
class PromptOnly:
    """The prompt and nothing else."""

    encoder: Encoder

    def compose(self, queries: Sequence[Query]) -> list[Composition]:
        prompts = [query.words() for query in queries]
        return [
            Composition((Term.PROMPT,), row[None], (1.0,), {Term.PROMPT: prompt})
            for prompt, row in zip(prompts, self.encoder.encode_texts(prompts), strict=True)
        ]


@dataclass(frozen=True)
class Sum:
    """image + prompt."""

    encoder: Encoder

    def compose(self, queries: Sequence[Query]) -> list[Composition]:
        return [_pair(query, row, (1.0, 1.0)) for query, row in zip(queries, _prompt_rows(self.encoder, queries), strict=True)]


@dataclass(frozen=True)
class Slerp:
    """A point `t` (0: image, 1: prompt) of the great circle between them: again two terms and two weights."""

    encoder: Encoder
    t: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.t <= 1:
            raise OptionError(f"t must be from 0 to 1, got {self.t!r}")

    def compose(self, queries: Sequence[Query]) -> list[Composition]:
        rows = _prompt_rows(self.encoder, queries)
        return [
            _pair(query, row, slerp_weights(query.reference(), row, self.t)) for query, row in zip(queries, rows, strict=True)
        ]


def slerp_weights(a: Float32, b: Float32, t: float) -> tuple[float, float]:
    """Weights of two (d,) unit vectors: sin((1−t)θ)/sinθ and sin(tθ)/sinθ; at right angles and t = ½ both are √½.

    Nearly parallel vectors get the normalised linear mean. Opposite ones have no shortest way: VectorError.
    """
    inner = float(np.clip(a.astype(np.float64) @ b.astype(np.float64), -1, 1))
    angle = float(np.arccos(inner))
    if angle < NEARLY_PARALLEL:
        length = float(np.linalg.norm((1 - t) * a + t * b))
        return (1 - t) / length, t / length
    if np.pi - angle < NEARLY_PARALLEL:
        raise VectorError("image and prompt point in opposite directions: no shortest way between them")
    return float(np.sin((1 - t) * angle) / np.sin(angle)), float(np.sin(t * angle) / np.sin(angle))


def _prompt_rows(encoder: Encoder, queries: Sequence[Query]) -> Float32:
    return encoder.encode_texts([query.words() for query in queries])


def _pair(query: Query, prompt: Float32, weights: tuple[float, float]) -> Composition:
    return Composition((Term.IMAGE, Term.PROMPT), np.stack([query.reference(), prompt]), weights, {Term.PROMPT: query.words()})
