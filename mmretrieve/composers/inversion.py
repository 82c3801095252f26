"""Composers of textual inversion: the picture becomes a pseudo token, and the prompt is said about it.

Pic2Word (arXiv 2302.03084), SEARLE (arXiv 2303.15247) and LinCIR (arXiv 2312.01998) differ in where the token comes
from and in the words between token and prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers.fitting import cut_remark
from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import ContextLimit, Encoder
from mmretrieve.errors import OptionError
from mmretrieve.images import ImageLike
from mmretrieve.vectors import Float32

SHOWN = "$"  # stands for the pseudo token where a person reads the sentence


class Inverter(Protocol):
    """Says sentences about pictures, each with its picture as a word (`inversion.inverter.TokenInverter` is one)."""

    def encode(self, images: Sequence[ImageLike], sentences: Sequence[Sequence[Sequence[str]]]) -> Float32:
        """n images and, for each, s sentences cut in pieces around the picture → (n, s, d) unit float32."""
        ...


@dataclass(frozen=True)
class Inversion:
    """Terms image, text "a photo of $", composed "a photo of $ that {prompt}" and prompt; base: `composed` alone.

    `joint` stands between token and prompt: "that" in SEARLE and LinCIR, "," in Pic2Word.
    """

    encoder: Encoder
    inverter: Inverter
    joint: str = "that"

    def compose(self, queries: Sequence[ComposerInput]) -> list[Composition]:
        prompts = [query.words() for query in queries]
        sentences = [[("a photo of", ""), ("a photo of", f"{self.joint} {prompt}")] for prompt in prompts]
        rows = self.inverter.encode([_picture(query) for query in queries], sentences)
        wishes = [query.wish() or prompt for query, prompt in zip(queries, prompts, strict=True)]
        return [
            Composition(
                (Term.IMAGE, Term.TEXT, Term.COMPOSED, Term.PROMPT),
                np.stack([query.reference(), *pair, prompt_row]),
                (0.0, 0.0, 1.0, 0.0),
                {**dict(zip((Term.TEXT, Term.COMPOSED), map(_shown, said), strict=True)), Term.PROMPT: wish},
                remark=self._cut_remark(prompt, said[1]),
            )
            for query, pair, prompt_row, said, prompt, wish in zip(
                queries, rows, self.encoder.encode_texts(wishes), sentences, prompts, wishes, strict=True
            )
        ]

    def _cut_remark(self, prompt: str, pieces: Sequence[str]) -> str | None:
        """What is cut of the prompt: by itself, or behind the pseudo token, which takes one place as the word "a" does."""
        if not isinstance(self.encoder, ContextLimit):
            return None
        prompt_fits, sentence_fits = self.encoder.fits_context([prompt, " a ".join(pieces)])
        if not prompt_fits:
            return cut_remark("the prompt", self.encoder.context_length)
        head = _shown((pieces[0], self.joint))
        left = (
            f"behind {head!r}, the prompt does not fit into the encoder's {self.encoder.context_length} tokens: its end was cut"
        )
        return None if sentence_fits else left


def _picture(query: ComposerInput) -> ImageLike:
    query.reference()
    if query.image is None:
        raise OptionError(
            "textual inversion reads the reference picture itself; there is only its vector here, and no file, or one that was changed since"
        )
    return query.image


def _shown(pieces: Sequence[str]) -> str:
    return f" {SHOWN} ".join(pieces).strip()
