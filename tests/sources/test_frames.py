"""Tables in memory as sources: data frames of pandas and Arrow tables; polars and datasets are in tests/plugs."""

from __future__ import annotations

import io
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import mmretrieve as mm
from mmretrieve.errors import GalleryError, OptionError

COUNT = 1000


def images(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)) for _ in range(count)]


class Mean:
    """An encoder that costs nothing: the mean color."""

    identity = mm.EncoderIdentity("mean", "none", "none")
    dim = 3

    def encode_images(self, pictures: Any, progress: Any = None) -> np.ndarray:  # noqa: ARG002
        rows = [np.asarray(mm.images.open_image(one), np.float32).reshape(-1, 3).mean(axis=0) + 1 for one in pictures]
        return mm.vectors.unit(np.array(rows).reshape(-1, 3))

    def encode_texts(self, texts: Any) -> np.ndarray:
        return mm.vectors.unit(np.ones((len(texts), 3)))


@pytest.fixture
def gallery(tmp_path: Path) -> mm.Gallery:
    return mm.Gallery.create(tmp_path / "g", encoder=Mean())


def test_a_data_frame_becomes_a_gallery_and_comes_back(gallery: mm.Gallery, tmp_path: Path) -> None:
    pictures = images(COUNT)
    frame = pd.DataFrame(
        {"id": [f"item {i}" for i in range(COUNT)], "image": pictures, "price": np.arange(COUNT) / 2, "shade": "red"}
    )
    assert str(gallery.add(mm.read_source(frame, save_to=tmp_path / "images"))) == f"{COUNT} added, 0 skipped, 0 failed"
    table = gallery.to_arrow(vectors=True)
    back = table.to_pandas()
    pd.testing.assert_frame_equal(back[["id", "price", "shade"]].astype(object), frame[["id", "price", "shade"]].astype(object))
    for picture, stored in zip(pictures, back["image"], strict=True):
        assert Image.open(stored["path"]).tobytes() == picture.tobytes()
    np.testing.assert_array_equal(np.stack(back["vector"]), gallery.vectors())
    other = mm.Gallery.create(tmp_path / "h", encoder=Mean())
    assert str(other.add(table.drop(["vector"]))) == f"{COUNT} added, 0 skipped, 0 failed"
    assert other.ids == gallery.ids
    assert [item.fields for item in other.items(other.ids)] == [item.fields for item in gallery.items(gallery.ids)]
    assert str(gallery.add(frame)).startswith("0 added"), "the same images are skipped"


@pytest.mark.parametrize("form", ["path", "text", "bytes", "struct", "array", "image"])
def test_images_have_several_forms(form: str, gallery: mm.Gallery, tmp_path: Path) -> None:
    picture, path, buffer = images(1)[0], tmp_path / "a.png", io.BytesIO()
    picture.save(path)
    picture.save(buffer, "PNG")
    values: dict[str, Any] = {
        "path": path,
        "text": str(path),
        "bytes": buffer.getvalue(),
        "struct": {"bytes": buffer.getvalue(), "path": None},
        "array": np.asarray(picture),
        "image": picture,
    }
    assert str(gallery.add(pd.DataFrame({"sku": ["a"], "anything": [values[form]]}).rename(columns={"anything": "photo"}))) == (
        "1 added, 0 skipped, 0 failed"
    )
    np.testing.assert_allclose(gallery.vectors(), Mean().encode_images([picture]), atol=1e-3)
    assert gallery.item(gallery.ids[0]).fields == {"sku": "a"}


def test_an_index_is_a_column_unless_there_is_one_of_its_name(gallery: mm.Gallery) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "image": images(2), "size": [1, 2]})
    assert str(gallery.add(frame.set_index("id", drop=False))) == "2 added, 0 skipped, 0 failed"
    assert gallery.ids == ("a", "b")
    gallery.delete(["a", "b"])
    gallery.add(frame.set_index(["id", "size"]))
    assert [(item.id, item.fields) for item in gallery.items(gallery.ids)] == [("a", {"size": 1}), ("b", {"size": 2})]


def test_columns_may_have_the_names_of_members_of_a_source(gallery: mm.Gallery) -> None:
    frame = pd.DataFrame({"image": images(2), "name": ["a coat", "a hat"], "report": ["x", "y"]})
    assert str(gallery.add(frame)) == "2 added, 0 skipped, 0 failed"
    assert [item.fields for item in gallery.items(gallery.ids)] == [
        {"name": "a coat", "report": "x"},
        {"name": "a hat", "report": "y"},
    ]


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (pd.Series(["a.png"]), "expected a data frame, got a Series of pandas"),
        (pa.array(["a.png"]), "expected a table, got a StringArray of pyarrow"),
        (pa.chunked_array([["a.png"]]), "expected a table, got a ChunkedArray of pyarrow"),
        (pd.DataFrame({"image": ["a.png"], " ": [1]}), "this DataFrame: column 2 has no name"),
        (
            pd.DataFrame([["a.png", 1, 2]], columns=["image", "x", "X"]),
            r"this DataFrame: the columns 'x' and 'X' have the same name \(case is ignored\)",
        ),
    ],
)
def test_what_is_no_table_is_one_line(gallery: mm.Gallery, table: Any, line: str) -> None:
    with pytest.raises(GalleryError, match=line):
        gallery.add(table)


def test_values_are_those_of_other_tables(gallery: mm.Gallery) -> None:
    frame = pd.DataFrame(
        {
            "image": images(2),
            "when": [pd.Timestamp("2026-01-02"), pd.NaT],
            "kind": pd.Categorical(["coat", None]),
            "count": pd.array([1, None], dtype="Int64"),
            "share": [0.5, np.nan],
            "ratio": [np.inf, 2.5],
            "cost": [Decimal("1.50"), Decimal(2)],
            "tags": [["a", "b"], None],
        },
        index=pd.Index(["x", "y"], name="id"),
    )
    gallery.add(frame)
    assert gallery.ids == ("x", "y")
    expected = {"when": "2026-01-02T00:00:00", "kind": "coat", "count": 1, "share": 0.5, "cost": 1.5, "tags": '["a", "b"]'}
    assert gallery.item("x").fields == expected
    assert gallery.item("y").fields == {"ratio": 2.5, "cost": 2}


def test_other_columns_of_bytes_are_left_out_with_a_note(gallery: mm.Gallery) -> None:
    good = images(2)
    frame = pd.DataFrame({"image": good, "mask": good, "raw": [b"a", None], "price": [1, 2]})
    source = mm.read_source(frame)
    report = gallery.add(source)
    assert (report.added, dict(report.failed)) == (2, {})
    assert source.report().notes == ("'mask', 'raw': left out, because no field contains bytes or images",)
    assert gallery.item(gallery.ids[1]).fields == {"price": 2}


def test_other_tables_of_arrow_and_columns_by_name(gallery: mm.Gallery) -> None:
    class Stream:
        """A table of a package that nobody knows."""

        def __init__(self, table: pa.Table) -> None:
            self.__arrow_c_stream__ = table.__arrow_c_stream__

    buffer = io.BytesIO()
    images(1)[0].save(buffer, "PNG")
    table = pa.table({"sku": [7], "front": [buffer.getvalue()], "image": ["no such file.png"]})
    assert (
        str(gallery.add(mm.read_source(Stream(table), mm.Columns(image="front", id="sku")))) == "1 added, 0 skipped, 0 failed"
    )
    assert gallery.item("7").fields == {"image": "no such file.png"}


def test_a_wrong_row_is_reported_and_the_others_are_added(gallery: mm.Gallery) -> None:
    good = images(2)
    frame = pd.DataFrame({"id": ["a", "b", "c", "a", "", "d"], "image": [good[0], None, 3, good[1], good[1], b"junk"]})
    report = gallery.add(frame)
    assert (report.added, len(report.failed)) == (1, 5)
    assert report.failed["b"] == "row 1: there is no image"
    assert report.failed["c"] == "row 2: expected an image, bytes or a path, got 3"
    assert report.failed["row 3"] == "duplicate id 'a', first used in row 0; choose another id column"
    assert "the id is empty" in report.failed["row 4"]
    assert "not an image that can be read" in report.failed["d"]


def test_a_missing_id_is_a_wrong_row_and_does_not_change_other_ids(gallery: mm.Gallery) -> None:
    """pandas stores whole numbers beside a missing one as floats."""
    report = gallery.add(pd.DataFrame({"id": [7, None, 12], "image": images(3)}))
    assert (gallery.ids, report.failed) == (("7", "12"), {"row 1": "the id is empty"})
    report = gallery.add(pd.DataFrame({"id": ["a", None], "image": images(2)}))
    assert (gallery.ids, report.failed) == (("7", "12", "a"), {"row 1": "the id is empty"})


@pytest.mark.parametrize(
    ("frame", "columns", "message"),
    [
        (
            pd.DataFrame({"a": [1], "b": ["x"]}),
            mm.Columns(),
            "this DataFrame: no column of images among a, b; name the column of images",
        ),
        (pd.DataFrame({"a": [1]}), mm.Columns(image="photo"), "this DataFrame: there is no column 'photo'; the columns are: a"),
        (pd.DataFrame({"image": [1], 0: [2]}), mm.Columns(), "the names of columns must be text, got 0; rename the column"),
        (pd.DataFrame(), mm.Columns(), r"this DataFrame: no column of images among \(none\)"),
    ],
)
def test_a_table_without_images_is_one_line(frame: pd.DataFrame, columns: mm.Columns, message: str) -> None:
    with pytest.raises(GalleryError, match=message):
        mm.read_source(frame, columns)


def test_names_on_the_hub_fail_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    started = time.monotonic()
    with pytest.raises(
        GalleryError, match="hf://datasets/org/name: datasets of the Hub need the package datasets; install it with"
    ):
        mm.read_source("hf://datasets/org/name")
    with pytest.raises(GalleryError, match=r"expected hf://datasets/NAME or hf://datasets/NAME:SPLIT"):
        mm.read_source("hf://models/org/name")
    assert time.monotonic() - started < 5
    with pytest.raises(OptionError, match="save_to is for tables in memory"):
        mm.read_source(mm.wardrobe.pictures_folder(), save_to="x")
