"""Galleries of every format that can be read open, rank as they did, verify, and are migrated by the first write.

`fixtures/format2.gallery` was made by commit 8b87311 (version 0.1), `fixtures/format3.gallery` by 3ae8dd5, the first that wrote format 3,
`fixtures/format3-chosen.gallery` by 57d8e9f, with a field of titles and a vocabulary. `record_gallery.py` made the last two, and makes the
next. `fixtures/format1.gallery` was made by 0b741ff, the last that wrote format 1: one of its items was deleted three times and another once,
one image is there twice, and it was searched, which wrote an index. The JSON file beside each gallery holds what that commit answered.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import kill_points
import pytest
import torch

import mmretrieve as mm
from mmretrieve.composition import Composition
from mmretrieve.encoders import dtypes, int8
from mmretrieve.errors import GalleryError, ImageError
from mmretrieve.gallery.store.ledger import FORMAT, Ledger
from mmretrieve.vectors import unit

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(params=["format1", "format2", "format3", "format3-chosen"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def old(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(FIXTURES / f"{name}.gallery", tmp_path / f"{name}.gallery"))


@pytest.fixture
def answers(name: str) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return recorded


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rankings(gallery: mm.Gallery, answers: dict[str, Any]) -> list[dict[str, Any]]:
    """What the gallery answers to the recorded queries, in the recorded form."""
    results = []
    for one in answers["rankings"]:
        composition = Composition(("image", "text", "composed"), unit(one["terms"]), (0.0, 0.0, 1.0)).with_pdv(
            gallery.setting or mm.PDV()
        )
        hits = {
            where: [[hit.id, hit.score, dict(hit.contributions)] for hit in gallery.search(composition, 5, where=where or None)]
            for where in one["hits"]
        }
        results.append({"terms": one["terms"], "hits": hits})
    return results


def test_an_old_gallery_gives_the_same_rankings(old: Path, answers: dict[str, Any]) -> None:
    before = contents(old)
    gallery = mm.Gallery.open(old)
    assert gallery.verify() == []
    assert gallery.ids == tuple(answers["ids"])
    for id_, recorded in answers["items"].items():
        item = gallery.item(id_)
        assert {"path": item.path, "hash": item.hash, "fields": item.fields} == recorded
        assert gallery.thumbnail(id_).startswith(b"\xff\xd8")
    assert digests(gallery).items() >= answers.get("thumbnails", {}).items()
    assert {name: gallery.info()[name] for name in answers["info"]} == answers["info"]
    assert rankings(gallery, answers) == answers["rankings"]
    assert contents(old) == before


def test_an_old_gallery_can_be_written_and_verified(old: Path, answers: dict[str, Any]) -> None:
    gallery = mm.Gallery.open(old)
    gallery.add_vectors(["new"], -gallery.vectors()[:1], fields=[{"price": 1_000}])
    assert gallery.verify() == []
    again = mm.Gallery.open(old)
    assert again.verify() == []
    assert again.ids == (*answers["ids"], "new")
    again.delete(["new"])
    assert rankings(again, answers) == answers["rankings"]
    assert again.compact() == answers["info"]["deleted"] + 1
    assert (again.verify(), again.ids) == ([], tuple(answers["ids"]))
    again.build_index("Flat")
    assert rankings(mm.Gallery.open(old), answers) == answers["rankings"]


def digests(gallery: mm.Gallery) -> dict[str, str]:
    """Returns id → digest of the thumbnail."""
    return {id_: hashlib.blake2b(gallery.thumbnail(id_), digest_size=16).hexdigest() for id_ in gallery.ids}


@pytest.mark.parametrize("dtype", ["auto", "float32", "int8"])
def test_a_gallery_from_before_dtypes_were_kept_goes_on(
    old: Path, photos: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its vectors were never made in int8, so "auto" is not; what is named is used, without a warning that nothing supports."""
    if dtype == "int8" and not int8.is_supported():
        pytest.skip("int8 needs an x86 CPU with AVX2")
    monkeypatch.setattr(dtypes, "remembered_comparison", lambda *_: dtypes.Int8Comparison(cosine=1.0, speedup=9.0))
    retriever = mm.Retriever.open(old, device="cpu", dtype=dtype)
    assert (retriever.encoder.dtype is torch.int8) == (dtype == "int8")
    assert (retriever.gallery.dtype, retriever.gallery.info()["dtype"]) == (None, None)
    image = next(iter(sorted(photos.rglob("*.png"))))
    gallery = mm.Gallery.open(old, encoder=retriever.encoder, device="cpu")
    assert gallery.add(image).added == 1
    assert (gallery.verify(), gallery.dtype) == ([], None)
    assert mm.Retriever.open(old, encoder=retriever.encoder).search(image=image, k=1).ids == (image.name,)


def test_the_current_format_has_a_fixture() -> None:
    formats = {Ledger(path / "gallery.sqlite").meta()["format"] for path in FIXTURES.glob("*.gallery")}
    assert formats == set(range(1, FORMAT + 1)), "record one with record_gallery.py before the format changes"


@pytest.fixture
def oldest(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "format1.gallery", tmp_path / "oldest.gallery"))


@pytest.fixture
def recorded() -> dict[str, Any]:
    answers: dict[str, Any] = json.loads((FIXTURES / "format1.json").read_text(encoding="utf-8"))
    return answers


@pytest.mark.parametrize("write", [mm.Gallery.build_index, mm.Gallery.compact, lambda gallery: gallery.delete([])])
def test_any_first_write_migrates_format_1(oldest: Path, recorded: dict[str, Any], write: Callable[[mm.Gallery], Any]) -> None:
    write(mm.Gallery.open(oldest))
    assert Ledger(oldest / "gallery.sqlite").meta()["format"] == FORMAT
    assert not (oldest / "thumbnails.sqlite").exists()
    gallery = mm.Gallery.open(oldest)
    assert (gallery.verify(), gallery.ids, digests(gallery)) == ([], tuple(recorded["ids"]), recorded["thumbnails"])
    assert rankings(gallery, recorded) == recorded["rankings"]


@pytest.mark.skipif(not kill_points.AVAILABLE, reason="system calls are stopped on Linux on x86-64 only")
def test_a_migration_killed_at_any_moment_leaves_a_gallery_that_opens(
    oldest: Path, recorded: dict[str, Any], tmp_path: Path
) -> None:
    copies, ids = tmp_path / "copies", tuple(recorded["ids"])
    done = subprocess.run([sys.executable, kill_points.__file__, oldest, copies, "delete"], capture_output=True, text=True)
    if "Operation not permitted" in done.stderr:
        pytest.skip("this machine does not allow ptrace")
    assert done.returncode == 0, done.stderr
    formats = set()
    for path in sorted(copies.iterdir(), key=lambda path: int(path.name)):
        killed = mm.Gallery.open(path)
        formats.add(Ledger(path / "gallery.sqlite").meta()["format"])
        assert killed.verify() == [], path.name
        assert killed.ids in (ids, ids[1:]), path.name
        assert digests(killed).items() <= recorded["thumbnails"].items(), path.name
        if killed.ids == ids:
            assert rankings(killed, recorded) == recorded["rankings"], path.name
        killed.delete(killed.ids[-1:])
        assert (killed.verify(), killed.ids[-1]) == ([], ids[-2]), path.name
    assert formats == {1, FORMAT}


def test_a_migration_keeps_the_size_of_each_image(oldest: Path) -> None:
    def sizes() -> list[tuple[int | None, int | None]]:
        with closing(sqlite3.connect(oldest / "gallery.sqlite")) as db:
            return db.execute("SELECT width, height FROM items ORDER BY row").fetchall()

    before = sizes()
    mm.Gallery.open(oldest).delete([])
    assert sizes() == before
    assert all(min(filter(None, size), default=0) > 0 for size in before)


def test_a_reader_follows_a_migration(oldest: Path, recorded: dict[str, Any]) -> None:
    reader, writer = mm.Gallery.open(oldest), mm.Gallery.open(oldest)
    assert rankings(reader, recorded) == recorded["rankings"]
    writer.add_vectors(["new"], writer.vectors()[:1])
    assert (reader.ids, digests(reader)) == (tuple(recorded["ids"]), recorded["thumbnails"]), "the version that it opened"
    assert rankings(reader, recorded) == recorded["rankings"]
    writer.delete(["new", *recorded["ids"][:2]])
    writer.compact()
    reader.refresh()
    assert reader.ids == writer.ids == tuple(recorded["ids"][2:])
    assert digests(reader) == digests(writer) == {id_: recorded["thumbnails"][id_] for id_ in reader.ids}


def test_thumbnails_of_format_1_may_be_lost(oldest: Path, recorded: dict[str, Any]) -> None:
    (oldest / "thumbnails.sqlite").write_bytes(b"no database, " * 100)
    gallery = mm.Gallery.open(oldest)
    assert (gallery.verify(), rankings(gallery, recorded)) == ([], recorded["rankings"])
    gallery.delete(["copy.png"])
    assert (gallery.verify(), (oldest / "thumbnails.sqlite").exists()) == ([], True), "what was not read is not deleted"
    with pytest.raises(ImageError):
        gallery.thumbnail(recorded["ids"][0])


@pytest.mark.parametrize("value", ["'text'", "7", "''"])
def test_a_damaged_thumbnail_of_format_1_loses_only_itself(oldest: Path, recorded: dict[str, Any], value: str) -> None:
    first, *others = recorded["ids"]
    with closing(sqlite3.connect(oldest / "thumbnails.sqlite")) as db, db:
        db.execute(f"UPDATE thumbnails SET jpeg = {value} WHERE hash = ?", (recorded["items"][first]["hash"],))
    gallery = mm.Gallery.open(oldest)
    assert (gallery.verify(), rankings(gallery, recorded)) == ([], recorded["rankings"])
    assert {id_: hashlib.blake2b(gallery.thumbnail(id_), digest_size=16).hexdigest() for id_ in others} == {
        id_: recorded["thumbnails"][id_] for id_ in others
    }
    with pytest.raises(ImageError):
        gallery.thumbnail(first)


def test_damage_of_format_1_is_named(oldest: Path) -> None:
    before = contents(oldest)
    with (oldest / "vectors.f16").open("r+b") as file:
        file.write(bytes(4))
    assert mm.Gallery.open(oldest).verify() == [
        "vectors.f16: the vector of 'beige-plain-sweater-0042.png' (row 0) is not the one that was committed"
    ]
    errors = []
    for name in ("gallery.sqlite", "thumbnails.sqlite"):
        for at in range(20, len(before[name]), 509):
            (oldest / name).write_bytes(before[name][:at] + bytes([before[name][at] ^ 255]) + before[name][at + 1 :])
            try:
                mm.Gallery.open(oldest).verify()
            except GalleryError as error:
                errors.append(str(error))
        (oldest / name).write_bytes(before[name])
    assert errors
    assert not [error for error in errors if "\n" in error]
    (oldest / "thumbnails.sqlite").unlink()
    os.mkfifo(oldest / "thumbnails.sqlite")
    with pytest.raises(GalleryError, match=r"thumbnails\.sqlite: is not a regular file"):
        mm.Gallery.open(oldest)
