"""Outlines of garments and motifs, as lists of (x, y) points.

Garments have coordinates x from −1 to 1 and y from 0 (collar) to 1 (floor); motifs fill the square from −1 to 1.
"""

from __future__ import annotations

from math import cos, pi, sin

from mmretrieve.wardrobe.attributes import Garment, Kind, Length, Motif, Neckline, Sleeves

Point = tuple[float, float]
Outline = list[Point]

HEM = {Length.SHORT: 0.62, Length.KNEE: 0.80, Length.LONG: 0.99}
TOP_HEM = {
    Kind.TOP: 0.60,
    Kind.SHIRT: 0.68,
    Kind.SWEATER: 0.62,
    Kind.HOODIE: 0.64,
    Kind.JACKET: 0.58,
}
BROAD = {Kind.SWEATER: 0.05, Kind.HOODIE: 0.07, Kind.JACKET: 0.06, Kind.COAT: 0.06}
NECK_DEPTH = {Neckline.ROUND: 0.09, Neckline.V: 0.20, Neckline.HIGH: -0.06, Neckline.SQUARE: 0.12}


def curve(points: Outline, steps: int = 6) -> Outline:
    """A closed Catmull-Rom curve through the points; a point that occurs twice in a row is a corner."""
    result: Outline = []
    count = len(points)
    for i in range(count):
        p0, p1, p2, p3 = (points[(i + j - 1) % count] for j in range(4))
        if p1 == p2:
            continue
        for step in range(steps):
            t = step / steps
            result.append(
                tuple(  # type: ignore[arg-type]
                    0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
                    for a, b, c, d in zip(p0, p1, p2, p3, strict=True)
                )
            )
    return result


def mirror(right: Outline) -> Outline:
    """A symmetric outline from its right half, which is given from top to bottom."""
    return right + [(-x, y) for x, y in reversed(right)]


def corner(x: float, y: float) -> Outline:
    """A point that `curve` keeps as a corner."""
    return [(x, y), (x, y)]


def body(garment: Garment) -> list[Outline]:
    """The garment without its sleeves, as one or more closed outlines."""
    match garment.kind:
        case Kind.SKIRT:
            hem = HEM[garment.length or Length.KNEE] - 0.22
            flare = 0.34 + 0.32 * hem
            return [curve(mirror([*corner(0.26, 0.10), (0.33, 0.20), (flare, hem), *corner(flare + 0.02, hem + 0.02)]))]
        case Kind.TROUSERS | Kind.SHORTS:
            return _legs(0.10, 0.95 if garment.kind is Kind.TROUSERS else 0.48, 0.29)
        case Kind.JUMPSUIT:
            return [_torso(garment, 0.46, 0.30), *_legs(0.44, HEM[garment.length or Length.LONG], 0.30)]
        case Kind.DRESS:
            hem = HEM[garment.length or Length.KNEE]
            return [_torso(garment, 0.42, 0.25), _flare(0.40, hem, 0.25, 0.32 + 0.34 * (hem - 0.4))]
        case Kind.COAT:
            hem = HEM[garment.length or Length.KNEE]
            return [_torso(garment, hem, 0.40 + 0.12 * (hem - 0.5))]
        case _:
            return [_torso(garment, TOP_HEM[garment.kind], 0.36 + BROAD.get(garment.kind, 0.0))]


def sleeves(garment: Garment) -> list[Outline]:
    """The two sleeves; [] for a garment without."""
    if garment.sleeves is None or garment.sleeves is Sleeves.NONE:
        return []
    broad = BROAD.get(garment.kind, 0.0)
    shoulder = 0.38 + broad
    outside, inside = corner(shoulder - 0.10, 0.035), corner(0.29 + broad, 0.21)
    if garment.sleeves is Sleeves.SHORT:
        end = [(shoulder + 0.10, 0.10), *corner(shoulder + 0.22, 0.25), *corner(shoulder + 0.02, 0.31)]
    else:
        wrist = [*corner(shoulder + 0.29, 0.60), *corner(shoulder + 0.12, 0.62)]
        end = [(shoulder + 0.09, 0.10), (shoulder + 0.22, 0.34), *wrist, (shoulder + 0.04, 0.38)]
    right = [*outside, *end, *inside]
    return [curve(right), curve([(-x, y) for x, y in right])]


def seams(garment: Garment) -> list[Outline]:
    """The closed outlines of sleeves and body, which are drawn as lines."""
    return [[*outline, outline[0]] for outline in sleeves(garment) + body(garment)]


def cuffs(garment: Garment) -> list[Outline]:
    """Bands at the ends of the sleeves; [] for a garment without."""
    shoulder = 0.38 + BROAD.get(garment.kind, 0.0)
    if garment.sleeves is Sleeves.SHORT:
        right = [(shoulder + 0.205, 0.215), (shoulder + 0.23, 0.255), (shoulder + 0.02, 0.32), (shoulder, 0.275)]
    elif garment.sleeves is Sleeves.LONG:
        right = [(shoulder + 0.275, 0.545), (shoulder + 0.295, 0.605), (shoulder + 0.115, 0.63), (shoulder + 0.10, 0.57)]
    else:
        return []
    return [right, [(-x, y) for x, y in right]]


def neck(garment: Garment) -> Outline:
    """The opening of a neckline; for a high neck, the collar."""
    depth = NECK_DEPTH[garment.neckline or Neckline.ROUND]
    match garment.neckline:
        case Neckline.V:
            return [(-0.15, 0.005), (0.15, 0.005), (0.0, depth)]
        case Neckline.SQUARE:
            return [(-0.17, 0.0), (0.17, 0.0), (0.17, depth), (-0.17, depth)]
        case Neckline.HIGH:
            return [(-0.12, depth), (0.12, depth), (0.155, 0.025), (0.0, 0.05), (-0.155, 0.025)]
        case _:
            return [(0.15 * cos(pi * i / 12), depth * sin(pi * i / 12)) for i in range(13)]


def _torso(garment: Garment, hem: float, half_width: float) -> Outline:
    broad = BROAD.get(garment.kind, 0.0)
    shoulder = 0.36 + broad if garment.sleeves is not Sleeves.NONE else 0.29
    waist = (half_width + 0.27 + broad) / 2
    return curve(
        mirror([*corner(0.15, 0.0), *corner(shoulder, 0.045), (0.30 + broad, 0.20), (waist, 0.38), *corner(half_width, hem)])
    )


def _flare(top: float, hem: float, waist: float, half_width: float) -> Outline:
    return curve(
        mirror([*corner(waist, top), (waist + 0.08, top + 0.08), (half_width, hem - 0.02), *corner(half_width + 0.01, hem)])
    )


def _legs(top: float, hem: float, half_width: float) -> list[Outline]:
    fork, long = top + 0.16, hem > 0.6
    ankle = half_width + (0.03 if long else 0.07)
    waist = [*corner(-0.01, top), *corner(half_width - 0.03, top)]
    leg = [(half_width + 0.07, fork), (ankle, hem), *corner(ankle, hem), *corner(0.09 if long else 0.05, hem)]
    right = [*waist, *leg, *corner(0.01, fork + 0.03), *corner(-0.01, fork)]
    return [curve(right), curve([(-x, y) for x, y in right])]


def _spiked(count: int, every: int, inner: float) -> Outline:
    """A star of `count` points: each `every`-th has radius 1, the others have radius `inner`."""
    radii = [1.0 if i % every == 0 else inner for i in range(count)]
    return [(r * sin(2 * pi * i / count), -r * cos(2 * pi * i / count)) for i, r in enumerate(radii)]


def _arc(x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 2 * pi) -> Outline:
    steps = 24
    angles = [start + (stop - start) * i / steps for i in range(steps + 1)]
    return [(x + rx * cos(a), y + ry * sin(a)) for a in angles]


def _heart() -> Outline:
    turns = [2 * pi * i / 32 for i in range(32)]
    lobes = [13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t) for t in turns]
    return [(0.9 * sin(t) ** 3, -0.062 * y - 0.1) for t, y in zip(turns, lobes, strict=True)]


# fmt: off
_LEAF_HALF = [(0.0, -1.0), (0.45, -0.5), (0.6, 0.05), (0.35, 0.55), (0.07, 0.72), (0.07, 1.0)]
_DROP_HALF = [(0.0, -1.0), (0.3, -0.4), (0.58, 0.1), (0.6, 0.45), (0.4, 0.8), (0.0, 0.95)]
_PLUS_HALF = [(0.32, -0.95), (0.32, -0.32), (0.95, -0.32), (0.95, 0.32), (0.32, 0.32), (0.32, 0.95)]
_BOLT = [(0.25, -1.0), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1.0), (0.6, -0.25), (0.05, -0.25)]
_CROWN = [(-0.9, 0.7), (-0.9, -0.6), (-0.4, 0.0), (0.0, -0.8), (0.4, 0.0), (0.9, -0.6), (0.9, 0.7)]
_FISH_TAIL = [(0.15, 0.0), (1.0, -0.55), (0.8, 0.0), (1.0, 0.55)]
# fmt: on

MOTIFS: dict[Motif, list[Outline]] = {
    Motif.STAR: [_spiked(10, 2, 0.42)],
    Motif.HEART: [_heart()],
    Motif.MOON: [_arc(0, 0, 0.95, 0.95, 0.9, 2 * pi - 0.9) + _arc(0.42, 0, 0.68, 0.68, 2 * pi - 1.6, 1.6)],
    Motif.SUN: [_spiked(36, 3, 0.66)],
    Motif.FISH: [_arc(-0.3, 0, 0.62, 0.5), _FISH_TAIL],
    Motif.LEAF: [mirror(_LEAF_HALF)],
    Motif.BOLT: [_BOLT],
    Motif.CLOUD: [_arc(-0.5, 0.2, 0.42, 0.42), _arc(0.5, 0.2, 0.42, 0.42), _arc(0, -0.12, 0.55, 0.55)],
    Motif.DROP: [mirror(_DROP_HALF)],
    Motif.CROWN: [_CROWN],
    Motif.RING: [_arc(0, 0, 0.92, 0.92) + _arc(0, 0, 0.5, 0.5, 2 * pi, 0)],
    Motif.PLUS: [mirror(_PLUS_HALF)],
}
