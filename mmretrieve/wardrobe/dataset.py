"""The data set of the wardrobe: 2,000 drawings and 500 composed queries, the same on every machine.

The gallery consists of product lines (a garment and its variants), each photographed in several shoots (one `Detail` each). A
query has one drawing as its reference and asks for another variant. A target has the requested attributes and the detail of
the reference. The prompt alone matches a drawing in every shoot of the line, and the reference alone matches every variant in its
shoot, so neither is sufficient.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cache
from random import Random

from mmretrieve.wardrobe.attributes import Background, Detail, Garment, Kind, Light, Motif, Pose, Trim, choices
from mmretrieve.wardrobe.captions import change_prompt, differences

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
    """One image of the gallery, drawn by `draw(garment, detail, seed=seed)`."""

    id: str
    garment: Garment
    detail: Detail
    seed: int


@dataclass(frozen=True)
class WardrobeQuery:
    """One composed query.

    Parameters
    ----------
    id : number of the query as text.
    reference : id of the reference.
    prompt : asks for the attributes that differ.
    targets : ids of the drawings with the requested attributes and the detail of the reference.
    changed : names of the requested attributes.
    """

    id: str
    reference: str
    prompt: str
    targets: tuple[str, ...]
    changed: tuple[str, ...]


@cache
def drawings() -> tuple[Drawing, ...]:
    """Returns the 2,000 drawings, the same on every machine.

    Returns
    -------
    tuple of Drawing
        The garment, the detail and the seed of each image.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> len(mm.wardrobe.drawings()), mm.wardrobe.drawings()[0].id
    (2000, 'pink-checked-shirt-0000.png')
    """
    random = Random(SEED)
    pairs: list[tuple[Garment, Detail]] = []
    taken: set[Detail] = set()
    for line in range(LINES):
        variants = _variants(list(Kind)[line % len(Kind)], random)
        for detail in _details(random, taken):
            shoot = [(garment, detail) for garment in variants]
            pairs += shoot + random.sample(shoot, TWINS)
    random.shuffle(pairs)
    return tuple(Drawing(f"{g.colour}-{g.pattern}-{g.kind}-{i:04}.png", g, d, seed=i) for i, (g, d) in enumerate(pairs))


@cache
def queries() -> tuple[WardrobeQuery, ...]:
    """Returns the 500 composed queries. A reference is never among its own targets.

    Returns
    -------
    tuple of WardrobeQuery
        The reference, the prompt and the targets of each query.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> query = mm.wardrobe.queries()[0]
    >>> len(mm.wardrobe.queries()), query.reference in query.targets
    (500, False)
    """
    random = Random(SEED + 1)
    used: set[tuple[Garment, Garment, Detail]] = set()
    result: list[WardrobeQuery] = []
    while len(result) < QUERIES:
        reference = random.choice(drawings())
        other = random.choice(_shoots()[reference.detail])
        changed = differences(reference.garment, other.garment)
        key = (reference.garment, other.garment, reference.detail)
        if not 1 <= len(changed) <= 2 or key in used:
            continue
        used.add(key)
        targets = tuple(d.id for d in _shoots()[reference.detail] if d.garment == other.garment)
        prompt = change_prompt(other.garment, changed, random)
        result.append(WardrobeQuery(f"{len(result):03}", reference.id, prompt, targets, tuple(changed)))
    return tuple(result)


@cache
def _shoots() -> dict[Detail, list[Drawing]]:
    """Drawings by detail. Every shoot has a detail of its own."""
    shoots: dict[Detail, list[Drawing]] = {}
    for drawing in drawings():
        shoots.setdefault(drawing.detail, []).append(drawing)
    return shoots


def _variants(kind: Kind, random: Random) -> list[Garment]:
    """A garment and distinct others that differ from it in one or two attributes."""
    groups = choices(kind)
    values = {name: random.choice(options) for name, options in groups.items()}
    base = Garment(kind, **{f.name: values.get(f.name) for f in fields(Garment) if f.name != "kind"})  # type: ignore[arg-type]
    variants = [base]
    while len(variants) < VARIANTS:
        names = random.sample(list(groups), random.choice((1, 1, 2)))
        other = base.changed(**{name: random.choice(groups[name]) for name in names})
        if other not in variants:
            variants.append(other)
    return variants


def _details(random: Random, taken: set[Detail]) -> list[Detail]:
    """The details of one line, distinct in the whole data set: each differs from the first of the line in two or three parts."""
    details: list[Detail] = []
    while len(details) < SHOOTS:
        names = random.sample(list(DETAILS), random.choice((2, 3))) if details else list(DETAILS)
        values = {name: random.choice(DETAILS[name]) for name in names}
        detail = replace(details[0], **values) if details else Detail(**values)  # type: ignore[arg-type]
        if detail not in taken:
            taken.add(detail)
            details.append(detail)
    return details
