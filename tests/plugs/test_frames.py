"""Data frames of polars and datasets of Hugging Face: from and to galleries and rankings."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import polars as pl
import pytest
from PIL import Image

import mmretrieve as mm
from mmretrieve.errors import GalleryError

COUNT = 1000


@pytest.fixture(scope="module")
def encoder() -> mm.Encoder:
    return mm.load_encoder("wardrobe")


def made(count: int) -> datasets.Dataset:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)) for _ in range(count)]
    return datasets.Dataset.from_dict({"id": [f"i{i}" for i in range(count)], "image": pictures, "price": list(range(count))})


def test_a_dataset_becomes_a_gallery_and_comes_back(tmp_path: Path, encoder: mm.Encoder) -> None:
    given = made(COUNT)
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    assert str(gallery.add(mm.read_source(given, save_to=tmp_path / "images"))) == f"{COUNT} added, 0 skipped, 0 failed"
    back = gallery.to_dataset()
    assert isinstance(back.features["image"], datasets.Image)
    assert (back["id"][:], back["price"][:]) == (given["id"][:], given["price"][:])
    for one, other in zip(back, given, strict=True):
        assert one["image"].tobytes() == other["image"].tobytes()


def test_a_damaged_image_is_one_damaged_row(tmp_path: Path, encoder: mm.Encoder) -> None:
    rows = made(3).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[1]["image"]["bytes"] = b"junk"
    features = datasets.Features({"id": datasets.Value("string"), "image": datasets.Image(), "price": datasets.Value("int64")})
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    report = gallery.add(datasets.Dataset.from_list(rows, features=features))
    assert (report.added, list(report.failed)) == (2, ["i1"])
    back = gallery.to_dataset()
    assert ([row["id"] for row in back], [row["image"] for row in back]) == (["i0", "i2"], [None, None]), "from memory"
    with pytest.raises(GalleryError, match=r"expected one split of a dataset, got train, test; choose a split"):
        gallery.add(datasets.DatasetDict({"train": made(1), "test": made(1)}))


def test_polars(tmp_path: Path, encoder: mm.Encoder) -> None:
    files = sorted(mm.wardrobe.pictures_folder().glob("*.png"))[:5]
    frame = pl.DataFrame(
        {"id": [file.stem for file in files], "path": [str(file) for file in files], "price": [1, 2, None, 4, 5]}
    )
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    assert str(gallery.add(frame)) == "5 added, 0 skipped, 0 failed"
    assert gallery.item(files[2].stem).fields == {}
    ranking = mm.Retriever(gallery, encoder).search(prompt="a red dress", k=3)
    hits = ranking.to_polars()
    assert hits["id"].to_list() == list(ranking.ids)
    assert hits.schema["price"] == pl.Float64
    assert pl.DataFrame(ranking).equals(hits, null_equal=True)
    assert str(gallery.add(frame.lazy())) == "0 added, 5 skipped, 0 failed"
    with pytest.raises(GalleryError, match="expected a data frame, got a Series of polars"):
        gallery.add(frame["path"])


def test_a_dataset_of_the_hub_that_is_unreachable_is_one_line() -> None:
    with pytest.raises(GalleryError, match=r"hf://datasets/org/name:test: could not be loaded \(.*org/name") as caught:
        mm.read_source("hf://datasets/org/name:test")
    assert "\n" not in str(caught.value)
