"""hnswlib. A filter is a function that it calls for each row that it visits."""

from __future__ import annotations

from collections.abc import Callable

import hnswlib
import numpy as np

from benchmarks.systems.base import BREADTH, GRAPH_STEPS, LINKS, Float32, Library, Rows

SPARE_ROWS = 10_000  # that can be added


class HnswlibSystem(Library):
    index = f"graph, {LINKS} links, float32"
    knob = "ef"
    efforts = GRAPH_STEPS

    def build(self, vectors_nd: Float32, buckets_n: Rows) -> None:
        self.write_buckets(buckets_n)
        index = hnswlib.Index(space="ip", dim=vectors_nd.shape[1])
        index.init_index(len(vectors_nd), M=LINKS, ef_construction=BREADTH)
        index.add_items(vectors_nd, num_threads=1)
        index.save_index(self.file)
        np.save(self.folder / "dim.npy", vectors_nd.shape[1])

    def open(self) -> None:
        self.read_buckets()
        self._tests: dict[int, Callable[[int], bool]] = {}
        self._index = hnswlib.Index(space="ip", dim=int(np.load(self.folder / "dim.npy")))
        self._index.load_index(self.file, max_elements=len(self._buckets) + SPARE_ROWS)
        self._index.set_num_threads(1)

    def search(self, query_d: Float32, k: int, below: int | None = None) -> Rows:
        self._index.set_ef(max(self.effort, k))
        if below is not None and below not in self._tests:
            self._tests[below] = self.passing(below).tolist().__getitem__
        try:
            rows_1k, _ = self._index.knn_query(query_d, k, num_threads=1, filter=None if below is None else self._tests[below])
            return np.asarray(rows_1k[0], np.int64)
        except RuntimeError:  # it found fewer than k
            return np.empty(0, np.int64)

    def add(self, rows_n: Rows, vectors_nd: Float32, buckets_n: Rows) -> None:
        self.append_buckets(buckets_n)
        self._index.add_items(vectors_nd, rows_n, num_threads=1)

    def delete(self, row: int) -> None:
        self._index.mark_deleted(row)

    def save(self) -> None:
        self._index.save_index(self.file)
