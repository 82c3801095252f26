"""Says a garment in words, and says a change of a garment in words.

`describe` and `change` vary their wording with the `random` they are given; `caption` is always the same sentence.
Only the attributes of `Garment` are ever said: the ones of `Detail` are what words leave out.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from functools import cache
from random import Random

from mmretrieve.language.vocabulary import Vocabulary, WordGroup
from mmretrieve.wardrobe.attributes import Colour, Garment, GarmentType, Length, Neckline, Pattern, Sleeves, choices

SENTENCE = "a photo of a {colour} {pattern} {length} {garment} {sleeves} {neckline}"

NOUNS: dict[GarmentType, tuple[str, ...]] = {
    GarmentType.DRESS: ("dress", "frock"),
    GarmentType.TOP: ("top", "t-shirt"),
    GarmentType.SHIRT: ("shirt", "button-up shirt"),
    GarmentType.SWEATER: ("sweater", "jumper", "pullover"),
    GarmentType.HOODIE: ("hoodie", "hooded sweatshirt"),
    GarmentType.JACKET: ("jacket", "zip jacket"),
    GarmentType.COAT: ("coat", "overcoat"),
    GarmentType.JUMPSUIT: ("jumpsuit", "overall"),
    GarmentType.SKIRT: ("skirt",),
    GarmentType.TROUSERS: ("pair of trousers", "trousers", "pants"),
    GarmentType.SHORTS: ("pair of shorts", "shorts"),
}
# An attribute said before the noun ("striped dress") and after it ("dress with stripes"); the first is the plainest.
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
ASKINGS = ("{}", "{}", "the same but {}", "make it {}", "{} instead", "but {}", "like this {}", "i want it {}", "{} please")
MENTION = {"colour": 0.92, "pattern": 0.85, "sleeves": 0.7, "length": 0.75, "neckline": 0.6}


def caption(garment: Garment, leave_out: Collection[str] = ()) -> str:
    """The plainest sentence: `"a photo of a red striped dress with short sleeves"`, without the attributes named in `leave_out`."""
    said = {name: _plainest(name, getattr(garment, name)) for name in choices(garment.kind) if name not in leave_out}
    return vocabulary().say({"garment": NOUNS[garment.kind][0], **said})


def describe(garment: Garment, random: Random) -> str:
    """One of the many ways to say what the garment is; now and then an attribute goes unsaid."""
    before: list[str] = []
    after: list[str] = []
    for name in choices(garment.kind):
        value = getattr(garment, name)
        if random.random() > MENTION[name]:
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


def change(after: Garment, names: list[str], random: Random) -> str:
    """Asks for the attributes `names` of `after` as people do: `"in red"`, `"the same but striped with long sleeves"`."""
    parts = []
    for name in names:
        value = getattr(after, name)
        parts.append(
            random.choice((*BEFORE[value], *AFTER[value]) if name != "colour" else (*AFTER[value], *AFTER[value], value))
        )
    return random.choice(ASKINGS).format(random.choice((" and ", " ", ", ")).join(parts) if len(parts) > 1 else parts[0])


def differences(before: Garment, after: Garment) -> list[str]:
    """The names of the attributes in which two garments differ, in the order of `Garment`."""
    return [name for name in ("kind", *MENTION) if getattr(before, name) != getattr(after, name)]


def with_article(noun: str) -> str:
    """`"red dress"` → `"a red dress"`, `"orange top"` → `"an orange top"`, `"blue trousers"` stays."""
    if "pair of" not in noun and noun.endswith(("trousers", "pants", "shorts")):
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@cache
def vocabulary() -> Vocabulary:
    """What the zero-shot tagger may say of a drawing: the sentence of `caption`, group by group."""
    groups = [WordGroup("garment", tuple(nouns[0] for nouns in NOUNS.values()))]
    for name, values in (
        ("colour", Colour),
        ("pattern", Pattern),
        ("length", Length),
        ("sleeves", Sleeves),
        ("neckline", Neckline),
    ):
        wearers = tuple(NOUNS[kind][0] for kind in GarmentType if name in choices(kind))
        only = {"garment": wearers} if len(wearers) < len(GarmentType) else {}
        groups.append(WordGroup(name, tuple(_plainest(name, value) for value in values), only))
    return Vocabulary(SENTENCE, tuple(groups))


def _plainest(name: str, value: StrEnum) -> str:
    return (AFTER if name in ("sleeves", "neckline") else BEFORE)[value][0]
