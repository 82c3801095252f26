"""The study of axes: rank correlations by hand, labels that agree with the drawings, and its table."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest

import mmretrieve as mm
from eval.studies.axes import ATTRIBUTES, SHADES, axis_from_examples, axis_from_pairs, measure_axes, spearman
from eval.studies.tables import axes_table
from mmretrieve import wardrobe
from mmretrieve.vectors import unit
from mmretrieve.wardrobe.attributes import Pattern
from mmretrieve.wardrobe.draw import Canvas, _fabric

ROOT = Path(__file__).parents[2]


def test_spearman_by_hand() -> None:
    """1 − 6 Σ d² / (n (n² − 1)) without ties; with ties, the correlation of mean ranks."""
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert spearman([5, 6, 7], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 3, 4], [0, 0, 1, 1]) == pytest.approx(np.corrcoef([1, 2, 3, 4], [1.5, 1.5, 3.5, 3.5])[0, 1])


@pytest.mark.parametrize("pattern", Pattern)
def test_shades_are_those_of_the_cloth(pattern: Pattern) -> None:
    canvas = Canvas(1200, 0.5, 0.1, 0.4, 0.8)
    cloth = np.asarray(_fabric(pattern, (200, 0, 0), canvas, Random(0)), dtype=float)[..., 0]
    second = np.asarray(_fabric(Pattern.STRIPED, (200, 0, 0), canvas, Random(0)), dtype=float)[..., 0].max()
    assert ((cloth - 200) / (second - 200)).mean() == pytest.approx(SHADES[pattern], abs=0.03)


def test_examples_are_of_both_ends() -> None:
    """Labels 0 to 9: one in five is an end, so 0, 1 and 8, 9 are; the other rows do not count."""
    labels = np.repeat(np.arange(10.0), 5)
    vectors = np.zeros((50, 3), np.float32)
    vectors[labels >= 8, 0] = vectors[labels <= 1, 1] = vectors[(labels > 1) & (labels < 8), 2] = 1
    axis = axis_from_examples(labels, vectors, seed=0)
    np.testing.assert_allclose(axis.direction, unit([[1, -1, 0]])[0], atol=1e-6)


def test_an_encoder_that_sees_an_attribute_reaches_what_ties_allow(
    encoder: mm.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings = wardrobe.drawings()
    fields = {drawing.id: wardrobe.fields_of(drawing) for drawing in drawings}
    (attribute,) = (one for one in ATTRIBUTES["wardrobe"] if one.label == "sleeve length")
    monkeypatch.setitem(ATTRIBUTES, "wardrobe", (attribute,))
    values = [attribute.values.get(str(fields[drawing.id]["sleeves"])) for drawing in drawings]
    angles = np.array([0.5 if value is None else value / 2 for value in values])
    vectors = np.zeros((len(drawings), encoder.dim), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    benchmark = SimpleNamespace(name="wardrobe", gallery_ids=tuple(fields), fields=fields)
    result = measure_axes(benchmark, vectors, encoder)["sleeve length"]  # type: ignore[arg-type]
    assert result["items"] == sum(value is not None for value in values)
    for name in ("ten examples", "five pairs"):
        assert result[name] == [pytest.approx(1), pytest.approx(0)]
    counts = np.unique([value for value in values if value is not None], return_counts=True)[1]
    n = counts.sum()
    assert result["at most"] == pytest.approx(np.sqrt(1 - (counts**3 - counts).sum() / (n**3 - n)))


def test_pairs_differ_in_nothing_but_the_label() -> None:
    """Each kind has a place of its own, which the difference of a pair cancels."""
    kinds, labels = np.repeat(np.arange(5), 2), np.tile([0.0, 1.0], 5)
    vectors = unit(np.concatenate([np.eye(5)[kinds], labels[:, None]], axis=1) + 0.1)
    axis = axis_from_pairs(labels, vectors, kinds.tolist(), seed=0)
    expected = (vectors[1::2] - vectors[::2]).mean(axis=0)
    np.testing.assert_allclose(axis.direction, expected / np.linalg.norm(expected), atol=1e-6)


def test_axes_table() -> None:
    row = {"items": 1200, "at most": 0.94, "a word": 0.5, "ten examples": [0.9, 0.011]}
    assert axes_table({"wardrobe": {"attributes": {"redness": row}}}).splitlines() == [
        "| set | attribute | items | at most | a word | ten examples |",
        "| --- | --- | --- | --- | --- | --- |",
        "| wardrobe | redness | 1,200 | 0.94 | 0.50 | 0.90 ± 0.01 |",
    ]


def test_the_table_in_the_guide_is_that_of_the_result() -> None:
    result = json.loads((ROOT / "results" / "axes.json").read_text(encoding="utf-8"))
    assert axes_table(result) in (ROOT / "docs" / "guides" / "searching.md").read_text(encoding="utf-8")
