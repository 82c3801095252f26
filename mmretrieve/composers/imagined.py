"""Queries with an imagined picture: an image model edits the reference after the prompt, and the result is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers.captions import description_remarks
from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.encoders.checked import call_encoder, check_shape
from mmretrieve.language.answers import describe_targets, edit_references
from mmretrieve.language.base import Describer, Description, Editor
from mmretrieve.vectors import Float32, unit

PICTURE_SHARE = 0.3  # of the imagined picture and the description, against the prompt, as published
MAX_PICTURES = 64  # that are in memory at once


@dataclass(frozen=True)
class Imagined:
    """Paracosm (arXiv 2602.00813): the reference, edited by an image model after the prompt, beside the prompt.

    With the features f of the encoder, which are not normalized inside the sum, and λ = 0.3, a query is
    λ · unit(f(picture) + f(description)) + (1 − λ) · unit(f(prompt)). So the terms are image, with the weight 0, imagined, composed if
    there is a describer of targets, and prompt. Features of an encoder that only gives unit vectors have the length 1.

    The direction of the prompt is imagined − image.
    """

    encoder: Encoder
    editor: Editor
    describer: Describer | None = None

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        batches = (inputs[start : start + MAX_PICTURES] for start in range(0, len(inputs), MAX_PICTURES))
        return [composition for batch in batches for composition in self._compose(batch)]

    def _compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        descriptions = [Description(None)] * len(inputs) if self.describer is None else describe_targets(self.describer, inputs)
        texts: list[dict[Term, str]] = [
            ({Term.COMPOSED: description.target} if description.target else {}) | {Term.PROMPT: query.required_prompt()}
            for query, description in zip(inputs, descriptions, strict=True)
        ]
        pictures = _features(self.encoder, "image", edit_references(self.editor, inputs))
        rows = iter(_features(self.encoder, "text", [text for own in texts for text in own.values()]))
        return [
            self._composition(query, own, np.stack([picture, *(next(rows) for _ in own)]))
            for query, own, picture in zip(inputs, texts, pictures, strict=True)
        ]

    def _composition(self, query: ComposerInput, texts: dict[Term, str], features: Float32) -> Composition:
        """The terms of a query, with the features of the picture, the description and the prompt."""
        lengths = np.linalg.norm(features[:-1], axis=1) / np.linalg.norm(features[:-1].sum(axis=0))
        weights = (0.0, *(PICTURE_SHARE * lengths).tolist(), 1 - PICTURE_SHARE)
        rows = np.concatenate([query.required_reference()[None], unit(features, "features")])
        composition = Composition(
            (Term.IMAGE, Term.IMAGINED, *texts), rows, weights, {str(term): text for term, text in texts.items()}
        )
        return composition.with_remarks(*description_remarks(self.encoder, texts))


def _features(encoder: Encoder, kind: str, values: Sequence[Any]) -> Float32:
    """(n, d) features of images or texts, not normalized if the encoder gives such."""
    encode = getattr(encoder, f"{kind}_features", None) or getattr(encoder, f"encode_{kind}s")
    return check_shape(encoder, call_encoder(encoder, lambda: encode(values)), len(values), f"{kind}s")
