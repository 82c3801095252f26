"""An encoder, a composer, a score rule, a judge and a captioner of another package. They know the colors of images, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

import mmretrieve as mm
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers import ComposerContext
from mmretrieve.encoders.base import EncoderContext, Progress
from mmretrieve.images import ImageLike, open_image
from mmretrieve.language.base import CaptionerContext
from mmretrieve.registry import ComposerEntry
from mmretrieve.rules import Floats, Slopes
from mmretrieve.vectors import Float32, unit

SIDE = 4
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0), "purple": (128, 0, 128)}


class Mosaic:
    """The colors of 4 × 4 tiles. A word is the color that it names, in all tiles; other words are faint noise."""

    dim = 3 * SIDE * SIDE

    def __init__(self, context: EncoderContext) -> None:
        self.identity = mm.EncoderIdentity(context.name, "none", f"{SIDE} x {SIDE} tiles")

    def encode_images(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        rows = [np.asarray(open_image(image).resize((SIDE, SIDE)), np.float64).ravel() for image in images]
        if progress is not None:
            progress(len(rows))
        return self._unit(rows)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        return self._unit([np.mean([_row_of_word(word) for word in text.split()], axis=0) for text in texts])

    def _unit(self, rows: Sequence[np.ndarray]) -> Float32:
        return unit(np.stack(rows) - 127.4) if rows else np.empty((0, self.dim), np.float32)


def _row_of_word(word: str) -> np.ndarray:
    if word in COLORS:
        return np.tile(np.array(COLORS[word], np.float64), SIDE * SIDE)
    return 127.5 + np.random.default_rng(crc32(word.encode())).normal(size=Mosaic.dim)


@dataclass(frozen=True)
class Blend:
    """The terms image and prompt with the weights 1 and 3."""

    encoder: mm.Encoder

    def compose(self, inputs: Sequence[ComposerInput]) -> list[mm.Composition]:
        prompts = self.encoder.encode_texts([query.required_prompt() for query in inputs])
        return [
            mm.Composition((mm.Term.IMAGE, mm.Term.PROMPT), np.stack([query.required_reference(), prompt]), (1.0, 3.0))
            for query, prompt in zip(inputs, prompts, strict=True)
        ]


def make_blend(context: ComposerContext) -> Blend:
    return Blend(context.encoder)


BLEND = ComposerEntry(make_blend, keeps_weights=True, supports_pdv=False)


@dataclass(frozen=True)
class Weakest:
    """min(s_image, s_prompt): an item must match both."""

    required_roles = ("image", "prompt")
    uses_weights = False

    def slopes(self, weighted: Floats, roles: Mapping[str, Floats]) -> Slopes:  # noqa: ARG002
        is_image = (roles["image"] < roles["prompt"]).astype(roles["image"].dtype)
        return Slopes(0.0, {"image": is_image, "prompt": 1 - is_image})


def make_weakest(_learned_words: bool) -> Weakest:
    return Weakest()


class Brightest:
    """The mean of all channels as a probability, whatever the query is."""

    scale = "probability"

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:  # noqa: ARG002
        return [{"corpus_id": i, "score": np.asarray(one["image"]).mean() / 255} for i, one in enumerate(documents)]


def make_brightest(_context: ComposerContext) -> Brightest:
    return Brightest()


class MainColor:
    """Captions with the color that is most similar to the reference."""

    def __init__(self, context: CaptionerContext) -> None:
        self._names = list(COLORS)
        self._vectors = context.encoder.encode_texts(self._names)

    def captions(self, inputs: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        orders = [np.argsort(-self._vectors @ query.required_reference()) for query in inputs]
        return [[f"{self._names[i]} picture" for i in order[:count]] for order in orders]
