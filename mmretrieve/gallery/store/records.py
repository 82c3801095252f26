"""Items, their fields and their records, and the versions of a gallery."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from unicodedata import normalize
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import GalleryError, OptionError, unknown
from mmretrieve.filters.expression import fold_case
from mmretrieve.options import OptionEnum
from mmretrieve.sources.base import Value
from mmretrieve.sources.location import Location
from mmretrieve.sources.values import is_text

ITEM_COLUMNS = 9  # columns about the item; the others are about its files
UNSEEN = "vector:"  # prefix of the hash of a vector, for items whose image was never read
RESERVED = "_row"
RESTORE = "restore it from a copy, or index again"  # what to do with a damaged gallery
INT64 = 2**63
MAX_TEXT_CHARACTERS = 1_000_000  # of a field: every search that shows it reads it


class FieldType(OptionEnum):
    """The type of a field. The first value decides it."""

    NUMBER = "number"
    TEXT = "text"


class StaleViewError(GalleryError):
    """The gallery was compacted during a read, which renumbered the rows. Read again from a new view."""


@dataclass(frozen=True)
class Item:
    """An image of a gallery: its location when it was added, content hash, size, fields and source."""

    id: str
    location: Location
    hash: str
    width: int | None = None
    height: int | None = None
    fields: Mapping[str, Value] = field(default_factory=dict)
    source: str = ""  # the source that it came from
    fingerprint: str = ""  # size and time of the file when it was added

    @property
    def path(self) -> str:
        """The path of the image file, or of the archive that contains it."""
        return self.location.path

    @property
    def columns(self) -> dict[str, Value]:
        """The columns that every item has, by their names in filters and on disk."""
        return {
            "id": self.id,
            "path": self.path,
            "part": self.location.member,
            "hash": self.hash,
            "width": self.width,
            "height": self.height,
            "source": self.source,
            "stamp": self.fingerprint,
        }


@dataclass(frozen=True)
class ExistingItem:
    """What a copy needs of an existing item: its row, its content hash and, in a collection, its JSON text."""

    row: int
    hash: str
    text: str = ""


@dataclass(frozen=True)
class StoredChecksums:
    """CRC-32 of the vector and the thumbnail of an item, and the position of the thumbnail; its size is 0 if there is none."""

    vector: int
    thumbnail: int = 0
    thumbnail_at: int = 0
    thumbnail_size: int = 0


@dataclass(frozen=True)
class ItemRecord:
    """An item in the ledger. `died` is 0 while it is live, otherwise the generation of its deletion."""

    row: int
    item: Item
    stored: StoredChecksums
    died: int = 0
    written_checksum: int = 0

    @property
    def values(self) -> tuple[Value, ...]:
        """The values of the columns, in their order, without the checksum."""
        stored = self.stored
        files = stored.vector, stored.thumbnail, stored.thumbnail_at, stored.thumbnail_size
        return self.row, *self.item.columns.values(), *files, self.died

    @property
    def checksum(self) -> int:
        """CRC-32 of all values and fields."""
        fields = sorted((name, value) for name, value in self.item.fields.items() if value is not None)
        values = self.values
        return crc32(json.dumps([values[:ITEM_COLUMNS], values[ITEM_COLUMNS:], fields]).encode())

    @property
    def is_intact(self) -> bool:
        """Whether the record is what was committed."""
        return self.checksum == self.written_checksum


@dataclass(frozen=True)
class StoreVersion:
    """The items of a gallery at one generation: of `total` rows all but the dead ones."""

    epoch: int
    generation: int
    total: int
    dead: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of live items."""
        return self.total - len(self.dead)

    def rows(self) -> NDArray[np.int64]:
        """Returns (n,) live rows, in insertion order."""
        return np.delete(np.arange(self.total, dtype=np.int64), self.dead)

    @property
    def condition(self) -> str:
        """The SQL condition that an item belongs to this version, whatever was deleted since."""
        return f"(items.died = 0 OR items.died > {self.generation}) AND items.row < {self.total}"


def unicode_forms(text: str) -> tuple[str, ...]:
    """Returns the forms of a name that are one name: the text as it is, composed (NFC), and decomposed (NFD).

    >>> [len(form) for form in unicode_forms("é.png")]
    [5, 6]
    """
    if text.isascii():
        return (text,)
    return tuple(dict.fromkeys((text, normalize("NFC", text), normalize("NFD", text))))


def fit_fields(fields: Mapping[str, Value], types: dict[str, FieldType]) -> dict[str, Value]:
    """Returns the fields under the names that the gallery uses for them; upper and lower case are equal. Values are not changed.

    New fields are added to `types`. Raises GalleryError, with the name of the field, for a value that is not text, a finite number or None, or
    that has another type than the field; `types` is then unchanged.
    """
    names, fitted, new_types = {fold_case(name): name for name in types}, dict[str, Value](), dict[str, FieldType]()
    for name, value in fields.items():
        if not isinstance(name, str) or not name.strip() or fold_case(name) == RESERVED or not is_text(name):
            raise GalleryError(f"invalid field name {name!r}; expected text that is not blank and not {RESERVED!r}")
        field_name = names.setdefault(fold_case(name), name)
        if field_name in fitted:
            raise GalleryError(f"the fields {field_name!r} and {name!r} have the same name (case is ignored)")
        if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS:
            raise GalleryError(
                f"field {name!r} has a text of {len(value):,} characters; at most {MAX_TEXT_CHARACTERS:,} are stored"
            )
        if value is not None:
            new_types[field_name] = field_type_of(field_name, value)
            if types.get(field_name, new_types[field_name]) is not new_types[field_name]:
                raise GalleryError(
                    f"field {field_name!r} contains {types[field_name]}s in this gallery, got {value!r}; change the value, or the name of the field"
                )
        fitted[field_name] = value
    types.update(new_types)
    return fitted


def find_field(types: Mapping[str, FieldType], name: str) -> str:
    """Returns the field of that name as the gallery spells it; upper and lower case are equal. Raises OptionError for an unknown one."""
    match = next((field_name for field_name in types if fold_case(field_name) == fold_case(name)), None)
    if match is not None:
        return match
    raise (
        unknown("field", name, types) if types else OptionError(f"no field {name!r}: the items of this gallery have no fields")
    )


def field_type_of(name: str, value: object) -> FieldType:
    """Returns the type of a value. Raises GalleryError if it is neither text nor a finite 64-bit number."""
    if isinstance(value, str) and is_text(value):
        return FieldType.TEXT
    if (isinstance(value, int) and -INT64 <= value < INT64) or (isinstance(value, float) and isfinite(value)):
        return FieldType.NUMBER
    raise GalleryError(f"field {name!r} must be text or a finite number, got {value!r}")
