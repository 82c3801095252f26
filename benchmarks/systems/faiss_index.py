"""Plain FAISS: a flat index, cells, and a graph."""

from __future__ import annotations

from math import sqrt
from typing import Any

import faiss
import numpy as np

from benchmarks.systems.base import BREADTH, GRAPH_STEPS, STEPS, Float32, Library, Rows


class FaissSystem(Library):
    """An index of any factory string. The rows that pass a filter are a bitmap."""

    def build(self, vectors_nd: Float32, buckets_n: Rows) -> None:
        faiss.omp_set_num_threads(1)
        self.write_buckets(buckets_n)
        cells = min(round(4 * sqrt(len(vectors_nd))), len(vectors_nd))
        index = faiss.index_factory(vectors_nd.shape[1], self.index.format(cells=cells), faiss.METRIC_INNER_PRODUCT)
        self.prepare(index)
        index.train(vectors_nd)
        index.add(vectors_nd)
        faiss.write_index(index, self.file)

    def prepare(self, index: faiss.Index) -> None:
        """Sets what the factory string cannot say."""

    def open(self) -> None:
        faiss.omp_set_num_threads(1)
        self.read_buckets()
        self._index = faiss.read_index(self.file)

    def search(self, query_d: Float32, k: int, below: int | None = None) -> Rows:
        options = {}
        if below is not None:
            bitmap = np.packbits(self.passing(below), bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bitmap)
        return found(self._index.search(query_d[None], k, params=self.params(**options))[1])

    def params(self, **options: Any) -> faiss.SearchParameters:
        return faiss.SearchParameters(**options)

    def add(self, rows_n: Rows, vectors_nd: Float32, buckets_n: Rows) -> None:
        if rows_n[0] != self._index.ntotal:
            raise ValueError(f"FAISS numbers rows itself: the next is {self._index.ntotal}, not {rows_n[0]}")
        self.append_buckets(buckets_n)
        self._index.add(vectors_nd)

    def delete(self, row: int) -> None:
        self._index.remove_ids(np.array([row]))

    def save(self) -> None:
        faiss.write_index(self._index, self.file)


class Flat(FaissSystem):
    index = "Flat"

    def delete(self, row: int) -> None:
        raise NotImplementedError("a flat index would number all later rows anew")


class Cells(FaissSystem):
    index = "IVF{cells},Flat"
    knob = "nprobe"
    efforts = STEPS

    def describe(self) -> str:
        return self.index.format(cells=self._index.nlist)

    def params(self, **options: Any) -> faiss.SearchParameters:
        return faiss.SearchParametersIVF(nprobe=self.effort, **options)


class Graph(FaissSystem):
    index = "HNSW32,SQfp16"
    knob = "efSearch"
    efforts = GRAPH_STEPS

    def prepare(self, index: faiss.Index) -> None:
        index.hnsw.efConstruction = BREADTH

    def params(self, **options: Any) -> faiss.SearchParameters:
        return faiss.SearchParametersHNSW(efSearch=self.effort, **options)

    def delete(self, row: int) -> None:
        raise NotImplementedError("FAISS removes nothing from a graph")


def found(rows_1k: Rows) -> Rows:
    """The rows of one search, without the −1 that stand for too few results."""
    rows: Rows = rows_1k[0][rows_1k[0] >= 0]
    return rows
