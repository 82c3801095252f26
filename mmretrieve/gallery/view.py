"""What a search needs of a gallery: the protocol `GalleryView`, and the options of a search."""

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
Rows = NDArray[np.int64]  # row numbers, in insertion order


@dataclass(frozen=True)
class SearchOptions:
    """The limits of a ranking: k, ids that must not appear, the lowest score, and a filter."""

    k: int
    exclude: Collection[str] = ()
    min_score: float | None = None
    where: Expression | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", scoring.check_k(self.k))


@dataclass(frozen=True)
class CandidateFilter:
    """Which items may appear, in the form that the view uses; their number; and how many items are hidden, by reason."""

    which: Any
    count: int
    hidden: Mapping[str, int]

    @classmethod
    def of(cls, which: Any, count: int, matching: int, all_: int) -> CandidateFilter:
        """`matching` of `all_` items match the filter, and `count` of these are not excluded."""
        hidden = {EXCLUDED: matching - count, FILTERED: all_ - matching}
        return cls(which, count, {why: number for why, number in hidden.items() if number})


@dataclass(frozen=True)
class ItemPage:
    """A part of the `total` items that match a filter."""

    items: list[Item]
    total: int


class GalleryView(Protocol):
    """What a search needs: one version of the items. Row numbers grow in insertion order, which breaks ties."""

    dim: int
    name: str

    def __len__(self) -> int: ...

    def allowed(self, options: SearchOptions) -> CandidateFilter: ...

    def rows_allowed(self, allowed: CandidateFilter) -> Rows:
        """Returns all rows that may appear, in order."""

    def candidates(self, queries_qd: Float32, wanted: int, allowed: CandidateFilter) -> Rows:
        """Returns rows, in order, with the `wanted` best of each query among those that may appear, as far as an index can tell."""

    def scores(self, vectors_qd: Float32, rows: Rows) -> Float32:
        """Returns (q, m) inner products of q vectors and m rows."""

    def items_of(self, rows: Rows) -> list[Item]: ...

    def rows_of(self, ids: Collection[str]) -> Rows:
        """Returns their rows, in order. GalleryError for an unknown id, OptionError unless `ids` is a list of strings."""


class StoredView(GalleryView, Protocol):
    """What `GalleryBase` needs in addition."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def rows(self) -> Rows:
        """(n,) all rows, in order."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    @property
    def spread(self) -> Spread: ...

    @property
    def vocabulary(self) -> GalleryVocabulary:
        """The chosen vocabulary, otherwise the one detected in the fields."""

    def vectors_of(self, rows: Rows) -> Float32: ...

    def copies(self, hashes: Sequence[str]) -> list[list[str]]:
        """Returns for each content hash the ids of the items with it, in insertion order."""

    def same_content(self) -> list[tuple[str, ...]]:
        """Returns groups of ids with equal files; ids and groups are in insertion order."""

    def near(self, min_score: float, progress: Progress | None = None) -> list[tuple[str, ...]]:
        """Returns groups of ids that are connected by pairs with at least this score, in the same order."""


def check_ids(ids: Collection[str]) -> Collection[str]:
    """Returns the ids. Raises OptionError unless they are a list of strings."""
    if isinstance(ids, str):
        raise OptionError(f"expected a list of ids, got one string {ids!r}")
    if not isinstance(ids, Collection) or not all(isinstance(id_, str) for id_ in ids):
        raise OptionError(f"expected a list of ids, got {ids!r}")
    return ids
