"""Which rows can be among the best of those that may appear: the index proposes, and what it cannot see is added.

An index knows nothing of deleted, excluded or filtered items. So it is asked for more than is wanted, until enough of what
it says may appear; where few may, or too few turn up, all that may appear are scored instead.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.view import Rows
from mmretrieve.vectors import Float32

MAX_SCORED_ROWS = 1_024  # where something is hidden, and up to so many rows are not, scoring them all is quicker than any index
MAX_SCORED_SHARE = 0.01  # and so it is where no more than this share of the gallery may appear
MAX_FETCH_FACTOR = 16  # times what should be enough; then all that may appear are scored


def find_candidates(index: FaissIndex, queries_qd: Float32, wanted: int, rows: Rows, excluded: int, live: int) -> Rows:
    """Rows, in order, that hold the `wanted` best of each query among `rows`, as far as the index can tell.

    `rows` are those of `live` items that may appear; `excluded` counts those that were named, which are mostly near the query.
    """
    if len(rows) <= wanted or (len(rows) < live and len(rows) <= max(MAX_SCORED_ROWS, MAX_SCORED_SHARE * live)):
        return rows
    seen, unseen = np.split(rows, [np.searchsorted(rows, len(index))])
    if len(seen) <= wanted:
        return rows
    share = min(1.0, (len(seen) + excluded) / len(index))
    candidates = _candidates(index, queries_qd, wanted, ceil((wanted + excluded) / share), seen)
    return rows if candidates is None else np.union1d(candidates, unseen)


def _candidates(index: FaissIndex, queries_qd: Float32, wanted: int, expected_k: int, rows: Rows) -> Rows | None:
    """At least the wanted ones of `rows` for each query, from its `expected_k` best or more; None where nearly everything would have to be asked for.

    All queries are asked at once, and those that get too few again for more.
    """
    fetch_k, kept = expected_k, [np.empty(0, np.int64)]
    while len(queries_qd) and fetch_k <= min(MAX_FETCH_FACTOR * expected_k, index.max_k or len(index)):
        proposed = index.wider(fetch_k / wanted).search(queries_qd, min(fetch_k, len(index)))
        shown = [some[_is_in(some, rows)] for some in proposed]
        enough = np.array([len(some) >= wanted for some in shown])
        kept += [some for some, is_enough in zip(shown, enough, strict=True) if is_enough]
        queries_qd, fetch_k = queries_qd[~enough], 4 * fetch_k
    return None if len(queries_qd) else np.concatenate(kept)


def _is_in(rows: Rows, among: Rows) -> np.ndarray:
    """For each row whether it is one of those, which are sorted."""
    places = np.minimum(np.searchsorted(among, rows), len(among) - 1)
    return np.asarray(among[places] == rows)
