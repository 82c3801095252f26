"""Captions of a gallery's pictures: from their own fields, from those of their neighbors, else from another captioner."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Caption
from mmretrieve.language.captioners.gallery import GalleryCaptioner, caption_from_neighbors
from mmretrieve.language.fields import caption_from_fields, vocabulary_from_fields, words_from_fields
from mmretrieve.language.vocabulary import Vocabulary, WordGroup
from mmretrieve.options import CaptionSource
from mmretrieve.vectors import Float32

GROUPS = (
    WordGroup("article", ("hat", "shirt", "sports shoe")),
    WordGroup("colour", ("black", "blue", "red", "sports")),
    WordGroup("gender", ("", "for men", "for women")),
)
SHOP = Vocabulary("a photo of a {colour} {article} {gender}", GROUPS)
HERE = np.array([1, 0], np.float32)


class Other:
    """Returns the number of captions that were requested, and records the queries."""

    def __init__(self) -> None:
        self.queries = list[str | None]()

    def captions(self, queries: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        self.queries += [query.id for query in queries]
        return [["a red hat", *(f"{query.id} {i}" for i in range(1, count))] for query in queries]


def near(articles: str, colours: str = "", genders: str = "") -> list[Mapping[str, object]]:
    """Neighbors by the first letters of their words; "-" for nothing."""
    word = {
        "h": "Hats",
        "s": "shirt",
        "b": "black",
        "u": "Blue",
        "r": "red",
        "m": "Men",
        "w": "women",
        "-": "",
        "p": "Sports_Shoes",
    }
    columns = {"article": articles, "colour": colours, "gender": genders}
    rows = max(map(len, columns.values()))
    return [{name: word[letters[i]] for name, letters in columns.items() if i < len(letters)} for i in range(rows)]


def test_an_item_is_captioned_by_its_own_fields() -> None:
    cases: list[tuple[dict[str, object], str, float]] = [
        ({"article": "Hats", "colour": "Red", "gender": "Men"}, "a photo of a red hat for men", 1.0),
        ({"article": "Sports_Shoes", "colour": "sports"}, "a photo of a sports shoe", 1.0),
        ({"caption": "A hat on a shelf", "article": "shirt"}, "A hat on a shelf", 1.0),
        ({"title": "Acme winter hat", "colour": "red"}, "a photo of Acme winter hat", 0.8),
    ]
    for fields, text, trust in cases:
        other = Other()
        captioner = GalleryCaptioner(SHOP, lambda _: near("ssss"), other)
        ((caption,),) = captioner.captions([ComposerInput(HERE, id="1", fields=fields)])
        assert (caption, other.queries) == (text, [])
        assert isinstance(caption, Caption)
        assert (caption.trust, caption.source) == (trust, CaptionSource.FIELDS)


@pytest.mark.parametrize(
    ("neighbors", "expected", "trust"),
    [
        (near("hhhhhhhhhh", "rrrrrrrrrr", "mmmmmmmmmm"), "a photo of a red hat for men", 1),
        (near("hhhs", "rrbb", "----"), "a photo of a red hat", 3 / 4 * 2 / 4),  # of equal votes the nearest counts
        (near("hhh", "rub", "mm-"), "a photo of a hat for men", 1 / 3 * 2 / 3),  # every other colour
        (near("hsp", "rrr"), "a photo of a red thing", 1 / 3),
        (near("hhh---", "rrrbbb"), "a photo of a red hat", 3 / 6),  # who has no article does not vote on it
        (near("h" * 10 + "s" * 11), "a photo of a hat", 1),  # only ten vote
        (near("ppp", "rrr"), "a photo of a red sports shoe", 1),
        (near("hh-", "rrr"), None, 0),
        (near("", "rrr"), None, 0),
        ([], None, 0),
    ],
)  # fmt: skip
def test_neighbors_vote(neighbors: list[Mapping[str, object]], expected: str | None, trust: float) -> None:
    caption = caption_from_neighbors(neighbors, SHOP)
    assert caption == expected
    if caption is not None:
        assert caption.source is CaptionSource.NEIGHBORS
        assert caption.trust == pytest.approx(trust, abs=0.006)


def test_without_a_noun_three_votes_for_anything_are_enough() -> None:
    colours = Vocabulary("a photo of a {colour} thing", GROUPS[1:2])
    assert caption_from_neighbors(near("", "rru"), colours) == "a photo of a red thing"
    assert caption_from_neighbors(near("", "rr"), colours) is None


def test_groups_of_an_omitted_noun_are_omitted() -> None:
    sleeves = WordGroup("gender", ("for men", "for women"), {"article": ("hat",)})
    vocabulary = Vocabulary(SHOP.sentence, (*GROUPS[:2], sleeves))
    assert caption_from_neighbors(near("hhh", "rrr", "mmm"), vocabulary) == "a photo of a red hat for men"
    assert caption_from_neighbors(near("hsp", "rrr", "mmm"), vocabulary) == "a photo of a red thing"


def test_the_fallback_captions_what_the_gallery_cannot() -> None:
    other = Other()
    fields: dict[str, dict[str, object]] = {"own": {"article": "shirt"}, "price": {"price": 3}}
    neighbors = {1.0: near("hhh"), 0.0: near("h")}
    captioner = GalleryCaptioner(SHOP, lambda vectors, _: [neighbors[float(at[0])] for at in vectors], other)
    far = np.array([0, 1], np.float32)
    queries = [ComposerInput(HERE, id="near"), ComposerInput(far, id="far"), ComposerInput(far, id="own"), ComposerInput(prompt="x", id="words"), ComposerInput(HERE, id="price")]  # fmt: skip
    queries = [replace(query, fields=fields.get(str(query.id))) for query in queries]
    assert captioner.captions(queries) == [
        ["a photo of a hat"], ["a red hat"], ["a photo of a shirt"], ["a red hat"], ["a photo of a hat"],
    ]  # fmt: skip
    assert other.queries == ["far", "words"]
    assert GalleryCaptioner(None, lambda vectors, _: [near("hhh")] * len(vectors), other).captions(queries[:1]) == [
        ["a red hat"]
    ]


def test_the_first_of_many_captions_comes_from_the_gallery() -> None:
    other = Other()
    given: dict[str, dict[str, object]] = {"1": {"article": "shirt"}, "2": {"caption": "a red hat"}}
    captioner = GalleryCaptioner(SHOP, lambda vectors, _: [[]] * len(vectors), other)
    assert captioner.captions([ComposerInput(HERE, id=id_, fields=given.get(id_)) for id_ in "123"], 3) == [
        ["a photo of a shirt", "a red hat", "1 1"],
        ["a red hat", "2 1", "2 2"],  # not repeated
        ["a red hat", "3 1", "3 2"],
    ]
    assert captioner.captions([]) == []


@pytest.mark.shared_data
def test_neighbors_agree_on_the_kind_of_a_product(catalogue: Path) -> None:
    encoder = mm.load_encoder(str(catalogue / "model"), dtype="float32")
    with (catalogue / "items.csv").open() as file:
        items: list[dict[str, object]] = [dict(row) for row in csv.DictReader(file)][::4]
    vectors = encoder.encode_images([catalogue / str(item["file"]) for item in items])
    vocabulary = vocabulary_from_fields(items)
    assert vocabulary is not None

    def nearest(queries: Float32, n: int) -> list[list[Mapping[str, object]]]:
        return [[items[i] for i in order[1 : n + 1]] for order in np.argsort(-(queries @ vectors.T), axis=1)]

    class Silent(Other):
        def captions(self, queries: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:  # noqa: ARG002
            return [[""] for _ in queries]

    queries = [ComposerInput(vector) for vector in vectors]
    captions = [caption for (caption,) in GalleryCaptioner(vocabulary, nearest, Silent()).captions(queries)]
    assert all(isinstance(caption, Caption) for caption in captions)
    nouns = [words_from_fields(item, vocabulary)["article"] for item in items]
    right = [f" {noun}" in caption for noun, caption in zip(nouns, captions, strict=True) if " thing" not in caption]
    assert len(right) > 0.6 * len(items)
    assert np.mean(right) > 0.65
    items_as_queries = [ComposerInput(vector, fields=item) for vector, item in zip(vectors[:3], items[:3], strict=True)]
    own = GalleryCaptioner(vocabulary, nearest, Silent()).captions(items_as_queries)
    assert own == [[caption_from_fields(item, vocabulary)] for item in items[:3]]
