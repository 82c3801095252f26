"""The kinds of indexes that `build` knows, which of them fit into the memory, and which is built where none is tried."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import log2, sqrt
from pathlib import Path

from mmretrieve.errors import OptionError
from mmretrieve.gallery.index.factory import index_bytes
from mmretrieve.gallery.index.plan import FLAT, IndexPlan
from mmretrieve.options import DEFAULT_RECALL, format_bytes

KINDS = (  # of equally fast ones, the first is chosen
    FLAT,
    "IVF{cells},SQ8",
    "IVF{cells},RaBitQ2",
    "IVF{cells},RaBitQ",
    "PCAR{half},IVF{cells},RaBitQ",
    "HNSW32,SQfp16",
)
MAX_FLAT_NUMBERS = 1 << 27  # items × dimensions, 262,144 × 512: 13 ms per query on one thread
CELLS_PER_ROOT = 4  # cells for the square root of the rows: 4096 for a million
MAX_CELLS = 1 << 14  # every query scans the centroids of all cells
MAX_MEMORY_SHARE = 0.8  # of the free memory; the rest is for the training sample and searches


def fitting_kinds(items: int, dim: int, memory: int | None = None) -> list[str]:
    """Returns those KINDS whose index of so many vectors fits into the memory, in bytes.

    By default that is MAX_MEMORY_SHARE of the free memory, and the smallest kind is returned even if it does not fit. Raises OptionError if
    none fits into a memory that was given.
    """
    limit = MAX_MEMORY_SHARE * free_memory() if memory is None else memory
    sizes = {kind: index_bytes(factory_of(kind, items, dim), items, dim) for kind in KINDS}
    fitting = [kind for kind, size in sizes.items() if size <= limit]
    smallest = min(KINDS, key=sizes.__getitem__)
    if not fitting and memory is not None:
        raise OptionError(
            f"memory {format_bytes(memory)} is too small for {items:,} × {dim} numbers: "
            f"the smallest index, {factory_of(smallest, items, dim)}, needs {sizes[smallest]:,} bytes"
        )
    return fitting or [smallest]


def check_fits(factory: str, items: int, dim: int, memory: int) -> None:
    """Raises OptionError if the index of so many vectors does not fit into the memory, in bytes."""
    size = index_bytes(factory, items, dim)
    if size > memory:
        raise OptionError(f"index factory {factory!r}: needs {size:,} bytes, more than the memory of {format_bytes(memory)}")


def choose(items: int, dim: int, kinds: Sequence[str] = KINDS, *, recall: float = DEFAULT_RECALL) -> IndexPlan:
    """Chooses among kinds that fit by size alone, where none is tried.

    Flat float16 up to MAX_FLAT_NUMBERS numbers, or for a recall of 1; otherwise the first of the other kinds.
    """
    size, others = f"{items:,} × {dim} numbers", [kind for kind in kinds if kind != FLAT]
    if FLAT in kinds and items * dim <= MAX_FLAT_NUMBERS:
        return IndexPlan(FLAT, f"{size} are few enough to score every vector as it is stored: nothing is missed")
    if FLAT in kinds and recall == 1:
        return IndexPlan(FLAT, "a recall of 1 was requested: every vector is scored as it is stored, nothing is missed")
    return IndexPlan(factory_of(others[0], items, dim), f"{size} are too many to score all: the most accurate cells that fit")


def factory_of(kind: str, items: int, dim: int) -> str:
    """Returns the factory string of one of the KINDS for so many vectors."""
    return kind.format(cells=cells_for(items), half=max(1, dim // 2))


def cells_for(items: int) -> int:
    """Returns the number of cells: the power of two nearest to CELLS_PER_ROOT · √items, at most MAX_CELLS."""
    return min(MAX_CELLS, 1 << round(log2(CELLS_PER_ROOT * sqrt(max(items, 1)))))


def free_memory() -> int:
    """Returns the free memory in bytes, in a container at most its limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or one whose limit is "max"
        return free
