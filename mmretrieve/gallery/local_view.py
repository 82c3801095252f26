"""One version of a gallery in a folder: its items, vectors and index. It does not change while others write."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from threading import RLock
from typing import Any

import numpy as np

from mmretrieve import scoring
from mmretrieve.concurrency import once
from mmretrieve.encoders.base import Progress
from mmretrieve.filters import Expression
from mmretrieve.gallery import candidates, duplicates, vocabularies
from mmretrieve.gallery.index import gpu, manager
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.plan import Device
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import Item, ItemRecord, StoreVersion
from mmretrieve.gallery.store.store import Float16Rows, Store
from mmretrieve.gallery.view import EXCLUDED, CandidateFilter, Rows, SearchOptions, check_ids
from mmretrieve.gallery.vocabularies import AutomaticVocabulary, GalleryVocabulary
from mmretrieve.vectors import Float32, unit
from mmretrieve.weighting import Spread

SPREAD_SAMPLE_SIZE = 50_000  # items from which the spread is computed
MAX_CACHED_BYTES = 512_000_000  # of float32 vectors in memory; larger galleries are read from the file each time
MIN_CACHED_SHARE = 0.1  # share of the items; if more are scored, all vectors are cached
ROW_BATCH_SIZE = 16_384  # rows read at once
MAX_CACHED_FILTERS = 8  # filters whose rows are cached


@dataclass(frozen=True)
class _Derivable:
    """What is known of an earlier version and helps with a later one. `ids` are its ids, if they were read."""

    version: StoreVersion
    ids: tuple[str, ...] | None = None
    index: manager.LoadedIndex | None = None
    automatic: AutomaticVocabulary | None = None


class LocalView:
    """A version of a store. Positions count its items in insertion order, from 0; rows are their numbers in the files."""

    def __init__(self, store: Store, device: Device = Device.CPU, earlier: LocalView | None = None) -> None:
        self.version: StoreVersion = store.ledger.version(None if earlier is None else earlier.version)
        self.store, self._earlier = store, None if earlier is None else earlier.derivable()
        self.dim, self.name = store.dim, str(store.folder)
        self._device, self.once_lock = device, RLock()
        self._filters: dict[Expression, Rows] = {}

    def __len__(self) -> int:
        return len(self.version)

    def derivable(self) -> _Derivable:
        """Returns what was computed for this version, or for an earlier one."""
        earlier = self._earlier or _Derivable(self.version)
        with self.once_lock:
            computed: dict[str, Any] = {
                "index": self.__dict__.get("_loaded_index"),
                "automatic": self.__dict__.get("_automatic"),
            }
            if "ids" in self.__dict__:
                computed |= {"version": self.version, "ids": self.ids}
        return replace(earlier, **{name: value for name, value in computed.items() if value is not None})

    @property
    def is_current(self) -> bool:
        """Whether nothing was written since."""
        meta = self.store.ledger.meta()
        return (meta["epoch"], meta["generation"]) == (self.version.epoch, self.version.generation)

    @once
    def manifest(self) -> Manifest:
        return read_manifest(self.store)

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

    @once
    def spread(self) -> Spread:
        """The mean and covariance of the vectors; in a large gallery, of SPREAD_SAMPLE_SIZE evenly spaced items."""
        return Spread.of(self.vectors_of(self.rows[:: max(1, len(self) // SPREAD_SAMPLE_SIZE)]))

    @once
    def vocabulary(self) -> GalleryVocabulary:
        """The vocabulary that the ledger stores, otherwise the one detected in the fields of the items."""
        return self.manifest.vocabulary or GalleryVocabulary(self._automatic.vocabulary)

    @once
    def _automatic(self) -> AutomaticVocabulary:
        return vocabularies.find_vocabulary(
            self, self.manifest.fields, None if self._earlier is None else self._earlier.automatic
        )

    @property
    def index(self) -> FaissIndex:
        """The index over these rows, or over the first of them."""
        return self._loaded_index.index

    @once
    def _loaded_index(self) -> manager.LoadedIndex:
        earlier = None if self._earlier is None else self._earlier.index
        return manager.open_index(self.store, self.version, self.float16_rows, self._device, earlier)

    @once
    def vectors(self) -> Float32:
        """(n, dim) unit float32 of all items."""
        return self.vectors_of(self.rows)

    def vectors_of(self, rows: Rows) -> Float32:
        """Returns (m, dim) unit float32 vectors of m rows."""
        out = np.empty((len(rows), self.dim), np.float32)
        for number, some in enumerate(_row_batches(rows)):
            out[number * ROW_BATCH_SIZE : number * ROW_BATCH_SIZE + len(some)] = unit(self.float16_rows[some], "vectors")
        return out

    def items_of(self, rows: Rows) -> list[Item]:
        return [record.item for record in self.records_of(rows)]

    def records_of(self, rows: Rows) -> list[ItemRecord]:
        return self.store.ledger.records_of(rows.tolist(), self.version)

    def rows_of(self, ids: Collection[str]) -> Rows:
        """Returns the rows of ids, in their order. Raises GalleryError for an unknown id, OptionError unless `ids` is a list of strings."""
        checked = check_ids(ids)
        return np.array(self.store.ledger.rows_of(checked, self.version) if checked else [], dtype=np.int64)

    def copies(self, hashes: Sequence[str]) -> list[list[str]]:
        return self.store.ledger.copies(hashes, self.version)

    def same_content(self) -> list[tuple[str, ...]]:
        return self.store.ledger.groups_of_content(self.version)

    def near(self, min_score: float, progress: Progress | None = None) -> list[tuple[str, ...]]:
        return duplicates.find_near(self, self.index, min_score, progress)

    def allowed(self, options: SearchOptions) -> CandidateFilter:
        matching = self.rows if options.where is None else self._matching(options.where)
        rows = np.setdiff1d(matching, self.rows_of(options.exclude), assume_unique=True) if len(options.exclude) else matching
        return CandidateFilter.of(rows, len(rows), len(matching), len(self))

    def _matching(self, where: Expression) -> Rows:
        """Returns the rows that match a filter in this version. The last few filters are cached, as queries often repeat them."""
        with self.once_lock:
            if where not in self._filters:
                rows = self.store.ledger.matching(where, self.version)
                self._filters = dict([*self._filters.items(), (where, rows)][-MAX_CACHED_FILTERS:])
            return self._filters[where]

    def rows_allowed(self, allowed: CandidateFilter) -> Rows:
        rows: Rows = allowed.which
        return rows

    def candidates(self, queries_qd: Float32, wanted: int, allowed: CandidateFilter) -> Rows:
        excluded = allowed.hidden.get(EXCLUDED, 0)
        return candidates.find_candidates(self.index, queries_qd, wanted, self.rows_allowed(allowed), excluded, len(self))

    def scores(self, vectors: Float32, rows: Rows) -> Float32:
        """Returns (q, m) inner products of (q, dim) unit vectors and m rows. A large gallery is read in batches."""
        if self._device is Device.CUDA and len(rows) > ROW_BATCH_SIZE:
            return gpu.scores(vectors, (self.float16_rows[some] for some in _row_batches(rows)), len(rows))
        if len(self) * self.dim * 4 <= MAX_CACHED_BYTES and (
            "vectors" in self.__dict__ or len(rows) > MIN_CACHED_SHARE * len(self)
        ):
            whole = len(rows) == len(self)
            return scoring.term_scores(vectors, self.vectors if whole else self.vectors[np.searchsorted(self.rows, rows)])
        blocks = [scoring.term_scores(vectors, self.vectors_of(some)) for some in _row_batches(rows)]
        return np.concatenate(blocks, axis=1) if blocks else np.empty((len(vectors), 0), np.float32)


def read_manifest(store: Store) -> Manifest:
    """Returns the current manifest of a store."""
    return Manifest.from_dict(store.ledger.meta(), store.ledger.path)


def _row_batches(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), ROW_BATCH_SIZE):
        yield rows[start : start + ROW_BATCH_SIZE]
