"""What an operation costs does not grow with the gallery, or only in proportion to it. Counts and ratios, as the speed of the machine varies."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.gallery.duplicates import group_neighbors
from mmretrieve.gallery.index import manager
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.store import connections, ledger, statements
from mmretrieve.gallery.store.files import LEDGER
from mmretrieve.gallery.store.records import Item, ItemRecord, StoredChecksums
from mmretrieve.gallery.view import positions_among
from mmretrieve.scoring import term_scores, top_k
from mmretrieve.sources.location import Location
from mmretrieve.vectors import unit

DIM = 8
IDENTITY = mm.EncoderIdentity("synthetic", "synthetic", "none")


def filled(path: Path, size: int) -> mm.Gallery:
    gallery = mm.Gallery.for_vectors(path, IDENTITY, DIM)
    gallery.add_vectors(ids(size), vectors(size), fields=[{"n": i} for i in range(size)])
    return gallery


def ids(count: int, start: int = 0) -> list[str]:
    return [f"{i:06}" for i in range(start, start + count)]


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, DIM))


class Counts:
    """The statements and the steps of SQLite's virtual machine since `start`, which do not depend on the speed of the machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connect = connections.connect
        self.statements, self._steps = list[str](), list[int]()

        def counting(path: Path) -> sqlite3.Connection:
            db = connect(path)
            db.set_trace_callback(self.statements.append)
            db.set_progress_handler(lambda: self._steps.append(1), 100)
            return db

        monkeypatch.setattr(connections, "connect", counting)

    def start(self) -> None:
        self.statements.clear()
        self._steps.clear()

    @property
    def steps(self) -> int:
        return len(self._steps)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    return Counts(monkeypatch)


def test_adding_and_deleting_many_cost_the_same_in_a_gallery_of_any_size(tmp_path: Path, counts: Counts) -> None:
    cost: dict[int, list[int]] = {}
    for size in (1_000, 20_000):
        gallery, cost[size] = filled(tmp_path / str(size), size), []
        writes: list[Callable[[], object]] = [
            lambda gallery=gallery, size=size: gallery.add_vectors(ids(500, size), vectors(500, seed=1)),
            lambda gallery=gallery: gallery.delete(ids(500)),
            lambda gallery=gallery: gallery.delete(ids(1, 700)),
        ]
        for write in writes:
            counts.start()
            write()
            cost[size] += [counts.steps, len(counts.statements)]
    assert min(cost[1_000]) > 0
    assert all(large <= 1.2 * small for small, large in zip(cost[1_000], cost[20_000], strict=True)), cost


def test_a_copy_costs_the_same_however_many_copies_there_are(tmp_path: Path, counts: Counts) -> None:
    """Shops have one picture for all items without one."""
    cost, same = dict[int, int](), np.ones((20_000, DIM))
    for copies in (100, 20_000):
        gallery = mm.Gallery.for_vectors(tmp_path / str(copies), IDENTITY, DIM)
        gallery.add_vectors(ids(copies), same[:copies])
        counts.start()
        gallery.add_vectors(ids(10, copies), same[:10])
        cost[copies] = counts.steps
    assert 0 < cost[20_000] <= 1.2 * cost[100], cost


def test_a_transaction_does_not_reach_the_file_before_it_is_committed(tmp_path: Path) -> None:
    """Pages that leave the cache before are flushed to the disk each time, and read again."""
    gallery = filled(tmp_path / "g", 1)
    file, ledger_ = gallery.path / LEDGER, gallery._store.ledger
    before = file.read_bytes()
    with ledger_.writing() as transaction:
        for row in range(1, 4_001):
            transaction.insert(
                ItemRecord(row, Item(f"{row}", Location("x" * 2_000), f"hash {row * 7919 % 4001}"), StoredChecksums(0))
            )
        assert file.read_bytes() == before
        transaction.set_meta(rows=4_001)
    assert file.stat().st_size > 2 * 2**20 + len(before)  # more than the cache that SQLite has by default


def test_a_compaction_takes_few_statements_and_writes_only_what_moves(tmp_path: Path, counts: Counts) -> None:
    size, cost = 2_000, {}
    for deleted in (0, size - 1):
        gallery = filled(tmp_path / str(deleted), size)
        gallery.delete(ids(1, deleted))
        before = gallery.ids, gallery.vectors()
        counts.start()
        assert gallery.compact() == 1
        cost[deleted] = [sum(line.startswith(word) for line in counts.statements) for word in ("INSERT INTO items", "SELECT")]
        assert gallery.ids == before[0]
        np.testing.assert_array_equal(gallery.vectors(), before[1])
        assert [item.fields["n"] for item in gallery.items(gallery.ids)] == [i for i in range(size) if i != deleted]
        assert gallery.verify() == []
    assert (cost[0][0], cost[size - 1][0]) == (size - 1, 0)
    assert max(selects for _, selects in cost.values()) < size / 10


def test_a_compaction_keeps_the_indexes_of_the_ledger(tmp_path: Path) -> None:
    gallery = filled(tmp_path / "g", 50)
    schema = schema_of(gallery)
    gallery.delete(ids(20))
    gallery.compact()
    assert schema_of(gallery) == schema


def schema_of(gallery: mm.Gallery) -> list[tuple[Any, ...]]:
    with gallery._store.ledger.reading() as db:
        return db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()


def test_checksums_are_read_a_batch_at_a_time_and_hinder_no_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RECORD_BATCH_SIZE", 10)
    monkeypatch.setattr(statements, "BUSY_SECONDS", 0.2)
    gallery = filled(tmp_path / "g", 35)
    gallery.delete(ids(2, 9))
    version, store = gallery._view.version, gallery._store
    checksums = store.ledger.vector_checksums(version)
    first = next(checksums)
    gallery.delete(ids(1, 20))  # of the version that is read it is a part
    rest = list(checksums)
    assert [row for row, _ in (first, *rest)] == [row for row in range(35) if row not in (9, 10)]
    store.check_vectors((first, *rest), gallery._view.float16_rows)


def test_an_excluded_item_costs_the_same_in_a_gallery_of_any_size(tmp_path: Path) -> None:
    """No array of all other rows is made, which would take longer than the search of an index."""
    view = filled(tmp_path / "g", 100)._view
    everything = view.matching(None)
    without = view.without(view.without(everything, np.array([3, 5])), np.array([5, 7]))
    assert without.selection.matching is view.rows
    assert without.count == 97
    np.testing.assert_array_equal(view.rows_allowed(without), np.setdiff1d(np.arange(100), [3, 5, 7]))


def test_positions_are_those_of_rows_that_are_there() -> None:
    rows, rng = np.array([2, 5, 7, 11]), np.random.default_rng(0)
    for wanted in (np.array([3, 5, 6, 12]), np.array([], np.int64), rng.permutation(15)):
        expected = [rows.tolist().index(row) for row in wanted if row in rows]
        assert positions_among(rows, wanted).tolist() == expected
    assert positions_among(rows[:0], np.array([1])).tolist() == []


def test_groups_of_duplicates_take_time_in_proportion_to_the_gallery() -> None:
    """Twice as many items, in twice as many groups, would take four times as long if each group were looked for among all items."""
    times = {count: min(seconds_of_groups(count) for _ in range(2)) for count in (10_000, 80_000)}
    assert times[80_000] < 24 * times[10_000], times


def seconds_of_groups(count: int) -> float:
    """Processor seconds to group pairs of neighboring items."""
    view = SimpleNamespace(rows=np.arange(count), ids=ids(count), __len__=None)
    started = time.process_time()
    groups = group_neighbors(_Sized(view), lambda rows: [np.array([row, row ^ 1]) for row in rows], 0.9, None)  # type: ignore[arg-type]
    assert (len(groups), groups[-1]) == (count // 2, tuple(ids(2, count - 2)))
    return time.process_time() - started


class _Sized:
    def __init__(self, view: SimpleNamespace) -> None:
        self.rows, self.ids = view.rows, view.ids

    def __len__(self) -> int:
        return len(self.ids)


def test_rows_that_the_index_does_not_cover_are_searched_by_an_index_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To score each of them would take longer, in a large gallery, than the search of the others. The ranking is the exact one."""
    monkeypatch.setattr(manager, "MIN_TAIL_ROWS", 50)
    size, new, k = 3_000, 145, 5
    gallery = filled(tmp_path / "g", size)
    gallery.build_index("Flat")
    gallery.add_vectors(ids(new, size), vectors(new, seed=1), fields=[{"n": i} for i in range(size, size + new)])
    gallery.delete([*ids(1, 7), *ids(1, size + 7)])
    assert gallery.info()["index"]["uncovered"] == new
    for query in unit(vectors(20, seed=2)):
        composition = mm.Composition(("image",), query[None], (1.0,))
        assert len(gallery._view.candidates(query[None], k, gallery._view.matching(None))[0]) < new
        for where in (None, "n % 2 = 0", f"n >= {size - 100}", f"n > {size + 130}", "n < 100"):
            excluded = gallery.search(composition, 1, where=where).ids
            expected = exact(gallery, query, where, excluded, k)
            assert gallery.search(composition, k, where=where, exclude=excluded).ids == expected, where


def exact(gallery: mm.Gallery, query: np.ndarray, where: str | None, excluded: tuple[str, ...], k: int) -> tuple[str, ...]:
    page = gallery.list_items(where=where, limit=len(gallery)).items
    rows = [item.id for item in page if item.id not in excluded]
    return tuple(rows[i] for i in top_k(term_scores(query[None], gallery.vectors(rows))[0], k))


def test_the_index_of_new_rows_is_built_again_for_many_more_of_them_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "MIN_TAIL_ROWS", 50)
    gallery = filled(tmp_path / "g", 3_000)
    gallery.build_index("Flat")
    tails: list[FaissIndex | None] = []
    for start, count in ((3_000, 40), (3_040, 40), (3_080, 4), (3_084, 4)):
        gallery.add_vectors(ids(count, start), vectors(count, seed=start))
        tails.append(gallery._view._loaded_index.tail)
    assert [tail and len(tail) for tail in tails] == [None, 80, 80, 88]
    assert tails[1] is tails[2]
