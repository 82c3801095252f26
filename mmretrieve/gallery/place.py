"""Where the bytes of a picture lie: in a file of their own, or inside one that holds many. Read in place, nothing is unpacked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """`path` is the file; `part` says which bytes of it, and is None for all of them.

    "tar:OFFSET:SIZE" are the bytes of a member of an uncompressed tar, "parquet:ROW:COLUMN" the value of a cell, COLUMN
    being "image.bytes" for a field of a struct.
    """

    path: str
    part: str | None = None
