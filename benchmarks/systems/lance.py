"""LanceDB: a table with a vector index and an index of its field."""

from __future__ import annotations

from typing import Any, ClassVar

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import BTree, HnswSq, IvfPq

from benchmarks.systems.base import STEPS, Database, Float32, Rows

REFINE_FACTOR = 2  # of the graph of 8-bit vectors: exact scores for twice as many items as are asked for


class LanceSystem(Database):
    config: ClassVar[type[IvfPq | HnswSq]] = IvfPq
    index = "IVF_PQ, exact scores refine"
    knob = "nprobes, refine_factor"
    efforts = tuple((nprobes, refine_factor) for nprobes in STEPS[3::2] for refine_factor in (10, 30))

    def build(self, vectors_nd: Float32, buckets_n: Rows) -> None:
        database = lancedb.connect(self.folder)
        self._table = database.create_table("items", _as_arrow(np.arange(len(vectors_nd)), vectors_nd, buckets_n))
        self._table.create_index("vector", config=self.config(distance_type="dot"))
        self._table.create_index("bucket", config=BTree())

    def open(self) -> None:
        self._table = lancedb.connect(self.folder).open_table("items")

    def search(self, query_d: Float32, k: int, below: int | None = None) -> Rows:
        builder = (
            self._table.search(query_d, vector_column_name="vector").distance_type("dot").select(["id", "_distance"]).limit(k)
        )
        if below is not None:
            builder = builder.where(f"bucket < {below}", prefilter=True)
        return np.asarray(self.widen(builder).to_arrow()["id"], dtype=np.int64)

    def widen(self, builder: Any) -> Any:
        nprobes, refine_factor = self.effort
        return builder.nprobes(nprobes).refine_factor(refine_factor)

    def add(self, rows_n: Rows, vectors_nd: Float32, buckets_n: Rows) -> None:
        self._table.add(_as_arrow(rows_n, vectors_nd, buckets_n))

    def delete(self, row: int) -> None:
        self._table.delete(f"id = {row}")


class LanceGraphSystem(LanceSystem):
    config = HnswSq
    index = "IVF_HNSW_SQ, exact scores refine"
    knob = "ef"
    efforts = tuple(step for step in STEPS if step >= REFINE_FACTOR * 10)

    def widen(self, builder: Any) -> Any:
        return builder.ef(self.effort).refine_factor(REFINE_FACTOR)


def _as_arrow(rows_n: Rows, vectors_nd: Float32, buckets_n: Rows) -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors_nd).ravel()), vectors_nd.shape[1])
    return pa.table({"id": rows_n, "vector": vectors, "bucket": buckets_n})
