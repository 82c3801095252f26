"""Directions to go away from: what a phrase adds to a caption, against what the caption could say in its place.

A caption that says the phrase already gains nothing from it, so `composed − text` cannot take it away. Its direction is there
all the same between the caption that says it and the same caption that says something else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmretrieve.encoders.base import Encoder
from mmretrieve.language.editing import insert_phrase, remove_phrase
from mmretrieve.language.lexicon import Lexicon
from mmretrieve.vectors import Float32

MAX_ALTERNATIVES = 12  # of one phrase: enough for a mean
NONE = 1e-3  # a shorter difference of unit vectors is no direction


def avoid_directions(
    encoder: Encoder, phrases: Sequence[str], lexicon: Lexicon, caption: str | None = None, rewrite: str | None = None
) -> Float32:
    """n phrases → (n, d) unit vectors from what the caption could say instead to the caption that says the phrase.

    "stripes" with "a photo of a red striped dress" is that sentence against the mean of "a photo of a red plain dress",
    "… checked dress" and so on. A phrase of no known class stands against the caption without it, and a noun that the caption
    cannot do without against the `rewrite`. Without a caption, or where the words make no difference to the encoder, the
    phrase itself is the direction.
    """
    contrasts = [_contrast(phrase, lexicon, caption, rewrite) for phrase in phrases]
    texts = list(dict.fromkeys([*phrases, *(text for said, instead in contrasts for text in (said, *instead))]))
    row = dict(zip(texts, encoder.encode_texts(texts).astype(np.float64), strict=True)) if texts else {}
    directions = []
    for phrase, (said, instead) in zip(phrases, contrasts, strict=True):
        difference = row[said] - np.mean([row[text] for text in instead], axis=0) if instead else row[said]
        length = float(np.linalg.norm(difference))
        directions.append(difference / length if length > NONE else row[phrase])
    return np.asarray(directions, dtype=np.float32).reshape(len(phrases), -1)


def _contrast(phrase: str, lexicon: Lexicon, caption: str | None, rewrite: str | None) -> tuple[str, list[str]]:
    """The sentence that says a phrase, and those that say something else in its place."""
    others = lexicon.alternatives(phrase)[:MAX_ALTERNATIVES]
    if caption is None:
        return phrase, others
    said = insert_phrase(caption, phrase, lexicon)
    bare = remove_phrase(said, phrase, lexicon)
    replaced = [insert_phrase(bare, other, lexicon) for other in others]
    for instead in (replaced, [bare], [] if rewrite is None else [rewrite]):
        if different := [text for text in dict.fromkeys(instead) if text != said]:
            return said, different
    return f"{caption}, {phrase}", [caption]
