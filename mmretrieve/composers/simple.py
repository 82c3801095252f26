"""Composers that need only the encoder: image only, prompt only, their sum, spherical interpolation, and joint encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers.fitting import cut_remarks
from mmretrieve.composers.paraphrased import compose_paraphrases
from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder, PairEncoder, supports
from mmretrieve.encoders.checked import encode_pairs, encode_texts
from mmretrieve.errors import OptionError, VectorError
from mmretrieve.options import Modality
from mmretrieve.vectors import Float32

MIN_ANGLE = 1e-4  # radians; below it the sines of Slerp lose precision


class ImageOnly:
    """The term image."""

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        return [Composition((Term.IMAGE,), query.required_reference()[None], (1.0,)) for query in inputs]


@dataclass(frozen=True)
class PromptOnly:
    """The term prompt."""

    encoder: Encoder

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        return compose_paraphrases(inputs, self._compose)

    def _compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        prompts = [query.desired_text() or query.required_prompt() for query in inputs]
        rows, remarks = encode_texts(self.encoder, prompts), cut_remarks(self.encoder, prompts)
        return [
            Composition((Term.PROMPT,), row[None], (1.0,), {Term.PROMPT: prompt}, remark=remark)
            for prompt, row, remark in zip(prompts, rows, remarks, strict=True)
        ]


@dataclass(frozen=True)
class Sum:
    """The terms image and prompt, each with weight 1."""

    encoder: Encoder

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        return compose_paraphrases(inputs, self._compose)

    def _compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        return _compose_pairs(self.encoder, inputs, lambda _query, _prompt: (1.0, 1.0))


@dataclass(frozen=True)
class Slerp:
    """Spherical linear interpolation: the point `t` (0: image, 1: prompt) of the great circle, as weights of two terms.

    Raises OptionError for a `t` outside [0, 1].
    """

    encoder: Encoder
    t: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.t <= 1:
            raise OptionError(f"t must be a number from 0 to 1, got {self.t!r}")

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        return _compose_pairs(
            self.encoder, inputs, lambda query, prompt: slerp_weights(query.required_reference(), prompt, self.t)
        )


@dataclass(frozen=True)
class Joint:
    """The terms image, joint and prompt: `joint` is the vector of a joint embedder for the image and the prompt together, with weight 1.

    The direction of the prompt is joint − image, so at the strength alpha a query is image + alpha · (joint − image): the weights
    (1 − alpha, alpha). The prompt alone has the weight 0, and is left out if the encoder does not encode texts.
    """

    encoder: Encoder

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        prompts = [query.desired_text() or query.required_prompt() for query in inputs]
        terms: dict[str, Iterable[Float32]] = {
            Term.IMAGE: [query.required_reference() for query in inputs],
            Term.JOINT: encode_pairs(cast(PairEncoder, self.encoder), [query.required_image() for query in inputs], prompts),
        }
        if supports(self.encoder, Modality.TEXT):
            terms[Term.PROMPT] = encode_texts(self.encoder, prompts)
        names, weights = tuple(terms), tuple(float(name == Term.JOINT) for name in terms)
        return [
            Composition(names, np.stack(rows), weights, dict.fromkeys(names[1:], prompt), remark=remark)
            for prompt, remark, rows in zip(
                prompts, cut_remarks(self.encoder, prompts), zip(*terms.values(), strict=True), strict=True
            )
        ]


def slerp_weights(a: Float32, b: Float32, t: float) -> tuple[float, float]:
    """The weights of two (d,) unit vectors at an angle θ: sin((1 − t)θ) / sin θ and sin(tθ) / sin θ.

    Nearly parallel vectors get the weights of the normalized linear mean. Raises VectorError for opposite vectors.

    >>> [round(weight, 4) for weight in slerp_weights(*np.eye(2, dtype=np.float32), t=0.5)]  # √½
    [0.7071, 0.7071]
    """
    inner = float(np.clip(a.astype(np.float64) @ b.astype(np.float64), -1, 1))
    angle = float(np.arccos(inner))
    if angle < MIN_ANGLE:
        length = float(np.linalg.norm((1 - t) * a + t * b))
        return (1 - t) / length, t / length
    if np.pi - angle < MIN_ANGLE:
        raise VectorError(
            "image and prompt point in opposite directions, so there is no unique interpolation between them; choose another composer"
        )
    return float(np.sin((1 - t) * angle) / np.sin(angle)), float(np.sin(t * angle) / np.sin(angle))


def _compose_pairs(
    encoder: Encoder, inputs: Sequence[ComposerInput], weigh: Callable[[ComposerInput, Float32], tuple[float, float]]
) -> list[Composition]:
    """The terms image and prompt of each query, with the weights that `weigh` returns for the query and its (d,) prompt vector."""
    prompts = [query.desired_text() or query.required_prompt() for query in inputs]
    rows, remarks = encode_texts(encoder, prompts), cut_remarks(encoder, prompts)
    return [
        Composition(
            (Term.IMAGE, Term.PROMPT),
            np.stack([query.required_reference(), row]),
            weigh(query, row),
            {Term.PROMPT: prompt},
            remark=remark,
        )
        for query, prompt, row, remark in zip(inputs, prompts, rows, remarks, strict=True)
    ]
