"""Which index a gallery gets, and how hard it looks: what `choose` decides and why, in words that are kept in the ledger."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import log2, sqrt
from pathlib import Path

from mmretrieve.errors import OptionError
from mmretrieve.options import Choice
from mmretrieve.vectors import is_number

FLAT, WHOLE = "SQfp16", "Flat"  # every vector as it is: float16, float32
FLAT_NUMBERS = 1 << 27  # numbers in all that are scanned whole, 262,144 × 512: 13 ms a query on one thread
CELLS_PER_ROOT = 4  # cells for the square root of the rows: 4096 for a million
MOST_CELLS = 1 << 14  # the cells themselves are scanned at every query, so they may not grow for ever
GPU_MOST = 2048  # of k, and of the cells looked into, in one search on a GPU (FAISS 1.15)
ID_BYTES, FACTOR_BYTES = 8, 8  # of a vector in a cell: its row number; of RaBitQ also two float32 factors
SHARE = 0.8  # of the memory, what an index may fill; the rest is the training sample's and the searches'


class Device(Choice):
    """Where an index is searched: `auto` takes a GPU where FAISS sees one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class IndexPlan:
    """What is built, as a FAISS factory string, and one sentence that says why."""

    factory: str
    reason: str

    @property
    def exact(self) -> bool:
        """Whether the index scores every vector as it is stored, so that nothing can be missed."""
        return self.factory in (FLAT, WHOLE)


@dataclass(frozen=True)
class SearchParams:
    """How hard an index looks. More finds more and costs more; a knob the index does not have does nothing.

    `probes`: cells that are looked into (IVF). `ef`: breadth of the walk (HNSW). None is the default of the index.
    `overfetch`: proposals for each result that is wanted, from 1. OptionError for anything else.
    """

    probes: int | None = None
    ef: int | None = None
    overfetch: float = 1

    def __post_init__(self) -> None:
        for name in ("probes", "ef"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise OptionError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not is_number(self.overfetch) or self.overfetch < 1:
            raise OptionError(f"overfetch must be a number of at least 1, got {self.overfetch!r}")


def choose(items: int, dim: int, *, memory: int | None = None, device: Device | str = Device.CPU) -> IndexPlan:
    """The plan for so many items of so many dimensions; `memory` in bytes is what may be filled, by default what is free now.

    On the CPU: float16 as it is up to FLAT_NUMBERS, beyond that cells of 8-bit vectors, and cells of 1-bit vectors where
    those do not fit. On a GPU (`memory` is then the GPU's): float16 as it is where that fits, else cells of 8-bit vectors.
    """
    room = SHARE * (memory if memory is not None else _free_memory())
    cells, numbers = cells_for(items), items * dim
    size = f"{items:,} × {dim} numbers"
    if Device(device) is Device.CUDA:
        if 2 * numbers <= room:
            return IndexPlan(FLAT, f"{size} fit into the GPU's memory as float16: every vector is scored, nothing is missed")
        return IndexPlan(
            f"IVF{cells},SQ8", f"{size} do not fit into the GPU's memory as float16: 8 bits each, in {cells} cells"
        )
    if numbers <= FLAT_NUMBERS:
        return IndexPlan(FLAT, f"{size} are few enough to score every vector as it is stored: nothing is missed")
    if items * (dim + ID_BYTES) <= room:
        return IndexPlan(f"IVF{cells},SQ8", f"{size} are too many to score all: 8 bits each, in {cells} cells")
    return IndexPlan(
        f"IVF{cells},RaBitQ", f"{size} do not fit into {_gigabytes(room)} as 8 bits each: 1 bit each, in {cells} cells"
    )


def cells_for(items: int) -> int:
    """How many cells so many items are put into: the power of two next to CELLS_PER_ROOT · √items, within its bounds."""
    return min(MOST_CELLS, 1 << round(log2(CELLS_PER_ROOT * sqrt(max(items, 1)))))


def default_effort(plan: IndexPlan, cells: int | None) -> SearchParams:
    """Where nothing was tuned: what reached a recall@10 of 0.99 at a million items (results/million.json), and some more."""
    if plan.exact:
        return SearchParams()
    probes, ef = max(1, cells // 16) if cells else None, 128 if "HNSW" in plan.factory else None
    return SearchParams(probes, ef, overfetch=20 if "RaBitQ" in plan.factory else 2)


def _free_memory() -> int:
    """Bytes that can be had now without swapping; in a container, no more than its limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or one whose limit is "max"
        return free


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g} GB"
