"""Galleries of vectors that were computed elsewhere: made without an encoder, searched with vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.errors import GalleryError, OptionError, VectorError
from mmretrieve.vectors import unit

IDS = ["a", "b", "c", "d"]
FIELDS = [{"colour": "red", "price": 1}, {"colour": "red", "price": 2}, {"colour": "blue"}, {}]


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 8))


@pytest.fixture
def own(tmp_path: Path, rows: np.ndarray) -> mm.Gallery:
    return mm.Gallery.from_vectors(tmp_path / "own.gallery", IDS, rows, fields=FIELDS)


def test_vectors_are_searched_with_vectors_without_an_encoder(own: mm.Gallery, rows: np.ndarray) -> None:
    assert (own.ids, own.encoder_identity.model, own.dim) == (tuple(IDS), "own", 8)
    np.testing.assert_allclose(own.vectors(), unit(rows), atol=1e-3)
    cosines = unit(rows) @ unit(rows[2:3] * 5)[0]
    for query in (rows[2] * 5, (rows[2] * 5).tolist(), (rows[2] * 5).astype(np.float16)):
        ranking = own.search(query, k=4)
        assert ranking.ids == tuple(IDS[i] for i in np.argsort(-cosines))
        np.testing.assert_allclose([hit.score for hit in ranking], np.sort(cosines)[::-1], atol=2e-3)
    assert own.search(rows[2], where={"colour": "red", "price": [2, 3]}).ids == ("b",)
    assert mm.open_gallery(own.path).search(rows[1], 1).ids == ("b",)


def test_making_it_again_adds_what_is_missing(own: mm.Gallery, rows: np.ndarray) -> None:
    more = mm.Gallery.from_vectors(own.path, [*IDS, "e"], [*rows, rows[0] + 1], paths=[*IDS, Path("e.jpg")])
    assert more.ids == (*IDS, "e")
    assert more.item("e").path == "e.jpg"
    with pytest.raises(GalleryError, match="'a' is another image"):
        mm.Gallery.from_vectors(own.path, ["a"], rows[1:2])
    with pytest.raises(GalleryError, match=r"was made by own, not by wardrobe; they differ in weights"):
        mm.Gallery.from_vectors(own.path, IDS, rows, encoder=mm.EncoderIdentity("wardrobe", "1", "2"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ids": IDS[:3]}, OptionError, "ids: expected a list of 4, one for each vector"),
        ({"ids": [1, 2, 3, 4]}, OptionError, "ids must be text, got 1"),
        ({"ids": None}, OptionError, "expected a list of ids, got None"),
        ({"fields": {"colour": "red"}}, OptionError, "fields: expected a list of 4"),
        (
            {"fields": [{}, {}, {}, "red"]},
            OptionError,
            "fields: expected a mapping such as {'colour': 'red'} for each vector, got 'red'",
        ),
        ({"paths": [None] * 4}, OptionError, "paths must be a path, got None"),
        ({"vectors": np.ones(4)}, VectorError, "vectors: expected shape (n, d), got (4,)"),
        ({"vectors": np.zeros((4, 2))}, VectorError, "row 0 is a zero vector"),
        (
            {"encoder": "clip"},
            OptionError,
            "expected an encoder or an EncoderIdentity, such as load_encoder('clip'), got 'clip'",
        ),
        ({"path": None}, OptionError, "path must be a path, got None"),
        ({"filds": FIELDS}, OptionError, "unknown keyword 'filds' of from_vectors; did you mean 'fields'?"),
    ],
)
def test_a_mistake_creates_nothing(
    tmp_path: Path, rows: np.ndarray, change: dict[str, object], error: type[Exception], message: str
) -> None:
    arguments = {"path": tmp_path / "new.gallery", "ids": IDS, "vectors": rows, "fields": FIELDS} | change
    with pytest.raises(error) as caught:
        mm.Gallery.from_vectors(**arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert not (tmp_path / "new.gallery").exists()


def test_a_vector_without_a_direction_is_named_and_the_others_go_on(tmp_path: Path, rows: np.ndarray) -> None:
    bad = rows.copy()
    bad[0, 3], bad[1, 0], bad[2] = np.nan, -np.inf, 0
    with pytest.warns(UserWarning, match="3 of 4 vectors were left out, first: 'a': its vector contains NaN or infinity"):
        gallery = mm.Gallery.from_vectors(tmp_path / "g", IDS, bad, fields=FIELDS)
    assert gallery.ids == ("d",)
    report = gallery.add_vectors(["e", "f", "g"], [bad[1], bad[2], rows[0]], fields=[{}, {}, {"price": 9}])
    assert (report.added, list(report.failed)) == (1, ["e", "f"])
    assert report.failed["f"] == "its vector is zero, which has no direction"
    assert (gallery.ids, gallery.item("g").fields) == (("d", "g"), {"price": 9})
    np.testing.assert_allclose(gallery.vectors(["d", "g"]), unit(rows[[3, 0]]), atol=1e-3)
    assert gallery.verify() == []
    with pytest.raises(VectorError, match="vectors: row 0 contains NaN, infinity"):
        gallery.add_vectors(["h", "i"], bad[:2])


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        (np.ones(7), VectorError, "a query vector must have shape (8,), got (7,)"),
        (np.ones((1, 8)), VectorError, "a query vector must have shape (8,), got (1, 8)"),
        (np.zeros(8), VectorError, "zero vector"),
        (np.full(8, np.nan), VectorError, "contains NaN, infinity"),
        ([np.inf] * 8, VectorError, "contains NaN, infinity"),
        (
            "red",
            OptionError,
            "expected a Composition, such as what Retriever.compose returns, or a vector of 8 numbers, got 'red'",
        ),
        (None, OptionError, "or a vector of 8 numbers, got None"),
    ],
)
def test_a_query_that_is_no_vector_is_refused(own: mm.Gallery, query: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        own.search(query)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_opening_says_to_pass_the_encoder_object(own: mm.Gallery, tmp_path: Path, encoder: mm.Encoder) -> None:
    with pytest.raises(
        GalleryError, match="made by 'own', which load_encoder does not know; pass encoder=, its name, its folder"
    ):
        mm.Retriever.open(own.path)
    vectors = encoder.encode_texts(["a red dress", "a blue coat"])
    path = mm.Gallery.from_vectors(tmp_path / "texts.gallery", ["red", "blue"], vectors, encoder=encoder).path
    assert mm.Retriever.open(path, encoder=encoder).search(prompt="a red dress", weights="base", k=1).ids == ("red",)
    with pytest.raises(OptionError, match="unknown device 'gpu'"):
        mm.Retriever.open(own.path, device="gpu")
