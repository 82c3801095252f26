"""What a search needs of the place where items are held, be it a folder on this machine or a server."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmretrieve import scoring
from mmretrieve.gallery.store.records import Item
from mmretrieve.vectors import Float32

EXCLUDED, FILTERED = "excluded", "hidden by the filter"
Rows = NDArray[np.int64]  # items by number, in insertion order


@dataclass(frozen=True)
class Cut:
    """What ends a ranking: k, ids that are hidden, an SQL expression that items must fulfil, and a lowest score."""

    k: int
    exclude: Collection[str] = ()
    min_score: float | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", scoring.check_k(self.k))


@dataclass(frozen=True)
class Allowed:
    """Which items may appear, as their place knows them; how many they are, and how many were hidden, by what hid them."""

    which: Any
    count: int
    hidden: Mapping[str, int]

    @classmethod
    def of(cls, which: Any, count: int, matching: int, all_: int) -> Allowed:
        """`matching` of all items fulfil the filter, and `count` of those are not excluded."""
        hidden = {EXCLUDED: matching - count, FILTERED: all_ - matching}
        return cls(which, count, {why: number for why, number in hidden.items() if number})


class Held(Protocol):
    """Items at one moment. Their rows grow in insertion order, which decides between equal scores."""

    dim: int
    name: str

    def __len__(self) -> int: ...

    def allowed(self, cut: Cut) -> Allowed: ...

    def rows_allowed(self, allowed: Allowed) -> Rows:
        """All rows that may appear, in order."""

    def proposals(self, queries_qd: Float32, wanted: int, allowed: Allowed) -> Rows:
        """Rows, in order, that hold the `wanted` best of each query among those that may appear, as far as the place can tell."""

    def scores(self, vectors_qd: Float32, rows: Rows) -> Float32:
        """(q, m) inner products with those rows."""

    def items_of(self, rows: Rows) -> list[Item]: ...
