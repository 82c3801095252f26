"""usearch, float16. Its Python interface has no filters."""

from __future__ import annotations

from typing import Any

import numpy as np
from usearch.index import Index

from benchmarks.systems.base import BREADTH, GRAPH_STEPS, LINKS, Float32, Library, Rows, overfetch


class UsearchSystem(Library):
    index = f"graph, {LINKS} links, float16"
    knob = "expansion_search"
    efforts = GRAPH_STEPS

    def build(self, vectors_nd: Float32, buckets_n: Rows) -> None:
        self.write_buckets(buckets_n)
        index = Index(ndim=vectors_nd.shape[1], metric="ip", dtype="f16", connectivity=LINKS, expansion_add=BREADTH)
        index.add(np.arange(len(vectors_nd)), vectors_nd, threads=1)
        index.save(self.file)

    def open(self) -> None:
        self.read_buckets()
        self._index = Index.restore(self.file)

    def set_effort(self, effort: Any) -> None:
        super().set_effort(effort)
        self._index.expansion_search = effort

    def search(self, query_d: Float32, k: int, below: int | None = None) -> Rows:
        if below is not None:
            return overfetch(lambda count: self.search(query_d, count), self.passing(below), k)
        return np.asarray(self._index.search(query_d, k, threads=1).keys).astype(np.int64)

    def add(self, rows_n: Rows, vectors_nd: Float32, buckets_n: Rows) -> None:
        self.append_buckets(buckets_n)
        self._index.add(rows_n, vectors_nd, threads=1)

    def delete(self, row: int) -> None:
        self._index.remove(row)

    def save(self) -> None:
        self._index.save(self.file)
