"""Which index a gallery gets and why, and the parameters of its searches."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import log2, sqrt
from pathlib import Path
from typing import Any

from mmretrieve.errors import OptionError
from mmretrieve.options import DEFAULT_RECALL, OptionEnum, check_count, is_number

FLAT, FLAT_FLOAT32 = "SQfp16", "Flat"  # all vectors in float16, in float32
EXACT_FACTORIES = frozenset({FLAT, FLAT_FLOAT32})  # they score every vector as it is stored
MAX_FLAT_NUMBERS = 1 << 27  # items × dimensions, 262,144 × 512: 13 ms per query on one thread
CELLS_PER_ROOT = 4  # cells for the square root of the rows: 4096 for a million
MAX_CELLS = 1 << 14  # every query scans the centroids of all cells
MAX_GPU_K = 2048  # limit of k and of searched cells on a GPU (FAISS 1.15)
NAMES_IN_FILES = {"nprobe": "probes"}  # of search parameters that JSON files spell differently
ID_BYTES, FACTOR_BYTES = 8, 8  # of a vector in a cell: its row number; of RaBitQ also two float32 factors
LINK_BYTES = 4  # of a link of a graph, which has twice as many for each vector as its factory string says
MAX_MEMORY_SHARE = 0.8  # of the free memory; the rest is for the training sample and searches


class Device(OptionEnum):
    """Where an index is searched. `auto` uses GPUs if FAISS finds one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class IndexPlan:
    """A FAISS factory string, and one sentence with the reason for it."""

    factory: str
    reason: str

    @property
    def exact(self) -> bool:
        """Whether the index scores every stored vector, so that it misses nothing."""
        return self.factory in EXACT_FACTORIES


@dataclass(frozen=True)
class SearchParams:
    """The parameters of a search. Larger values find more and cost more; an index ignores those that it does not have.

    `nprobe`: cells that are searched (IVF). `ef`: breadth of the walk (HNSW). These are whole numbers of at least 1, which
    `factory.parameters` passes to FAISS; None is the default of the index. `overfetch`: candidates for each requested result, at
    least 1. Raises OptionError for other values.
    """

    nprobe: int | None = None
    ef: int | None = None
    overfetch: float = 1

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            if name != "overfetch":
                check_count(name, value)
        if not is_number(self.overfetch) or self.overfetch < 1:
            raise OptionError(f"overfetch must be a number of at least 1, got {self.overfetch!r}")

    def given(self) -> dict[str, Any]:
        """The parameters that are not None, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def with_defaults(self, defaults: SearchParams) -> SearchParams:
        """Returns the same parameters, with those of `defaults` in place of None."""
        return replace(self, **(defaults.given() | self.given()))

    def to_dict(self) -> dict[str, float | None]:
        """For JSON files, where `nprobe` is spelled "probes"."""
        return {NAMES_IN_FILES.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchParams:
        """From what `to_dict` returns, also where an earlier version wrote fewer parameters."""
        names = {NAMES_IN_FILES.get(field.name, field.name): field.name for field in fields(cls)}
        return cls(**{names[key]: value for key, value in data.items() if key in names})


def choose(
    items: int, dim: int, *, recall: float = DEFAULT_RECALL, memory: int | None = None, device: Device | str = Device.CPU
) -> IndexPlan:
    """Chooses the index by size alone, where none is tried. `memory` is the limit in bytes, by default the free memory.

    On the CPU: flat float16 up to MAX_FLAT_NUMBERS numbers, or for a recall of 1 if it fits; then cells of 8-bit vectors, then cells of 1-bit
    vectors if those do not fit. On a GPU (`memory` is that of the GPU): flat float16 if it fits, otherwise cells of 8-bit vectors.
    """
    memory = memory if memory is not None else free_memory()
    cells, numbers = cells_for(items), items * dim
    size = f"{items:,} × {dim} numbers"
    if Device(device) is Device.CUDA:
        if fits(FLAT, items, dim, memory):
            return IndexPlan(FLAT, f"{size} fit into the GPU's memory as float16: every vector is scored, nothing is missed")
        return IndexPlan(
            f"IVF{cells},SQ8", f"{size} do not fit into the GPU's memory as float16: 8 bits each, in {cells} cells"
        )
    if numbers <= MAX_FLAT_NUMBERS:
        return IndexPlan(FLAT, f"{size} are few enough to score every vector as it is stored: nothing is missed")
    if recall == 1 and fits(FLAT, items, dim, memory):
        return IndexPlan(FLAT, "a recall of 1 was requested: every vector is scored as it is stored, nothing is missed")
    if fits(f"IVF{cells},SQ8", items, dim, memory):
        return IndexPlan(f"IVF{cells},SQ8", f"{size} are too many to score all: 8 bits each, in {cells} cells")
    room = _gigabytes(MAX_MEMORY_SHARE * memory)
    return IndexPlan(f"IVF{cells},RaBitQ", f"{size} do not fit into {room} as 8 bits each: 1 bit each, in {cells} cells")


def fits(factory: str, items: int, dim: int, memory: int) -> bool:
    """Whether so many vectors, as the index keeps them, fit into MAX_MEMORY_SHARE of the memory, in bytes."""
    if factory.endswith("RaBitQ"):
        vector_bytes = dim / 8 + ID_BYTES + FACTOR_BYTES
    elif factory.endswith("SQ8"):
        vector_bytes = dim + ID_BYTES
    else:
        graph = re.match(r"HNSW(\d+)", factory)
        vector_bytes = 2 * dim + (2 * LINK_BYTES * int(graph[1]) if graph else 0)
    return items * vector_bytes <= MAX_MEMORY_SHARE * memory


def cells_for(items: int) -> int:
    """Returns the number of cells: the power of two nearest to CELLS_PER_ROOT · √items, at most MAX_CELLS."""
    return min(MAX_CELLS, 1 << round(log2(CELLS_PER_ROOT * sqrt(max(items, 1)))))


def default_params(plan: IndexPlan, cells: int | None) -> SearchParams:
    """Returns the parameters of an index that was not tuned: those that reached a recall@10 of 0.99 at a million items, with a margin."""
    if plan.exact:
        return SearchParams()
    nprobe, ef = max(1, cells // 16) if cells else None, 128 if "HNSW" in plan.factory else None
    return SearchParams(nprobe, ef, overfetch=20 if "RaBitQ" in plan.factory else 2)


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


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g} GB"
