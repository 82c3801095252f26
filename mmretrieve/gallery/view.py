"""What is searched: the protocol `GalleryView`, the options of a search, and `StoredView`, which stored galleries share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmretrieve.concurrency import once
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import OptionError
from mmretrieve.filters.expression import Expression
from mmretrieve.forks import fork_safe_lock
from mmretrieve.gallery import vocabularies
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import Item
from mmretrieve.gallery.vocabularies import AutomaticVocabulary, GalleryVocabulary
from mmretrieve.options import DEFAULT_K, check_count, is_number
from mmretrieve.request import SearchRequest
from mmretrieve.sources.base import Value
from mmretrieve.vectors import Float32
from mmretrieve.weighting import Spread

EXCLUDED, FILTERED = "excluded", "hidden by the filter"
SPREAD_SAMPLE_SIZE = 50_000  # items from which the spread is computed
Rows = NDArray[np.int64]  # row numbers, in insertion order
NO_ROWS: Rows = np.empty(0, np.int64)


@dataclass(frozen=True)
class SearchOptions:
    """Which items a ranking may contain, and how many.

    Parameters
    ----------
    k : int, default=10
        The number of hits, at least 1. There are fewer if fewer items match.
    exclude : collection of str, optional
        Ids of items that must not appear.
    min_score : float, optional
        The lowest score of a hit.
    where : Expression, optional
        The filter that items must match.
    depth : int, default=0
        The number of hits if that is more than `k`: a judge looks at these.

    Raises
    ------
    OptionError
        If k is not a whole number of at least 1, `exclude` is not a list of ids, or `min_score` is not a number.
    """

    k: int = DEFAULT_K
    exclude: Collection[str] = ()
    min_score: float | None = None
    where: Expression | None = None
    depth: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_count("k", self.k))
        check_ids(self.exclude)
        if self.min_score is not None and not is_number(self.min_score):
            raise OptionError(f"min_score must be a finite number, got {self.min_score!r}")

    @classmethod
    def of(cls, request: SearchRequest, hidden: Collection[str] = ()) -> SearchOptions:
        """The options of a request. `hidden` are ids that are excluded in addition to those that it names."""
        depth = 0 if request.judge is None else request.judge_k
        return cls(request.k, [*request.exclude, *hidden], request.min_score, request.where, depth)

    @property
    def n_hits(self) -> int:
        """The number of hits, if as many match."""
        return max(self.k, self.depth)


@dataclass(frozen=True)
class CandidateFilter:
    """The items that may appear, their number, and how many items are hidden, by reason.

    `selection` is the form that the view uses: rows, or an expression of Milvus.
    """

    selection: Any
    count: int
    hidden: Mapping[str, int]

    @classmethod
    def of(cls, selection: Any, count: int, total: int) -> CandidateFilter:
        """`count` of `total` items match a filter."""
        return cls(selection, count, {FILTERED: total - count} if count < total else {})

    def narrowed(self, selection: Any, count: int) -> CandidateFilter:
        """`count` of these items remain after others were excluded."""
        return CandidateFilter(
            selection, count, {EXCLUDED: self.count - count, **self.hidden} if count < self.count else self.hidden
        )


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

    def matching(self, where: Expression | None) -> CandidateFilter:
        """Returns the items that match a filter; all for None."""

    def without(self, allowed: CandidateFilter, rows: Rows) -> CandidateFilter:
        """Returns these items without the given rows, of which some may not be among them."""

    def rows_allowed(self, allowed: CandidateFilter) -> Rows:
        """Returns all rows that may appear, in order."""

    def candidates(self, queries_qd: Float32, k: int, allowed: CandidateFilter) -> list[Rows]:
        """Returns for each query rows, in order, with its k best among those that may appear, as far as an index can tell."""

    def scores(self, vectors_qd: Float32, rows: Rows) -> Float32:
        """Returns (q, m) inner products of q vectors and m rows."""

    def approximate_scores(self, vectors_qd: Float32, rows: Rows) -> Float32:
        """Returns what `scores` does, with errors of about 1e-7 if that is faster."""

    def ids_and_paths(self, rows: Rows) -> list[tuple[str, str]]:
        """Returns the id and the path of each row, in their order."""

    def rows_of(self, ids: Collection[str]) -> Rows:
        """Returns the rows of ids, in their order. Raises GalleryError for an unknown id, OptionError unless `ids` is a list of strings."""


class StoredView(GalleryView, ABC):
    """A view of a stored gallery. In addition to what a search needs it has what `GalleryBase` reads; large values are cached."""

    def __init__(self, automatic: AutomaticVocabulary | None = None) -> None:
        """`automatic` is the vocabulary that was detected in an earlier version."""
        self.once_lock, self._earlier_automatic = fork_safe_lock(), automatic

    @property
    @abstractmethod
    def manifest(self) -> Manifest: ...

    @property
    @abstractmethod
    def rows(self) -> Rows:
        """(n,) all rows, in order."""

    @property
    @abstractmethod
    def ids(self) -> tuple[str, ...]:
        """The ids of all rows, in order."""

    @abstractmethod
    def items_of(self, rows: Rows) -> list[Item]:
        """Returns the items of rows, in their order."""

    @abstractmethod
    def vectors_of(self, rows: Rows) -> Float32:
        """Returns (m, dim) unit float32 vectors of m rows."""

    def approximate_scores(self, vectors_qd: Float32, rows: Rows) -> Float32:
        return self.scores(vectors_qd, rows)

    @abstractmethod
    def copies(self, hashes: Sequence[str]) -> list[list[str]]:
        """Returns for each content hash the ids of the items with it, in insertion order."""

    @abstractmethod
    def same_content(self) -> list[tuple[str, ...]]:
        """Returns groups of ids with equal files; ids and groups are in insertion order."""

    @abstractmethod
    def near(self, min_score: float, progress: Progress | None = None) -> list[tuple[str, ...]]:
        """Returns groups of ids that are connected by pairs with at least this score, in the same order."""

    @once
    def vectors(self) -> Float32:
        """(n, dim) unit float32 vectors of all items."""
        return self.vectors_of(self.rows)

    @once
    def spread(self) -> Spread:
        """The mean and covariance of the vectors; in a large gallery, of SPREAD_SAMPLE_SIZE evenly spaced items."""
        return Spread.of(self.vectors_of(self.rows[:: max(1, len(self) // SPREAD_SAMPLE_SIZE)]))

    @once
    def vocabulary(self) -> GalleryVocabulary:
        """The chosen vocabulary, otherwise the one detected in the fields of the items."""
        return self.manifest.vocabulary or GalleryVocabulary(self._automatic.vocabulary)

    @once
    def _automatic(self) -> AutomaticVocabulary:
        earlier, types = self._earlier_automatic, self.manifest.fields
        if earlier is not None and earlier.is_valid_for(types, len(self)):
            return earlier
        return AutomaticVocabulary.detect(self.sample_fields() if types else [], types, len(self))

    def sample_fields(self) -> list[Mapping[str, Value]]:
        """Returns the fields of at most vocabularies.MAX_ITEMS items, evenly spaced."""
        rows = self.rows[:: max(1, -(-len(self) // vocabularies.MAX_ITEMS))]
        return [item.fields for item in self.items_of(rows)]

    @property
    def detected_vocabulary(self) -> AutomaticVocabulary | None:
        """The vocabulary detected in this version, or in an earlier one; None if none was needed yet."""
        automatic: AutomaticVocabulary | None = self.__dict__.get("_automatic", self._earlier_automatic)
        return automatic


def shown_rows(rows: Rows, hidden: Rows) -> NDArray[np.bool_]:
    """(m,) which of m rows, in order, are not hidden.

    >>> shown_rows(np.array([2, 5, 7]), np.array([7, 3]))
    array([ True,  True, False])
    """
    shown = np.ones(len(rows), dtype=bool)
    shown[positions_among(rows, hidden)] = False
    return shown


def distinct(rows: Rows) -> Rows:
    """Returns the rows in order, each once, as `np.unique` does in ten times the time.

    >>> distinct(np.array([7, 2, 7]))
    array([2, 7])
    """
    ordered, is_first = np.sort(rows), np.ones(len(rows), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first]


def positions_among(rows: Rows, wanted: Rows) -> NDArray[np.intp]:
    """Returns the positions in `rows`, which are in order, of those wanted rows that are among them.

    >>> positions_among(np.array([2, 5, 7]), np.array([7, 3, 5]))
    array([2, 1])
    """
    wanted = wanted[wanted <= rows[-1:].max(initial=-1)]
    positions = np.searchsorted(rows, wanted)
    return np.asarray(positions[rows[positions] == wanted])


def row_batches(rows: Rows, size: int) -> Iterator[Rows]:
    """Yields the rows in batches of `size`; the last may be smaller."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def check_ids(ids: Collection[str]) -> Collection[str]:
    """Returns the ids. Raises OptionError unless they are a list of strings."""
    if isinstance(ids, str):
        raise OptionError(f"expected a list of ids, got one string {ids!r}")
    if not isinstance(ids, Collection):
        raise OptionError(f"expected a list of ids, got {ids!r:.80}")
    if others := [id_ for id_ in ids if not isinstance(id_, str)]:
        raise OptionError(f"ids must be text, got {others[0]!r:.80}")
    return ids
