"""Finds images that a gallery contains more than once: equal files, or vectors that are nearly equal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import OptionError
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.view import Rows, StoredView, positions_among
from mmretrieve.options import is_number
from mmretrieve.scoring import term_scores
from mmretrieve.vectors import Float32

QUERY_BATCH_SIZE = 1_024  # items whose neighbors are searched at once
MIN_NEIGHBORS = 16  # k of the first search; larger if all of them are near


def find_near(view: StoredView, index: FaissIndex, min_score: float, progress: Progress | None = None) -> list[tuple[str, ...]]:
    """Returns groups of ids that are connected by pairs with a cosine of at least `min_score`, in insertion order.

    The index proposes neighbors; an exact one misses none. Raises OptionError unless 0 < min_score ≤ 1.
    """
    return group_neighbors(view, lambda rows: _find_neighbors(view, index, rows, min_score), min_score, progress)


def group_neighbors(
    view: StoredView, neighbors: Callable[[Rows], list[Rows]], min_score: float, progress: Progress | None
) -> list[tuple[str, ...]]:
    """The same with any source of neighbors: `neighbors(rows)` returns for each row all rows that score at least `min_score` with it."""
    if not is_number(min_score) or not 0 < min_score <= 1:
        raise OptionError(f"min_score must be a number above 0 and up to 1, got {min_score!r}")
    parents = np.arange(len(view))
    for start in range(0, len(view), QUERY_BATCH_SIZE):
        rows = view.rows[start : start + QUERY_BATCH_SIZE]
        for position, row in enumerate(neighbors(rows), start):
            for neighbor in np.searchsorted(view.rows, row):
                _join(parents, position, int(neighbor))
        if progress is not None:
            progress(len(rows))
    return _groups(view, parents)


def _find_neighbors(view: StoredView, index: FaissIndex, rows: Rows, min_score: float) -> list[Rows]:
    """Returns for each row the live rows that score at least `min_score` with it, as far as the index can tell."""
    queries, max_k = view.vectors_of(rows), index.max_k or len(index)
    uncovered = view.rows[np.searchsorted(view.rows, len(index)) :]
    neighbors: list[Rows] = []
    for query, proposed in zip(queries, index.search(queries, min(MIN_NEIGHBORS, max_k)), strict=True):
        k, near = MIN_NEIGHBORS, _rows_near(view, query, proposed, min_score)
        while len(near) == len(proposed) and k < max_k:
            k *= 4
            (proposed,) = index.search(query[None], min(k, max_k))
            near = _rows_near(view, query, proposed, min_score)
        live = view.rows[positions_among(view.rows, near)]
        neighbors.append(np.concatenate([live, _rows_near(view, query, uncovered, min_score)]))
    return neighbors


def _rows_near(view: StoredView, query_d: Float32, rows: Rows, min_score: float) -> Rows:
    near: Rows = rows[term_scores(query_d[None], view.vectors_of(rows))[0] >= np.float32(min_score)]
    return near


def _join(parents: Rows, one: int, other: int) -> None:
    """Joins the groups of two positions. The first position of a group represents it."""
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first


def _root(parents: Rows, position: int) -> int:
    while parents[position] != position:
        parents[position] = parents[parents[position]]
        position = int(parents[position])
    return position


def _groups(view: StoredView, parents: Rows) -> list[tuple[str, ...]]:
    """Returns the ids of each group of two or more."""
    roots = np.array([_root(parents, position) for position in range(len(parents))], dtype=np.int64)
    shared = np.flatnonzero(np.bincount(roots, minlength=1)[roots] > 1)
    members = shared[np.argsort(roots[shared], kind="stable")]
    starts = np.flatnonzero(np.diff(roots[members])) + 1
    return [tuple(view.ids[position] for position in group) for group in np.split(members, starts) if len(group)]
