"""Captions that say how far they can be trusted, and the tagger that makes them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Sequence

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve import wardrobe
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Caption
from mmretrieve.errors import OptionError
from mmretrieve.language.captioners import tagger as tagging
from mmretrieve.language.captioners.tagger import MIN_PROBABILITY, Tagger, word_probabilities
from mmretrieve.language.vocabulary import Vocabulary, WordGroup, default_vocabulary
from mmretrieve.options import CaptionSource
from mmretrieve.vectors import Float32

ARTICLES, COLOURS = ("hat", "shirt", "dress", "shoe"), ("red", "blue", "black", "white")
SHOP = Vocabulary("a photo of a {colour} {article}", (WordGroup("article", ARTICLES), WordGroup("colour", COLOURS)))
SEES = ComposerInput(np.array([0.8, 0.6, 0], np.float32))


class Words:
    """A text tower of three axes: how much a text says of things, how much of colours, and what makes its row a unit row."""

    identity, dim = mm.EncoderIdentity("words", "words", "none"), 3

    def __init__(self, **values: tuple[float, float]) -> None:
        self.values, self.encoded = values, list[str]()

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        self.encoded += texts
        rows = [sum((np.array(self.values.get(word, (0, 0))) for word in text.split()), np.zeros(2)) for text in texts]
        said = np.array(rows).reshape(-1, 2) / 20  # probabilities do not depend on their scale
        return np.column_stack([said, np.sqrt(1 - (said**2).sum(axis=1))]).astype(np.float32)


def captions_of(words: Words, vocabulary: Vocabulary = SHOP, count: int = 1) -> list[Caption]:
    (captions,) = Tagger(words, vocabulary).captions([SEES], count)  # type: ignore[arg-type]
    assert all(isinstance(caption, Caption) for caption in captions)
    return captions  # type: ignore[return-value]


def softmax(scores: Sequence[float]) -> list[float]:
    powers = np.exp(np.array(scores) / (0.2 * np.std(scores)))
    return list(powers / powers.sum())


def test_a_caption_is_text_that_can_be_copied() -> None:
    caption = Caption("a hat", trust=0.5, source="fields")
    copies = [copy.copy(caption), copy.deepcopy(caption), *(pickle.loads(pickle.dumps(caption, p)) for p in range(6))]
    assert [(type(one), one, one.trust, one.source) for one in copies] == [(Caption, "a hat", 0.5, CaptionSource.FIELDS)] * 8
    assert {caption: 1}["a hat"] == 1
    assert json.dumps([caption]) == '["a hat"]'
    assert repr(caption) == "'a hat'"
    assert caption.source == "fields"


@pytest.mark.parametrize("trust", [-0.1, 1.01, float("nan")])
def test_trust_is_a_probability(trust: float) -> None:
    with pytest.raises(OptionError, match="trust of a caption must be a number from 0 to 1"):
        Caption("a hat", trust=trust, source="given")


def test_a_source_is_one_of_five() -> None:
    with pytest.raises(OptionError, match="choose from: given, fields, neighbors, tagger, captioner"):
        Caption("a hat", trust=1, source="me")


def test_probabilities_are_those_of_the_formula() -> None:
    scores = np.array([0.1, 0.3, 0.2, 0.9], np.float32)
    assert word_probabilities(scores) == pytest.approx(softmax([0.1, 0.3, 0.2, 0.9]))
    assert word_probabilities(scores * 100 + 7) == pytest.approx(word_probabilities(scores), rel=1e-3)
    assert word_probabilities(scores[:1]).tolist() == [1]
    assert word_probabilities(np.array([0.5, 0.5 + 6e-8], np.float32)).round(1).tolist() == [0.4, 0.6]  # rounding says little


def test_a_probable_word_is_in_the_caption() -> None:
    words = Words(hat=(1, 0), shirt=(0.5, 0), red=(0, 1), blue=(0, 0.7))
    (caption,) = captions_of(words)
    assert caption == "a photo of a red hat"
    assert caption.source is CaptionSource.TAGGER
    assert caption.trust == pytest.approx(softmax([0.8, 0.4, 0, 0])[0] * softmax([0.6, 0.42, 0, 0])[0], abs=0.006)


def test_an_improbable_word_is_omitted() -> None:
    alike = {word: (0, 0.9 + 0.001 * i) for i, word in enumerate(COLOURS)}
    many = Vocabulary(
        SHOP.sentence, (SHOP.groups[0], WordGroup("colour", tuple(f"{c}{i}" for c in "abcdefgh" for i in range(9))))
    )
    spread = {word: (0, 1 + i / 100) for i, word in enumerate(many.groups[1].words)}
    assert captions_of(Words(hat=(1, 0), **alike))[0] == "a photo of a white hat"  # the scale does not count, the shape does
    (caption,) = captions_of(Words(hat=(1, 0), **spread), many)
    probability = max(softmax([0.6 * height for _, height in spread.values()]))
    assert probability < MIN_PROBABILITY
    assert caption == "a photo of a hat"
    assert caption.trust == pytest.approx(softmax([0.8, 0, 0, 0])[0] * probability, abs=0.006)


def test_an_omitted_noun_becomes_thing_and_its_groups_are_omitted() -> None:
    sleeves = WordGroup("sleeves", ("with sleeves", "without sleeves"), {"article": ("shirt", "dress")})
    vocabulary = Vocabulary("a photo of a {colour} {article} {sleeves}", (*SHOP.groups, sleeves))
    words = {"red": (0.0, 1.0), "blue": (0.0, 0.1), "with": (0.0, 0.1)}
    (clear,) = captions_of(Words(shirt=(1, 0), **words), vocabulary)
    assert clear == "a photo of a red shirt with sleeves"
    (unclear,) = captions_of(Words(shirt=(1, 0), dress=(1, 0), **words), vocabulary)  # one as likely as the other
    assert unclear == "a photo of a red thing"
    assert unclear.trust == pytest.approx(softmax([0, 0.8, 0.8, 0])[1] * softmax([0.6, 0.06, 0, 0])[0], rel=1e-4)


@pytest.mark.parametrize("words", [2, 3, 4])
def test_equal_scores_give_a_caption_without_words(words: int) -> None:
    vocabulary = Vocabulary(SHOP.sentence, tuple(WordGroup(group.name, group.words[:words]) for group in SHOP.groups))
    (caption,) = captions_of(Words(a=(1, 1)), vocabulary)
    assert caption == "a photo of a thing"
    assert caption.trust == pytest.approx(words**-2, abs=0.006)


def test_groups_of_one_word_and_empty_words() -> None:
    one = Vocabulary(
        "a photo of a {article} {wearer}", (WordGroup("article", ("hat",)), WordGroup("wearer", ("", "for men", "for women")))
    )
    (silent,) = captions_of(Words(men=(-1, -1), women=(-1, -1.1)), one)
    assert silent == "a photo of a hat"
    assert silent.trust == pytest.approx(softmax([0, -1.4, -1.46])[0], rel=1e-4)
    assert captions_of(Words(men=(1, 1)), one)[0] == "a photo of a hat for men"
    fixed = Vocabulary("a photo of a {colour} dress", SHOP.groups[1:])
    assert captions_of(Words(), fixed)[0] == "a photo of a dress"


def test_neighbors_have_the_trust_of_the_first() -> None:
    best, *others = captions_of(Words(hat=(1, 0), shirt=(0.5, 0), red=(0, 1), blue=(0, 0.7)), count=15)
    assert len(others) == 8  # three other things, three other colours, and either left out
    assert {"a photo of a hat", "a photo of a red thing", "a photo of a blue hat"} < set(others)
    assert {caption.trust for caption in (best, *others)} == {best.trust}


def test_a_batch_equals_single_images(encoder: mm.Encoder, retriever: mm.Retriever) -> None:
    queries = [ComposerInput(row) for row in retriever.gallery.vectors()[:12]]
    vocabulary = default_vocabulary(encoder)
    whole = Tagger(encoder, vocabulary).captions(queries, 4)
    alone = [Tagger(encoder, vocabulary).captions([query], 4)[0] for query in queries]
    assert whole == alone
    assert [c.trust for several in whole for c in several] == pytest.approx(  # type: ignore[attr-defined]
        [c.trust for several in alone for c in several],  # type: ignore[attr-defined]
        rel=1e-3,
    )


def test_sentences_are_encoded_once_and_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Words(hat=(1, 0), red=(0, 1))
    tagger = Tagger(words, SHOP)  # type: ignore[arg-type]
    first = tagger.captions([SEES], 15)
    assert len(words.encoded) == len(set(words.encoded))
    assert tagger.captions([SEES], 15) == first
    assert len(words.encoded) == len(set(words.encoded))
    monkeypatch.setattr(tagging, "MAX_CACHED_VECTORS", 3)
    small = Tagger(words, SHOP)  # type: ignore[arg-type]
    assert small.captions([SEES], 15) == first
    assert len(small._vectors) == 3


def test_few_words_are_omitted_in_the_wardrobe(encoder: mm.Encoder) -> None:
    gallery = mm.Gallery.open(wardrobe.gallery_folder())
    captions = Tagger(encoder, default_vocabulary(encoder)).captions([ComposerInput(row) for row in gallery.vectors()[::10]])
    incomplete = [caption for (caption,) in captions if " thing" in caption]
    assert len(incomplete) < 0.05 * len(captions)
