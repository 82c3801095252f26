"""The items of a collection: the server proposes candidates, exact scores of the stored vectors decide.

A collection is live: a search sees the writes of others at once. `ids`, and whatever reads all rows, are cached until the gallery is refreshed; if the two
disagree, StaleViewError is raised.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any

import numpy as np

from mmretrieve import scoring
from mmretrieve.concurrency import once
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import MissingError
from mmretrieve.filters import Expression, to_milvus
from mmretrieve.filters.milvus import one_of
from mmretrieve.filters.sqlite import check_order
from mmretrieve.gallery import duplicates
from mmretrieve.gallery.index.faiss_index import MARGIN, ROUNDING
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import Item, StaleViewError, unicode_forms
from mmretrieve.gallery.store.store import Float16Rows
from mmretrieve.gallery.view import NO_ROWS, CandidateFilter, Rows, StoredView, check_ids, row_batches
from mmretrieve.milvus.address import MilvusAddress
from mmretrieve.milvus.client import HASH, ID, ITEM, MAX_PAGE_SIZE, ROW, VECTOR, MilvusClient
from mmretrieve.milvus.indexes import search_parameters
from mmretrieve.milvus.manifest import read_manifest
from mmretrieve.milvus.schema import filter_columns, item_of
from mmretrieve.vectors import Float32, unit

BATCH_SIZE = 1_024  # rows in one request
MAX_CACHED_BYTES = 512_000_000  # of float32 vectors in memory; those of a larger gallery are read each time


class CollectionView(StoredView):
    """The rows of a collection: numbers that grow in insertion order."""

    def __init__(self, server: MilvusClient, manifest: Manifest, earlier: CollectionView | None = None) -> None:
        super().__init__(None if earlier is None else earlier.detected_vocabulary)
        self.server, self._manifest = server, manifest
        self.dim, self.name = manifest.dim, str(server.address)
        self._count = server.count()

    @classmethod
    def open(cls, address: str) -> CollectionView:
        """Loads a collection. Raises OptionError for an invalid address, GalleryError if there is no gallery or no server."""
        server = MilvusClient(MilvusAddress.read(address))
        manifest = read_manifest(server)
        server.load()
        return cls(server, manifest)

    def read_again(self) -> CollectionView:
        """Returns a view of the same collection with the writes of others."""
        return CollectionView(self.server, read_manifest(self.server), self)

    def __len__(self) -> int:
        return self._count

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @once
    def rows(self) -> Rows:
        return self._rows_matching("", self._count)

    @once
    def ids(self) -> tuple[str, ...]:
        return tuple(id_ for _, id_ in sorted((row[ROW], row[ID]) for page in self.server.pages([ROW, ID]) for row in page))

    @once
    def index(self) -> str:
        return self.server.index()

    def vectors_of(self, rows: Rows) -> Float32:
        return unit(self.float16_rows_of(rows), "vectors") if len(rows) else np.empty((0, self.dim), np.float32)

    def float16_rows_of(self, rows: Rows) -> Float16Rows:
        """Returns (m, dim) float16 rows, as they were pushed."""
        out = np.empty((len(rows), self.dim), np.float16)
        for start in range(0, len(rows), BATCH_SIZE):
            out[start : start + BATCH_SIZE] = self._cells(rows[start : start + BATCH_SIZE], VECTOR)
        return out

    def items_of(self, rows: Rows) -> list[Item]:
        return [item_of({ITEM: text}) for batch in row_batches(rows, BATCH_SIZE) for text in self._cells(batch, ITEM)]

    def ids_and_paths(self, rows: Rows) -> list[tuple[str, str]]:
        return [(item.id, item.path) for item in self.items_of(rows)]

    def rows_of(self, ids: Collection[str]) -> Rows:
        forms, rows = {id_: unicode_forms(id_) for id_ in check_ids(ids)}, dict[str, int]()
        names = list(chain.from_iterable(forms.values()))
        for start in range(0, len(names), BATCH_SIZE):
            where = one_of(ID, names[start : start + BATCH_SIZE])
            rows |= {row[ID]: row[ROW] for row in self.server.get(where, [ROW, ID])}
        stored = {id_: next((form for form in forms[id_] if form in rows), None) for id_ in forms}
        if absent := [id_ for id_, form in stored.items() if form is None]:
            raise MissingError(f"{self.name}: no item {absent[0]!r} in this gallery")
        return np.array([rows[stored[id_] or id_] for id_ in ids], dtype=np.int64)

    def copies(self, hashes: Sequence[str]) -> list[list[str]]:
        ids: dict[str, list[str]] = {content: [] for content in hashes}
        contents = list(ids)
        for start in range(0, len(contents), BATCH_SIZE):
            where = one_of(HASH, contents[start : start + BATCH_SIZE])
            rows = [row for page in self.server.pages([ROW, ID, HASH], where) for row in page]
            for row in sorted(rows, key=lambda row: int(row[ROW])):
                ids[row[HASH]].append(row[ID])
        return [ids[content] for content in hashes]

    def same_content(self) -> list[tuple[str, ...]]:
        rows = sorted((row[ROW], row[HASH], row[ID]) for page in self.server.pages([ROW, ID, HASH]) for row in page)
        groups: dict[str, list[str]] = {}
        for _, content, id_ in rows:
            groups.setdefault(content, []).append(id_)
        return [tuple(ids) for ids in groups.values() if len(ids) > 1]

    def near(self, min_score: float, progress: Progress | None = None) -> list[tuple[str, ...]]:
        return duplicates.group_neighbors(self, lambda rows: self._find_neighbors(rows, min_score), min_score, progress)

    def matching(self, where: Expression | None) -> CandidateFilter:
        if where is None:
            return CandidateFilter.of("", len(self), len(self))
        check_order(where, self.manifest.fields)
        expression = to_milvus(where, filter_columns(self.manifest.fields))
        return CandidateFilter.of(expression, self.server.count(expression), len(self))

    def without(self, allowed: CandidateFilter, rows: Rows) -> CandidateFilter:
        excluded = f"(not ({one_of(ROW, rows.tolist())}))"
        expression = f"({allowed.selection} and {excluded})" if allowed.selection else excluded
        return allowed.narrowed(expression, self.server.count(expression))

    def rows_allowed(self, allowed: CandidateFilter) -> Rows:
        if not allowed.selection:
            return self.rows
        rows = self._rows_matching(allowed.selection, allowed.count)
        if "rows" in self.__dict__ and not np.isin(rows, self.rows).all():
            raise self._stale_view()
        return rows

    def candidates(self, queries_qd: Float32, k: int, allowed: CandidateFilter) -> list[Rows]:
        if allowed.count <= k:
            return [self.rows_allowed(allowed)] * len(queries_qd)
        proposals = [self._propose(query, k, allowed) for query in queries_qd]
        every = self.rows_allowed(allowed) if any(rows is None for rows in proposals) else NO_ROWS
        return [every if rows is None else np.sort(rows) for rows in proposals]

    def scores(self, vectors_qd: Float32, rows: Rows) -> Float32:
        if len(rows) == len(self) and len(self) * self.dim * 4 <= MAX_CACHED_BYTES:
            return scoring.term_scores(vectors_qd, self.vectors)
        out = np.empty((len(vectors_qd), len(rows)), np.float32)
        for start in range(0, len(rows), BATCH_SIZE):
            out[:, start : start + BATCH_SIZE] = scoring.term_scores(
                vectors_qd, self.vectors_of(rows[start : start + BATCH_SIZE])
            )
        return out

    def _propose(self, query_d: Float32, k: int, allowed: CandidateFilter) -> Rows | None:
        """Returns the k best rows and all that tie with the last; None if the server returns too few or would have to return too many."""
        fetch_k = k + MARGIN
        while fetch_k <= MAX_PAGE_SIZE:
            fetch_k = min(fetch_k, allowed.count)
            result = self.server.search(query_d, fetch_k, allowed.selection, search_parameters(self.index, fetch_k))
            if len(result.rows) < fetch_k:
                return None
            if fetch_k == allowed.count or result.scores[-1] < result.scores[k - 1] - ROUNDING:
                return result.rows
            fetch_k *= 4
        return None

    def _find_neighbors(self, rows: Rows, min_score: float) -> list[Rows]:
        """Returns for each row all rows that score at least `min_score` with it, itself included."""
        is_near = self.scores(self.vectors_of(rows), self.rows) >= np.float32(min_score)
        return [self.rows[mask] for mask in is_near]

    def _rows_matching(self, where: str, count: int) -> Rows:
        rows = self.server.rows(where)
        if len(rows) != count:
            raise self._stale_view()
        return rows

    def _cells(self, rows: Rows, name: str) -> list[Any]:
        """Returns a column of rows, in their order."""
        cells = {row[ROW]: row[name] for row in self.server.get(one_of(ROW, rows.tolist()), [ROW, name])} if len(rows) else {}
        if len(cells) != len(set(rows.tolist())):
            raise self._stale_view()
        return [cells[row] for row in rows.tolist()]

    def _stale_view(self) -> StaleViewError:
        return StaleViewError(f"{self.name}: the collection changed during the read; try again")
