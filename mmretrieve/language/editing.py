"""Captions with a phrase left out or put in. Articles stay right, and what cannot be left out stays."""

from __future__ import annotations

from mmretrieve.language.lexicon import Lexicon, general_lexicon
from mmretrieve.language.sentence import Edit, Sentence, boundaries, edited
from mmretrieve.language.words import tokens


def without(caption: str, phrase: str, lexicon: Lexicon | None = None) -> str:
    """The caption without what a phrase names, in whichever form the caption says it; as it is where it does not, or needs it.

    The head of the sentence cannot be left out. The absence of a whole class has a word of its own: "sleeves" makes a
    "short-sleeved dress" a "sleeveless dress".

    >>> without("a photo of a red striped dress with dots and a belt", "stripes")
    'a photo of a red dress with dots and a belt'
    >>> without("a photo of a red striped dress with dots and a belt", "dots")
    'a photo of a red striped dress with a belt'
    """
    lexicon = lexicon or general_lexicon()
    sentence = Sentence(caption, lexicon)
    absent = lexicon.absence(phrase)
    edits = sentence.places(phrase) if absent is None else sentence.absent(absent)
    return edited(caption, edits) or caption


def including(caption: str, phrase: str, lexicon: Lexicon | None = None) -> str:
    """The caption with a phrase put in: in the place of another word of its class, else before the noun, else at the end.

    >>> including("a photo of a red dress", "striped"), including("a photo of a red striped dress", "dots")
    ('a photo of a red striped dress', 'a photo of a red dotted dress')
    >>> including("a photo of a red dress", "a belt")
    'a photo of a red dress with a belt'
    """
    lexicon = lexicon or general_lexicon()
    sentence = Sentence(caption, lexicon)
    if sentence.says(phrase):
        return caption
    meaning = lexicon.meaning(phrase)
    if meaning is not None:
        if swap := sentence.swap(meaning):
            return edited(caption, swap)
        adjective = [reading for c, reading in meaning.readings.items() if reading.kind == 0 and c != lexicon.thing]
        at = sentence.before_noun() if adjective else None
        if at is not None:
            return edited(caption, [Edit(at, at, f"{adjective[0].form} ")])
    joint = " " if (tokens(phrase)[:1] and tokens(phrase)[0].exact in boundaries()) else " with "
    return f"{caption}{joint}{phrase}" if caption.strip() else phrase
