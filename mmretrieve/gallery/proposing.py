"""Which rows can be among the best of those that may appear: the index proposes, and what it cannot see is added.

An index knows nothing of deleted, excluded or filtered items. So it is asked for more than is wanted, until enough of what
it says may appear; where few may, or too few turn up, all that may appear are scored instead.
"""

from __future__ import annotations

import numpy as np

from mmretrieve.gallery.held import Rows
from mmretrieve.gallery.index import FaissIndex
from mmretrieve.vectors import Float32

GATHER = 4_096  # where something is hidden, and up to so many rows are not, scoring them all is quicker than any index
RARE = 0.01  # and so it is where no more than this share of the gallery may appear
WIDEST = 16  # times what should be enough; then all that may appear are scored


def proposals(index: FaissIndex, queries_qd: Float32, wanted: int, allowed: Rows, live: int) -> Rows:
    """Rows, in order, that hold the `wanted` best of each query among the allowed of `live` rows, as far as the index can tell."""
    if len(allowed) <= wanted or (len(allowed) < live and len(allowed) <= max(GATHER, RARE * live)):
        return allowed
    seen, unseen = np.split(allowed, [np.searchsorted(allowed, len(index))])
    if len(seen) <= wanted:
        return allowed
    found = [_proposed(index, query, wanted, seen) for query in queries_qd]
    if any(rows is None for rows in found):
        return allowed
    return np.union1d(np.concatenate([rows for rows in found if rows is not None]), unseen)


def _proposed(index: FaissIndex, query_d: Float32, wanted: int, allowed: Rows) -> Rows | None:
    """At least the wanted ones of the allowed rows; None where the index would have to be asked for nearly everything."""
    reach = fair = -(-wanted * len(index) // len(allowed))
    while reach <= min(WIDEST * fair, index.max_k or len(index)):
        (rows,) = index.search(query_d[None], min(reach, len(index)))
        kept: Rows = rows[_is_in(rows, allowed)]
        if len(kept) >= wanted:
            return kept
        reach *= 4
    return None


def _is_in(rows: Rows, among: Rows) -> np.ndarray:
    """For each row whether it is one of those, which are sorted."""
    places = np.minimum(np.searchsorted(among, rows), len(among) - 1)
    return np.asarray(among[places] == rows)
