"""mmretrieve: a gallery with the index that `build` chooses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import mmretrieve as mm
from benchmarks.systems.base import Database, Float32, Rows

FILL_BATCH_SIZE = 50_000


class GallerySystem(Database):
    knob = "recall of build"
    efforts = (0.99, 0.995, 0.999, 1.0)

    def build(self, vectors_nd: Float32, buckets_n: Rows) -> None:
        self._gallery = mm.Gallery.for_vectors(
            self.folder / "g", mm.EncoderIdentity("given", "given", "none"), vectors_nd.shape[1]
        )
        for start in range(0, len(vectors_nd), FILL_BATCH_SIZE):
            rows = np.arange(start, min(start + FILL_BATCH_SIZE, len(vectors_nd)))
            self.add(rows, vectors_nd[rows[0] : rows[-1] + 1], buckets_n[rows])
        self._gallery.build_index()

    def open(self) -> None:
        self._gallery = mm.Gallery.open(self.folder / "g", device="cpu")

    def describe(self) -> str:
        return str(self._gallery.info()["index"]["factory"])

    def set_effort(self, effort: Any) -> None:
        """Builds again where the gallery was not built for that recall."""
        built = self.folder / "effort"
        if effort != (float(built.read_text()) if built.exists() else self.efforts[0]):
            self._gallery.build_index(recall=effort)
            built.write_text(str(effort))

    def search(self, query_d: Float32, k: int, below: int | None = None) -> Rows:
        where = None if below is None else f"bucket < {below}"
        return np.array([int(id_) for id_ in self._gallery.search(query_d, k, where=where).ids], np.int64)

    def add(self, rows_n: Rows, vectors_nd: Float32, buckets_n: Rows) -> None:
        self._gallery.add_vectors(_ids(rows_n), vectors_nd, fields=[{"bucket": bucket} for bucket in buckets_n.tolist()])

    def delete(self, row: int) -> None:
        self._gallery.delete(_ids([row]))


def _ids(rows: Iterable[int]) -> list[str]:
    return [f"{row:08}" for row in rows]
