"""The composer "joint", and encoders that encode pairs of image and text, or leave something out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmretrieve as mm
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers import make_composer
from mmretrieve.encoders.base import PairEncoder
from mmretrieve.errors import OptionError
from mmretrieve.images import open_image
from mmretrieve.vectors import unit

WORDS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "dark": (-1, -1, -1)}
DIM = 16


class JointColors:
    """A joint embedder. Each channel of the mean color is a random direction, and so is each word; a pair is changed twice as
    much by its words as by the direction of a word alone, so it is no sum of image and text.
    """

    identity = mm.EncoderIdentity("joint colors", "seed 0", "mean")
    dim = DIM
    directions = np.random.default_rng(0).normal(size=(3, DIM))
    bend = np.random.default_rng(1).normal(size=(DIM, DIM))

    def supports(self, modality: str) -> bool:
        return modality in ("image", "text", "pair")

    def encode_images(self, images: Iterable[Any], progress: Any = None) -> np.ndarray:  # noqa: ARG002
        return unit(self._colors(images) @ self.directions) if (images := list(images)) else np.empty((0, DIM), np.float32)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(self._texts(texts) @ self.directions) if texts else np.empty((0, DIM), np.float32)

    def encode_pairs(self, images: Iterable[Any], texts: Sequence[str]) -> np.ndarray:
        sums = (self._colors(images) + 2 * self._texts(texts)) @ self.directions
        return unit(sums + 0.3 * np.tanh(sums @ self.bend))

    def _colors(self, images: Iterable[Any]) -> np.ndarray:
        return np.array([np.asarray(open_image(image)).reshape(-1, 3).mean(axis=0) / 255 + 0.01 for image in images])

    def _texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([np.sum([WORDS.get(word, (0.1, 0.1, 0.1)) for word in text.split()], axis=0) for text in texts])


class Partial:
    """An encoder without some modalities."""

    identity = mm.EncoderIdentity("partial", "none", "none")
    dim = DIM

    def __init__(self, *modalities: str) -> None:
        self.modalities = modalities

    def supports(self, modality: str) -> bool:
        return modality in self.modalities

    def encode_images(self, images: Iterable[Any], progress: Any = None) -> np.ndarray:  # noqa: ARG002
        return unit(np.random.default_rng(0).normal(size=(len(list(images)), DIM)))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(np.random.default_rng(0).normal(size=(len(texts), DIM)))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty squares of random colors."""
    folder = tmp_path_factory.mktemp("squares")
    for i, color in enumerate(np.random.default_rng(2).integers(0, 256, size=(60, 3)).tolist()):
        Image.new("RGB", (8, 8), tuple(color)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def retriever(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> mm.Retriever:
    encoder = JointColors()
    gallery = mm.Gallery.create(tmp_path_factory.mktemp("joint") / "g", encoder=encoder)
    gallery.add(squares)
    return mm.Retriever(gallery, encoder)


def search(retriever: mm.Retriever, **query: Any) -> mm.Ranking:
    return retriever.search(composer="joint", k=60, **query)


def test_alpha_moves_a_query_from_the_image_to_the_joint_vector(retriever: mm.Retriever, squares: Path) -> None:
    encoder, reference, prompt = retriever.encoder, squares / "07.png", "in green"
    image, joint = encoder.encode_images([reference])[0], encoder.encode_pairs([reference], [prompt])[0]
    cosines = []
    for alpha in np.linspace(0, 1, 11).tolist():
        query = retriever.compose(reference, prompt, composer="joint", strength=alpha)
        np.testing.assert_allclose(query.vector, image + alpha * (joint - image), atol=1e-6)
        cosines.append(float(query.direction @ joint))
    assert image @ joint < 0.95, "nothing to move"
    assert all(before < after for before, after in pairwise(cosines))
    assert cosines[-1] == pytest.approx(1, abs=1e-6)


def test_the_ends_are_the_image_and_the_models_own_encoding(retriever: mm.Retriever, squares: Path) -> None:
    reference, prompt = squares / "07.png", "in red"
    own = retriever.encoder.encode_pairs([reference], [prompt])[0]
    plain = search(retriever, image=reference, prompt=prompt)
    np.testing.assert_array_equal(retriever.compose(reference, prompt, composer="joint").vector, own)
    assert plain.ids == retriever.gallery.search(own, k=60).ids
    assert plain.weights == {"image": 0.0, "joint": 1.0, "prompt": 0.0}
    assert plain.words == {"joint": prompt, "prompt": prompt}
    at_zero = search(retriever, image=reference, prompt=prompt, strength=0)
    image = retriever.search(image=reference, composer="image", k=60)
    assert at_zero.ids == image.ids != plain.ids
    np.testing.assert_allclose([hit.score for hit in at_zero], [hit.score for hit in image], atol=1e-6)
    for hit in search(retriever, image=reference, prompt=prompt, strength=0.4):
        assert sum(hit.contributions.values()) == pytest.approx(hit.score, abs=1e-6)


def test_directions_of_several_prompts_and_references_add_up(retriever: mm.Retriever, squares: Path) -> None:
    encoder, files, prompts = retriever.encoder, [squares / "07.png", squares / "31.png"], ["in red", "dark"]
    query = retriever.compose(files, prompts, composer="joint", image_weight=[3, 1], strength=[0.5, -0.25])
    expected = np.zeros(DIM)
    for file, share in zip(files, (0.75, 0.25), strict=True):
        image = encoder.encode_images([file])[0]
        first, second = encoder.encode_pairs([file, file], prompts)
        expected += share * (image + 0.5 * (first - image) - 0.25 * (second - image))
    np.testing.assert_allclose(query.vector, expected, atol=1e-6)
    np.testing.assert_allclose(query.weighted({"joint": 1}).vector, expected, atol=1e-6)
    np.testing.assert_allclose(query.weighted({"image": 1}).vector, [0.75, 0.25] @ encoder.encode_images(files), atol=1e-6)


def test_items_and_batches_are_encoded_as_files_are(retriever: mm.Retriever, squares: Path) -> None:
    one = search(retriever, image=squares / "07.png", prompt="in red")
    assert search(retriever, reference_id="07.png", prompt="in red").ids == one.ids
    requests = [{"image": squares / f"{i:02}.png", "prompt": p, "composer": "joint"} for i, p in ((7, "in red"), (9, "dark"))]
    together = retriever.search_many(requests)
    assert [r.ids for r in together] == [retriever.search(**request).ids for request in requests]


def test_automatic_weights_say_what_they_weigh(retriever: mm.Retriever, squares: Path) -> None:
    ranking = search(retriever, image=squares / "07.png", prompt="in red", weights="auto")
    assert ranking.why == "automatic: image and prompt, encoded together, beside the image"
    query, spread = retriever.compose(squares / "07.png", "in red", composer="joint"), retriever.gallery.spread
    deviations = dict(zip(query.names, spread.deviations(query.terms), strict=True))
    amounts = {name: weight * deviations[name] for name, weight in ranking.weights.items()}
    np.testing.assert_allclose([amounts["joint"], amounts["prompt"]], [amounts["image"], amounts["image"] / 4], rtol=1e-4)


def test_the_direction_of_joint_is_fused_with_the_prompt_as_pdv_f_is(retriever: mm.Retriever, squares: Path) -> None:
    reference, prompt, alpha, beta = squares / "07.png", "in green", 1.4, 0.25
    image, text = retriever.encoder.encode_images([reference])[0], retriever.encoder.encode_texts([prompt])[0]
    joint = retriever.encoder.encode_pairs([reference], [prompt])[0]
    weights = {"image": (1 - beta) * (1 - alpha), "joint": (1 - beta) * alpha, "prompt": beta}
    query = retriever.compose(reference, prompt, composer="joint").weighted(weights)
    np.testing.assert_allclose(query.vector, (1 - beta) * (image + alpha * (joint - image)) + beta * text, atol=1e-6)
    for hit in search(retriever, image=reference, prompt=prompt, weights=weights):
        assert sum(hit.contributions.values()) == pytest.approx(hit.score, abs=1e-6)
        assert 0 not in hit.contributions.values()


def test_an_encoder_of_pairs_alone_has_no_term_of_the_prompt(squares: Path) -> None:
    encoder = JointColors()
    encoder.supports = lambda modality: modality in ("image", "pair")  # type: ignore[method-assign]
    reference = ComposerInput(vector=encoder.encode_images([squares / "07.png"])[0], prompt="red", image=squares / "07.png")
    composed = make_composer("joint", encoder).compose([reference])[0]
    assert (composed.names, composed.weights) == (("image", "joint"), (0.0, 1.0))


def test_what_is_not_known_of_joint_queries_is_not_told(retriever: mm.Retriever, squares: Path) -> None:
    query: dict[str, Any] = {"image": squares / "07.png", "prompt": "in red"}
    rankings = retriever.search_many([query | {"composer": composer} for composer in ("joint", "sum")])
    assert [ranking.answerable is None for ranking in rankings] == [True, False], "the image alone would be judged"
    assert rankings[0].has_match
    with pytest.raises(OptionError, match=r"this query has only image, joint, prompt \(use strength\)"):
        search(retriever, **query, alpha_image=1.4)
    assert retriever.compose(**query, composer="joint", strength=1.4).term_weights["joint"] == pytest.approx(1.4)


def test_an_encoder_without_pairs_is_refused(encoder: mm.Encoder, made: Path, retriever: mm.Retriever) -> None:
    own = mm.Retriever.open(made, encoder=encoder)
    assert "joint" in retriever.composers
    assert "joint" not in own.composers
    with pytest.raises(
        OptionError, match="the composer 'joint' needs an encoder of pairs of image and text, and wardrobe does"
    ):
        own.search(reference_id=own.gallery.ids[0], prompt="in red", composer="joint")
    assert isinstance(retriever.encoder, PairEncoder)


def test_an_encoder_without_texts_or_images_is_refused_where_it_needs_them(squares: Path, tmp_path: Path) -> None:
    images, texts = Partial("image"), Partial("text")
    gallery = mm.Gallery.create(tmp_path / "g", encoder=images)
    gallery.add(squares)
    retriever = mm.Retriever(gallery, images)
    assert len(retriever.search(image=squares / "07.png", k=3)) == 3
    for query in ({"prompt": "in red"}, {"image": squares / "07.png", "prompt": "in red"}, {"avoid": "red"}):
        with pytest.raises(OptionError, match="needs an encoder of texts, and partial does not encode them"):
            retriever.search(**query)
    blind = mm.Retriever(gallery, texts)
    assert len(blind.search(reference_id="07.png", k=3)) == 3
    with pytest.raises(OptionError, match="a reference image needs an encoder of images"):
        blind.search(image=squares / "07.png")
    with pytest.raises(OptionError, match="adding images needs an encoder of images"):
        mm.Gallery.create(tmp_path / "h", encoder=texts).add(squares)


def test_a_joint_query_needs_the_image_itself(retriever: mm.Retriever, squares: Path, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes((squares / "07.png").read_bytes())
    gallery = mm.Gallery.create(tmp_path / "g", encoder=retriever.encoder)
    gallery.add(tmp_path / "red.png")
    (tmp_path / "red.png").unlink()
    with pytest.raises(OptionError, match="is missing or has changed since it was indexed, and this composer encodes it again"):
        mm.Retriever(gallery, retriever.encoder).search(reference_id="red.png", prompt="in red", composer="joint")
