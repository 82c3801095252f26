"""Connections to a ledger are kept, never carried into another process, and closed in the end."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.store import connections, statements
from mmretrieve.gallery.store.connections import MAX_IDLE_CONNECTIONS
from mmretrieve.gallery.store.records import StaleViewError

QUERY = np.eye(1, 8, dtype=np.float32)[0]
THREADS = 2 * MAX_IDLE_CONNECTIONS


@pytest.fixture
def gallery(tmp_path: Path) -> mm.Gallery:
    return make(tmp_path / "g", "a")


def make(path: Path, prefix: str) -> mm.Gallery:
    vectors = np.random.default_rng(0).normal(size=(200, 8))
    return mm.Gallery.open(mm.Gallery.from_vectors(path, [f"{prefix}{i}" for i in range(200)], vectors).path, device="cpu")


def open_files(gallery: mm.Gallery) -> int:
    """How many descriptors of this process are the ledger of a gallery."""
    ledger, links = str(gallery.path / "gallery.sqlite"), 0
    for name in os.listdir("/proc/self/fd"):
        try:
            links += os.readlink(f"/proc/self/fd/{name}").startswith(ledger)
        except OSError:  # the descriptor of the listing itself
            continue
    return links


def in_child(check: Callable[[], object], fork: Callable[[], int]) -> str:
    """What a forked process finds."""
    receiver, sender = os.pipe()
    child = fork()
    if child == 0:
        try:
            os.write(sender, repr(check()).encode())
        finally:
            os._exit(0)
    os.close(sender)
    os.waitpid(child, 0)
    with os.fdopen(receiver) as file:
        return file.read()


def test_a_thousand_searches_of_many_threads_use_few_connections(gallery: mm.Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, opened = connections.connect, list[Path]()

    def counting(path: Path) -> sqlite3.Connection:
        opened.append(path)
        return connect(path)

    monkeypatch.setattr(connections, "connect", counting)
    expected = gallery.search(QUERY)
    with ThreadPoolExecutor(THREADS) as pool:
        assert all(ranking == expected for ranking in pool.map(lambda _: gallery.search(QUERY), range(1_000)))
    assert 1 <= open_files(gallery) <= MAX_IDLE_CONNECTIONS
    opened.clear()
    for _ in range(50):
        gallery.search(QUERY)
    assert opened == []


def test_no_more_connections_are_kept_than_the_bound(gallery: mm.Gallery) -> None:
    pool = gallery._store.ledger.connections

    def nest(depth: int) -> None:
        if depth:
            with pool.connection():
                nest(depth - 1)
        else:
            assert open_files(gallery) >= THREADS

    nest(THREADS)
    assert open_files(gallery) == MAX_IDLE_CONNECTIONS


def test_a_gallery_that_is_no_longer_used_leaves_no_file_open(tmp_path: Path) -> None:
    gallery = make(tmp_path / "g", "a")
    gallery.search(QUERY)
    path = gallery.path
    assert open_files(gallery) == 1
    del gallery
    gc.collect()
    assert not any(str(path) in os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd"))


def test_a_read_that_fails_leaves_no_transaction_open(gallery: mm.Gallery) -> None:
    gallery.search(QUERY)
    with pytest.raises(GalleryError, match="no item 'z'"):
        gallery.item("z")
    assert open_files(gallery) == 0
    mm.Gallery.open(gallery.path).delete(["a3"])  # would wait for a reader


@pytest.mark.parametrize("fork", [os.fork, ctypes.PyDLL(None).fork], ids=["os.fork", "without hooks"])
def test_a_forked_process_uses_and_closes_no_connection_of_the_first(gallery: mm.Gallery, fork: Callable[[], int]) -> None:
    expected, pool = gallery.search(QUERY), gallery._store.ledger.connections
    first = pool._idle[0].db

    def search() -> bool:
        same = gallery.search(QUERY) == expected
        used = [kept for kept in pool._idle if kept.db is first or kept.owner.process != os.getpid()]
        gc.collect()
        if fork is not os.fork:  # it is still open: the end of the object would close it
            first.execute("SELECT 1")
        return same and not used

    assert in_child(search, fork) == "True"
    assert gallery.search(QUERY) == expected
    if fork is os.fork:
        assert in_child(lambda: open_files(gallery), fork) == "0"


def test_a_ledger_that_another_was_put_in_the_place_of_is_read_anew(gallery: mm.Gallery, tmp_path: Path) -> None:
    other = make(tmp_path / "other", "b")
    assert gallery.search(QUERY)[0].id.startswith("a")
    shutil.copy(other.path / "gallery.sqlite", gallery.path / "new")
    os.replace(gallery.path / "new", gallery.path / "gallery.sqlite")
    assert gallery.search(QUERY)[0].id.startswith("b")


@pytest.mark.parametrize("age", [0, 100])
def test_what_is_put_beside_a_ledger_is_checked_before_each_transaction(gallery: mm.Gallery, age: int) -> None:
    changed = time.time_ns() - age * 10**9
    os.utime(gallery.path, ns=(changed, changed))
    for _ in range(3):
        gallery.search(QUERY)
    os.mkfifo(gallery.path / "gallery.sqlite-journal")  # SQLite would wait for ever
    if not age:  # within one tick of the clock
        os.utime(gallery.path, ns=(changed, changed))
    with pytest.raises(GalleryError, match="is not a regular file"):
        gallery.search(QUERY)
    (gallery.path / "gallery.sqlite-journal").unlink()
    assert len(gallery.search(QUERY)) == 10


def test_files_are_not_checked_again_while_the_folder_is_the_same(gallery: mm.Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(gallery.path, (1, 1))
    gallery.search(QUERY)
    monkeypatch.setattr(connections, "check_files", None)
    assert len(gallery.search(QUERY)) == 10


def test_a_ledger_that_was_cut_short_is_an_error_and_not_a_crash(gallery: mm.Gallery) -> None:
    gallery.search(QUERY)
    os.truncate(gallery.path / "gallery.sqlite", 4096)
    with pytest.raises(GalleryError, match="damaged"):
        gallery.search(QUERY)


@pytest.mark.parametrize("is_mapped", [True, False])
def test_what_is_verified_or_written_is_read_from_the_disk(
    tmp_path: Path, is_mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_mapped:  # what lies beyond the first 2 GB of a ledger
        monkeypatch.setattr(statements, "MAX_MAPPED_BYTES", 0)
    gallery = make(tmp_path / "g", "a")
    gallery.items(gallery.ids)  # every page was read
    ledger = gallery.path / "gallery.sqlite"
    content = ledger.read_bytes()
    with ledger.open("r+b") as file:  # the same file
        file.write(content.replace(b"a77a77", b"a7Xa77"))
    assert any("'a7X' (row 77) is not the one that was committed" in problem for problem in gallery.verify())
    gallery.items(gallery.ids[:70])
    with pytest.raises(GalleryError, match="is not the file that was committed"):
        gallery.delete(["a3"])


def test_ids_and_paths_are_in_the_order_of_the_rows_and_none_is_left_out(gallery: mm.Gallery) -> None:
    view = gallery._view
    rows = np.random.default_rng(1).permutation(200)
    expected = [(f"a{row}", f"a{row}") for row in rows]
    assert view.ids_and_paths(rows) == expected
    assert view.ids_and_paths(rows[:0]) == []
    with pytest.raises(GalleryError, match="the entry of a row is missing; the gallery is damaged"):
        view.ids_and_paths(np.array([3, 200]))


def test_no_connection_is_kept_with_the_large_cache_of_a_write(gallery: mm.Gallery) -> None:
    gallery.delete(["a3"])
    gallery.search(QUERY)
    (kept,) = gallery._store.ledger.connections._idle
    assert kept.db.execute("PRAGMA cache_size").fetchone() == (-statements.READ_CACHE_KB,)


def test_a_search_is_one_statement(gallery: mm.Gallery) -> None:
    gallery.search(QUERY)
    traced: list[str] = []
    (kept,) = gallery._store.ledger.connections._idle
    kept.db.set_trace_callback(traced.append)
    assert len(gallery.search(QUERY, k=150)) == 150
    assert len(traced) == 1


def test_hits_of_a_stale_view_are_refused_even_if_no_row_of_it_is_left(gallery: mm.Gallery) -> None:
    stale = gallery._view
    writer = mm.Gallery.open(gallery.path)
    writer.delete(list(writer.ids[100:]))
    writer.compact()
    for row in (3, 150):
        with pytest.raises(StaleViewError):
            stale.ids_and_paths(np.array([row]))
    assert len(gallery.search(QUERY, k=150)) == 100
