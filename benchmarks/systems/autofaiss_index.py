"""autofaiss as clip-retrieval uses it: it chooses a FAISS index, which has neither filters nor deletions."""

from __future__ import annotations

import logging

import autofaiss
import faiss

from benchmarks.systems.base import STEPS, Float32, Rows, overfetch
from benchmarks.systems.faiss_index import FaissSystem, found


class AutofaissSystem(FaissSystem):
    knob = "nprobe or efSearch"
    efforts = STEPS

    def build(self, vectors_nd: Float32, buckets_n: Rows) -> None:
        faiss.omp_set_num_threads(1)
        self.write_buckets(buckets_n)
        index, _ = autofaiss.build_index(vectors_nd, save_on_disk=False, metric_type="ip", nb_cores=1, verbose=logging.ERROR)
        faiss.write_index(index, self.file)

    def describe(self) -> str:
        index = faiss.downcast_index(self._index)
        cells = f" of {index.nlist} cells" if isinstance(index, faiss.IndexIVF) else ""
        return f"{type(index).__name__.removeprefix('Index')}{cells}"

    def search(self, query_d: Float32, k: int, below: int | None = None) -> Rows:
        if below is not None:
            return overfetch(lambda count: self.search(query_d, count), self.passing(below), k)
        index = faiss.downcast_index(self._index)
        if isinstance(index, faiss.IndexHNSW):
            index.hnsw.efSearch = max(self.effort, k)
        elif ivf := faiss.try_extract_index_ivf(index):
            ivf.nprobe = self.effort
        return found(index.search(query_d[None], k)[1])

    def delete(self, row: int) -> None:
        raise NotImplementedError("clip-retrieval builds its index again")
