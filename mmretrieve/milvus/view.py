"""What a collection holds: the server proposes, the vectors that it has stored decide.

A collection is live: what others push or delete shows in the next search. `ids`, and whatever needs all rows, are kept from the
first time that they are asked for until the gallery is refreshed; where the two do not agree, StaleViewError says so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from threading import RLock
from typing import Any

import numpy as np

from mmretrieve import scoring
from mmretrieve.concurrency import once
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import MissingError
from mmretrieve.filters import to_milvus
from mmretrieve.filters.milvus import one_of
from mmretrieve.gallery import duplicates, vocabularies
from mmretrieve.gallery.index.faiss_index import MARGIN, ROUNDING
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import Item, StaleViewError
from mmretrieve.gallery.store.store import Float16Rows
from mmretrieve.gallery.view import CandidateFilter, Rows, SearchOptions, check_ids
from mmretrieve.gallery.vocabularies import AutomaticVocabulary, GalleryVocabulary
from mmretrieve.milvus.client import HASH, ID, ITEM, MAX_PAGE_SIZE, ROW, VECTOR, MilvusClient
from mmretrieve.milvus.indexes import search_parameters
from mmretrieve.milvus.schema import filter_columns, item_of
from mmretrieve.vectors import Float32, unit
from mmretrieve.weighting import Spread

BATCH_SIZE = 1_024  # rows asked for at once
SPREAD_SAMPLE_SIZE = 50_000  # items that say how the whole collection spreads
MAX_CACHED_BYTES = 512_000_000  # vectors of up to this size stay in memory; more are asked for again


class CollectionView:
    """The rows of a collection: numbers that grow in the order in which items came."""

    def __init__(self, server: MilvusClient, manifest: Manifest, before: CollectionView | None = None) -> None:
        self.server, self.manifest = server, manifest
        self.dim, self.name = manifest.dim, str(server.address)
        self._count = server.count()
        self.once_lock = RLock()
        self._previous_automatic: AutomaticVocabulary | None = (
            None if before is None else before.__dict__.get("_automatic", before._previous_automatic)
        )

    def __len__(self) -> int:
        return self._count

    @once
    def rows(self) -> Rows:
        return self._all("", self._count)

    @once
    def ids(self) -> tuple[str, ...]:
        return tuple(id_ for _, id_ in sorted((row[ROW], row[ID]) for page in self.server.pages([ROW, ID]) for row in page))

    @once
    def spread(self) -> Spread:
        """How the vectors lie about their mean; of a large collection, those of SPREAD_SAMPLE_SIZE items spread evenly over it."""
        return Spread.of(self.vectors_of(self.rows[:: max(1, len(self) // SPREAD_SAMPLE_SIZE)]))

    @once
    def vocabulary(self) -> GalleryVocabulary:
        """The one that was pushed, else the one found in the fields of the items."""
        return self.manifest.vocabulary or GalleryVocabulary(self._automatic.vocabulary)

    @once
    def _automatic(self) -> AutomaticVocabulary:
        return vocabularies.find_vocabulary(self, self.manifest.fields, self._previous_automatic)

    @once
    def vectors(self) -> Float32:
        """(n, dim) unit float32 of all items."""
        return self.vectors_of(self.rows)

    @once
    def index(self) -> str:
        return self.server.index()

    def vectors_of(self, rows: Rows) -> Float32:
        """(m, dim) unit float32 of those rows, the same numbers as in a folder."""
        return unit(self.float16_rows_of(rows), "vectors") if len(rows) else np.empty((0, self.dim), np.float32)

    def float16_rows_of(self, rows: Rows) -> Float16Rows:
        """(m, dim) float16 of those rows, as they were pushed."""
        out = np.empty((len(rows), self.dim), np.float16)
        for start in range(0, len(rows), BATCH_SIZE):
            some = rows[start : start + BATCH_SIZE]
            out[start : start + BATCH_SIZE] = self._cells(some, VECTOR)
        return out

    def items_of(self, rows: Rows) -> list[Item]:
        blocks = (rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE))
        return [item_of({ITEM: told}) for block in blocks for told in self._cells(block, ITEM)]

    def rows_of(self, ids: Collection[str]) -> Rows:
        """Their rows, in that order. GalleryError for an unknown one, OptionError for what is no list of ids."""
        asked, found = list(check_ids(ids)), dict[str, int]()
        for start in range(0, len(asked), BATCH_SIZE):
            some = asked[start : start + BATCH_SIZE]
            found |= {row[ID]: row[ROW] for row in self.server.get(one_of(ID, some), [ROW, ID])}
        if absent := [id_ for id_ in asked if id_ not in found]:
            raise MissingError(f"{self.name}: no item {absent[0]!r} in this gallery")
        return np.array([found[id_] for id_ in asked], dtype=np.int64)

    def copies(self, hashes: Sequence[str]) -> list[list[str]]:
        ids: dict[str, list[str]] = {content: [] for content in hashes}
        wanted = list(ids)
        for start in range(0, len(wanted), BATCH_SIZE):
            some = one_of(HASH, wanted[start : start + BATCH_SIZE])
            found = [row for page in self.server.pages([ROW, ID, HASH], some) for row in page]
            for row in sorted(found, key=lambda row: int(row[ROW])):
                ids[row[HASH]].append(row[ID])
        return [ids[content] for content in hashes]

    def same_content(self) -> list[tuple[str, ...]]:
        found = sorted((row[ROW], row[HASH], row[ID]) for page in self.server.pages([ROW, ID, HASH]) for row in page)
        groups: dict[str, list[str]] = {}
        for _, content, id_ in found:
            groups.setdefault(content, []).append(id_)
        return [tuple(ids) for ids in groups.values() if len(ids) > 1]

    def near(self, min_score: float, progress: Progress | None = None) -> list[tuple[str, ...]]:
        return duplicates.group_neighbors(self, lambda rows: self._near(rows, min_score), min_score, progress)

    def allowed(self, options: SearchOptions) -> CandidateFilter:
        where = "" if options.where is None else to_milvus(options.where, filter_columns(self.manifest.fields))
        matching = self.server.count(where) if where else len(self)
        if not len(options.exclude):
            return CandidateFilter.of(where, matching, matching, len(self))
        hidden = f"(not ({one_of(ROW, self.rows_of(options.exclude).tolist())}))"
        both = f"({where} and {hidden})" if where else hidden
        return CandidateFilter.of(both, self.server.count(both), matching, len(self))

    def rows_allowed(self, allowed: CandidateFilter) -> Rows:
        if not allowed.which:
            return self.rows
        rows = self._all(allowed.which, allowed.count)
        if "rows" in self.__dict__ and not np.isin(rows, self.rows).all():
            raise self._stale_view()
        return rows

    def candidates(self, queries_qd: Float32, wanted: int, allowed: CandidateFilter) -> Rows:
        if allowed.count <= wanted:
            return self.rows_allowed(allowed)
        found = [self._proposed(query, wanted, allowed) for query in queries_qd]
        if any(rows is None for rows in found):
            return self.rows_allowed(allowed)
        return np.unique(np.concatenate([rows for rows in found if rows is not None]))

    def scores(self, vectors_qd: Float32, rows: Rows) -> Float32:
        """(q, m) inner products; of a large collection a block of vectors at a time is in memory."""
        if len(rows) == len(self) and len(self) * self.dim * 4 <= MAX_CACHED_BYTES:
            return scoring.term_scores(vectors_qd, self.vectors)
        out = np.empty((len(vectors_qd), len(rows)), np.float32)
        for start in range(0, len(rows), BATCH_SIZE):
            out[:, start : start + BATCH_SIZE] = scoring.term_scores(
                vectors_qd, self.vectors_of(rows[start : start + BATCH_SIZE])
            )
        return out

    def _proposed(self, query_d: Float32, wanted: int, allowed: CandidateFilter) -> Rows | None:
        """The wanted best and whatever ties with the last of them; None where the server gives fewer, or would have to give too many."""
        fetch_k = wanted + MARGIN
        while fetch_k <= MAX_PAGE_SIZE:
            fetch_k = min(fetch_k, allowed.count)
            found = self.server.search(query_d, fetch_k, allowed.which, search_parameters(self.index, fetch_k))
            if len(found.rows) < fetch_k:
                return None
            if fetch_k == allowed.count or found.scores[-1] < found.scores[wanted - 1] - ROUNDING:
                return found.rows
            fetch_k *= 4
        return None

    def _near(self, rows: Rows, min_score: float) -> list[Rows]:
        """For each of those rows all that score enough with it, itself too."""
        is_near = self.scores(self.vectors_of(rows), self.rows) >= np.float32(min_score)
        return [self.rows[found] for found in is_near]

    def _all(self, where: str, count: int) -> Rows:
        rows = self.server.rows(where)
        if len(rows) != count:
            raise self._stale_view()
        return rows

    def _cells(self, rows: Rows, name: str) -> list[Any]:
        """That column of those rows, in their order."""
        found = {row[ROW]: row[name] for row in self.server.get(one_of(ROW, rows.tolist()), [ROW, name])} if len(rows) else {}
        if len(found) != len(set(rows.tolist())):
            raise self._stale_view()
        return [found[row] for row in rows.tolist()]

    def _stale_view(self) -> StaleViewError:
        return StaleViewError(f"{self.name}: others are pushing or deleting; ask again")
