"""Which items `sync` may delete. A source that is away, such as a disk that is not mounted, must not be taken for an empty one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from mmretrieve.errors import OptionError
from mmretrieve.options import is_number

MAX_REMOVAL = 0.1  # of the items of a source, unless more is allowed


def check_allow_removal(share: object) -> float | None:
    """The share as a float, or None. Raises OptionError for anything else."""
    if share is None:
        return None
    if not is_number(share) or not 0 <= float(share) <= 1:  # type: ignore[arg-type]
        raise OptionError(f"allow_removal must be a number from 0 to 1, got {share!r:.80}")
    return float(share)  # type: ignore[arg-type]


def removal_problem(ids: Mapping[int, str], missing: Collection[int], allowed: float | None) -> str | None:
    """Why the missing items must not be deleted; None if they may be.

    By default at most MAX_REMOVAL of the items may be missing, and not all items of a folder that had two or more.

    Parameters
    ----------
    ids : mapping of int to str
        Row → id of the items of the source.
    missing : collection of int
        Rows of the items that the source does not have any more.
    allowed : float, optional
        The share of the items that may be deleted, whole folders included.
    """
    share = len(missing) / max(1, len(ids))
    remedy = f"if they were deleted on purpose, allow it with allow_removal={math.ceil(share * 100) / 100:g}"
    if share > (MAX_REMOVAL if allowed is None else allowed):
        return (
            f"{len(missing):,} of the {len(ids):,} items of this source are missing, as if a disk or share were away; {remedy}"
        )
    totals = Counter(folder for id_ in ids.values() for folder in _folders(id_))
    lost = Counter(folder for row in missing for folder in _folders(ids[row]))
    gone = next((folder for folder, count in lost.items() if 1 < count == totals[folder]), None)
    if allowed is None and gone is not None:
        return f"all {lost[gone]:,} items of the folder {gone!r} are missing, as if its disk were not mounted; {remedy}"
    return None


def _folders(id_: str) -> Iterator[str]:
    """The folders of a path, outermost first.

    >>> list(_folders("a/b/c.png"))
    ['a', 'a/b']
    """
    position = id_.find("/")
    while position >= 0:
        yield id_[:position]
        position = id_.find("/", position + 1)
