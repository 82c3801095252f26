"""What a gallery keeps of an item, and which items it holds at one moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import GalleryError
from mmretrieve.sources.base import Value
from mmretrieve.sources.location import Location

UNSEEN = "vector:"  # begins the hash of an item whose picture was never read: it is its vector's


class StaleViewError(GalleryError):
    """The gallery was compacted while it was read: rows have other numbers now, and what is asked must be asked anew."""


@dataclass(frozen=True)
class Item:
    """One picture of a gallery: where it was when it was added, its content's hash, its size, and what else is known of it."""

    id: str
    place: Location
    hash: str
    width: int | None = None
    height: int | None = None
    fields: Mapping[str, Value] = field(default_factory=dict)
    source: str = ""  # which source it came from
    stamp: str = ""  # the state of its file then

    @property
    def path(self) -> str:
        return self.place.path


@dataclass(frozen=True)
class StoredChecksums:
    """CRC-32 of an item's vector and of its thumbnail, and where that lies; its size is 0 where there is none."""

    vector: int
    thumbnail: int = 0
    thumbnail_at: int = 0
    thumbnail_size: int = 0


@dataclass(frozen=True)
class ItemRecord:
    """An item as the ledger keeps it. `died` is 0 while it lives; `seal` is the checksum that was written with it."""

    row: int
    item: Item
    kept: StoredChecksums
    died: int = 0
    seal: int = 0

    def values(self) -> tuple[Value, ...]:
        """In the order of the table's columns, the seal last."""
        item, kept = self.item, self.kept
        own = (self.row, item.id, item.path, item.place.part, item.hash, item.width, item.height, item.source, item.stamp)
        place = (kept.vector, kept.thumbnail, kept.thumbnail_at, kept.thumbnail_size, self.died)
        given = sorted((name, value) for name, value in item.fields.items() if value is not None)
        return *own, *place, crc32(json.dumps([own, place, given]).encode())


@dataclass(frozen=True)
class StoreVersion:
    """What a gallery holds at one generation: of `total` rows all but the dead ones."""

    epoch: int
    generation: int
    total: int
    dead: NDArray[np.int64]

    def rows(self) -> NDArray[np.int64]:
        """(n,) the live rows, in insertion order."""
        return np.delete(np.arange(self.total, dtype=np.int64), self.dead)

    @property
    def lives(self) -> str:
        """The SQL condition that an item is part of it, whatever happened since."""
        return f"(items.died = 0 OR items.died > {self.generation}) AND items.row < {self.total}"
