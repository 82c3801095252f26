"""Directions of phrases to avoid: the difference between a caption with the phrase and the caption with alternatives to it.

If the caption already contains the phrase, `composed − text` is no direction away from it. The difference between the caption
with the phrase and the same caption with something else in its place is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmretrieve.composition import UNKNOWN_TRUST, AvoidedPhrase, Caption
from mmretrieve.encoders.base import Encoder
from mmretrieve.language.editing import insert_phrase, remove_phrase
from mmretrieve.language.lexicon import Lexicon
from mmretrieve.vectors import Float32

MAX_ALTERNATIVES = 12  # per phrase
MIN_DIFFERENCE = 1e-3  # a shorter difference of unit vectors has no meaningful direction


def avoid_directions(
    encoder: Encoder, phrases: Sequence[str], lexicon: Lexicon, caption: str | None = None, rewrite: str | None = None
) -> Float32:
    """The unit vector from the caption with alternatives to the caption with the phrase, for each phrase.

    For "stripes" and "a photo of a red striped dress", it is the vector of that sentence minus the mean of "a photo of a red
    plain dress", "a photo of a red checked dress" and so on. A phrase without known alternatives is compared with the caption
    without it, and a noun that cannot be removed with the `rewrite`. Without a caption, or if the encoder does not distinguish
    the sentences, the direction is the vector of the phrase itself.

    Parameters
    ----------
    encoder : Encoder
    phrases : sequence of n str
    lexicon : Lexicon
        Provides the alternatives of a phrase.
    caption, rewrite : str, optional
        The caption of the reference, and the caption with the prompt applied.

    Returns
    -------
    ndarray of shape (n, d), float32
        Unit rows.
    """
    contrasts = [_contrast(phrase, lexicon, caption, rewrite) for phrase in phrases]
    texts = list(
        dict.fromkeys([*phrases, *(text for sentence, alternatives in contrasts for text in (sentence, *alternatives))])
    )
    row = dict(zip(texts, encoder.encode_texts(texts).astype(np.float64), strict=True)) if texts else {}
    directions = []
    for phrase, (sentence, alternatives) in zip(phrases, contrasts, strict=True):
        difference = row[sentence]
        if alternatives:
            difference = difference - np.mean([row[text] for text in alternatives], axis=0)
        length = float(np.linalg.norm(difference))
        directions.append(difference / length if length > MIN_DIFFERENCE else row[phrase])
    return np.asarray(directions, dtype=np.float32).reshape(len(phrases), -1)


def avoided_phrases(phrases: Sequence[str], lexicon: Lexicon, caption: str | None = None) -> list[AvoidedPhrase]:
    """The phrases, each with the trust in the caption if that states it: if removing the phrase changes the caption."""
    trust = caption.trust if isinstance(caption, Caption) else UNKNOWN_TRUST
    stated = [caption is not None and remove_phrase(caption, phrase, lexicon) != caption for phrase in phrases]
    return [AvoidedPhrase(phrase, trust=trust if each else 0.0) for phrase, each in zip(phrases, stated, strict=True)]


def _contrast(phrase: str, lexicon: Lexicon, caption: str | None, rewrite: str | None) -> tuple[str, list[str]]:
    """The sentence with the phrase, and the sentences with an alternative in its place."""
    alternatives = lexicon.alternatives(phrase)[:MAX_ALTERNATIVES]
    if caption is None:
        return phrase, alternatives
    sentence = insert_phrase(caption, phrase, lexicon)
    removed = remove_phrase(sentence, phrase, lexicon)
    replaced = [insert_phrase(removed, alternative, lexicon) for alternative in alternatives]
    for candidates in (replaced, [removed], [] if rewrite is None else [rewrite]):
        if different := [text for text in dict.fromkeys(candidates) if text != sentence]:
            return sentence, different
    return f"{caption}, {phrase}", [caption]
