"""How many records a file holds, beside how many the released one does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmretrieve import MMRetrieveError

NEAR = 0.1  # a file that is short of the released one by less than this share is taken for a damaged one


@dataclass(frozen=True)
class RecordCount:
    """How many records a file holds, and how many the released one does."""

    path: Path
    found: int
    released: int

    @property
    def near(self) -> bool:
        return abs(self.found - self.released) < NEAR * self.released


def counted(layout: str, queries: RecordCount, images: RecordCount) -> str | None:
    """None where the counts are the released ones; a remark where it is another data set in the same `layout`.

    Raises MMRetrieveError, naming the file, where both counts are nearly the released ones: that is the released set, damaged.
    """
    wrong = [count for count in (queries, images) if count.found != count.released]
    if not wrong:
        return None
    if queries.near and images.near:
        raise MMRetrieveError(
            f"{wrong[0].path}: damaged: expected {wrong[0].released} records, found {wrong[0].found}; take the released file again"
        )
    return (
        f"{queries.found:,} queries over {images.found:,} images in {layout}'s layout: "
        f"not the released {layout} ({queries.released:,} over {images.released:,})"
    )
