"""milvus-lite, in this process: a collection with a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from benchmarks.systems.base import BREADTH, GRAPH_STEPS, LINKS, Database, Float32, Rows

COLLECTION = "items"
BATCH_SIZE = 5_000  # rows of a message


class MilvusSystem(Database):
    index = f"HNSW, {LINKS} links"
    knob = "ef"
    efforts = GRAPH_STEPS

    def build(self, vectors_nd: Float32, buckets_n: Rows) -> None:
        client = self._client = self._connect()
        schema = client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors_nd.shape[1])
        schema.add_field("bucket", DataType.INT64)
        params = client.prepare_index_params()
        params.add_index("vector", index_type="HNSW", metric_type="IP", params={"M": LINKS, "efConstruction": BREADTH})
        client.create_collection(COLLECTION, schema=schema, index_params=params)
        self.add(np.arange(len(vectors_nd)), vectors_nd, buckets_n)
        client.flush(COLLECTION)
        client.load_collection(COLLECTION)

    def open(self) -> None:
        self._client = self._connect()
        self._client.load_collection(COLLECTION)

    def search(self, query_d: Float32, k: int, below: int | None = None) -> Rows:
        options: dict[str, Any] = {"search_params": {"metric_type": "IP", "params": {"ef": max(self.effort, k)}}}
        if below is not None:
            options["filter"] = f"bucket < {below}"
        (hits,) = self._client.search(COLLECTION, [query_d], limit=k, **options)
        return np.array([hit["id"] for hit in hits], np.int64)

    def add(self, rows_n: Rows, vectors_nd: Float32, buckets_n: Rows) -> None:
        for start in range(0, len(rows_n), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            columns = zip(rows_n[part].tolist(), vectors_nd[part], buckets_n[part].tolist(), strict=True)
            self._client.insert(
                COLLECTION, [{"id": row, "vector": vector, "bucket": bucket} for row, vector, bucket in columns]
            )

    def delete(self, row: int) -> None:
        self._client.delete(COLLECTION, ids=[row])

    def _connect(self) -> MilvusClient:
        return MilvusClient(str(self.folder / "milvus.db"))
