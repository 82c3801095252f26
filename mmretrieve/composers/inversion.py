"""Composers based on textual inversion: the image becomes a pseudo token in a sentence with the prompt.

Pic2Word (arXiv 2302.03084), SEARLE (arXiv 2303.15247) and LinCIR (arXiv 2312.01998) differ in how the token is made and in the
words between token and prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers.fitting import cut_remark
from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import ContextLimit, Encoder
from mmretrieve.encoders.checked import encode_texts
from mmretrieve.images import ImageLike
from mmretrieve.vectors import Float32

PSEUDO_TOKEN_SIGN = "$"  # represents the pseudo token in displayed sentences
SentenceEncoder = Callable[[Sequence[ImageLike], Sequence[Sequence[Sequence[str]]]], Float32]
"""n images and s sentences per image, each split into pieces around the image → (n, s, d) unit vectors."""


@dataclass(frozen=True)
class Inversion:
    """The terms image, text ("a photo of $"), composed ("a photo of $ that {prompt}") and prompt; `composed` has weight 1.

    `encode` puts the pseudo token of an image into sentences. `joint` is the word between token and prompt: "that" in SEARLE
    and LinCIR, "," in Pic2Word.
    """

    encoder: Encoder
    encode: SentenceEncoder
    joint: str = "that"

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        if not inputs:
            return []
        prompts = [query.required_prompt() for query in inputs]
        sentences = [[("a photo of", ""), ("a photo of", f"{self.joint} {prompt}")] for prompt in prompts]
        rows = self.encode([query.required_image() for query in inputs], sentences)
        desired_texts = [query.desired_text() or prompt for query, prompt in zip(inputs, prompts, strict=True)]
        return [
            Composition(
                (Term.IMAGE, Term.TEXT, Term.COMPOSED, Term.PROMPT),
                np.stack([query.required_reference(), *pair, prompt_row]),
                (0.0, 0.0, 1.0, 0.0),
                {**dict(zip((Term.TEXT, Term.COMPOSED), map(_display, pieces), strict=True)), Term.PROMPT: desired},
                remark=self._cut_remark(prompt, pieces[1]),
            )
            for query, pair, prompt_row, pieces, prompt, desired in zip(
                inputs, rows, encode_texts(self.encoder, desired_texts), sentences, prompts, desired_texts, strict=True
            )
        ]

    def _cut_remark(self, prompt: str, pieces: Sequence[str]) -> str | None:
        """The remark if the prompt is cut, alone or after the pseudo token, which takes one position like the word "a"."""
        if not isinstance(self.encoder, ContextLimit):
            return None
        prompt_fits, sentence_fits = self.encoder.fits_context([prompt, " a ".join(pieces)])
        if not prompt_fits:
            return cut_remark("the prompt", self.encoder.context_length)
        head = _display((pieces[0], self.joint))
        remark = (
            f"after {head!r}, the prompt does not fit into the encoder's {self.encoder.context_length} tokens: its end was cut"
        )
        return None if sentence_fits else remark


def _display(pieces: Sequence[str]) -> str:
    return f" {PSEUDO_TOKEN_SIGN} ".join(pieces).strip()
