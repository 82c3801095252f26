"""Outlines, as lists of (x, y) points: garments, print motifs, and the curves that join them.

Garments stand in a box with x from −1 to 1 and y from 0 (collar) to 1 (the floor);
motifs fill the square from −1 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

from mmretrieve.wardrobe.attributes import Garment, Kind, Length, Motif, Neckline, Sleeves

Point = tuple[float, float]
Outline = list[Point]

HEM = {Length.SHORT: 0.62, Length.KNEE: 0.80, Length.LONG: 0.99}
TOP_HEM = {Kind.TOP: 0.60, Kind.SHIRT: 0.68, Kind.SWEATER: 0.62, Kind.HOODIE: 0.64, Kind.JACKET: 0.58}
BROAD = {Kind.SWEATER: 0.05, Kind.HOODIE: 0.07, Kind.JACKET: 0.06, Kind.COAT: 0.06}
NECK_DEPTH = {Neckline.ROUND: 0.09, Neckline.V: 0.20, Neckline.HIGH: -0.06, Neckline.SQUARE: 0.12}


def curve(points: Outline, steps: int = 6) -> Outline:
    """A closed Catmull-Rom curve through the points; a point named twice in a row stays a corner."""
    out: Outline = []
    count = len(points)
    for i in range(count):
        p0, p1, p2, p3 = (points[(i + j - 1) % count] for j in range(4))
        if p1 == p2:
            continue
        for step in range(steps):
            t = step / steps
            out.append(tuple(  # type: ignore[arg-type]
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
                for a, b, c, d in zip(p0, p1, p2, p3, strict=True)
            ))
    return out


def mirrored(right: Outline) -> Outline:
    """A symmetric outline from its right half, top to bottom."""
    return right + [(-x, y) for x, y in reversed(right)]


def corner(x: float, y: float) -> Outline:
    return [(x, y), (x, y)]


def body(garment: Garment) -> list[Outline]:
    """The garment without its sleeves, as one or more closed outlines."""
    match garment.kind:
        case Kind.SKIRT:
            hem = HEM[garment.length or Length.KNEE] - 0.22
            flare = 0.34 + 0.32 * hem
            return [curve(mirrored([*corner(0.26, 0.10), (0.33, 0.20), (flare, hem), *corner(flare + 0.02, hem + 0.02)]))]
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
    """The two sleeves, or none."""
    if garment.sleeves is None or garment.sleeves is Sleeves.NONE:
        return []
    broad = BROAD.get(garment.kind, 0.0)
    shoulder = 0.38 + broad
    if garment.sleeves is Sleeves.SHORT:
        right = [*corner(shoulder - 0.10, 0.035), (shoulder + 0.10, 0.10), *corner(shoulder + 0.22, 0.25), *corner(shoulder + 0.02, 0.31), *corner(0.29 + broad, 0.21)]
    else:
        right = [*corner(shoulder - 0.10, 0.035), (shoulder + 0.09, 0.10), (shoulder + 0.22, 0.34), *corner(shoulder + 0.29, 0.60), *corner(shoulder + 0.12, 0.62), (shoulder + 0.04, 0.38), *corner(0.29 + broad, 0.21)]
    return [curve(right), curve([(-x, y) for x, y in right])]


def seams(garment: Garment) -> list[Outline]:
    """The lines that show: every outline closed, and where sleeve or skirt meets the body."""
    return [[*outline, outline[0]] for outline in sleeves(garment) + body(garment)]


def cuffs(garment: Garment) -> list[Outline]:
    """Bands at the ends of the sleeves."""
    shoulder = 0.38 + BROAD.get(garment.kind, 0.0)
    if garment.sleeves is Sleeves.SHORT:
        right = [(shoulder + 0.205, 0.215), (shoulder + 0.23, 0.255), (shoulder + 0.02, 0.32), (shoulder + 0.005, 0.275)]
    elif garment.sleeves is Sleeves.LONG:
        right = [(shoulder + 0.275, 0.545), (shoulder + 0.295, 0.605), (shoulder + 0.115, 0.63), (shoulder + 0.10, 0.57)]
    else:
        return []
    return [right, [(-x, y) for x, y in right]]


def neck(garment: Garment) -> Outline:
    """The opening (a high neck: the collar) of a garment that has a neckline."""
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
    return curve(mirrored([*corner(0.15, 0.0), *corner(shoulder, 0.045), (0.30 + broad, 0.20), (waist, 0.38), *corner(half_width, hem)]))


def _flare(top: float, hem: float, waist: float, half_width: float) -> Outline:
    return curve(mirrored([*corner(waist, top), (waist + 0.08, top + 0.08), (half_width, hem - 0.02), *corner(half_width + 0.01, hem)]))


def _legs(top: float, hem: float, half_width: float) -> list[Outline]:
    outer = half_width + 0.07
    fork = top + 0.16
    right = [*corner(-0.01, top), *corner(half_width - 0.03, top), (outer, fork), (outer - 0.04 * (hem > 0.6), hem), *corner(outer - 0.04 * (hem > 0.6), hem), *corner(0.09 if hem > 0.6 else 0.05, hem), *corner(0.01, fork + 0.03), *corner(-0.01, fork)]
    return [curve(right), curve([(-x, y) for x, y in right])]


def _radial(count: int, radius: Callable[[int], float], turn: float = -pi / 2) -> Outline:
    return [(radius(i) * cos(2 * pi * i / count + turn), radius(i) * sin(2 * pi * i / count + turn)) for i in range(count)]


MOTIFS: dict[Motif, list[Outline]] = {
    Motif.STAR: [_radial(10, lambda i: 0.42 if i % 2 else 1.0)],
    Motif.HEART: [[(0.9 * sin(t) ** 3, -0.062 * (13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t)) - 0.1) for t in (2 * pi * i / 32 for i in range(32))]],
    Motif.MOON: [[(0.95 * cos(a), 0.95 * sin(a)) for a in (0.9 + (2 * pi - 1.8) * i / 20 for i in range(21))] + [(0.42 + 0.68 * cos(a), 0.68 * sin(a)) for a in (2 * pi - 1.6 - (2 * pi - 3.2) * i / 20 for i in range(21))]],
    Motif.SUN: [_radial(36, lambda i: 1.0 if i % 3 == 0 else 0.66)],
    Motif.FISH: [[(0.62 * cos(t) - 0.3, 0.5 * sin(t)) for t in (2 * pi * i / 24 for i in range(24))], [(0.15, 0.0), (1.0, -0.55), (0.8, 0.0), (1.0, 0.55)]],
    Motif.LEAF: [[(0.0, -1.0), (0.45, -0.5), (0.6, 0.05), (0.35, 0.55), (0.07, 0.72), (0.07, 1.0), (-0.07, 1.0), (-0.07, 0.72), (-0.35, 0.55), (-0.6, 0.05), (-0.45, -0.5)]],
    Motif.BOLT: [[(0.25, -1.0), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1.0), (0.6, -0.25), (0.05, -0.25)]],
    Motif.CLOUD: [[(x + r * cos(2 * pi * i / 16), y + r * sin(2 * pi * i / 16)) for i in range(16)] for x, y, r in ((-0.5, 0.2, 0.42), (0.5, 0.2, 0.42), (0.0, -0.12, 0.55))],
    Motif.DROP: [[(0.0, -1.0), (0.3, -0.4), (0.58, 0.1), (0.6, 0.45), (0.4, 0.8), (0.0, 0.95), (-0.4, 0.8), (-0.6, 0.45), (-0.58, 0.1), (-0.3, -0.4)]],
    Motif.CROWN: [[(-0.9, 0.7), (-0.9, -0.6), (-0.4, 0.0), (0.0, -0.8), (0.4, 0.0), (0.9, -0.6), (0.9, 0.7)]],
    Motif.RING: [[(0.92 * cos(2 * pi * i / 28), 0.92 * sin(2 * pi * i / 28)) for i in range(29)] + [(0.5 * cos(-2 * pi * i / 28), 0.5 * sin(-2 * pi * i / 28)) for i in range(29)]],
    Motif.PLUS: [[(-0.32, -0.95), (0.32, -0.95), (0.32, -0.32), (0.95, -0.32), (0.95, 0.32), (0.32, 0.32), (0.32, 0.95), (-0.32, 0.95), (-0.32, 0.32), (-0.95, 0.32), (-0.95, -0.32), (-0.32, -0.32)]],
}
