"""The fixed world of the wardrobe: 2,000 drawings and 500 composed queries over them, the same on every machine.

The gallery is made of lines (one garment and its variants), each shown in several shoots (one `Detail` each). A query
takes one drawing as its reference and asks for another variant. Right is only what has the asked-for attributes and
the reference's detail: the words fit a drawing in every shoot of the line, and the reference's picture fits every
variant in its shoot, so neither is enough alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cache
from random import Random

from mmretrieve.wardrobe import words
from mmretrieve.wardrobe.attributes import Background, Detail, Garment, GarmentType, Light, Motif, Pose, Trim, choices

LINES, SHOOTS, VARIANTS, TWINS = 40, 5, 7, 3  # 40 × 5 × (7 variants + 3 drawn a second time) = 2,000 drawings
QUERIES = 500
SEED = 20260
DETAILS: dict[str, list[StrEnum]] = {
    "motif": list(Motif),
    "trim": list(Trim),
    "pose": list(Pose),
    "background": list(Background),
    "light": list(Light),
}


@dataclass(frozen=True)
class Drawing:
    """One picture of the gallery; `draw(garment, detail, seed=seed)` makes it."""

    id: str
    garment: Garment
    detail: Detail
    seed: int


@dataclass(frozen=True)
class WardrobeQuery:
    """`reference` and `targets` are ids; every target has the asked-for attributes and the reference's detail."""

    id: str
    reference: str
    prompt: str
    targets: tuple[str, ...]
    changed: tuple[str, ...]


@cache
def drawings() -> tuple[Drawing, ...]:
    """The 2,000 drawings of the gallery, in its order."""
    random = Random(SEED)
    shown: list[tuple[Garment, Detail]] = []
    taken: set[Detail] = set()
    for line in range(LINES):
        variants = _variants(list(GarmentType)[line % len(GarmentType)], random)
        for detail in _details(random, taken):
            pairs = [(garment, detail) for garment in variants]
            shown += pairs + random.sample(pairs, TWINS)
    random.shuffle(shown)
    return tuple(Drawing(f"{g.colour}-{g.pattern}-{g.kind}-{i:04}.png", g, d, seed=i) for i, (g, d) in enumerate(shown))


@cache
def queries() -> tuple[WardrobeQuery, ...]:
    """The 500 queries. A reference is never among its own targets."""
    random = Random(SEED + 1)
    asked: set[tuple[Garment, Garment, Detail]] = set()
    out: list[WardrobeQuery] = []
    while len(out) < QUERIES:
        reference = random.choice(drawings())
        other = random.choice(_shoots()[reference.detail])
        changed = words.differences(reference.garment, other.garment)
        key = (reference.garment, other.garment, reference.detail)
        if not 1 <= len(changed) <= 2 or key in asked:
            continue
        asked.add(key)
        targets = tuple(d.id for d in _shoots()[reference.detail] if d.garment == other.garment)
        prompt = words.change(other.garment, changed, random)
        out.append(WardrobeQuery(f"{len(out):03}", reference.id, prompt, targets, tuple(changed)))
    return tuple(out)


@cache
def _shoots() -> dict[Detail, list[Drawing]]:
    """Drawings by detail. Every shoot of the world has a detail of its own."""
    shoots: dict[Detail, list[Drawing]] = {}
    for drawing in drawings():
        shoots.setdefault(drawing.detail, []).append(drawing)
    return shoots


def _variants(kind: GarmentType, random: Random) -> list[Garment]:
    """A garment and others that differ from it in one or two attributes, all distinct."""
    groups = choices(kind)
    drawn = {name: random.choice(values) for name, values in groups.items()}
    base = Garment(kind, **{f.name: drawn.get(f.name) for f in fields(Garment) if f.name != "kind"})  # type: ignore[arg-type]
    variants = [base]
    while len(variants) < VARIANTS:
        names = random.sample(list(groups), random.choice((1, 1, 2)))
        other = base.changed(**{name: random.choice(groups[name]) for name in names})
        if other not in variants:
            variants.append(other)
    return variants


def _details(random: Random, taken: set[Detail]) -> list[Detail]:
    """The shoots of one line, no two alike in the whole world: each differs from the line's first in two or three parts."""
    details: list[Detail] = []
    while len(details) < SHOOTS:
        names = random.sample(list(DETAILS), random.choice((2, 3))) if details else list(DETAILS)
        drawn = {name: random.choice(DETAILS[name]) for name in names}
        detail = replace(details[0], **drawn) if details else Detail(**drawn)  # type: ignore[arg-type]
        if detail not in taken:
            taken.add(detail)
            details.append(detail)
    return details
