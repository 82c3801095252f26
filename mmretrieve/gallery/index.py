"""Which items may be the best: FAISS proposes candidates, exact scores decide among them.

`exact_candidates` in numpy is the specification; the index must propose every item that the exact ranking holds.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from threading import get_ident
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from mmretrieve.scoring import linear, term_scores, top_k
from mmretrieve.vectors import Float32

MARGIN = 16  # candidates beyond k, so that a tie at the cut is seen whole
ROUNDING = 1e-3  # relative to the query's length: more than float32 sums can differ
logger = logging.getLogger(__name__)


class VectorIndex(Protocol):
    """Proposes positions; what it proposes for k holds the k best by inner product, ties at the cut included."""

    def __len__(self) -> int: ...

    def candidates(self, query: Float32, k: int) -> NDArray[np.int64]: ...


class FaissIndex:
    """All vectors in a FAISS flat inner-product index: exact up to float32 rounding."""

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def build(cls, vectors: NDArray[np.float16]) -> FaissIndex:
        index = faiss.IndexFlatIP(vectors.shape[1])
        if len(vectors):
            index.add(vectors.astype(np.float32))
        return cls(index)

    def search(self, queries, k):
        return [self.candidates(q, k) for q in queries]

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def candidates(self, query: Float32, k: int) -> NDArray[np.int64]:
        """(d,) query → positions of at least the k best, in no order."""
        tolerance = ROUNDING * float(np.linalg.norm(query))
        wanted = k + MARGIN
        while True:
            wanted = min(wanted, len(self))
            scores, positions = self._index.search(query[None], wanted)
            if wanted == len(self) or scores[0, -1] < scores[0, k - 1] - tolerance:
                return np.asarray(positions[0], dtype=np.int64)
            wanted *= 4

    def save(self, path: Path) -> str:
        """Writes the file whole or not at all; its digest is what `load` asks for."""
        partial = path.with_suffix(f".{os.getpid()}-{get_ident()}.part")
        try:
            faiss.write_index(self._index, str(partial))
            digest = _digest(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return digest

    @classmethod
    def load(cls, path: Path, digest: str) -> FaissIndex | None:
        """The index of that digest, or None where the file is another, damaged or absent: FAISS never reads a damaged file."""
        try:
            return cls(faiss.read_index(str(path))) if _digest(path) == digest else None
        except (OSError, RuntimeError) as error:
            logger.info("%s: %s; it will be built again", path, error)
            return None


def exact_candidates(vectors: Float32, query: Float32, k: int) -> NDArray[np.int64]:
    """The specification: positions of the k best of (n, d) vectors by exact inner product, best first."""
    return np.asarray(top_k(linear(term_scores(query[None], vectors), [1.0]), k), dtype=np.int64)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
