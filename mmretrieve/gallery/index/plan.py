"""What an index is: its plan, which is a factory string and a reason, and the parameters of its searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import ceil
from typing import Any

from mmretrieve.errors import OptionError
from mmretrieve.options import OptionEnum, check_count, is_number

FLAT, FLAT_FLOAT32 = "SQfp16", "Flat"  # all vectors in float16, in float32
EXACT_FACTORIES = frozenset({FLAT, FLAT_FLOAT32})  # they score every vector as it is stored
MAX_GPU_K = 2048  # limit of k and of searched cells on a GPU (FAISS 1.15)
NAMES_IN_FILES = {"nprobe": "probes"}  # of search parameters that JSON files spell differently


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

    def widened(self, times: float, cells: int | None) -> SearchParams:
        """Returns the parameters of a search through `times` as many of the cells, or as much of a graph."""
        nprobe = None if self.nprobe is None else min(cells or 1, ceil(times * self.nprobe))
        return replace(self, nprobe=nprobe, ef=None if self.ef is None else ceil(times * self.ef))

    def to_dict(self) -> dict[str, float | None]:
        """For JSON files, where `nprobe` is spelled "probes"."""
        return {NAMES_IN_FILES.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchParams:
        """From what `to_dict` returns, also where an earlier version wrote fewer parameters."""
        names = {NAMES_IN_FILES.get(field.name, field.name): field.name for field in fields(cls)}
        return cls(**{names[key]: value for key, value in data.items() if key in names})


def default_params(plan: IndexPlan, cells: int | None) -> SearchParams:
    """Returns the parameters of an index that was not tuned: those that reached a recall@10 of 0.99 at a million items, with a margin."""
    if plan.exact:
        return SearchParams()
    nprobe, ef = max(1, cells // 16) if cells else None, 128 if "HNSW" in plan.factory else None
    return SearchParams(nprobe, ef, overfetch=20 if "RaBitQ" in plan.factory else 2)
