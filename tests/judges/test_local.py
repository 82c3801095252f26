"""The judge of patches: its score by hand, what it asks for, what it remembers, and encoders that it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mmretrieve as mm
from mmretrieve.errors import OptionError
from mmretrieve.judges.local import LOGIT_SCALE, LocalJudge, local_score
from mmretrieve.judges.words import QueryWords, WordReader
from mmretrieve.language.vocabulary import Vocabulary, WordGroup

# Scores of four patches with three terms. At tau = 1 / ln 2, the share of a patch is 2 to the power of its score.
SCORES_PT = np.array([[0, 1, -1], [1, 1, 0], [1, 1, -1], [2, 1, 0]], dtype=np.float32)
TERMS = np.eye(3, dtype=np.float32)
POWERS_OF_TWO = 1 / math.log(2)


def test_the_score_by_hand() -> None:
    expected = [
        (1 * 0 + 2 * 1 + 2 * 1 + 4 * 2) / (1 + 2 + 2 + 4),
        1.0,
        (1 / 2 * -1 + 1 * 0 + 1 / 2 * -1 + 1 * 0) / (1 / 2 + 1 + 1 / 2 + 1),
    ]
    np.testing.assert_allclose(local_score(SCORES_PT, TERMS, POWERS_OF_TWO), expected, rtol=1e-12)


def test_its_limits_are_the_best_patch_and_the_mean() -> None:
    np.testing.assert_array_equal(local_score(SCORES_PT, TERMS, 0), [2, 1, 0])
    np.testing.assert_allclose(local_score(SCORES_PT, TERMS, 1e-3), [2, 1, 0], rtol=1e-12)
    np.testing.assert_allclose(local_score(SCORES_PT, TERMS, math.inf), [1, 1, -1 / 2], rtol=1e-12)
    np.testing.assert_allclose(local_score(SCORES_PT, TERMS, 1e9), [1, 1, -1 / 2], rtol=1e-6)


@pytest.mark.property
@given(st.integers(1, 9), st.integers(0, 4), st.floats(0.01, 100), st.integers(0, 1 << 32))
def test_the_score_is_its_formula(patches: int, terms: int, tau: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows_pd, rows_td = (random.normal(size=(count, 5)).astype(np.float32) for count in (patches, terms))
    score = local_score(rows_pd, rows_td, tau)
    for i, term in enumerate(rows_td.astype(float).tolist()):
        products = [sum(a * b for a, b in zip(term, row, strict=True)) for row in rows_pd.astype(float).tolist()]
        powers = [math.exp((product - max(products)) / tau) for product in products]
        expected = sum(power * product for power, product in zip(powers, products, strict=True)) / sum(powers)
        assert score[i] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(local_score(rows_pd[::-1], rows_td, tau), score, rtol=1e-9, atol=1e-12)
    assert (local_score(rows_pd, rows_td, 2 * tau) <= score + 1e-9).all()


@pytest.mark.parametrize("tau", [-0.1, math.nan])
def test_a_temperature_that_is_none_is_refused(tau: float) -> None:
    with pytest.raises(OptionError, match="tau must be a number of at least 0, got"):
        local_score(SCORES_PT, TERMS, tau)


# What it asks for

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
VOCABULARY = Vocabulary("a {colour} thing", (WordGroup("colour", tuple(COLORS)),))


class PixelEncoder:
    """Each pixel of an image is a patch, and has the color of a word. Remembers how many images it was shown the patches of."""

    identity = mm.EncoderIdentity("pixels", "none", "none")
    dim = 4

    def __init__(self) -> None:
        self.seen = 0

    def supports(self, modality: str) -> bool:
        return modality in ("image", "text", "patches")

    def encode_images(self, images: Iterable[Image.Image], progress: Any = None) -> np.ndarray:  # noqa: ARG002
        means = [np.asarray(image, np.float32).reshape(-1, 3).mean(axis=0) / 255 for image in images]
        return np.array([[*mean / np.linalg.norm(mean), 0] for mean in means], np.float32)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """The color of the last word of a text that has one."""
        words = [[word for word in text.split() if word in COLORS][-1:] for text in texts]
        rows = [[*np.array(COLORS[word[0]]) / 255, 0] if word else [0, 0, 0, 1] for word in words]
        return np.array(rows, np.float32).reshape(-1, 4)

    def encode_patches(self, images: Iterable[Image.Image]) -> np.ndarray:
        patches = [np.asarray(image, np.float32).reshape(-1, 3) / 255 for image in images]
        self.seen += len(patches)
        return np.stack([np.append(rows, np.zeros((len(rows), 1), np.float32), axis=1) for rows in patches])


def picture(*colors: str) -> Image.Image:
    image = Image.new("RGB", (len(colors), 1))
    image.putdata([COLORS[color] for color in colors])
    return image


def scores_of(judge: LocalJudge, query: dict[str, Any], *pictures: Image.Image) -> list[float]:
    answers = judge.rank(query, [{"image": one} for one in pictures])
    assert [answer["corpus_id"] for answer in answers] == list(range(len(pictures)))
    return [answer["score"] / LOGIT_SCALE for answer in answers]


REFERENCE = picture("green", "green", "green")


@pytest.mark.parametrize(
    ("query", "expected"),  # for pictures of red, green and blue patches: 2, 1, 0; 0, 2, 1; 1, 0, 2 of three
    [
        ({"text": "in red"}, [2 / 3, 0, 1 / 3]),
        ({"text": "without blue"}, [0, -1 / 3, -2 / 3]),
        ({"image": REFERENCE}, [1 / 3, 2 / 3, 0]),
        # desired .3 "red", forbidden .1 "green"
        ({"image": REFERENCE, "text": "in red"}, [0.75 * 2 / 3 - 0.25 * 1 / 3, -0.25 * 2 / 3, 0.75 * 1 / 3]),
        # preserved .2 "green", forbidden .1 "blue"
        ({"image": REFERENCE, "text": "without blue"}, [2 / 3 * 1 / 3, 2 / 3 * 2 / 3 - 1 / 3 * 1 / 3, -1 / 3 * 2 / 3]),
        # desired .3 "red", forbidden .1: half of it "blue", half of it "green"
        (
            {"image": REFERENCE, "text": "in red, without blue"},
            [0.75 * 2 / 3 - 0.125 * 1 / 3, -0.125 * (1 / 3 + 2 / 3), 0.75 * 1 / 3 - 0.125 * 2 / 3],
        ),
        ({}, [0, 0, 0]),
    ],
)
def test_roles_have_their_signs_and_weights(query: dict[str, Any], expected: list[float]) -> None:
    """With tau = infinity, the local score of a color is its share of the patches."""
    judge = LocalJudge(PixelEncoder(), VOCABULARY, tau=math.inf)
    pictures = [picture("red", "red", "green"), picture("green", "blue", "green"), picture("blue", "red", "blue")]
    np.testing.assert_allclose(scores_of(judge, query, *pictures), expected, atol=1e-6)
    np.testing.assert_allclose(scores_of(judge, query, *pictures[::-1]), expected[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("query", "reference", "desired"),
    [
        ({"image": REFERENCE, "text": "in red"}, {"colour": "green"}, {"colour": "red"}),
        ({"image": REFERENCE, "text": "without blue"}, {"colour": "green"}, {"colour": "green"}),
        ({"image": REFERENCE, "text": "without green"}, {"colour": "green"}, {}),
        ({"image": REFERENCE}, {"colour": "green"}, {"colour": "green"}),
        ({"text": "in red, without blue"}, {}, {"colour": "red"}),
        ({"text": "without blue"}, {}, {}),
    ],
)
def test_what_a_prompt_excludes_is_not_desired(
    query: dict[str, Any], reference: dict[str, str], desired: dict[str, str]
) -> None:
    assert WordReader(PixelEncoder(), VOCABULARY).read(query) == QueryWords(reference, desired)


def test_a_low_temperature_sees_what_is_small() -> None:
    small, none = picture("blue", "blue", "blue", "red"), picture("blue", "blue", "blue", "blue")
    by_tau = [
        scores_of(LocalJudge(PixelEncoder(), VOCABULARY, tau=tau), {"text": "in red"}, small, none)
        for tau in (0, 0.02, math.inf)
    ]
    np.testing.assert_allclose(by_tau, [[1, 0], [1, 0], [0.25, 0]], atol=1e-6)


# What it remembers, and what it refuses


def test_patches_of_an_image_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmretrieve.judges.local.MAX_CACHED_IMAGES", 2)
    encoder = PixelEncoder()
    judge = LocalJudge(encoder, VOCABULARY)
    red, blue, green = (picture(color) for color in ("red", "blue", "green"))
    first = scores_of(judge, {"text": "in red"}, red, blue, red)
    assert (first[0], encoder.seen) == (first[2], 2)
    assert scores_of(judge, {"text": "in red"}, picture("blue"), red.copy()) == [first[1], first[0]]
    assert encoder.seen == 2
    scores_of(judge, {"text": "in blue"}, green)  # the one that was not used for the longest time makes room
    scores_of(judge, {"text": "in blue"}, red)
    assert encoder.seen == 3
    scores_of(judge, {"text": "in blue"}, blue)
    assert encoder.seen == 4
    assert judge.rank({"text": "in red"}, []) == []


def test_local_is_a_name(retriever: mm.Retriever) -> None:
    query = {"reference_id": retriever.gallery.ids[0], "prompt": "in red", "k": 8}
    by_name = retriever.search(**query, judge="local")
    vocabulary = mm.language.vocabulary.default_vocabulary(retriever.encoder)
    assert by_name == retriever.search(**query, judge=LocalJudge(retriever.encoder, vocabulary))
    assert by_name.note is None
    assert len({hit.contributions["judge"] for hit in by_name}) > 1


def test_an_encoder_without_patches_is_refused(retriever: mm.Retriever) -> None:
    class Whole:
        identity, dim = retriever.encoder.identity, retriever.encoder.dim
        encode_images, encode_texts = retriever.encoder.encode_images, retriever.encoder.encode_texts

    other = mm.Retriever(retriever.gallery, Whole())
    message = "the judge 'local' needs an encoder of patches of images, and wardrobe does not encode them; use another encoder"
    with pytest.raises(OptionError, match=message):
        other.search(prompt="in red", judge="local")
