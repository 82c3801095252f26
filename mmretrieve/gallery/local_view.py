"""One version of a gallery in a folder: its items, vectors and index. It does not change while others write."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import numpy as np

from mmretrieve import scoring
from mmretrieve.concurrency import once
from mmretrieve.encoders.base import Progress
from mmretrieve.filters import Expression
from mmretrieve.gallery import candidates, duplicates
from mmretrieve.gallery.index import manager, products
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.plan import Device
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import Item, ItemRecord, StoreVersion
from mmretrieve.gallery.store.store import Float16Rows, Store
from mmretrieve.gallery.view import (
    EXCLUDED,
    NO_ROWS,
    CandidateFilter,
    Rows,
    StoredView,
    check_ids,
    positions_among,
)
from mmretrieve.vectors import ROW_BATCH_SIZE, Float32, unit

MAX_NUMPY_ROWS = 16_384  # more are scored by torch; a gallery of so many items has a float32 copy
MAX_CACHED_FILTERS = 8  # filters whose rows are cached


@dataclass(frozen=True)
class _Reusable:
    """What was read of an earlier version and serves a later one. `ids` are its ids, if they were read."""

    version: StoreVersion
    ids: tuple[str, ...] | None = None
    index: manager.LoadedIndex | None = None


@dataclass(frozen=True)
class _Selection:
    """Rows that match a filter, and rows that are excluded. A search of the index needs no array of the others, whose cost grows with the gallery."""

    matching: Rows
    excluded: Rows

    @property
    def rows(self) -> Rows:
        return np.delete(self.matching, positions_among(self.matching, self.excluded)) if len(self.excluded) else self.matching


class LocalView(StoredView):
    """A version of a store. Positions count its items in insertion order, from 0; rows are their numbers in the files."""

    def __init__(self, store: Store, device: Device = Device.CPU, earlier: LocalView | None = None) -> None:
        super().__init__(None if earlier is None else earlier.detected_vocabulary)
        self.version: StoreVersion = store.ledger.version(None if earlier is None else earlier.version)
        self.store, self._earlier = store, None if earlier is None else earlier.reusable()
        self.dim, self.name = store.dim, str(store.folder)
        self._device = device
        self._filters: dict[Expression, Rows] = {}

    def __len__(self) -> int:
        return len(self.version)

    def reusable(self) -> _Reusable:
        """Returns what serves a later version: what was read of this one, otherwise of the one before."""
        earlier = self._earlier or _Reusable(self.version)
        with self.once_lock:
            if "ids" in self.__dict__:
                earlier = replace(earlier, version=self.version, ids=self.ids)
            return replace(earlier, index=self.__dict__.get("_loaded_index", earlier.index))

    @property
    def is_current(self) -> bool:
        """Whether nothing was written since."""
        meta = self.store.ledger.meta()
        return (meta["epoch"], meta["generation"]) == (self.version.epoch, self.version.generation)

    @once
    def manifest(self) -> Manifest:
        return Manifest.of(self.store)

    @once
    def rows(self) -> Rows:
        return self.version.rows()

    @once
    def ids(self) -> tuple[str, ...]:
        """The ids in insertion order: those of an earlier version without deleted ones, and the new ones."""
        earlier = self._earlier
        if earlier is None or earlier.ids is None or earlier.version.epoch != self.version.epoch:
            return self.store.ledger.ids(self.version)
        deleted = np.setdiff1d(self.version.dead, earlier.version.dead, assume_unique=True)
        positions = np.searchsorted(earlier.version.rows(), deleted[deleted < earlier.version.total]).tolist()
        kept = (earlier.ids[start + 1 : end] for start, end in pairwise([-1, *positions, len(earlier.ids)]))
        return *chain.from_iterable(kept), *self.store.ledger.ids(self.version, earlier.version.total)

    @once
    def float16_rows(self) -> Float16Rows:
        """(total, dim) float16 rows, deleted ones included, mapped from the file."""
        return self.store.float16_rows(self.version)

    @property
    def index(self) -> FaissIndex:
        """The index over these rows, or over the first of them."""
        return self._loaded_index.index

    @once
    def _loaded_index(self) -> manager.LoadedIndex:
        earlier = None if self._earlier is None else self._earlier.index
        return manager.open_index(self.store, self.version, self.float16_rows, self._device, earlier)

    def vectors_of(self, rows: Rows) -> Float32:
        stored = self.float16_rows  # checked before as much memory is taken
        out = np.empty((len(rows), self.dim), np.float32)
        for batch in _batches(rows):
            out[batch] = unit(stored.take(rows[batch], axis=0))
        return out

    def items_of(self, rows: Rows) -> list[Item]:
        return [record.item for record in self.records_of(rows)]

    def ids_and_paths(self, rows: Rows) -> list[tuple[str, str]]:
        return self.store.ledger.ids_and_paths(rows.tolist(), self.version)

    def records_of(self, rows: Rows) -> list[ItemRecord]:
        return self.store.ledger.records_of(rows.tolist(), self.version)

    def rows_of(self, ids: Collection[str]) -> Rows:
        checked = check_ids(ids)
        return np.array(self.store.ledger.rows_of(checked, self.version) if checked else [], dtype=np.int64)

    def copies(self, hashes: Sequence[str]) -> list[list[str]]:
        return self.store.ledger.copies(hashes, self.version)

    def same_content(self) -> list[tuple[str, ...]]:
        return self.store.ledger.groups_of_content(self.version)

    def near(self, min_score: float, progress: Progress | None = None) -> list[tuple[str, ...]]:
        return duplicates.find_near(self, self.index, min_score, progress)

    def matching(self, where: Expression | None) -> CandidateFilter:
        rows = self.rows if where is None else self._rows_matching(where)
        return CandidateFilter.of(_Selection(rows, NO_ROWS), len(rows), len(self))

    def without(self, allowed: CandidateFilter, rows: Rows) -> CandidateFilter:
        selection: _Selection = allowed.selection
        excluded = np.union1d(selection.excluded, rows)
        count = len(selection.matching) - len(positions_among(selection.matching, excluded))
        return allowed.narrowed(replace(selection, excluded=excluded), count)

    def _rows_matching(self, where: Expression) -> Rows:
        """Returns the rows that match a filter in this version. The last few filters are cached, as queries often repeat them."""
        with self.once_lock:
            if where not in self._filters:
                rows = self.store.ledger.matching(where, self.version)
                self._filters = dict([*self._filters.items(), (where, rows)][-MAX_CACHED_FILTERS:])
            return self._filters[where]

    def rows_allowed(self, allowed: CandidateFilter) -> Rows:
        selection: _Selection = allowed.selection
        return selection.rows

    def candidates(self, queries_qd: Float32, k: int, allowed: CandidateFilter) -> list[Rows]:
        excluded, rows, tail = allowed.hidden.get(EXCLUDED, 0), self.rows_allowed(allowed), self._loaded_index.tail
        if tail is None:
            return candidates.find_candidates(self.index, queries_qd, k, rows, excluded, len(self))
        first = len(self.index)
        live = int(np.searchsorted(self.rows, first))
        old, new = np.split(rows, [np.searchsorted(rows, first)])
        proposed = candidates.find_candidates(self.index, queries_qd, k, old, excluded, live)
        proposed_new = candidates.find_candidates(tail, queries_qd, k, new - first, excluded, len(self) - live)
        return [np.concatenate([of_old, of_new + first]) for of_old, of_new in zip(proposed, proposed_new, strict=True)]

    def scores(self, vectors_qd: Float32, rows: Rows) -> Float32:
        if len(self) <= MAX_NUMPY_ROWS:
            return scoring.term_scores(vectors_qd, self.vectors[np.searchsorted(self.rows, rows)])
        stored = self.float16_rows
        if len(rows) > MAX_NUMPY_ROWS:
            return products.exact_scores(vectors_qd, stored, self._some(rows), self._device)
        out = np.empty((len(vectors_qd), len(rows)), np.float32)
        for batch in _batches(rows):
            out[:, batch] = scoring.term_scores(vectors_qd, unit(stored.take(rows[batch], axis=0)))
        return out

    def approximate_scores(self, vectors_qd: Float32, rows: Rows) -> Float32:
        if len(self) <= MAX_NUMPY_ROWS:
            return self.scores(vectors_qd, rows)
        return products.approximate_scores(vectors_qd, self.float16_rows, self._some(rows), self._device)

    def _some(self, rows: Rows) -> Rows | None:
        """Returns None for all rows, which need not be copied."""
        return None if len(rows) == self.version.total else rows


def _batches(rows: Rows) -> Iterator[slice]:
    """Yields the positions of rows that are read at once, and stay in the caches of a processor."""
    return (slice(start, start + ROW_BATCH_SIZE) for start in range(0, len(rows), ROW_BATCH_SIZE))
