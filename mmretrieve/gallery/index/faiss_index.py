"""A FAISS index over the rows of a gallery. It proposes candidates; exact scores decide among them.

`exact_best` in `tuning.py` is the specification, in numpy. Rows are numbers in `vectors.f16`, deleted ones included; the caller filters
them and adds the rows that the index does not cover.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import get_ident
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.forks import FORK_GATE
from mmretrieve.gallery.index import gpu, products
from mmretrieve.gallery.index.factory import cells_of, float16_rows, limit_threads, parameters, train_index, translate_errors
from mmretrieve.gallery.index.plan import MAX_GPU_K, Device, IndexPlan, SearchParams, default_params
from mmretrieve.options import check_count
from mmretrieve.vectors import Float32, as_rows

ROW_BATCH_SIZE = 65_536  # rows read and added at once: 128 MB as float32 of 512 dimensions
MARGIN = 16  # additional candidates, so that ties at the cut are found
ROUNDING = 1e-4  # relative to the length of the query: an upper bound of float32 rounding
FLOAT16_ROUNDING = 2.0**-11  # relative to a score: the error in the length of a unit vector in float16
MAX_LIMITED = 8  # sets of rows to which an index was limited
SELECTION_POWER = 0.4  # of the share of selected rows: how widely they are searched for, which keeps the recall
WIDENING_FACTOR = 4  # of candidates and cells, when a search is repeated
DIGEST_PARTS = 4  # another number gives other digests
BUFFER_BYTES = 1 << 20
logger = logging.getLogger(__name__)


class FaissIndex:
    """An inner-product index over the rows 0 to m - 1 of the vectors of a gallery.

    Threads may search it concurrently, but not while it is extended. On a GPU, `max_k` is the largest k of a search, and the index cannot be
    extended or saved. With a `selection` it finds only some rows.
    """

    def __init__(
        self,
        index: faiss.Index,
        plan: IndexPlan,
        params: SearchParams | None = None,
        *,
        max_k: int | None = None,
        selection: _Selection | None = None,
    ) -> None:
        self._index, self.plan, self.max_k, self._process = index, plan, max_k, os.getpid()
        self._selection = selection
        self.cells = cells_of(index)
        usual = default_params(plan, self.cells)
        self.params = usual if params is None else params.with_defaults(usual)
        self._params_of: dict[int | None, Any] = {}
        self._limited = deque[tuple[NDArray[np.int64], FaissIndex]](maxlen=MAX_LIMITED)

    @classmethod
    def build(cls, plan: IndexPlan, vectors: NDArray[np.float16], *, progress: Progress | None = None) -> FaissIndex:
        """Builds an index of all (n, d) rows. Memory: the index, one batch of rows and the training sample.

        `progress` is called with the number of rows added since the last call. Raises OptionError for a plan that cannot be carried out.
        """
        index = cls(train_index(plan.factory, vectors), plan)
        index.extend(vectors, progress=progress)
        return index

    def extend(self, vectors: NDArray[np.float16], *, progress: Progress | None = None) -> None:
        """Adds those of all (n, d) rows that the index does not cover yet, without training."""
        self._only_on_cpu("extended")
        for start in range(len(self), len(vectors), ROW_BATCH_SIZE):
            block = np.asarray(vectors[start : start + ROW_BATCH_SIZE], dtype=np.float32)
            with translate_errors(self.plan.factory):
                self._index.add(block)
            if progress is not None:
                progress(len(block))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        return int(self._index.d)

    @property
    def size(self) -> int:
        """The size of the index file in bytes, which is about its size in memory."""
        counted: list[int] = []
        self._only_on_cpu("measured")
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(lambda block: counted.append(len(block))))
        return sum(counted)

    def with_params(self, params: SearchParams) -> FaissIndex:
        """Returns the same index with other search parameters."""
        return FaissIndex(self._index, self.plan, params, max_k=self.max_k, selection=self._selection)

    @cached_property
    def can_select(self) -> bool:
        """Whether it can be limited to some rows. FAISS ignores them on a GPU, and refuses them for some kinds of index."""
        if self.max_k is not None or not len(self):
            return False
        first = _Selection(np.zeros(1, np.int64), len(self))
        query, params = np.ones((1, self.dim), np.float32), parameters(self._index, self.params, first.bits)
        try:
            with FORK_GATE.no_fork(), limit_threads(1):
                _, rows = self._index.search(query, min(2, len(self)), params=params)
        except RuntimeError:
            return False
        return bool((rows <= 0).all())

    def among(self, rows: NDArray[np.int64]) -> FaissIndex:
        """Returns the same index, limited to these rows, which are in order. It searches more widely, as their best are further apart.

        What it returned for the last few arrays is kept: the bits of a million rows take as long as a search.
        """
        self._only_on_cpu("limited to some rows")
        for known, limited in list(self._limited):
            if known is rows:
                return limited
        params = self.params.widened((len(self) / max(1, len(rows))) ** SELECTION_POWER, self.cells)
        limited = FaissIndex(self._index, self.plan, params, selection=_Selection(rows, len(self)))
        self._limited.append((rows, limited))
        return limited

    def wider(self, times: float) -> FaissIndex:
        """Returns the same index with `times` as many searched cells, for searches in which only a part of the rows counts."""
        return self.with_params(self.params.widened(times, self.cells)) if self.cells is not None and times > 1 else self

    def on(self, device: Device | str, vectors: NDArray[np.float16]) -> FaissIndex:
        """Returns an index over the same (n, d) rows on a device; all GPUs of the machine share the rows. See `gpu`."""
        if gpu.resolve_device(device) is Device.CPU:
            return self
        moved = gpu.flat_index(vectors[: len(self)]) if self.plan.exact else gpu.clone_to_gpus(self._index, self.plan.factory)
        return FaissIndex(moved, self.plan, self.params, max_k=MAX_GPU_K)

    def search(self, queries: Float32, k: int) -> list[NDArray[np.int64]]:
        """Returns for each of (q, d) queries the candidate rows for its k best, best first.

        There are at least k if the index has as many rows, and ties with the k-th are included. For an exact plan the candidates contain the k
        best by exact score. On a GPU they are limited to `max_k`; a larger k raises OptionError.
        """
        queries_qd, k = as_rows(queries, "queries", dim=self.dim), check_count("k", k)
        if k >= self._count:
            return [self._all_rows() for _ in queries_qd]
        if self.max_k is not None and k > self.max_k:
            raise OptionError(f"k = {k}: an index on a GPU finds at most {self.max_k}; score the rows exactly instead")
        fetch_k = round(k * self.params.overfetch) + max(MARGIN, k // 8)
        return self._search_wider(queries_qd, k, fetch_k, self.params.nprobe)

    def save(self, path: Path) -> str:
        """Writes the file whole or not at all and returns its digest, which `load` expects."""
        self._only_on_cpu("written")
        partial = path.with_suffix(f".{os.getpid()}-{get_ident()}.part")
        try:
            faiss.write_index(self._index, str(partial))
            digest = digest_of(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return digest

    @classmethod
    def load(cls, path: Path, digest: str, plan: IndexPlan, params: SearchParams | None = None) -> FaissIndex | None:
        """Loads the index with this digest. Returns None if the file is another one, damaged or missing; FAISS never reads a damaged file."""
        try:
            return cls(faiss.read_index(str(path)), plan, params) if digest_of(path) == digest else None
        except (OSError, RuntimeError) as error:
            logger.info("%s: %s; it will be built again", path, error)
            return None

    def _search_wider(self, queries_qd: Float32, k: int, fetch_k: int, nprobe: int | None) -> list[NDArray[np.int64]]:
        """Returns what `search` does. Queries for which `fetch_k` candidates were not enough are searched again for more, in more cells."""
        max_fetch_k = min(self._count, self.max_k or self._count)
        scores, rows = self._search_faiss(queries_qd, min(fetch_k, max_fetch_k), nprobe)
        results = [self._rows_found(row, k) for row in rows]
        can_be_wider = fetch_k < max_fetch_k or (nprobe is not None and nprobe < (self.cells or 1))
        if can_be_wider and not (is_complete := self._is_complete(queries_qd, scores, k)).all():
            wider = WIDENING_FACTOR * fetch_k, None if nprobe is None else WIDENING_FACTOR * nprobe
            found = self._search_wider(queries_qd[~is_complete], k, *wider)
            for i, rows_of_query in zip(np.flatnonzero(~is_complete), found, strict=True):
                results[i] = rows_of_query
        return results

    def _search_faiss(self, queries: Float32, fetch_k: int, nprobe: int | None) -> tuple[Float32, NDArray[np.int64]]:
        """Returns (q, fetch_k) scores in descending order and rows; rows are -1 if the searched cells contain no more."""
        if self.max_k is not None and self._process != os.getpid():
            raise GalleryError("a GPU cannot be used in a forked process; start it with multiprocessing.get_context('spawn')")
        scans_all = self._selection is None and products.pays(len(queries), len(self))
        stored = float16_rows(self._index, self.plan.factory) if scans_all else None
        with FORK_GATE.no_fork(), limit_threads(len(queries)):
            if stored is not None:
                return products.best_products(stored, queries, fetch_k)
            scores, rows = self._index.search(queries, fetch_k, params=self._faiss_params(nprobe))
        return scores, rows

    def _faiss_params(self, nprobe: int | None) -> Any:
        """Returns the parameters of a search, which searches only read. They are made once for each number of cells."""
        if nprobe not in self._params_of:
            self._params_of[nprobe] = parameters(
                self._index, replace(self.params, nprobe=nprobe), self._selection and self._selection.bits
            )
        return self._params_of[nprobe]

    def _is_complete(self, queries: Float32, scores: Float32, k: int) -> NDArray[np.bool_]:
        """Returns for each query whether its last score is so low that no further row can be among the k best.

        If fewer than k rows were found, both scores are the lowest float and the result is False.
        """
        cut = scores[:, k - 1].astype(np.float64)
        tolerance = ROUNDING * np.sqrt(np.einsum("qd,qd->q", queries, queries))
        if self.plan.exact:
            tolerance = tolerance + 2 * FLOAT16_ROUNDING * np.abs(cut)
        return np.asarray(scores[:, -1] < cut - tolerance)

    def _rows_found(self, row: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Returns the rows that were found, or all rows if even the widest search found fewer than k (in a disconnected graph)."""
        rows = row if row[-1] >= 0 else row[row >= 0]
        return rows if len(rows) >= k else self._all_rows()

    @property
    def _count(self) -> int:
        """The number of rows that can be found."""
        return len(self) if self._selection is None else len(self._selection.rows)

    def _all_rows(self) -> NDArray[np.int64]:
        return np.arange(len(self), dtype=np.int64) if self._selection is None else self._selection.rows

    def _only_on_cpu(self, what: str) -> None:
        if self.max_k is not None:
            raise GalleryError(f"an index on a GPU cannot be {what}; use the index on the CPU")


class _Selection:
    """Some of `count` rows, in order, and a bit for each of `count` that says whether it is among them."""

    def __init__(self, rows: NDArray[np.int64], count: int) -> None:
        is_selected = np.zeros(count, dtype=bool)
        is_selected[rows] = True
        self.rows, self.bits = rows, faiss.IDSelectorBitmap(np.packbits(is_selected, bitorder="little"))


def digest_of(path: Path) -> str:
    """Returns a digest of the content and the length of a file. Raises OSError if it cannot be read.

    Parts are hashed in parallel with SHA-256, which processors accelerate: 1 GB took 0.5 s on two cores, BLAKE2b took 1.2 s.
    """
    size = path.stat().st_size
    ends = [size * i // DIGEST_PARTS for i in range(DIGEST_PARTS + 1)]
    with ThreadPoolExecutor(DIGEST_PARTS) as pool:
        pieces = pool.map(lambda i: _part_digest(path, ends[i], ends[i + 1]), range(DIGEST_PARTS))
        return hashlib.sha256(b"".join([size.to_bytes(8, "big"), *pieces])).hexdigest()


def _part_digest(path: Path, start: int, end: int) -> bytes:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(BUFFER_BYTES))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start < end and (count := file.readinto(buffer[: min(BUFFER_BYTES, end - start)])):
            digest.update(buffer[:count])
            start += count
    return digest.digest()
