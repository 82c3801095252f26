"""A write trusts nothing that it has not checked: after any command, damage that was there before is still reported."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import ColourEncoder
from PIL import Image

import mmretrieve as mm
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.index import manager
from mmretrieve.gallery.store.files import LEDGER, VECTORS

SOAK = int(os.environ.get("MMRETRIEVE_SOAK", "1"))
FLIPS = {LEDGER: 60 * SOAK, VECTORS: 10 * SOAK}  # for each command
COMMANDS: dict[str, Callable[[mm.Gallery], object]] = {
    "add": lambda gallery: gallery.add_vectors(["new"], np.ones((1, gallery.dim))),
    "delete": lambda gallery: gallery.delete(gallery.ids[-1:]),
    "build": lambda gallery: gallery.build_index("Flat"),
    "compact": lambda gallery: gallery.compact(),
    "settings": lambda gallery: gallery.choose_title_field("name"),
    "index-report": lambda gallery: gallery.index_report(recall=0.5),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery with fields, deleted items and an index, not to be written to."""
    count = 60
    gallery = mm.Gallery.from_vectors(
        tmp_path_factory.mktemp("damage") / "g",
        [f"item {i}" for i in range(count)],
        np.random.default_rng(0).normal(size=(count, 16)),
        fields=[{"number": i, "name": f"the name {i}"} for i in range(count)],
    )
    gallery.build_index("IVF2,SQ8")
    gallery.delete(gallery.ids[:9:3])
    return gallery.path


@pytest.fixture(autouse=True)
def _quick_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "N_QUERIES", 10)


def attempt(command: Callable[[mm.Gallery], object], path: Path) -> list[str]:
    """What the command or a later `verify` says of the gallery."""
    try:
        gallery = mm.Gallery.open(path, device="cpu")
        command(gallery)
        return mm.Gallery.open(path, device="cpu").verify()
    except GalleryError as error:
        return [str(error)]


@pytest.mark.parametrize("name", [LEDGER, VECTORS])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_hides_a_flipped_bit(whole: Path, tmp_path: Path, name: str, command: str) -> None:
    places = random.Random(3)
    data = (whole / name).read_bytes()
    dead = {row for (row,) in sqlite3.connect(whole / LEDGER).execute("SELECT row FROM items WHERE died > 0")}
    for number in range(FLIPS[name] // (6 if command == "index-report" else 1)):
        path, at = tmp_path / str(number), places.randrange(len(data))
        if name == VECTORS and at // 32 in dead:  # a compaction removes what is damaged
            continue
        shutil.copytree(whole, path)
        with (path / name).open("r+b") as file:
            file.seek(at)
            file.write(bytes([data[at] ^ 1 << places.randrange(8)]))
        lines = attempt(COMMANDS[command], path)
        assert lines, (command, at)
        assert not [line for line in lines if "\n" in line]
        shutil.rmtree(path)


def test_every_command_works_on_the_gallery_without_damage(whole: Path, tmp_path: Path) -> None:
    for name, command in COMMANDS.items():
        assert attempt(command, shutil.copytree(whole, tmp_path / name)) == []


def test_a_damaged_vector_is_not_copied(tmp_path: Path) -> None:
    """Neither to an item with the same image nor to another gallery: the copy would have a checksum of its own."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(photos / f"{i}.png")
    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder())
    gallery.add(photos)
    vector = gallery.vectors(["1.png"])
    with (gallery.path / VECTORS).open("r+b") as file:
        file.seek(64 + 3)  # the second row
        byte = file.read(1)[0]
        file.seek(64 + 3)
        file.write(bytes([byte ^ 2]))
    again = mm.Gallery.open(gallery.path, encoder=ColourEncoder())
    again.add_items([("copy", (photos / "1.png").read_bytes())])
    np.testing.assert_array_equal(again.vectors(["copy"]), vector)
    for copy in (lambda: mm.Gallery.like(tmp_path / "other", again).merge(again.path), lambda: again.export(tmp_path / "out")):
        with pytest.raises(GalleryError, match=r"vectors\.f16: the vector of row 1 is not the one that was committed"):
            copy()
    (line,) = again.verify()
    again.delete(["1.png"])
    again.compact()
    assert "'1.png' (row 1)" in line
    assert again.verify() == []
    assert mm.Gallery.like(tmp_path / "third", again).merge(again.path).added == 4


def test_an_index_of_the_same_moment_leaves_the_seal_to_the_writer(whole: Path, tmp_path: Path) -> None:
    """A compaction rewrites the file without a new generation. If an index sealed it before, a killed compaction would look like damage."""
    gallery = mm.Gallery.open(shutil.copytree(whole, tmp_path / "g"), device="cpu")
    store, before = gallery._store, (gallery.path / "gallery.seal").read_bytes()
    with store.writing():
        store.ledger.set_meta(title_field="name")
        with store.writing_index():
            store.ledger.set_meta(title_field=None)
        assert (gallery.path / "gallery.seal").read_bytes() == before
    assert (gallery.path / "gallery.seal").read_bytes() != before
    assert gallery.verify() == []
