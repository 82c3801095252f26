"""A gallery at one moment: its items, their vectors and the index over them. Nothing in it changes while others write."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from threading import RLock

import numpy as np
from numpy.typing import NDArray

from mmretrieve import scoring
from mmretrieve.balance import Spread
from mmretrieve.composition import Composition
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.index import FaissIndex
from mmretrieve.gallery.plan import FLAT, Plan
from mmretrieve.gallery.store import Item, Store
from mmretrieve.vectors import Float32

INDEX = "index.faiss"
SAMPLE = 50_000  # items that say how the whole gallery spreads
PLAN = Plan(FLAT, "every vector is scored as it is stored: nothing is missed")
logger = logging.getLogger(__name__)


class Snapshot:
    """What a store holds now. Positions count its items in insertion order, from 0."""

    def __init__(self, store: Store) -> None:
        live = store.live()
        self._store, self._rows, self._generation = store, live.rows, live.generation
        self.ids = live.ids
        self._lock = RLock()  # what follows is made by whichever thread comes first
        self._vectors: Float32 | None = None  # read when first scored
        self._index: FaissIndex | None = None  # opened or built when first searched
        self._spread: Spread | None = None  # measured when first asked
        self._place: dict[str, int] | None = None  # id → position, made when first asked

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def vectors(self) -> Float32:
        """(n, dim) unit float32 of all items."""
        with self._lock:
            if self._vectors is None:
                self._vectors = self._store.read(self._rows)
            return self._vectors

    @property
    def spread(self) -> Spread:
        """How the vectors lie about their mean; of a large gallery, those of SAMPLE items spread evenly over it."""
        if self._spread is None:
            self._spread = Spread.of(self.vectors[:: max(1, len(self) // SAMPLE)])
        return self._spread

    def vectors_at(self, positions: NDArray[np.int64]) -> Float32:
        """(m, dim) of those alone, without reading the others."""
        return self.vectors[positions] if self._vectors is not None else self._store.read(self._rows[positions])

    def items_at(self, positions: NDArray[np.int64]) -> list[Item]:
        return self._store.items_in(self._rows[positions])

    def positions(self, ids: Collection[str]) -> list[int]:
        """Where these ids are. GalleryError for an unknown one, OptionError for what is no list of ids."""
        if isinstance(ids, str):
            raise OptionError(f"expected a list of ids, got one string {ids!r}")
        if not isinstance(ids, Collection) or not all(isinstance(id_, str) for id_ in ids):
            raise OptionError(f"expected a list of ids, got {ids!r}")
        if self._place is None:
            self._place = {id_: position for position, id_ in enumerate(self.ids)}
        if absent := [id_ for id_ in ids if id_ not in self._place]:
            raise GalleryError(f"{self._store.folder}: no item {absent[0]!r} in this gallery")
        return [self._place[id_] for id_ in ids]

    def term_scores(self, composition: Composition) -> Float32:
        """(t, n) inner product of every term with every item."""
        self.check_dim(composition)
        return scoring.term_scores(composition.terms, self.vectors)

    def candidates(self, queries: Sequence[Float32], wanted: int) -> NDArray[np.int64]:
        """Positions, in order, that hold the `wanted` best of each query."""
        if not wanted:
            return np.empty(0, np.int64)
        return np.unique(np.concatenate(self._opened_index().search(np.stack(queries), wanted)))

    def check_dim(self, composition: Composition) -> None:
        if composition.terms.shape[1] != self._store.dim:
            raise GalleryError(
                f"{self._store.folder}: holds vectors of {self._store.dim} dimensions, the query has {composition.terms.shape[1]}"
            )

    def _opened_index(self) -> FaissIndex:
        """The index of these items: from its file where that fits, else built and, where possible, written."""
        with self._lock:
            if self._index is None:
                self._index = self._open_index()
            return self._index

    def _open_index(self) -> FaissIndex:
        file, stamp = self._store.folder / INDEX, self._store.meta().get("index") or {}
        index = FaissIndex.load(file, stamp["digest"], PLAN) if stamp.get("generation") == self._generation else None
        if index is not None:
            return index
        index = FaissIndex.build(PLAN, self.vectors.astype(np.float16))
        try:
            with self._store.deriving():
                self._store.set_meta(index={"generation": self._generation, "digest": index.save(file)})
        except (OSError, RuntimeError, GalleryError) as error:
            logger.info("%s: the index stays in memory (%s)", self._store.folder, error)
        return index
