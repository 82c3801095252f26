"""An item as a row of a collection, and back.

`item` holds the whole of it as JSON, so that it comes back as it was, whole numbers whole. Beside it stand the values that
filters look at, under keys that Milvus can have: `n_` before a number's name, `t_` before a text's, `f_` before a folded text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import folded
from mmretrieve.gallery.store.records import ExistingItem, FieldType, Item
from mmretrieve.gallery.store.store import Float16Rows
from mmretrieve.milvus.client import GIVEN, HASH, ID, ITEM, MAX_FIELDS, MAX_TEXT_BYTES, ROW, VECTOR
from mmretrieve.sources.base import Value
from mmretrieve.sources.location import Location

OWN = {  # what every item can have, by its name in SQL
    **dict.fromkeys(("id", "path", "part", "hash", "source", "stamp"), FieldType.TEXT),
    **dict.fromkeys(("width", "height"), FieldType.NUMBER),
}
PLAIN = re.compile(r"[a-z0-9_]+")
BACKSLASH = "\ufdd0"  # for LIKE, in its place: what servers make of a backslash in a pattern differs; no text holds this


@dataclass(frozen=True)
class MilvusColumn:
    """A name of SQL: what it holds, and under which key Milvus has it."""

    name: str
    kind: FieldType
    is_field: bool = True

    @property
    def key(self) -> str:
        if not self.is_field:
            return self.name
        return f"{'n' if self.kind is FieldType.NUMBER else 't'}_{self._escaped}"

    @property
    def folded(self) -> str:
        """The key of the text in small letters, of a to z only, as SQLite's LIKE compares."""
        return f"f_{self._escaped}" if self.is_field else f"own_{self.name}"

    @property
    def is_text(self) -> bool:
        return self.kind is FieldType.TEXT

    @property
    def given(self) -> str:
        """The expression that a value is there. `given` is in every row, so this may be negated."""
        return f'array_contains({GIVEN}, "{self.key}")'

    def pattern(self, text: str) -> str:
        """A text, or a pattern, as LIKE compares it: a and A are one, other letters are not, and a backslash is only that."""
        return folded(text).replace("\\", BACKSLASH)

    @property
    def _escaped(self) -> str:
        """A name that any server takes: `price` stays, whatever else is spelled in hexadecimal digits."""
        small = folded(self.name)
        return f"_{small}" if PLAIN.fullmatch(small) else f"x_{small.encode().hex()}"


def filter_columns(fields: Mapping[str, FieldType]) -> list[MilvusColumn]:
    """All that a filter can name: what every item can have, and the fields."""
    own = [MilvusColumn(name, kind, is_field=False) for name, kind in OWN.items()]
    return own + [MilvusColumn(name, FieldType(kind)) for name, kind in fields.items()]


def row_of(number: int, item: Item, vector: Float16Rows, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """The row of an item with its (dim,) vector. GalleryError where it says more than Milvus can keep of one."""
    told = _text(item)
    values = dict(_values(item, fields))
    given = [column.key for column in values]
    looked_at: dict[str, Value] = {column.key: value for column, value in values.items()}
    looked_at |= {column.folded: column.pattern(value) for column, value in values.items() if isinstance(value, str)}
    sizes = len(told.encode()), len(json.dumps(looked_at, ensure_ascii=False).encode())
    if max(sizes) > MAX_TEXT_BYTES or len(given) > MAX_FIELDS:
        raise GalleryError(
            f"{item.id!r}: its fields take {max(sizes)} bytes, Milvus keeps up to {MAX_TEXT_BYTES}; leave some out"
        )
    return {ROW: number, VECTOR: vector.astype("float32"), GIVEN: given, ITEM: told, HASH: item.hash, **looked_at}


def item_of(row: Mapping[str, Any]) -> Item:
    """The item that a row was made of."""
    entry = json.loads(row[ITEM])
    location, fingerprint = entry.pop("place"), entry.pop("stamp")
    return Item(**entry, location=Location(location["path"], location["part"]), fingerprint=fingerprint)


def is_news(item: Item, existing: ExistingItem) -> bool:
    """Whether the collection has other metadata of the item."""
    return _text(item) != existing.text


def _text(item: Item) -> str:
    """The item as JSON, with the names that collections have had since the first version, in their order."""
    fields = {name: value for name, value in sorted(item.fields.items()) if value is not None}
    entry = {
        "id": item.id,
        "place": {"path": item.location.path, "part": item.location.member},
        "hash": item.hash,
        "width": item.width,
        "height": item.height,
        "fields": fields,
        "source": item.source,
        "stamp": item.fingerprint,
    }
    return json.dumps(entry, ensure_ascii=False)


def _values(item: Item, fields: Mapping[str, FieldType]) -> Iterable[tuple[MilvusColumn, Value]]:
    """Every value that is there, its column first."""
    own: dict[str, Value] = {
        "id": item.id,
        "path": item.location.path,
        "part": item.location.member,
        "hash": item.hash,
        "source": item.source,
        "stamp": item.fingerprint,
        "width": item.width,
        "height": item.height,
    }
    for name, kind in OWN.items():
        if own[name] is not None:
            yield MilvusColumn(name, kind, is_field=False), own[name]
    for name, value in item.fields.items():
        if value is not None:
            yield MilvusColumn(name, FieldType(fields[name])), value


assert ID in OWN
