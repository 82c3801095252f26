"""How well axes order items by an attribute: Spearman's correlation of positions with labels, for axes from words and from examples."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import pi, sqrt
from random import Random
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.benchmarks import Benchmark
from mmretrieve import Axis, Encoder
from mmretrieve.axes import axis_from_words
from mmretrieve.vectors import Float32
from mmretrieve.wardrobe.attributes import Pattern, Sleeves
from mmretrieve.wardrobe.draw import COLOUR_RGB

EXAMPLES = 5  # of each end
DRAWS = 20  # of examples
NAMES = "title"  # a field that names items: no two are equal in it
END_SHARE = 5  # one in so many of the different labels counts as an end, and at least one
SHADES: dict[str, float] = {  # the share of the cloth that has the second shade, from the geometry of the drawings
    Pattern.PLAIN: 0.0,
    Pattern.DOTTED: pi * 0.23**2,
    Pattern.DIAMOND: 2 * 0.42**2,
    Pattern.ZIGZAG: 0.30 / 1.25 * sqrt(0.55**2 + 0.6**2) / 0.55,
    Pattern.STRIPED: 0.45,
    Pattern.CHECKED: 0.55 / 1.15,
}
SLEEVES: dict[str, float] = {sleeves: float(i) for i, sleeves in enumerate(Sleeves)}
REDNESS: dict[str, float] = {colour: red - (green + blue) / 2 for colour, (red, green, blue) in COLOUR_RGB.items()}
"""How much more red than green and blue a color is."""
LIGHTNESS = {"black": 0.0, "grey": 0.5, "white": 1.0}
FORMALITY = {"casual": 0.0, "sports": 0.0, "formal": 1.0}
GENDER = {"men": 0.0, "women": 1.0}


@dataclass(frozen=True)
class AxisAttribute:
    """An attribute that an axis should order items by.

    Parameters
    ----------
    label : its name in the table.
    field, values : the field of items that has it, and the number for each of its values. Other values are left out.
    words, opposite : both ends, in one word each.
    several, opposites : both ends, in several words.
    """

    label: str
    field: str
    values: Mapping[str, float]
    words: str
    opposite: str
    several: tuple[str, ...]
    opposites: tuple[str, ...]


ATTRIBUTES = {
    "wardrobe": (
        AxisAttribute(
            "redness", "colour", REDNESS, "red", "blue", ("red", "orange", "yellow", "pink"), ("teal", "blue", "green", "navy")
        ),
        AxisAttribute(
            "sleeve length",
            "sleeves",
            SLEEVES,
            "with long sleeves",
            "without sleeves",
            ("with long sleeves", "long-sleeved"),
            ("without sleeves", "sleeveless"),
        ),
        AxisAttribute("pattern density", "pattern", SHADES, "patterned", "plain", ("checked", "striped"), ("plain", "dotted")),
    ),
    "catalogue": (
        AxisAttribute("lightness", "colour", LIGHTNESS, "white", "black", ("white", "light"), ("black", "dark")),
        AxisAttribute("formality", "usage", FORMALITY, "formal", "casual", ("formal", "elegant"), ("casual", "sports")),
        AxisAttribute("for women", "gender", GENDER, "women", "men", ("women", "girls"), ("men", "boys")),
    ),
}
"""Benchmark → attributes."""


def measure_axes(benchmark: Benchmark, vectors: Float32, encoder: Encoder) -> dict[str, Any]:
    """Attribute → the number of items that have it, the largest correlation that its ties allow, and that of each kind of axis.

    vectors: (items, d), in the order of the benchmark's ids. Examples are drawn DRAWS times; the result has mean and deviation.
    """
    return {one.label: _measure_attribute(one, benchmark, vectors, encoder) for one in ATTRIBUTES[benchmark.name]}


def _measure_attribute(attribute: AxisAttribute, benchmark: Benchmark, vectors: Float32, encoder: Encoder) -> dict[str, Any]:
    fields = [benchmark.fields[id_] for id_ in benchmark.gallery_ids]
    rows = [row for row, own in enumerate(fields) if own.get(attribute.field) in attribute.values]
    labels = np.array([attribute.values[str(fields[row][attribute.field])] for row in rows])
    own = vectors[rows]
    others = [tuple(value for name, value in fields[row].items() if name not in (attribute.field, NAMES)) for row in rows]

    def measure(axis: Axis) -> float:
        return spearman(own @ axis.direction, labels)

    drawn = [measure(axis_from_examples(labels, own, seed)) for seed in range(DRAWS)]
    pairs = [measure(axis_from_pairs(labels, own, others, seed)) for seed in range(DRAWS)]
    return {
        "items": len(rows),
        "at most": spearman(np.argsort(np.argsort(labels, kind="stable")), labels),
        "a word": measure(axis_from_words(encoder, [attribute.words])),
        "a word and its opposite": measure(axis_from_words(encoder, [attribute.words], [attribute.opposite])),
        "several words": measure(axis_from_words(encoder, attribute.several, attribute.opposites)),
        "ten examples": [float(np.mean(drawn)), float(np.std(drawn))],
        "five pairs": [float(np.mean(pairs)), float(np.std(pairs))],
    }


def axis_from_examples(labels: NDArray[np.float64], vectors: Float32, seed: int) -> Axis:
    """The axis between EXAMPLES random items of each end of the labels."""
    high, low = (vectors[Random(seed).sample(np.flatnonzero(end).tolist(), EXAMPLES)] for end in _ends(labels))
    return Axis.between("examples", high, low)


def axis_from_pairs(labels: NDArray[np.float64], vectors: Float32, others: Sequence[Hashable], seed: int) -> Axis:
    """The axis between EXAMPLES random items of the high end and items of the low end that are equal otherwise.

    others: what an item is apart from its label.
    """
    high, low = _ends(labels)
    partners: dict[Hashable, list[int]] = {}
    for row in np.flatnonzero(low).tolist():
        partners.setdefault(others[row], []).append(row)
    random = Random(seed)
    rows = random.sample([row for row in np.flatnonzero(high).tolist() if others[row] in partners], EXAMPLES)
    return Axis.between("pairs", vectors[rows], vectors[[random.choice(partners[others[row]]) for row in rows]])


def _ends(labels: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) whether each item is of the high end, and of the low end."""
    distinct = np.unique(labels)
    count = max(1, len(distinct) // END_SHARE)
    return labels >= distinct[-count], labels <= distinct[count - 1]


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation; equal values have the mean of their ranks.

    >>> spearman([1, 2, 3], [10, 20, 20])
    0.8660254037844387
    """
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    _, places, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places], dtype=np.float64)
