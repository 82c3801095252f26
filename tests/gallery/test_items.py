"""Images added one by one: from files and from memory, with their ids and fields, and lists of sources."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_corpus import saved
from PIL import Image

import mmretrieve as mm
from mmretrieve.errors import GalleryError, ImageError, OptionError, VectorError
from mmretrieve.service import SearchService
from mmretrieve.vectors import unit


@pytest.fixture
def empty(tmp_path: Path, encoder: mm.Encoder) -> mm.Gallery:
    return mm.Gallery.create(tmp_path / "items.gallery", encoder=encoder)


@pytest.fixture
def path(photos: Path) -> Path:
    return sorted(photos.rglob("*.png"))[3]


def forms(path: Path) -> dict[str, Any]:
    """The same picture in every form."""
    image = Image.open(path)
    image.load()
    return {
        "path": path,
        "text": str(path),
        "bytes": path.read_bytes(),
        "file": io.BytesIO(path.read_bytes()),
        "PIL": image,
        "array": np.asarray(image.convert("RGB")),
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_table_that_names_files_of_the_system_adds_the_others(empty: mm.Gallery, path: Path, tmp_path: Path) -> None:
    names = {"/proc/kmsg": "the file is empty", "/proc/self/pagemap": "the file is empty", "/dev/zero": "is not a regular file"}
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["id,path", f"good,{path}", *(f"{i},{name}" for i, name in enumerate(names))]))
    report = empty.add(table)
    assert (report.added, len(report.failed)) == (1, 3)
    for reason, (name, expected) in zip(report.failed.values(), names.items(), strict=True):
        assert reason.startswith(f"{name}: "), reason
        assert expected in reason, reason


def test_every_form_of_a_picture_is_added_with_its_fields(empty: mm.Gallery, path: Path, encoder: mm.Encoder) -> None:
    items = [(name, picture, {"form": name, "number": np.int64(i)}) for i, (name, picture) in enumerate(forms(path).items())]
    assert empty.add_items(items) == mm.AddReport(added=6)
    expected = encoder.encode_images([path])
    np.testing.assert_allclose(empty.vectors(), np.repeat(expected, 6, axis=0), atol=1e-3)
    for i, name in enumerate(empty.ids):
        item = empty.item(name)
        assert (item.fields, item.width, item.height) == ({"form": name, "number": i}, 96, 96)
        small = Image.open(io.BytesIO(empty.thumbnail(name)))
        assert np.abs(np.asarray(small, int) - np.asarray(Image.open(path).convert("RGB"), int)).mean() < 5
    assert [empty.item(name).path for name in empty.ids] == [str(path), str(path), "", "", "", ""]
    assert empty.copies(empty.item("path").hash) == ["path", "text", "bytes", "file"]
    assert empty.verify() == []


def test_what_was_added_from_memory_is_shown_and_searched(empty: mm.Gallery, path: Path, encoder: mm.Encoder) -> None:
    empty.add_items([("a", path.read_bytes()), ("b", np.full((64, 64, 3), 200, np.uint8))])
    retriever = mm.Retriever(empty, encoder)
    assert retriever.search(reference_id="a", prompt="in red", k=2).ids
    assert retriever.search(path, exclude_reference=True).ids == ("b",)
    with pytest.raises(ImageError, match="added from memory; only its thumbnail is stored"):
        empty.picture("a")
    assert SearchService(retriever).picture("a") == empty.thumbnail("a")


def test_copies_of_a_reference_are_left_out_by_id_as_by_file(empty: mm.Gallery, path: Path, encoder: mm.Encoder) -> None:
    empty.add_items([("a", path), ("copy", path.read_bytes()), ("b", np.full((64, 64, 3), 200, np.uint8))])
    retriever = mm.Retriever(empty, encoder)
    for reference in ({"image": path}, {"reference_id": "a"}, {"reference_id": "copy"}):
        assert retriever.search(**reference, k=3, exclude_reference=True).ids == ("b",)
        assert len(retriever.search(**reference, k=3)) == 3


def test_adding_again_skips_updates_and_names_changes(empty: mm.Gallery, path: Path) -> None:
    gray, white = (np.full((64, 64, 3), value, np.uint8) for value in (128, 255))
    empty.add_items([("a", gray, {"price": 1}), ("b", path)])
    generation = empty.info()["bytes"]
    assert empty.add_items([("a", gray, {"price": 1}), ("b", path)]) == mm.AddReport(skipped=2)
    assert empty.info()["bytes"] == generation
    assert empty.add_items([("a", gray, {"price": 2, "colour": "gray"})]) == mm.AddReport(updated=1)
    assert empty.item("a").fields == {"price": 2, "colour": "gray"}
    report = empty.add_items([("a", white)])
    assert "its content has changed" in report.failed["a"]
    assert empty.add_items([("a", white)], update=True) == mm.AddReport(updated=1)
    assert empty.add_items([("b", path.read_bytes(), {"price": 3})]) == mm.AddReport(updated=1)
    assert (empty.item("b").path, empty.item("b").fields) == (str(path), {"price": 3}), "the file of the item stays"


def test_items_of_a_source_keep_their_source(gallery: mm.Gallery, photos: Path) -> None:
    id_ = gallery.ids[0]
    assert gallery.add_items([(id_, photos / id_, {"title": "a coat"})]) == mm.AddReport(updated=1)
    assert (gallery.item(id_).source, gallery.item(id_).fields) == (str(photos), {"title": "a coat"})
    assert gallery.sync(photos) == mm.AddReport(skipped=60)


def test_a_wrong_picture_stops_no_other(empty: mm.Gallery, tmp_path: Path, path: Path) -> None:
    def items() -> Any:
        yield "junk", b"junk"
        yield "number", 3
        yield "float", np.zeros((9, 9, 3))
        yield "missing", tmp_path / "missing.png"
        yield "url", "https://example.org/a.jpg"
        yield "", path
        yield "good", path
        yield "good", path

    report = empty.add_items(items())
    assert report.added == 1
    expected = {
        "junk": "not an image",
        "number": "expected a path, a PIL image, an array, bytes or an open file, got 3",
        "float": "uint8",
        "missing": "no such image",
        "url": "URLs are not fetched",
        "": "the id is empty",
        "good": "more than once",
    }
    assert {name: text for name, text in expected.items() if text in report.failed.get(name, "")} == expected


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (None, "expected a list of (id, picture) or (id, picture, fields), got None"),
        ("a.jpg", "got 'a.jpg'"),
        (["a.jpg"], "for each item, with text as the id, got 'a.jpg'"),
        ([(1, "a.jpg")], "with text as the id, got (1, 'a.jpg')"),
        ([("a", "a.jpg", {}, 1)], "got ('a', 'a.jpg', {}, 1)"),
        ([("a", "a.jpg", "red")], "a: fields must be a mapping such as {'colour': 'red'}, got 'red'"),
        ([("a", "a.jpg", {1: "red"})], "a: fields must be a mapping"),
    ],
)
def test_what_is_no_item_is_one_line(empty: mm.Gallery, items: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        empty.add_items(items)
    assert message in str(caught.value)


def test_a_list_of_paths_and_sources(empty: mm.Gallery, photos: Path, tmp_path: Path) -> None:
    paths = sorted(photos.rglob("*.png"))
    table = tmp_path / "items.jsonl"
    table.write_text(json.dumps({"path": str(paths[5]), "id": "five", "price": 5}))
    report = empty.add([paths[0], str(paths[1]), table, mm.read_source(photos / "winter")])
    assert report == mm.AddReport(added=3 + 30)
    assert empty.ids[:3] == (paths[0].name, paths[1].name, "five")
    assert empty.item("five").fields == {"price": 5}
    report = empty.add([paths[0], tmp_path / "missing.png"])
    assert (report.skipped, list(report.failed)) == (1, ["missing.png"])
    for sources, error, message in (
        ([], GalleryError, "the list of sources is empty"),
        ([paths[0], tmp_path / "missing"], GalleryError, "no such file or folder"),
        ([paths[0], 3], OptionError, "expected a source, which is a path or what read_source returns, got 3"),
        (None, OptionError, "got None"),
        (Image.open(paths[0]), OptionError, "add_items takes images from memory"),
    ):
        with pytest.raises(error, match=message):
            empty.add(sources)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="add takes a list of sources"):
        empty.sync([paths[0]])  # type: ignore[arg-type]


class SometimesBlind:
    """An encoder that has no direction for bright images: it gives them a bad vector, or raises as ours does for a batch with one."""

    identity = mm.EncoderIdentity("blind", "1", "none")
    dim, image_size = 3, 8

    def __init__(self, bad: float, *, raises: bool) -> None:
        self.bad, self.raises = bad, raises

    def encode_images(self, images: Iterable[Image.Image], progress: object = None) -> np.ndarray:
        del progress
        means = [np.asarray(image, float).mean(axis=(0, 1)) + 1 for image in images]
        rows = [[self.bad] * 3 if mean.min() > 200 else mean / np.linalg.norm(mean) for mean in means]
        vectors = np.array(rows, np.float32).reshape(-1, 3)
        return unit(vectors, "image features") if self.raises else vectors

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return unit(np.ones((len(texts), 3)))


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 0])
def test_an_image_without_a_direction_is_named_and_the_others_are_added(tmp_path: Path, bad: float, raises: bool) -> None:
    encoder = SometimesBlind(bad, raises=raises)
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    colors = {"red": (250, 0, 0), "white": (255, 255, 255), "blue": (0, 0, 250), "bright": (240, 240, 240)}
    (tmp_path / "white.png").write_bytes(saved(Image.new("RGB", (9, 9), "white"), "PNG"))
    done: list[int] = []
    report = gallery.add_items(
        [(name, Image.new("RGB", (9, 9), color)) for name, color in colors.items()], progress=done.append
    )
    assert (report.added, list(report.failed)) == (2, ["white", "bright"])
    assert all("the encoder cannot encode it" in reason and "\n" not in reason for reason in report.failed.values())
    assert (gallery.ids, sum(done), gallery.verify()) == (("red", "blue"), 4, [])
    retriever = mm.Retriever(gallery, encoder)
    with pytest.raises(VectorError, match=r"white.png: the encoder cannot encode it.*(NaN|zero)"):
        retriever.search(tmp_path / "white.png")
