"""Converts items to rows of a collection and back.

The column `item` contains the whole item as JSON, so that it is restored without loss. The values that filters read are stored beside it, under keys that
Milvus accepts: the prefix `n_` for numbers, `t_` for text, `f_` for text in lower case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mmretrieve.errors import GalleryError
from mmretrieve.filters.milvus import GIVEN, MilvusColumn
from mmretrieve.gallery.store.records import ExistingItem, FieldType, Item
from mmretrieve.gallery.store.store import Float16Rows
from mmretrieve.milvus.client import HASH, ID, ITEM, MAX_FIELDS, MAX_TEXT_BYTES, ROW, VECTOR
from mmretrieve.options import load_json
from mmretrieve.sources.base import Value
from mmretrieve.sources.location import Location

OWN = {  # columns of every item, by their names in SQL
    **dict.fromkeys(("id", "path", "part", "hash", "source", "stamp"), FieldType.TEXT),
    **dict.fromkeys(("width", "height"), FieldType.NUMBER),
}


def filter_columns(fields: Mapping[str, FieldType]) -> list[MilvusColumn]:
    """Returns all columns that a filter can name: those of every item, and the fields."""
    own = [MilvusColumn(name, kind is FieldType.TEXT, is_field=False) for name, kind in OWN.items()]
    return own + [MilvusColumn(name, FieldType(kind) is FieldType.TEXT) for name, kind in fields.items()]


def row_of(number: int, item: Item, vector: Float16Rows, fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """Returns the row of an item with its (dim,) vector. Raises GalleryError if its fields are too large for Milvus."""
    text = _text(item)
    values = dict(_values(item, fields))
    given = [column.key for column in values]
    filterable: dict[str, Value] = {column.key: value for column, value in values.items()}
    filterable |= {column.folded: column.pattern(value) for column, value in values.items() if isinstance(value, str)}
    sizes = len(text.encode()), len(json.dumps(filterable, ensure_ascii=False).encode())
    if max(sizes) > MAX_TEXT_BYTES or len(given) > MAX_FIELDS:
        raise GalleryError(
            f"{item.id!r}: its fields take {max(sizes)} bytes, Milvus stores at most {MAX_TEXT_BYTES}; shorten or remove fields"
        )
    vector32 = vector.astype("float32")
    return {ROW: number, ID: item.id, HASH: item.hash, ITEM: text, GIVEN: given, VECTOR: vector32, **filterable}


def item_of(row: Mapping[str, Any]) -> Item:
    """Returns the item of a row. Raises GalleryError for a row that was never pushed."""
    try:
        entry = load_json(row[ITEM])
        location, fingerprint = entry.pop("place"), entry.pop("stamp")
        return Item(**entry, location=Location(location["path"], location["part"]), fingerprint=fingerprint)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GalleryError(f"an entry of the collection is damaged ({error}); push the gallery again") from error


def has_new_metadata(item: Item, existing: ExistingItem) -> bool:
    """Returns whether the metadata of the item in the collection differ."""
    return _text(item) != existing.text


def _text(item: Item) -> str:
    """Returns the item as JSON, with the keys of the first version, in their order."""
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
    """Yields every value that is not None, with its column."""
    columns = item.columns
    for name, kind in OWN.items():
        if columns[name] is not None:
            yield MilvusColumn(name, kind is FieldType.TEXT, is_field=False), columns[name]
    for name, value in item.fields.items():
        if value is not None:
            yield MilvusColumn(name, FieldType(fields[name]) is FieldType.TEXT), value
