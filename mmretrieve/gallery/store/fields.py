"""What is known of an item besides its picture: named fields, each of them text or a number for the whole gallery."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import folded
from mmretrieve.options import Choice
from mmretrieve.sources.base import Value
from mmretrieve.sources.values import is_text

RESERVED = "_row"
INT64 = 2**63


class FieldType(Choice):
    """What a field holds; decided by the first value that it gets."""

    NUMBER = "number"
    TEXT = "text"


def fitted(given: Mapping[str, Value], kinds: dict[str, FieldType]) -> dict[str, Value]:
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
