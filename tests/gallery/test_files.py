"""The files of a gallery from someone else: whatever stands in place of a file, every command ends at once, with one line that names it."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.index.index_manifest import NEW
from mmretrieve.gallery.store.files import INDEX, INDEX_LOCK, LEDGER, LOCK, NEXT, SEAL, THUMBNAILS, VECTORS

JOURNAL = f"{LEDGER}-journal"
FILES = [VECTORS, THUMBNAILS, INDEX, SEAL, LOCK, INDEX_LOCK, JOURNAL, f"{LEDGER}-wal", f"{VECTORS}{NEXT}", NEW, f"{SEAL}.part"]
READS: list[Callable[[mm.Gallery], object]] = [
    lambda gallery: gallery.verify(),
    lambda gallery: gallery.search(np.ones(gallery.dim), 3),
    lambda gallery: gallery.info(),
]
WRITES: list[Callable[[mm.Gallery], object]] = [
    lambda gallery: gallery.add_vectors(["new"], np.ones((1, gallery.dim))),
    lambda gallery: gallery.delete(gallery.ids[:1]),
    lambda gallery: gallery.build_index("Flat"),
    lambda gallery: gallery.compact(),
]
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of vectors with an index and deleted items, not to be written to."""
    gallery = mm.Gallery.from_vectors(
        tmp_path_factory.mktemp("files") / "g", [f"{i}" for i in range(40)], np.random.default_rng(0).normal(size=(40, 8))
    )
    gallery.build_index("IVF2,SQ8")
    gallery.delete(gallery.ids[:3])
    return gallery.path


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "g"))


def put_socket(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)  # the path of a socket has at most 107 bytes
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


IN_PLACE: dict[str, Callable[[Path], None]] = {
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "socket": put_socket,
    "link to nothing": lambda path: path.symlink_to("nothing"),
}


@pytest.mark.parametrize("what", IN_PLACE)
@pytest.mark.parametrize("name", FILES)
def test_what_is_not_a_file_is_named(folder: Path, name: str, what: str) -> None:
    opened = mm.Gallery.open(folder)
    (folder / name).unlink(missing_ok=True)
    IN_PLACE[what](folder / name)
    with pytest.raises(GalleryError, match="is not a regular file; remove it, or restore it from a copy") as error:
        mm.Gallery.open(folder)
    assert str(folder / name) in str(error.value)
    for write in WRITES:
        with pytest.raises(GalleryError, match=r"^[^\n]*$"):
            write(opened)


@pytest.mark.parametrize("what", IN_PLACE)
def test_a_ledger_that_is_no_file_is_no_gallery(folder: Path, what: str) -> None:
    (folder / LEDGER).unlink()
    IN_PLACE[what](folder / LEDGER)
    with pytest.raises(GalleryError, match=r"^[^\n]*(not a gallery|is not a regular file)"):
        mm.Gallery.open(folder)
    with pytest.raises(GalleryError, match="already contains something else"):
        mm.Gallery.for_vectors(folder, mm.EncoderIdentity("m", "w", "p"), 8)


@pytest.mark.parametrize("name", [LEDGER, VECTORS, THUMBNAILS, INDEX, SEAL, LOCK])
def test_links_are_read_and_never_written_to(folder: Path, tmp_path: Path, name: str) -> None:
    """A cache of downloads has links. Writing would change what they point to, wherever that is."""
    elsewhere = tmp_path / "elsewhere"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    before, gallery = elsewhere.read_bytes(), mm.Gallery.open(folder)
    assert gallery.verify() == []
    for read in READS:
        read(gallery)
    for write in WRITES:
        with pytest.raises(GalleryError, match=f"{name}: is a link, so this gallery can only be read; put the file itself"):
            write(gallery)
    assert elsewhere.read_bytes() == before


def test_no_gallery_is_created_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / VECTORS).symlink_to(tmp_path / "precious")
    with pytest.raises(GalleryError, match=f"{VECTORS}: is a link"):
        mm.Gallery.for_vectors(tmp_path / "g", mm.EncoderIdentity("m", "w", "p"), 8)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", [LEDGER, VECTORS, THUMBNAILS, INDEX, SEAL, JOURNAL, LOCK, f"{VECTORS}{NEXT}", NEW])
def test_a_file_of_a_terabyte_costs_neither_time_nor_memory(folder: Path, name: str) -> None:
    with (folder / name).open("ab"):
        try:
            os.truncate(folder / name, 1 << 40)
        except OSError:
            pytest.skip("this file system has no files of a terabyte")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for step in (*READS, *WRITES):
        with suppress(GalleryError):
            step(mm.Gallery.open(folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize("has_seal", [True, False])
def test_verify_ends_on_every_truncated_ledger(tmp_path: Path, has_seal: bool) -> None:
    """Cut at every fiftieth and every page, also where the header counts only the pages that are left."""
    gallery = mm.Gallery.from_vectors(
        tmp_path / "g", [f"item {i}" for i in range(600)], np.ones((600, 4)), fields=[{"n": i} for i in range(600)]
    )
    gallery.delete(gallery.ids[::5])
    if not has_seal:
        (gallery.path / SEAL).unlink()
    ledger, page = gallery.path / LEDGER, 4096
    whole = ledger.read_bytes()
    for end in sorted({len(whole) * i // 50 for i in range(50)} | set(range(0, len(whole), page))):
        for header in (whole[28:32], (end // page).to_bytes(4, "big")):
            cut = bytearray(whole[:end])
            cut[28:32] = header[: len(cut[28:32])]
            ledger.write_bytes(cut)
            try:
                problems = mm.Gallery.open(gallery.path).verify()
                assert any(LEDGER in line for line in problems)
            except GalleryError as error:
                problems = [str(error)]
            assert not [line for line in problems if "\n" in line]


def test_two_processes_that_create_one_gallery_leave_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins after the first has looked and before it writes: it must not empty what the first has filled."""
    identity, path = mm.EncoderIdentity("m", "w", "p"), tmp_path / "g"
    make, first = Path.mkdir, list[mm.Gallery]()

    def overtaken(folder: Path, *args: object, **options: object) -> None:
        make(folder, *args, **options)  # type: ignore[arg-type]
        if folder == path and not first:
            monkeypatch.undo()
            first.append(mm.Gallery.for_vectors(path, identity, 4))
            first[0].add_vectors(["a"], np.ones((1, 4)))

    monkeypatch.setattr(Path, "mkdir", overtaken)
    with pytest.raises(GalleryError, match="the folder already contains a gallery; open it, or choose an empty folder"):
        mm.Gallery.for_vectors(path, identity, 4)
    assert (first[0].verify(), mm.Gallery.open(path).ids) == ([], ("a",))
