"""What a search needs of the place where items are held, be it a folder on this machine or a server."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmretrieve import scoring
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import OptionError
from mmretrieve.filters import Expression
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import Item
from mmretrieve.gallery.vocabularies import GalleryVocabulary
from mmretrieve.vectors import Float32
from mmretrieve.weighting import Spread

EXCLUDED, FILTERED = "excluded", "hidden by the filter"
Rows = NDArray[np.int64]  # items by number, in insertion order


@dataclass(frozen=True)
class SearchOptions:
    """What ends a ranking: k, ids that are hidden, a filter that items must fulfil, and a lowest score."""

    k: int
    exclude: Collection[str] = ()
    min_score: float | None = None
    where: Expression | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", scoring.check_k(self.k))


@dataclass(frozen=True)
class CandidateFilter:
    """Which items may appear, as their place knows them; how many they are, and how many were hidden, by what hid them."""

    which: Any
    count: int
    hidden: Mapping[str, int]

    @classmethod
    def of(cls, which: Any, count: int, matching: int, all_: int) -> CandidateFilter:
        """`matching` of all items fulfil the filter, and `count` of those are not excluded."""
        hidden = {EXCLUDED: matching - count, FILTERED: all_ - matching}
        return cls(which, count, {why: number for why, number in hidden.items() if number})


@dataclass(frozen=True)
class ItemPage:
    """Some of the `total` items that fulfil what was asked."""

    items: list[Item]
    total: int


class GalleryView(Protocol):
    """What a search needs: one version of the items. Their rows grow in insertion order, which decides between equal scores."""

    dim: int
    name: str

    def __len__(self) -> int: ...

    def allowed(self, options: SearchOptions) -> CandidateFilter: ...

    def rows_allowed(self, allowed: CandidateFilter) -> Rows:
        """All rows that may appear, in order."""

    def candidates(self, queries_qd: Float32, wanted: int, allowed: CandidateFilter) -> Rows:
        """Rows, in order, that hold the `wanted` best of each query among those that may appear, as far as the place can tell."""

    def scores(self, vectors_qd: Float32, rows: Rows) -> Float32:
        """(q, m) inner products with those rows."""

    def items_of(self, rows: Rows) -> list[Item]: ...

    def rows_of(self, ids: Collection[str]) -> Rows:
        """Their rows, in that order. GalleryError for an unknown one, OptionError for what is no list of ids."""


class StoredView(GalleryView, Protocol):
    """What `GalleryBase` needs besides."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def rows(self) -> Rows:
        """(n,) all of them, in order."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    @property
    def spread(self) -> Spread: ...

    @property
    def vocabulary(self) -> GalleryVocabulary:
        """The one that was chosen, else the one found in the fields of the items."""

    def vectors_of(self, rows: Rows) -> Float32: ...

    def copies(self, hashes: Sequence[str]) -> list[list[str]]:
        """For each content hash the ids of the items whose picture has it, in insertion order."""

    def same_content(self) -> list[tuple[str, ...]]:
        """Groups of ids whose files have the same bytes, each in insertion order, and so are the groups."""

    def near(self, min_score: float, progress: Progress | None = None) -> list[tuple[str, ...]]:
        """Groups of ids that hang together by pairs scoring at least that, as above."""


def check_ids(ids: Collection[str]) -> Collection[str]:
    """OptionError for what is no list of ids."""
    if isinstance(ids, str):
        raise OptionError(f"expected a list of ids, got one string {ids!r}")
    if not isinstance(ids, Collection) or not all(isinstance(id_, str) for id_ in ids):
        raise OptionError(f"expected a list of ids, got {ids!r}")
    return ids
