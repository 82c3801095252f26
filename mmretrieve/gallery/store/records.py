"""What a gallery keeps of an item, and which items it holds at one moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import folded
from mmretrieve.options import Choice
from mmretrieve.sources.base import Value
from mmretrieve.sources.location import Location
from mmretrieve.sources.values import is_text

ITEM_COLUMNS = 9  # of the table, the rest are about its files
UNSEEN = "vector:"  # begins the hash of an item whose picture was never read: it is its vector's
RESERVED = "_row"
INT64 = 2**63


class FieldType(Choice):
    """What a field holds; decided by the first value that it gets."""

    NUMBER = "number"
    TEXT = "text"


class StaleViewError(GalleryError):
    """The gallery was compacted while it was read: rows have other numbers now, and what is asked must be asked anew."""


@dataclass(frozen=True)
class Item:
    """One picture of a gallery: where it was when it was added, its content's hash, its size, and what else is known of it."""

    id: str
    location: Location
    hash: str
    width: int | None = None
    height: int | None = None
    fields: Mapping[str, Value] = field(default_factory=dict)
    source: str = ""  # which source it came from
    fingerprint: str = ""  # the state of its file then

    @property
    def path(self) -> str:
        return self.location.path


@dataclass(frozen=True)
class ExistingItem:
    """What a copy must know of an item that is there: its row, its content hash and, of a collection, its entry as text."""

    row: int
    hash: str
    text: str = ""


@dataclass(frozen=True)
class StoredChecksums:
    """CRC-32 of an item's vector and of its thumbnail, and where that lies; its size is 0 where there is none."""

    vector: int
    thumbnail: int = 0
    thumbnail_at: int = 0
    thumbnail_size: int = 0


@dataclass(frozen=True)
class ItemRecord:
    """An item as the ledger keeps it. `died` is 0 while it lives, `written_checksum` what was committed with it."""

    row: int
    item: Item
    stored: StoredChecksums
    died: int = 0
    written_checksum: int = 0

    @property
    def values(self) -> tuple[Value, ...]:
        """In the order of the table's columns, all but the last, which is the checksum."""
        item, stored = self.item, self.stored
        known = (
            self.row,
            item.id,
            item.path,
            item.location.member,
            item.hash,
            item.width,
            item.height,
            item.source,
            item.fingerprint,
        )
        return *known, stored.vector, stored.thumbnail, stored.thumbnail_at, stored.thumbnail_size, self.died

    @property
    def checksum(self) -> int:
        """CRC-32 of all values, those of the fields too."""
        fields = sorted((name, value) for name, value in self.item.fields.items() if value is not None)
        return crc32(json.dumps([self.values[:ITEM_COLUMNS], self.values[ITEM_COLUMNS:], fields]).encode())

    @property
    def is_intact(self) -> bool:
        """Whether the entry is the one that was committed."""
        return self.checksum == self.written_checksum


@dataclass(frozen=True)
class StoreVersion:
    """What a gallery holds at one generation: of `total` rows all but the dead ones."""

    epoch: int
    generation: int
    total: int
    dead: NDArray[np.int64]

    def __len__(self) -> int:
        """How many items are live."""
        return self.total - len(self.dead)

    def rows(self) -> NDArray[np.int64]:
        """(n,) the live rows, in insertion order."""
        return np.delete(np.arange(self.total, dtype=np.int64), self.dead)

    @property
    def lives(self) -> str:
        """The SQL condition that an item is part of it, whatever happened since."""
        return f"(items.died = 0 OR items.died > {self.generation}) AND items.row < {self.total}"


def fit_fields(given: Mapping[str, Value], kinds: dict[str, FieldType]) -> dict[str, Value]:
    """The fields under the names that the gallery has for them (capitals make no difference), without a change to a value.

    `kinds` learns what is new, so that whoever comes next must fit it. Raises GalleryError, naming the field, for a value that
    is no text, finite number or None, or not of the field's kind; then nothing is learned.
    """
    names, fields, found = {folded(name): name for name in kinds}, dict[str, Value](), dict[str, FieldType]()
    for name, value in given.items():
        if not isinstance(name, str) or not name.strip() or folded(name) == RESERVED or not is_text(name):
            raise GalleryError(f"a field cannot have the name {name!r}")
        own = names.setdefault(folded(name), name)
        if own in fields:
            raise GalleryError(f"field {own!r} is there twice, as {name!r} too: capitals make no difference")
        if value is not None:
            found[own] = kind_of(own, value)
            if kinds.get(own, found[own]) is not found[own]:
                raise GalleryError(f"field {own!r} holds {kinds[own]}s in this gallery, got {value!r}")
        fields[own] = value
    kinds.update(found)
    return fields


def kind_of(name: str, value: object) -> FieldType:
    if isinstance(value, str) and is_text(value):
        return FieldType.TEXT
    if (isinstance(value, int) and -INT64 <= value < INT64) or (isinstance(value, float) and isfinite(value)):
        return FieldType.NUMBER
    raise GalleryError(f"field {name!r} must be text or a finite number, got {value!r}")
