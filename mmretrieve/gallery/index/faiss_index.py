"""Which rows may be the best: an index of FAISS proposes them, exact scores decide among them.

`exact_best` in numpy is the specification (`tuning.py`). Rows are numbers in `vectors.f16`, deleted ones included: what
may be shown is the caller's business, and so are the rows behind the last that the index covers.
"""

from __future__ import annotations

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil
from pathlib import Path
from threading import get_ident

import faiss
import numpy as np
from numpy.typing import NDArray

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.index import gpu
from mmretrieve.gallery.index.factory import cells_of, limit_threads, parameters, train_index, translate_errors
from mmretrieve.gallery.index.plan import MAX_GPU_K, Device, IndexPlan, SearchParams, default_params
from mmretrieve.scoring import check_k
from mmretrieve.vectors import Float32, as_rows

ROW_BATCH_SIZE = 65_536  # rows read and added at once: 128 MB as float32 of 512 dimensions
MARGIN = 16  # proposals beyond those that are wanted, so that a tie at the cut is seen whole
ROUNDING = 1e-4  # relative to the query's length: more than float32 sums can differ
FLOAT16_ROUNDING = 2.0**-11  # relative to a score: how far a unit vector's length can be from 1 once it is rounded to float16
WIDENING_FACTOR = 4  # how much more is looked for where a search left something open
DIGEST_PARTS = 4  # part of what a digest means: another number gives other digests
BUFFER_BYTES = 1 << 20
logger = logging.getLogger(__name__)


class FaissIndex:
    """Rows 0 to m − 1 of the vectors of a gallery in a FAISS index for inner products.

    Any number of threads may search it, but not while it is extended. On a GPU `max_k` is the most that one search can
    ask for, and it can neither be extended nor written.
    """

    def __init__(
        self, index: faiss.Index, plan: IndexPlan, params: SearchParams | None = None, *, max_k: int | None = None
    ) -> None:
        self._index, self.plan, self.max_k = index, plan, max_k
        self.cells = cells_of(index)
        usual = default_params(plan, self.cells)
        self.params = usual if params is None else replace(params, nprobe=params.nprobe or usual.nprobe)

    @classmethod
    def build(cls, plan: IndexPlan, vectors: NDArray[np.float16], *, progress: Progress | None = None) -> FaissIndex:
        """The index of all (n, d) rows. Memory: the index, one ROW_BATCH_SIZE and the training sample (see `factory`).

        OptionError for a plan that cannot be carried out; `progress` is told how many more rows are in.
        """
        found = cls(train_index(plan.factory, vectors), plan)
        found.extend(vectors, progress=progress)
        return found

    def extend(self, vectors: NDArray[np.float16], *, progress: Progress | None = None) -> None:
        """Adds those of all (n, d) rows that it does not cover yet, without training again."""
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
        return int(self._index.d)

    @property
    def size(self) -> int:
        """Bytes of its file, which are nearly those it takes in memory."""
        counted: list[int] = []
        self._only_on_cpu("measured")
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(lambda block: counted.append(len(block))))
        return sum(counted)

    def with_params(self, params: SearchParams) -> FaissIndex:
        """The same index, looking that hard."""
        return FaissIndex(self._index, self.plan, params, max_k=self.max_k)

    def wider(self, times: float) -> FaissIndex:
        """The same index looking into so many times more cells: where only some rows count, as many of those are seen as ever."""
        if self.cells is None or self.params.nprobe is None or times <= 1:
            return self
        return self.with_params(replace(self.params, nprobe=min(self.cells, ceil(times * self.params.nprobe))))

    def on(self, device: Device | str, vectors: NDArray[np.float16]) -> FaissIndex:
        """The same rows (n, d) searched on that device; all GPUs of the machine share them. See `gpu`."""
        if gpu.resolve_device(device) is Device.CPU:
            return self
        moved = gpu.flat_index(vectors[: len(self)]) if self.plan.exact else gpu.clone_to_gpus(self._index, self.plan.factory)
        return FaissIndex(moved, self.plan, self.params, max_k=MAX_GPU_K)

    def search(self, queries: Float32, k: int) -> list[NDArray[np.int64]]:
        """(q, d) queries of any length → for each the rows that hold its k best as the index sees them, best first.

        Never fewer than k while so many are covered, ties at the cut included. An exact plan's proposals hold the k best
        by the exact scores of normalised rows. On a GPU they are cut at `max_k`, and a larger k is an OptionError.
        """
        asked, k = as_rows(queries, "queries", dim=self.dim), check_k(k)
        if k >= len(self):
            return [np.arange(len(self), dtype=np.int64) for _ in asked]
        if self.max_k is not None and k > self.max_k:
            raise OptionError(f"k = {k}: an index on a GPU finds at most {self.max_k}; score the rows exactly instead")
        most = min(len(self), self.max_k or len(self))
        wanted, nprobe = round(k * self.params.overfetch) + MARGIN, self.params.nprobe
        found: dict[int, NDArray[np.int64]] = {}
        while len(found) < len(asked):
            wanted = min(wanted, most)
            pending = [i for i in range(len(asked)) if i not in found]
            scores, rows = self._proposed(asked[pending], wanted, nprobe)
            widest = wanted == most and (nprobe is None or nprobe >= (self.cells or 1))
            settled = self._settled(asked[pending], scores, k) | widest
            found |= {i: self._whole(row, k) for i, row, done in zip(pending, rows, settled, strict=True) if done}
            wanted, nprobe = WIDENING_FACTOR * wanted, None if nprobe is None else WIDENING_FACTOR * nprobe
        return [found[i] for i in range(len(asked))]

    def save(self, path: Path) -> str:
        """Writes the file whole or not at all; its digest is what `load` asks for."""
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
        """The index of that digest, or None where the file is another, damaged or absent: FAISS never reads a damaged file."""
        try:
            return cls(faiss.read_index(str(path)), plan, params) if digest_of(path) == digest else None
        except (OSError, RuntimeError) as error:
            logger.info("%s: %s; it will be built again", path, error)
            return None

    def _proposed(self, queries: Float32, wanted: int, nprobe: int | None) -> tuple[Float32, NDArray[np.int64]]:
        """(q, wanted) scores, falling, and rows; −1 where the cells that were looked into hold no more."""
        knobs = parameters(self._index, SearchParams(nprobe, self.params.ef))
        with limit_threads(len(queries)):
            scores, rows = self._index.search(queries, wanted, params=knobs)
        return scores, rows

    def _settled(self, queries: Float32, scores: Float32, k: int) -> NDArray[np.bool_]:
        """Whether the last score is so far below the k-th that no row behind it can be among the k best.

        Where fewer than k were found both are the lowest number there is, and it is not.
        """
        cut = scores[:, k - 1].astype(np.float64)
        tolerance = ROUNDING * np.linalg.norm(queries, axis=1) + 2 * FLOAT16_ROUNDING * self.plan.exact * np.abs(cut)
        return np.asarray(scores[:, -1] < cut - tolerance)

    def _whole(self, row: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """What was found; all rows where not even the widest search found k, as in a graph that does not hold together."""
        found = row[row >= 0]
        return found if len(found) >= k else np.arange(len(self), dtype=np.int64)

    def _only_on_cpu(self, what: str) -> None:
        if self.max_k is not None:
            raise GalleryError(f"an index on a GPU cannot be {what}; take the one it was made from")


def digest_of(path: Path) -> str:
    """Changes with every byte of the file and with its length. OSError where it cannot be read.

    SHA-256, because processors have instructions for it: 1 GB took 0.5 s on two cores, BLAKE2b 1.2 s.
    """
    size = path.stat().st_size
    ends = [size * i // DIGEST_PARTS for i in range(DIGEST_PARTS + 1)]
    with ThreadPoolExecutor(DIGEST_PARTS) as pool:
        pieces = pool.map(lambda i: _part_digest(path, ends[i], ends[i + 1]), range(DIGEST_PARTS))
        return hashlib.sha256(b"".join([size.to_bytes(8, "big"), *pieces])).hexdigest()


def _part_digest(path: Path, start: int, end: int) -> bytes:
    found, buffer = hashlib.sha256(), memoryview(bytearray(BUFFER_BYTES))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start < end and (count := file.readinto(buffer[: min(BUFFER_BYTES, end - start)])):
            found.update(buffer[:count])
            start += count
    return found.digest()
