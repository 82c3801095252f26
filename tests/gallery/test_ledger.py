"""Details of the store that no other test would notice: what `make mutants` found."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers import ColourEncoder
from PIL import Image

import mmretrieve as mm
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.store.ledger_checksum import SEAL, write_seal
from mmretrieve.gallery.store.maintenance import compact
from mmretrieve.gallery.store.records import FieldType, Item, field_type_of, find_field
from mmretrieve.gallery.store.store import Store
from mmretrieve.options import Colors
from mmretrieve.sources.location import Location


@pytest.fixture
def shop(tmp_path: Path) -> mm.Gallery:
    gallery = mm.Gallery.create(tmp_path / "new" / "shop.gallery", encoder=ColourEncoder())  # makes the folder above, too
    gallery.add_items([(name, picture(seed), {"price": seed}) for seed, name in enumerate("abcd")])
    return gallery


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)


def test_a_copy_needs_no_second_thumbnail(shop: mm.Gallery) -> None:
    size = (shop.path / "thumbnails.bin").stat().st_size
    shop.add_items([("copy", Image.fromarray(picture(0)))])
    assert (shop.path / "thumbnails.bin").stat().st_size == size
    assert shop.thumbnail("copy") == shop.thumbnail("a")


def test_what_a_killed_compaction_left_is_removed_by_the_next_write(shop: mm.Gallery) -> None:
    for name in ("vectors.f16.next", "thumbnails.bin.next"):
        (shop.path / name).write_bytes(b"unfinished")
    shop.delete(["b"])
    assert not list(shop.path.glob("*.next"))
    assert shop.verify() == []


def test_a_finished_compaction_is_finished_once(shop: mm.Gallery) -> None:
    shop.delete(["b"])
    shop.compact()
    store = Store(shop.path)
    with store.writing():
        store.ledger.set_meta(compacted=True)
        store.recover()
        assert store.ledger.meta()["compacted"] is False


@pytest.mark.parametrize("row", range(4))
def test_verify_reads_every_vector(shop: mm.Gallery, row: int) -> None:
    path = shop.path / "vectors.f16"
    data = bytearray(path.read_bytes())
    data[row * shop.dim * 2] ^= 1
    path.write_bytes(data)
    assert len(shop.verify()) == 1
    assert repr("abcd"[row]) in shop.verify()[0]


def test_a_filter_that_sqlite_cannot_evaluate_says_why(shop: mm.Gallery) -> None:
    with pytest.raises(OptionError, match="integer overflow"):
        shop.search(shop.vectors()[0], where="abs(price - 9223372036854775807 - 1) > 0")


def test_the_type_of_a_value() -> None:
    kinds = {
        0: FieldType.NUMBER,
        2**63 - 1: FieldType.NUMBER,
        -(2**63): FieldType.NUMBER,
        0.5: FieldType.NUMBER,
        "x": FieldType.TEXT,
    }
    assert {value: field_type_of("f", value) for value in kinds} == kinds
    for value in (2**63, -(2**63) - 1, float("nan"), float("inf"), b"x", "\ud83d"):
        with pytest.raises(GalleryError, match=r"^field 'f' must be text or a finite number"):
            field_type_of("f", value)


def test_a_seal_that_cannot_be_written_is_left_out(tmp_path: Path, shop: mm.Gallery) -> None:
    with closing(sqlite3.connect(shop.path / "gallery.sqlite")) as db:
        write_seal(db, tmp_path / "nowhere" / SEAL)
    assert not (tmp_path / "nowhere").exists()


def test_content_is_read_from_the_first_live_copy(shop: mm.Gallery) -> None:
    ledger, content = Store(shop.path).ledger, shop.item("a").hash
    shop.add_items([("copy", picture(0)), ("second copy", picture(0))])
    assert ledger.groups_of_content(ledger.version()) == [("a", "copy", "second copy")]
    assert ledger.records_by_content([content])[content].row == 0
    shop.delete(["a"])
    assert ledger.records_by_content([content])[content].row == 4
    shop.delete(["copy", "second copy"])
    assert ledger.records_by_content([content])[content].row == 0
    assert ledger.groups_of_content(ledger.version()) == []


def test_content_without_a_thumbnail_gets_the_one_that_is_given(shop: mm.Gallery) -> None:
    store, vector = Store(shop.path), shop.vectors()[:1]
    before = store.sizes()["thumbnails.bin"]
    with store.writing():
        for id_, thumbnail, size in (("bare", b"", 0), ("given", b"small", 5)):
            store.append([Item(id_, Location(id_), "content")], vector, [thumbnail])
            assert store.sizes()["thumbnails.bin"] - before == size
    records = store.ledger.records_by_id(["bare", "given"])
    assert [store.thumbnail(record.stored) for record in records.values()] == [None, b"small"]
    assert shop.verify() == []


def test_a_compaction_leaves_no_index(shop: mm.Gallery) -> None:
    shop.build_index("Flat")
    shop.delete(["b"])
    store = Store(shop.path)
    with store.writing():
        assert compact(store) == 1
    assert (store.ledger.meta()["index"], shop.verify()) == (None, [])


def test_a_field_is_found_in_any_case() -> None:
    types = {"Price": FieldType.NUMBER, "colour": FieldType.TEXT}
    assert [find_field(types, name) for name in ("price", "Price", "COLOUR")] == ["Price", "Price", "colour"]
    with pytest.raises(OptionError, match=r"^unknown field 'prices'; did you mean 'Price'\? choose from: Price, colour$"):
        find_field(types, "prices")
    with pytest.raises(OptionError, match=r"^no field 'price': the items of this gallery have no fields$"):
        find_field({}, "price")


@pytest.mark.parametrize("colors", Colors)
def test_a_store_reads_how_colors_were_decoded(tmp_path: Path, colors: Colors) -> None:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder(), colors=colors)
    assert Store(gallery.path).colors is colors


def test_a_value_that_no_field_can_store_is_named_and_nothing_is_written(shop: mm.Gallery) -> None:
    store = Store(shop.path)
    with store.writing(), pytest.raises(GalleryError, match=r"^field 'weight' must be text or a finite number, got nan$"):
        store.append([Item("e", Location("e"), "content", fields={"weight": float("nan")})], shop.vectors()[:1], [b""])
    assert (shop.ids, shop.info()["fields"], shop.verify()) == (("a", "b", "c", "d"), {"price": "number"}, [])


def test_a_compaction_copies_each_thumbnail_once(shop: mm.Gallery) -> None:
    thumbnails = {id_: shop.thumbnail(id_) for id_ in "acd"}
    shop.delete(["b"])
    shop.compact()
    assert (shop.path / "thumbnails.bin").stat().st_size == sum(map(len, thumbnails.values()))
    assert {id_: shop.thumbnail(id_) for id_ in "acd"} == thumbnails


def test_a_damaged_thumbnail_is_made_again(shop: mm.Gallery) -> None:
    file, record = shop.path / "thumbnails.bin", Store(shop.path).ledger.records_by_id(["c"])["c"]
    data = bytearray(file.read_bytes())
    data[record.stored.thumbnail_at + 30] ^= 1
    file.write_bytes(data)
    store = Store(shop.path)
    assert store.thumbnail(record.stored) is None
    assert store.thumbnail(store.ledger.records_by_id(["d"])["d"].stored) is not None


def test_a_file_that_ends_within_a_row_has_the_rows_before(shop: mm.Gallery) -> None:
    file = shop.path / "vectors.f16"
    file.write_bytes(file.read_bytes()[:-2])
    assert "vectors.f16: has 3 rows, but the ledger counts 4" in shop.verify()


def test_copies_are_those_of_each_content(shop: mm.Gallery) -> None:
    shop.add_items([("copy", Image.fromarray(picture(0)))])
    contents = [item.hash for item in shop.items(["b", "a"])]
    assert shop.copies_of([*contents, "none"]) == [["b"], ["a", "copy"], []]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE items SET thumbnail_size = 1 << 30 WHERE id = 'c'", "out of range"),
        ("UPDATE meta SET value = '\"3\"' WHERE key = 'generation'", "generation is '3'"),
    ],
)
def test_values_that_were_never_committed_are_damage(shop: mm.Gallery, change: str, message: str) -> None:
    with closing(sqlite3.connect(shop.path / "gallery.sqlite")) as db, db:
        db.execute(change)
    with pytest.raises(GalleryError, match=message):
        mm.Gallery.open(shop.path).item("c")
