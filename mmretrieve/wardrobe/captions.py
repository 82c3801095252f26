"""Captions and prompts for drawn garments: a plain caption, varied captions, and prompts that ask for other attributes.

Texts mention the attributes of `Garment`, never those of `Detail`.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from functools import cache
from random import Random

from mmretrieve.language.vocabulary import Vocabulary, WordGroup
from mmretrieve.wardrobe.attributes import (
    Colour,
    Garment,
    Kind,
    Length,
    Neckline,
    Pattern,
    Sleeves,
    choices,
    garments,
    is_unseen,
)

SENTENCE = "a photo of a {colour} {pattern} {length} {garment} {sleeves} {neckline}"

NOUNS: dict[Kind, tuple[str, ...]] = {
    Kind.DRESS: ("dress", "frock"),
    Kind.TOP: ("top", "t-shirt"),
    Kind.SHIRT: ("shirt", "button-up shirt"),
    Kind.SWEATER: ("sweater", "jumper", "pullover"),
    Kind.HOODIE: ("hoodie", "hooded sweatshirt"),
    Kind.JACKET: ("jacket", "zip jacket"),
    Kind.COAT: ("coat", "overcoat"),
    Kind.JUMPSUIT: ("jumpsuit", "overall"),
    Kind.SKIRT: ("skirt",),
    Kind.TROUSERS: ("pair of trousers", "trousers", "pants"),
    Kind.SHORTS: ("pair of shorts", "shorts"),
}
# Wordings of an attribute before the noun ("striped dress") and after it ("dress with stripes"); the first one is the plain one.
BEFORE: dict[StrEnum, tuple[str, ...]] = {colour: (colour.value,) for colour in Colour} | {
    Colour.GREY: ("grey", "gray"),
    Colour.PURPLE: ("purple", "violet"),
    Colour.BEIGE: ("beige", "sand-coloured"),
    Pattern.PLAIN: ("plain", "solid"),
    Pattern.STRIPED: ("striped", "stripy"),
    Pattern.CHECKED: ("checked", "plaid"),
    Pattern.DOTTED: ("dotted", "polka dot"),
    Pattern.ZIGZAG: ("zigzag", "chevron"),
    Pattern.DIAMOND: ("diamond", "argyle"),
    Sleeves.NONE: ("sleeveless",),
    Sleeves.SHORT: ("short-sleeved",),
    Sleeves.LONG: ("long-sleeved",),
    Length.SHORT: ("short", "mini"),
    Length.KNEE: ("knee-length", "midi"),
    Length.LONG: ("long", "full-length"),
    Neckline.ROUND: ("round-necked",),
    Neckline.V: ("v-necked",),
    Neckline.HIGH: ("high-necked",),
    Neckline.SQUARE: ("square-necked",),
}
AFTER: dict[StrEnum, tuple[str, ...]] = {colour: (f"in {colour.value}",) for colour in Colour} | {
    Pattern.PLAIN: ("without a pattern", "in a solid colour"),
    Pattern.STRIPED: ("with stripes",),
    Pattern.CHECKED: ("with checks",),
    Pattern.DOTTED: ("with dots", "with polka dots"),
    Pattern.ZIGZAG: ("with a zigzag pattern", "with zigzags"),
    Pattern.DIAMOND: ("with diamonds", "with a diamond pattern"),
    Sleeves.NONE: ("without sleeves", "with no sleeves"),
    Sleeves.SHORT: ("with short sleeves",),
    Sleeves.LONG: ("with long sleeves",),
    Length.SHORT: ("in a short cut",),
    Length.KNEE: ("down to the knee", "in a knee-length cut"),
    Length.LONG: ("down to the floor", "in a long cut"),
    Neckline.ROUND: ("with a round neck", "with a crew neck"),
    Neckline.V: ("with a v-neck",),
    Neckline.HIGH: ("with a high neck", "with a turtleneck"),
    Neckline.SQUARE: ("with a square neck",),
}
OPENINGS = ("", "", "a photo of ", "a picture of ", "a drawing of ", "this is ", "for sale: ")
PROMPT_TEMPLATES = (
    "{}",
    "{}",
    "the same but {}",
    "make it {}",
    "{} instead",
    "but {}",
    "like this {}",
    "i want it {}",
    "{} please",
)
MENTION_PROBABILITY = {"colour": 0.92, "pattern": 0.85, "sleeves": 0.7, "length": 0.75, "neckline": 0.6}


def caption(garment: Garment, omit: Collection[str] = ()) -> str:
    """The plain caption of a garment: `"a photo of a red striped dress with short sleeves"`.

    Parameters
    ----------
    garment : the garment.
    omit : names of attributes that the caption does not mention.
    """
    words = {name: _plain_word(name, getattr(garment, name)) for name in choices(garment.kind) if name not in omit}
    return vocabulary().say({"garment": NOUNS[garment.kind][0], **words})


def varied_caption(garment: Garment, random: Random) -> str:
    """A caption with random wording, which may omit attributes."""
    before: list[str] = []
    after: list[str] = []
    for name in choices(garment.kind):
        value = getattr(garment, name)
        if random.random() > MENTION_PROBABILITY[name]:
            continue
        if random.random() < (0.7 if name in ("colour", "pattern", "length") else 0.35):
            before.append(random.choice(BEFORE[value]))
        else:
            after.append(random.choice(AFTER[value]))
    random.shuffle(before)
    random.shuffle(after)
    noun = with_article(" ".join([*before, random.choice(NOUNS[garment.kind])]))
    joint = random.choice((" ", " and ", ", "))
    return " ".join(filter(None, (random.choice(OPENINGS) + noun, joint.join(after))))


def change_prompt(target: Garment, names: list[str], random: Random) -> str:
    """A prompt with random wording that asks for attributes: `"in red"`, `"the same but striped with long sleeves"`.

    Parameters
    ----------
    target : the garment that has the requested attributes.
    names : the names of these attributes.
    random : chooses the wording.
    """
    parts = []
    for name in names:
        value = getattr(target, name)
        parts.append(
            random.choice((*BEFORE[value], *AFTER[value]) if name != "colour" else (*AFTER[value], *AFTER[value], value))
        )
    return random.choice(PROMPT_TEMPLATES).format(
        random.choice((" and ", " ", ", ")).join(parts) if len(parts) > 1 else parts[0]
    )


def differences(first: Garment, second: Garment) -> list[str]:
    """The names of the attributes in which two garments differ, in the order of `Garment`."""
    return [name for name in ("kind", *MENTION_PROBABILITY) if getattr(first, name) != getattr(second, name)]


def with_article(noun: str) -> str:
    """The noun phrase with "a" or "an", unless it is a plural.

    >>> [with_article(noun) for noun in ("red dress", "orange top", "blue trousers")]
    ['a red dress', 'an orange top', 'blue trousers']
    """
    if "pair of" not in noun and noun.endswith(("trousers", "pants", "shorts")):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@cache
def vocabulary() -> Vocabulary:
    """The vocabulary of the zero-shot tagger for drawings: the sentence of `caption` and its groups."""
    groups = [WordGroup("garment", tuple(forms[0] for forms in NOUNS.values()))]
    for name, values in (
        ("colour", Colour),
        ("pattern", Pattern),
        ("length", Length),
        ("sleeves", Sleeves),
        ("neckline", Neckline),
    ):
        nouns = tuple(NOUNS[kind][0] for kind in Kind if name in choices(kind))
        only = {"garment": nouns} if len(nouns) < len(Kind) else {}
        groups.append(WordGroup(name, tuple(_plain_word(name, value) for value in values), only))
    return Vocabulary(SENTENCE, tuple(groups))


def training_captions(count: int, seed: int = 0) -> list[str]:
    """`count` captions of garments that are not held out, half of them varied and half plain."""
    random = Random(seed)
    seen = [garment for garment in garments() if not is_unseen(garment)]
    chosen = random.choices(seen, k=count)
    return [varied_caption(garment, random) if random.random() < 0.5 else caption(garment) for garment in chosen]


def _plain_word(name: str, value: StrEnum) -> str:
    return (AFTER if name in ("sleeves", "neckline") else BEFORE)[value][0]
