"""What every system can do: index, search, filter, add, delete. Rows are numbered; each has a bucket from 0 to 999, the field of the filters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Rows = NDArray[np.int64]

STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
GRAPH_STEPS = STEPS[6:]  # a graph that keeps fewer candidates than are asked for finds fewer
LINKS, BREADTH = 16, 200  # of a graph: links of a node, and candidates while it is built


class System(ABC):
    """An index or a database in a folder. Where a package lets its caller choose, it has one thread.

    `index` is what it builds, `efforts` are the settings of a search from cheap to thorough, and `knob` is what they set.
    """

    index: ClassVar[str]
    knob: ClassVar[str] = ""
    efforts: ClassVar[Sequence[Any]] = (None,)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.effort = self.efforts[0]

    @abstractmethod
    def build(self, vectors_nd: Float32, buckets_n: Rows) -> None:
        """Indexes unit rows and their buckets, and writes the index to the folder."""

    @abstractmethod
    def open(self) -> None:
        """Opens what `build` wrote."""

    def describe(self) -> str:
        """The index that was built."""
        return self.index

    def set_effort(self, effort: Any) -> None:
        self.effort = effort

    @abstractmethod
    def search(self, query_d: Float32, k: int, below: int | None = None) -> Rows:
        """Returns the k best rows for a unit vector: of all rows, or of those whose bucket is below a number."""

    @abstractmethod
    def add(self, rows_n: Rows, vectors_nd: Float32, buckets_n: Rows) -> None: ...

    @abstractmethod
    def delete(self, row: int) -> None:
        """Raises NotImplementedError where the system cannot."""

    @abstractmethod
    def save(self) -> None:
        """Writes what `add` and `delete` changed, if they have not done so."""


class Database(System):
    """A system that commits each write itself."""

    def save(self) -> None:
        """There is nothing left to write."""


class Library(System):
    """An index in memory, written to a file as a whole. The program that uses it keeps the fields, here an array of buckets."""

    @property
    def file(self) -> str:
        return str(self.folder / "index")

    def write_buckets(self, buckets_n: Rows) -> None:
        np.save(self.folder / "buckets.npy", buckets_n)

    def read_buckets(self) -> None:
        self._buckets = np.load(self.folder / "buckets.npy")
        self._passing: dict[int, NDArray[np.bool_]] = {}

    def append_buckets(self, buckets_n: Rows) -> None:
        self._buckets, self._passing = np.concatenate([self._buckets, buckets_n]), {}

    def passing(self, below: int) -> NDArray[np.bool_]:
        """(n,) whether each row passes, computed once for each filter."""
        if below not in self._passing:
            self._passing[below] = self._buckets < below
        return self._passing[below]


def overfetch(search: Callable[[int], Rows], passing_n: NDArray[np.bool_], k: int) -> Rows:
    """For an index without filters: searches for more and more rows, until k of them pass."""
    count = math.ceil(1.5 * k / max(float(passing_n.mean()), k / len(passing_n)))
    while True:
        found = search(min(count, len(passing_n)))
        kept = found[passing_n[found]]
        if len(kept) >= k or count >= len(passing_n):
            return kept[:k]
        count *= 2
