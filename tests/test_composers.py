"""Composers: which terms, which weights, which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmretrieve.composers import make_composer
from mmretrieve.composers.captions import Captions
from mmretrieve.composers.simple import Slerp, slerp_weights
from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import OptionError, VectorError, VocabularyError
from mmretrieve.language.tagger import Tagger
from mmretrieve.language.vocabulary import Group, Vocabulary
from mmretrieve.options import ComposerName
from mmretrieve.query import Query
from mmretrieve.wardrobe.attributes import Colour, Garment, Kind, Length, Neckline, Pattern, Sleeves
from mmretrieve.wardrobe.draw import draw
from mmretrieve.wardrobe.words import vocabulary
from mmretrieve.wardrobe.world import drawings

SMALL = Vocabulary("a photo of a {colour} {thing}", (Group("thing", ("dress", "shirt")), Group("colour", ("red", "blue"))))


@pytest.fixture
def query(encoder: Encoder, photos: Path) -> Query:
    path = sorted(photos.rglob("*.png"))[0]
    return Query(encoder.encode_images([path])[0], "in red")


@pytest.mark.parametrize(
    ("name", "terms", "weights"),
    [
        ("image", ("image",), (1,)),
        ("prompt", ("prompt",), (1,)),
        ("sum", ("image", "prompt"), (1, 1)),
        ("captions", ("image", "text", "composed", "prompt"), (0, 0, 1, 0)),
    ],
)
def test_terms_and_base_weights(
    encoder: Encoder, query: Query, name: str, terms: tuple[str, ...], weights: tuple[float, ...]
) -> None:
    composition = make_composer(name, encoder).compose([query])[0]
    assert composition.names == terms
    assert composition.weights == weights
    if "prompt" in terms:
        np.testing.assert_allclose(composition["prompt"], encoder.encode_texts(["in red"])[0], atol=1e-6)
    if "image" in terms:
        np.testing.assert_array_equal(composition["image"], query.vector)


def test_a_given_caption_is_taken_as_it_is(encoder: Encoder, query: Query) -> None:
    told = Query(query.vector, "in red", caption="a blue thing")
    composition = make_composer("captions", encoder).compose([told])[0]
    assert composition.words == {"text": "a blue thing", "composed": "a blue thing, in red", "prompt": "in red"}
    expected = encoder.encode_texts(["a blue thing", "a blue thing, in red"])
    np.testing.assert_allclose([composition["text"], composition["composed"]], expected, atol=1e-6)


def test_many_queries_are_composed_as_one_by_one(encoder: Encoder, query: Query) -> None:
    queries = [query, Query(query.vector, "striped", caption="a dress"), Query(-query.vector, "with dots")]
    for name in ComposerName:
        composer = make_composer(name, encoder)
        together, apart = composer.compose(queries), [composer.compose([q])[0] for q in queries]
        for a, b in zip(together, apart, strict=True):
            np.testing.assert_allclose(a.terms, b.terms, atol=1e-5)
            assert a.words == b.words


def test_the_tagger_says_what_is_drawn(encoder: Encoder) -> None:
    drawn = [("red", "dress"), ("blue", "shirt"), ("blue", "dress")]
    detail = drawings()[0].detail
    pictures = [
        draw(Garment(Kind(kind), Colour(colour), Pattern.PLAIN, Sleeves.LONG, Length.LONG, Neckline.ROUND), detail, seed=0)
        for colour, kind in drawn
    ]
    queries = [Query(row) for row in encoder.encode_images(pictures)]
    assert Tagger(encoder, SMALL).captions(queries) == [[f"a photo of a {colour} {kind}"] for colour, kind in drawn]


def test_slerp_by_hand() -> None:
    x, y = np.eye(2, dtype=np.float32)
    assert slerp_weights(x, y, 0.5) == pytest.approx((0.5**0.5, 0.5**0.5))
    assert slerp_weights(x, y, 0.0) == pytest.approx((1, 0))
    assert slerp_weights(x, y, 1 / 3) == pytest.approx((np.sin(np.pi / 3), np.sin(np.pi / 6)))
    assert slerp_weights(x, x, 0.25) == pytest.approx((0.75, 0.25))
    with pytest.raises(VectorError, match="opposite"):
        slerp_weights(x, -x, 0.5)


def test_slerp_lies_on_the_sphere(encoder: Encoder, query: Query) -> None:
    for t in (0.0, 0.3, 1.0):
        assert np.linalg.norm(Slerp(encoder, t).compose([query])[0].vector) == pytest.approx(1, abs=1e-5)
    with pytest.raises(OptionError, match="t must be"):
        Slerp(encoder, 2)


@pytest.mark.parametrize("words", [{"prompt": ""}, {"prompt": " \n"}, {"prompt": "x", "caption": ""}])
def test_empty_words_are_refused(words: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="is empty"):
        Query(np.ones(3, np.float32), **words)


def test_what_a_composer_needs_is_said(encoder: Encoder) -> None:
    with pytest.raises(OptionError, match="needs a reference image"):
        make_composer("sum", encoder).compose([Query(prompt="in red")])
    with pytest.raises(OptionError, match="needs a prompt"):
        make_composer("captions", encoder).compose([Query(np.ones(3, np.float32))])
    with pytest.raises(OptionError, match="a reference image, a prompt, or both"):
        Query()
    with pytest.raises(OptionError, match="choose from: image, prompt, sum"):
        make_composer("magic", encoder)


def test_vocabulary_files_round_trip_and_refuse(tmp_path: Path) -> None:
    vocabulary().write(tmp_path / "v.json")
    assert Vocabulary.read(tmp_path / "v.json") == vocabulary()
    for text in (
        "{}",
        "[]",
        "no json",
        '{"sentence": "a {b}", "groups": []}',
        '{"sentence": "{a}", "groups": [{"name": "a", "words": []}]}',
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(VocabularyError):
            Vocabulary.read(tmp_path / "bad.json")


def test_say_leaves_open_slots_out_and_minds_the_article() -> None:
    assert SMALL.say({}) == "a photo of a"
    assert SMALL.say({"thing": "orange"}) == "a photo of an orange"
    assert SMALL.say({"thing": "dress", "colour": "red"}) == "a photo of a red dress"


def test_general_vocabulary_serves_encoders_without_their_own(encoder: Encoder) -> None:
    class Bare:
        identity, dim = encoder.identity, encoder.dim
        encode_images, encode_texts = encoder.encode_images, encoder.encode_texts

    composer = make_composer("captions", Bare())
    assert isinstance(composer, Captions)
    words = composer.compose([Query(encoder.encode_texts(["a black shoe"])[0], "in red")])[0].words["text"]
    assert words.startswith("a photo of")
