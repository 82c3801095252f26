"""Attributes of drawings: those of the `Garment`, which captions mention, and those of the `Detail`, which they never mention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cache
from itertools import product
from random import Random
from zlib import crc32

HELD_OUT_EVERY = 5  # one of five combinations of kind, color and pattern is held out of training


class Kind(StrEnum):
    DRESS = "dress"
    TOP = "top"
    SHIRT = "shirt"
    SWEATER = "sweater"
    HOODIE = "hoodie"
    JACKET = "jacket"
    COAT = "coat"
    JUMPSUIT = "jumpsuit"
    SKIRT = "skirt"
    TROUSERS = "trousers"
    SHORTS = "shorts"


class Colour(StrEnum):
    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    TEAL = "teal"
    BLUE = "blue"
    NAVY = "navy"
    PURPLE = "purple"
    PINK = "pink"
    BROWN = "brown"
    BEIGE = "beige"
    GREY = "grey"
    BLACK = "black"
    WHITE = "white"


class Pattern(StrEnum):
    PLAIN = "plain"
    STRIPED = "striped"
    CHECKED = "checked"
    DOTTED = "dotted"
    ZIGZAG = "zigzag"
    DIAMOND = "diamond"


class Sleeves(StrEnum):
    NONE = "no sleeves"
    SHORT = "short sleeves"
    LONG = "long sleeves"


class Length(StrEnum):
    SHORT = "short"
    KNEE = "knee-length"
    LONG = "long"


class Neckline(StrEnum):
    ROUND = "round neck"
    V = "v-neck"
    HIGH = "high neck"
    SQUARE = "square neck"


class Motif(StrEnum):
    STAR = "star"
    HEART = "heart"
    MOON = "moon"
    SUN = "sun"
    FISH = "fish"
    LEAF = "leaf"
    BOLT = "bolt"
    CLOUD = "cloud"
    DROP = "drop"
    CROWN = "crown"
    RING = "ring"
    PLUS = "plus"


class Trim(StrEnum):
    NONE = "none"
    WHITE = "white"
    BLACK = "black"
    GOLD = "gold"
    ROSE = "rose"
    MINT = "mint"


class Pose(StrEnum):
    HANGER = "hanger"
    STAND = "stand"
    FLAT = "flat"
    TILTED = "tilted"


class Background(StrEnum):
    CREAM = "cream"
    SLATE = "slate"
    ROOM = "room"
    ARCH = "arch"
    HALO = "halo"
    SPLIT = "split"
    DUSK = "dusk"
    SPECKS = "specks"


class Light(StrEnum):
    LEFT = "left"
    RIGHT = "right"
    ABOVE = "above"
    SOFT = "soft"


WITHOUT_SLEEVES = frozenset({Kind.SKIRT, Kind.TROUSERS, Kind.SHORTS})
WITH_LENGTH = frozenset({Kind.DRESS, Kind.COAT, Kind.JUMPSUIT, Kind.SKIRT})
WITH_NECKLINE = frozenset({Kind.DRESS, Kind.TOP, Kind.SWEATER, Kind.JUMPSUIT})


@dataclass(frozen=True, order=True)
class Garment:
    """The attributes that captions and prompts mention. An attribute that the kind does not have is None."""

    kind: Kind
    colour: Colour
    pattern: Pattern
    sleeves: Sleeves | None
    length: Length | None
    neckline: Neckline | None

    def changed(self, **attributes: StrEnum) -> Garment:
        """The garment with other values of the named attributes."""
        return replace(self, **attributes)  # type: ignore[arg-type]


@dataclass(frozen=True, order=True)
class Detail:
    """The attributes that are visible in an image and that captions omit."""

    motif: Motif
    trim: Trim
    pose: Pose
    background: Background
    light: Light


def choices(kind: Kind) -> dict[str, list[StrEnum]]:
    """The attributes that a kind of garment has, and their values: `{"colour": [...], ...}`."""
    groups: dict[str, list[StrEnum]] = {"colour": list(Colour), "pattern": list(Pattern)}
    if kind not in WITHOUT_SLEEVES:
        groups["sleeves"] = list(Sleeves)
    if kind in WITH_LENGTH:
        groups["length"] = list(Length)
    if kind in WITH_NECKLINE:
        groups["neckline"] = list(Neckline)
    return groups


def random_detail(random: Random) -> Detail:
    """A detail with a random value of each attribute."""
    return Detail(*(random.choice(list(values)) for values in (Motif, Trim, Pose, Background, Light)))  # type: ignore[arg-type]


def garments() -> Iterator[Garment]:
    """All garments, in a fixed order."""
    for kind in Kind:
        groups = choices(kind)
        for values in product(*groups.values()):
            named = dict.fromkeys(field.name for field in fields(Garment)) | dict(zip(groups, values, strict=True))
            yield Garment(**(named | {"kind": kind}))  # type: ignore[arg-type]


@cache
def held_out() -> frozenset[tuple[Kind, Colour, Pattern]]:
    """The combinations of kind, color and pattern that are held out of training: one in five."""
    combinations = sorted(product(Kind, Colour, Pattern), key=lambda c: crc32("/".join(c).encode()))
    return frozenset(combinations[: len(combinations) // HELD_OUT_EVERY])


def is_unseen(garment: Garment) -> bool:
    """Whether the garment is held out of training."""
    return (garment.kind, garment.colour, garment.pattern) in held_out()
