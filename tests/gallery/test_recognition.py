"""Fields for an existing gallery: a table of images that a folder gave before adds fields instead of items."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

import mmretrieve as mm
from mmretrieve.cli.main import main

Row = Sequence[object]


def write_table(path: Path, rows: Sequence[Row], header: Row = ("id", "file", "title")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def shop(tmp_path: Path, photos: Path) -> Path:
    """A folder of ten images in two folders."""
    for i, source in enumerate(sorted(photos.rglob("*.png"))[:10]):
        target = tmp_path / "shop" / "images" / str(i % 2) / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    return tmp_path / "shop"


@pytest.fixture
def filled(tmp_path: Path, encoder: mm.Encoder, shop: Path) -> mm.Gallery:
    gallery = mm.Gallery.create(tmp_path / "g.gallery", encoder=encoder)
    assert gallery.add(shop / "images").added == 10
    return gallery


def titles(gallery: mm.Gallery) -> dict[str, object]:
    return {id_: gallery.item(id_).fields.get("title") for id_ in gallery.ids}


def rows_of(folder: str) -> list[Row]:
    return [(f"sku-{i}", f"{folder}/{i % 2}/{i}.png", f"title {i}") for i in range(10)]


EXPECTED = {f"{i % 2}/{i}.png": f"title {i}" for i in range(10)}


def copy_images(folder: Path) -> None:
    shutil.copytree(folder / "images", folder / "copies")


def test_a_table_of_the_same_files_adds_its_fields(filled: mm.Gallery, shop: Path) -> None:
    ids, vectors = filled.ids, filled.vectors().tobytes()
    table = write_table(shop / "items.csv", rows_of("images"))
    assert filled.add(table) == mm.AddReport(updated=10)
    assert (filled.ids, filled.vectors().tobytes()) == (ids, vectors)
    assert titles(filled) == EXPECTED
    assert filled.search(filled.vectors()[0], where={"title": "title 8"}).ids == ("0/8.png",)
    assert filled.add(table) == mm.AddReport(skipped=10), "again"
    write_table(table, [(id_, file, title.upper()) for id_, file, title in rows_of("images")])
    assert filled.add(table) == mm.AddReport(updated=10), "changed"
    assert filled.sync(shop / "images") == mm.AddReport(skipped=10), "the folder keeps its items"
    assert filled.sync(table) == mm.AddReport(skipped=10)
    assert titles(filled) == {id_: title.upper() for id_, title in EXPECTED.items()}
    assert filled.verify() == []


def test_the_folder_after_its_table_adds_nothing(tmp_path: Path, encoder: mm.Encoder, shop: Path) -> None:
    gallery = mm.Gallery.create(tmp_path / "table.gallery", encoder=encoder)
    assert gallery.add(write_table(shop / "items.csv", rows_of("images"))).added == 10
    assert gallery.add(shop / "images") == mm.AddReport(skipped=10)
    assert gallery.add(shop / "images" / "0") == mm.AddReport(skipped=5)
    assert gallery.ids == tuple(f"sku-{i}" for i in range(10))


def test_copies_of_the_files_are_recognized_by_their_content(filled: mm.Gallery, shop: Path) -> None:
    copy_images(shop)
    table = write_table(shop / "items.csv", rows_of("copies"))
    assert filled.add(table) == mm.AddReport(updated=10)
    assert titles(filled) == EXPECTED
    assert filled.add(table) == mm.AddReport(skipped=10)


def test_renamed_copies_are_recognized_unless_fields_contradict(filled: mm.Gallery, shop: Path) -> None:
    (shop / "renamed").mkdir()
    for i in range(10):
        shutil.copy(shop / f"images/{i % 2}/{i}.png", shop / f"renamed/n{i}.png")
    rows = [(f"sku-{i}", f"renamed/n{i}.png", f"title {i}") for i in range(10)]
    table = write_table(shop / "items.csv", rows)
    assert filled.add(table) == mm.AddReport(updated=10)
    assert titles(filled) == EXPECTED
    assert filled.add(table) == mm.AddReport(skipped=10)
    other = write_table(shop / "other.csv", [(f"other-{i}", f"renamed/n{i}.png", "another") for i in range(2)])
    assert filled.add(other) == mm.AddReport(added=2), "two products with one image"


def test_two_rows_of_one_file_are_two_items(filled: mm.Gallery, shop: Path) -> None:
    rows = [*rows_of("images"), ("sku-0b", "images/0/0.png", "another offer")]
    table = write_table(shop / "items.csv", rows)
    assert filled.add(table) == mm.AddReport(added=1, updated=10)
    assert titles(filled) == {**EXPECTED, "sku-0b": "another offer"}
    assert filled.add(table) == mm.AddReport(skipped=11)


def test_equal_images_get_the_fields_of_their_own_path(tmp_path: Path, encoder: mm.Encoder, photos: Path) -> None:
    source = next(photos.rglob("*.png"))
    for folder in ("images", "copies"):
        for sku in "abc":
            (tmp_path / folder / sku).mkdir(parents=True)
            shutil.copy(source, tmp_path / folder / sku / "front.png")
    gallery = mm.Gallery.create(tmp_path / "g.gallery", encoder=encoder)
    gallery.add(tmp_path / "images")
    rows = [(f"sku-{sku}", f"copies/{sku}/front.png", f"title {sku}") for sku in "cab"]
    assert gallery.add(write_table(tmp_path / "items.csv", rows)) == mm.AddReport(updated=3)
    assert titles(gallery) == {f"{sku}/front.png": f"title {sku}" for sku in "abc"}


def test_copies_without_fields_and_items_of_a_program_stay_items(filled: mm.Gallery, shop: Path) -> None:
    copy_images(shop)
    assert filled.add_items([("mine", shop / "images/0/0.png", {"title": "mine"})]) == mm.AddReport(added=1)
    (shop / "copies/0/0.png").rename(shop / "copies/zero.png")
    assert filled.add(shop / "copies") == mm.AddReport(added=1, skipped=9), "9 have the ids of the first folder"


def test_fields_of_another_type_are_reported(filled: mm.Gallery, shop: Path) -> None:
    filled.add(write_table(shop / "items.csv", rows_of("images")))
    table = shop / "more.jsonl"
    table.write_text(json.dumps({"id": "x", "path": "images/0/0.png", "title": 5}))
    assert "contains texts" in filled.add(table).failed["x"]
    assert len(filled) == 10


def test_the_shell_adds_the_fields_of_a_catalogue(tmp_path: Path, catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (catalogue / "items.csv").open(newline="") as file:
        header, *rows = [row for _, row in zip(range(41), csv.reader(file), strict=False)]
    (tmp_path / "images").mkdir()
    for row in rows:
        shutil.copy(catalogue / row[1], tmp_path / row[1])
    table, folder = write_table(tmp_path / "items.csv", rows, header), tmp_path / "shop.gallery"
    assert main(["index", str(tmp_path / "images"), "--gallery", str(folder), "--encoder", str(catalogue / "model")]) == 0
    assert main(["index", str(table), "--gallery", str(folder)]) == 0
    assert "0 added, 40 updated, 0 unchanged, 0 failed; 40 items" in capsys.readouterr().out
    gallery = mm.Gallery.open(folder)
    expected = {Path(row[1]).name: row[header.index("title")] for row in rows}
    assert titles(gallery) == expected
    black = sum(row[header.index("colour")] == "black" for row in rows)
    assert gallery.list_items(where={"colour": "black"}).total == black > 0
