"""Candidate rows of a search: the index proposes them, and rows that it does not cover are added.

If few rows pass the filter, they are all scored. If less than a third passes, the index is limited to them. Otherwise, and on a GPU, it knows
nothing of deleted, excluded or filtered items: it is asked for more rows than are needed, until enough of them pass, or all are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.view import Rows
from mmretrieve.vectors import Float32

MAX_SCORED_ROWS = 1_024  # under a filter: scoring up to so many rows is faster than an index
MAX_SCORED_SHARE = 0.01  # under a filter: the same for this share of the gallery
MAX_SELECTED_SHARE = 1 / 3  # of the rows: an index is limited to so many; with more, checking each takes longer
MAX_FETCH_FACTOR = 16  # of `fetch_k` over `expected_k`; beyond it all rows are scored


def find_candidates(index: FaissIndex, queries_qd: Float32, k: int, rows: Rows, excluded: int, live: int) -> list[Rows]:
    """Returns for each query rows, in order, that contain its k best among `rows`, as far as the index can tell.

    `rows` are the rows that pass the filter, of `live` items. `excluded` is the number of excluded ids, which are mostly near the query.
    """
    if len(rows) <= k or (len(rows) < live and len(rows) <= max(MAX_SCORED_ROWS, MAX_SCORED_SHARE * live)):
        return [rows] * len(queries_qd)
    n_covered = len(rows) if rows[-1] < len(index) else int(np.searchsorted(rows, len(index)))
    covered, uncovered = rows if n_covered == len(rows) else rows[:n_covered], rows[n_covered:]
    if len(covered) <= k:
        return [rows] * len(queries_qd)
    share = min(1.0, (len(covered) + excluded) / len(index))
    if share <= MAX_SELECTED_SHARE and index.can_select:
        proposals: Sequence[Rows | None] = index.among(covered).search(queries_qd, k)
    else:
        among = covered if len(covered) < len(index) else None
        proposals = _propose(index, queries_qd, k, ceil((k + excluded) / share), among)
    return [rows if found is None else np.concatenate([np.sort(found), uncovered]) for found in proposals]


def _propose(index: FaissIndex, queries_qd: Float32, k: int, expected_k: int, rows: Rows | None) -> list[Rows | None]:
    """Returns for each query at least k of `rows`, or of all rows for None; None if the index would have to propose nearly everything.

    All queries are searched at once with k = `expected_k`; those with too few results are searched again with a larger k.
    """
    fetch_k, results, missing = expected_k, dict[int, Rows](), list(range(len(queries_qd)))
    while missing and fetch_k <= min(MAX_FETCH_FACTOR * expected_k, index.max_k or len(index)):
        proposals = index.wider(fetch_k / k).search(queries_qd[missing], min(fetch_k, len(index)))
        passing = proposals if rows is None else [found[_is_in(found, rows)] for found in proposals]
        results |= {i: found for i, found in zip(missing, passing, strict=True) if len(found) >= k}
        missing = [i for i in missing if i not in results]
        fetch_k *= 4
    return [results.get(i) for i in range(len(queries_qd))]


def _is_in(rows: Rows, among: Rows) -> NDArray[np.bool_]:
    """Returns for each row whether it is in the sorted `among`."""
    if among[-1] - among[0] == len(among) - 1:  # all between them
        return np.asarray((rows >= among[0]) & (rows <= among[-1]))
    positions = np.minimum(np.searchsorted(among, rows), len(among) - 1)
    return np.asarray(among[positions] == rows)
