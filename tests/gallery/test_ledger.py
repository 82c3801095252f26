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
from mmretrieve.gallery.store.records import FieldType, field_type_of
from mmretrieve.gallery.store.store import Store


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
