"""The title of an item: the value of one field, or its id as readable words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from mmretrieve.gallery.store.records import FieldType

TITLE_FIELDS = ("title", "name", "product", "label", "headline", "caption", "description")  # the first that a gallery has


def detect_title_field(types: Mapping[str, FieldType]) -> str | None:
    """Returns the text field that names the items, by its own name; upper and lower case are equal. None if there is none.

    >>> detect_title_field({"Name": FieldType.TEXT, "Title": FieldType.TEXT, "price": FieldType.NUMBER})
    'Title'
    """
    names = {name.casefold(): name for name, kind in types.items() if kind is FieldType.TEXT}
    return next((names[name] for name in TITLE_FIELDS if name in names), None)


def readable_id(id_: str) -> str:
    """Returns an id as readable words.

    >>> readable_id("summer/red-dress_7.png")
    'red dress 7'
    """
    return " ".join(PurePosixPath(id_).stem.replace("-", " ").replace("_", " ").split()) or id_
