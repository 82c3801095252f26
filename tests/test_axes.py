"""Axes: their directions by hand, positions in standard deviations, and what the wardrobe's attributes look like along them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmretrieve as mm
from mmretrieve.axes import TEMPLATES
from mmretrieve.errors import GalleryError, ImageError, OptionError, VectorError


@pytest.fixture(scope="module")
def axis(retriever: mm.Retriever) -> mm.Axis:
    return retriever.axis("with long sleeves", "without sleeves")


def test_the_direction_between_two_sets_by_hand() -> None:
    """The means are (1, 1)/2 and (0, 0, 1): their difference is (1, 1, −2)/2, of length √6/2."""
    axis = mm.Axis.between("up", np.eye(3)[:2], np.eye(3)[2:])
    assert axis.direction == pytest.approx(np.array([1, 1, -2]) / np.sqrt(6))
    assert axis.direction.dtype == np.float32
    assert (-axis).direction == pytest.approx(-axis.direction)
    np.testing.assert_allclose(mm.Axis.between("down", np.eye(3)[2:], np.eye(3)[:2]).direction, -axis.direction)


@pytest.mark.parametrize(
    ("words", "opposite", "high", "low"),
    [
        ("red", None, ["very red"], ["not red"]),
        (["red", "pink"], None, ["very red", "very pink"], ["not red", "not pink"]),
        ("red", "blue", ["red"], ["blue"]),
        (("red", "pink"), ["blue"], ["red", "pink"], ["blue"]),
    ],
)
def test_words_are_the_difference_of_mean_sentences(
    retriever: mm.Retriever, encoder: mm.Encoder, words: Any, opposite: Any, high: list[str], low: list[str]
) -> None:
    means = [encoder.encode_texts([t.format(word) for word in end for t in TEMPLATES]).mean(axis=0) for end in (high, low)]
    difference = means[0] - means[1]
    axis = retriever.axis(words, opposite)
    np.testing.assert_allclose(axis.direction, difference / np.linalg.norm(difference), atol=1e-5)
    assert axis.name == ("red" if isinstance(words, str) else "red, pink")


def test_examples_are_items_and_images(retriever: mm.Retriever, photos: Path) -> None:
    paths = {path.name: path for path in sorted(photos.rglob("*.png"))}
    ids = {Path(id_).name: id_ for id_ in retriever.gallery.ids}
    high, low = list(paths)[:3], list(paths)[3:5]
    expected = mm.Axis.between("a", *(retriever.gallery.vectors([ids[name] for name in end]) for end in (high, low)))
    by_id = retriever.axis("a", high=[ids[name] for name in high], low=[ids[name] for name in low])
    assert by_id.direction.tolist() == expected.direction.tolist()
    with Image.open(paths[low[1]]) as picture:
        mixed = retriever.axis(
            "a", high=[paths[high[0]], *(ids[name] for name in high[1:])], low=(ids[low[0]], picture.convert("RGB"))
        )
    np.testing.assert_allclose(mixed.direction, expected.direction, atol=2e-3)  # rows of a gallery are float16


def test_positions_are_standard_deviations(retriever: mm.Retriever, axis: mm.Axis) -> None:
    ranking = retriever.sort(axis, k=60)
    scores = retriever.gallery.vectors() @ axis.direction
    expected = dict(zip(retriever.gallery.ids, (scores - scores.mean()) / scores.std(), strict=True))
    assert ranking.ids == tuple(sorted(expected, key=lambda id_: -expected[id_]))
    assert [hit.score for hit in ranking] == pytest.approx([expected[id_] for id_ in ranking.ids], abs=1e-4)
    assert np.mean([hit.score for hit in ranking]) == pytest.approx(0, abs=1e-4)
    assert np.std([hit.score for hit in ranking]) == pytest.approx(1, abs=1e-4)
    assert dict(ranking[0].contributions) == {"axis": pytest.approx(ranking[0].score)}
    assert ranking.words == {"axis": "with long sleeves"}
    assert retriever.sort(-axis, k=60).ids == ranking.ids[::-1]


def test_a_ranking_sorted_has_the_same_hits_at_the_positions_of_the_gallery(retriever: mm.Retriever, axis: mm.Axis) -> None:
    ranking = retriever.search(prompt="a red dress", k=12)
    result = retriever.sort(axis, ranking)
    whole = {hit.id: hit for hit in retriever.sort(axis, k=60)}
    assert result.ids == tuple(id_ for id_ in whole if id_ in ranking.ids)
    assert [hit.rank for hit in result] == list(range(1, 13))
    for hit in result:
        assert (hit.path, dict(hit.contributions)) == (whole[hit.id].path, dict(whole[hit.id].contributions))
        assert hit.score == pytest.approx(whole[hit.id].score, abs=1e-6)
    nothing = retriever.search(prompt="a red dress", min_score=99)
    assert len(retriever.sort(axis, nothing)) == 0


def test_an_axis_is_a_term_of_a_search(retriever: mm.Retriever) -> None:
    ends = {"axis": ["long", "to the floor"], "axis_opposite": "short"}
    axis = retriever.axis(*ends.values())
    query = {"reference_id": retriever.gallery.ids[0], "prompt": "in red"}
    plain = retriever.compose(**query)
    along = retriever.compose(**query, **ends, axis_weight=-0.5)
    np.testing.assert_allclose(along["axis"], axis.direction, atol=1e-6)
    assert (along.term_weights["axis"], along.words["axis"]) == (-0.5, "long, to the floor")
    np.testing.assert_allclose(along.vector, plain.vector - 0.5 * axis.direction, atol=1e-6)
    spread = retriever.gallery.spread
    weighed = retriever.weigh(along).term_weights
    amounts = {name: weighed[name] * spread.deviation(along[name]) for name in ("image", "axis")}
    assert amounts["axis"] == pytest.approx(-0.5 * amounts["image"], rel=1e-4), "automatic weights are in standard deviations"
    positions = {hit.id: hit.score for hit in retriever.sort(axis, k=len(retriever.gallery))}
    means = [
        np.mean([positions[id_] for id_ in retriever.search(**query, **ends, axis_weight=weight, k=10).ids])
        for weight in (-2, 0, 2)
    ]
    assert means == sorted(means)
    assert means[2] - means[0] > 0.5


def test_the_gallery_is_sorted_by_an_axis_alone(retriever: mm.Retriever) -> None:
    axis = retriever.axis("red", "blue")
    for weight, sorted_by in ((1, axis), (-3, -axis)):
        ranking, expected = retriever.search(axis="red", axis_opposite="blue", axis_weight=weight), retriever.sort(sorted_by)
        assert ranking.ids == expected.ids
        np.testing.assert_allclose([hit.score for hit in ranking], [hit.score for hit in expected], atol=1e-5)
    assert ranking.answerable is None


def test_equal_positions_keep_their_order(tmp_path: Path, encoder: mm.Encoder, axis: mm.Axis, retriever: mm.Retriever) -> None:
    vectors = retriever.gallery.vectors()[[0, 1, 0, 1]]
    gallery = mm.Gallery.for_vectors(tmp_path / "g", encoder.identity, encoder.dim)
    gallery.add_vectors(list("abcd"), vectors)
    own = mm.Retriever(gallery, encoder)
    ranking = own.sort(axis)
    assert ranking.ids in (("a", "c", "b", "d"), ("b", "d", "a", "c"))
    assert own.sort(axis, ranking).ids == ranking.ids


def test_what_is_wrong_is_one_line(retriever: mm.Retriever, axis: mm.Axis, tmp_path: Path) -> None:
    ids = retriever.gallery.ids[:2]
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"words": ""}, OptionError, "words is empty"),
        ({"words": []}, OptionError, "words is an empty list; name what the end of the axis is"),
        ({"words": "red", "opposite": []}, OptionError, "opposite is an empty list"),
        ({"words": "red", "opposite": 3}, OptionError, "opposite must be text, got 3"),
        ({"words": "red", "high": ids}, OptionError, "an axis needs words, or examples of both ends"),
        (
            {"words": "red", "opposite": "blue", "high": ids, "low": ids},
            OptionError,
            "an axis needs words, or examples of both",
        ),
        ({"words": "red", "high": [], "low": ids}, OptionError, "high must be a list of images and ids of items"),
        ({"words": "red", "high": ids[0], "low": ids}, OptionError, "high must be a list of images and ids of items"),
        ({"words": "red", "high": ids, "low": ids}, VectorError, "the axis 'red' has no direction"),
        ({"words": "red", "opposite": "red"}, OptionError, "the axis 'red' has no direction: the encoder sees no difference"),
        ({"words": "red", "high": ["none"], "low": ids}, GalleryError, "no item 'none'"),
        ({"words": "red", "high": [tmp_path / "none.jpg"], "low": ids}, ImageError, "none.jpg"),
    ]
    for options, error, line in cases:
        with pytest.raises(error, match=line):
            retriever.axis(**options)
    with pytest.raises(OptionError, match=r"expected an Axis, such as what Retriever.axis returns, got 'red'"):
        retriever.sort("red")  # type: ignore[arg-type]
    for more in ({"k": 3}, {"where": "width > 3"}):
        with pytest.raises(OptionError, match="sort takes a ranking, whose hits it sorts, or k and where"):
            retriever.sort(axis, retriever.search(prompt="a dress"), **more)  # type: ignore[arg-type]
    with pytest.raises(VectorError, match="the direction of an axis: expected unit rows"):
        mm.Axis("red", np.array([3.0, 4.0], np.float32))
    with pytest.raises(VectorError, match="the axis 'red' has 2 numbers, the vectors of the gallery 128; make it with"):
        retriever.sort(mm.Axis("red", np.array([1.0, 0.0], np.float32)))
    with pytest.raises(VectorError, match="needs an example of each end, got 0 and 1"):
        mm.Axis.between("red", np.empty((0, 2)), [[1, 0]])
