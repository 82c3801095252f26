"""Directions of phrases to avoid: the difference between a caption with the phrase and the caption with alternatives to it.

If the caption already contains the phrase, `composed − text` is no direction away from it. The difference between the caption
with the phrase and the same caption with something else in its place is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composition import UNKNOWN_TRUST, AvoidedPhrase, Caption, Composition
from mmretrieve.encoders.base import Encoder, check_supports
from mmretrieve.encoders.checked import encode_texts
from mmretrieve.language.editing import Sentence, insert_phrase, remove_phrase
from mmretrieve.language.lexicon import Lexicon
from mmretrieve.options import Modality
from mmretrieve.weighting import AVOID

MAX_ALTERNATIVES = 12  # per phrase
MIN_DIFFERENCE = 1e-3  # a shorter difference of unit vectors has no meaningful direction


@dataclass(frozen=True)
class PhrasesToAvoid:
    """The phrases that one query avoids.

    Parameters
    ----------
    phrases : sequence of n str
        What should not be visible, such as "stripes".
    weights : tuple of n float
        The base weight of each phrase.
    caption, rewrite : str, optional
        The caption of the reference, and the caption with the prompt applied.
    """

    phrases: Sequence[str]
    weights: tuple[float, ...]
    caption: str | None = None
    rewrite: str | None = None

    def words(self, lexicon: Lexicon) -> list[AvoidedPhrase]:
        """The phrases, each with the trust in the caption if that states it: if removing the phrase changes the caption."""
        caption = self.caption
        trust = caption.trust if isinstance(caption, Caption) else UNKNOWN_TRUST
        stated = [caption is not None and remove_phrase(caption, phrase, lexicon) != caption for phrase in self.phrases]
        return [AvoidedPhrase(phrase, trust=trust if each else 0.0) for phrase, each in zip(self.phrases, stated, strict=True)]


def avoid_terms(encoder: Encoder, lexicon: Lexicon, queries: Sequence[PhrasesToAvoid]) -> list[Composition]:
    """One composition for each query: a term for each phrase that it avoids. The texts of all queries are encoded together.

    A term is the unit vector from the caption with alternatives to the caption with the phrase. For "stripes" and "a photo of a
    red striped dress", it is the vector of that sentence minus the mean of "a photo of a red plain dress", "a photo of a red
    checked dress" and so on. A phrase without known alternatives is compared with the caption without it, and a noun that cannot
    be removed with the rewrite. Without a caption, or if the encoder does not distinguish the sentences, the term is the vector
    of the phrase itself.

    Parameters
    ----------
    encoder : Encoder
    lexicon : Lexicon
        Provides the alternatives of a phrase.
    queries : sequence of PhrasesToAvoid

    Returns
    -------
    list of Composition
        Terms of the role `avoid`, with the weights of each query.
    """
    contrasts = [
        [(phrase, *_contrast(phrase, lexicon, query.caption, query.rewrite)) for phrase in query.phrases] for query in queries
    ]
    texts = dict.fromkeys(
        text for of_each in contrasts for phrase, sentence, others in of_each for text in (phrase, sentence, *others)
    )
    if texts:
        check_supports(encoder, Modality.TEXT, "avoid")
    row = dict(zip(texts, encode_texts(encoder, list(texts)).astype(np.float64), strict=True)) if texts else {}
    terms = []
    for query, of_each in zip(queries, contrasts, strict=True):
        rows = np.array([_direction(row, *contrast) for contrast in of_each], dtype=np.float32)
        avoided = Composition.of(AVOID, rows, -1.0, query.words(lexicon))
        terms.append(replace(avoided, weights=query.weights, shares={}))
    return terms


def _direction(
    row: Mapping[str, NDArray[np.float64]], phrase: str, sentence: str, alternatives: Sequence[str]
) -> NDArray[np.float64]:
    """(d,) the unit vector from the mean of the alternatives to the sentence."""
    difference = row[sentence]
    if alternatives:
        difference = difference - np.mean([row[text] for text in alternatives], axis=0)
    length = float(np.linalg.norm(difference))
    return difference / length if length > MIN_DIFFERENCE else row[phrase]


def _contrast(phrase: str, lexicon: Lexicon, caption: str | None, rewrite: str | None) -> tuple[str, list[str]]:
    """The sentence with the phrase, and the sentences with an alternative in its place."""
    alternatives = lexicon.alternatives(phrase)[:MAX_ALTERNATIVES]
    if caption is None:
        return phrase, alternatives
    sentence = insert_phrase(caption, phrase, lexicon)
    removed = remove_phrase(sentence, phrase, lexicon)
    without = Sentence(removed, lexicon)
    replaced = [without.with_phrase(alternative) for alternative in alternatives]
    for candidates in (replaced, [removed], [] if rewrite is None else [rewrite]):
        if different := [text for text in dict.fromkeys(candidates) if text != sentence]:
            return sentence, different
    return f"{caption}, {phrase}", [caption]
