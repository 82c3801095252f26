"""The `Source` protocol and the entries that a source yields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mmretrieve.sources.location import Location

Value = str | int | float | None
"""The value of a metadata field."""


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One image to add to a gallery.

    Parameters
    ----------
    id : str
        The path of the image relative to the source, with forward slashes, unless a table has a column of ids.
    place : Location
        Where the bytes of the image are stored.
    fields : mapping of str to str, int, float or None
        Metadata of the image.
    """

    id: str
    location: Location
    fields: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """An entry of a source that cannot be read, with the reason: a damaged archive member, a record without an image."""

    id: str
    reason: str


Entry = SourceItem | UnreadableItem


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table or Parquet file that hold the images and their ids.

    Parameters
    ----------
    image : str, optional
        The column of image paths (tables) or of images (Parquet). By default it is chosen by its name: `image_path`, `path`,
        `file_name`, `image` and similar names.
    id : str, optional
        The column of item ids. By default `id` (in Parquet files also `key`), otherwise the column of paths.

    Examples
    --------
    >>> from mmretrieve import Columns
    >>> Columns(image="photo", id="sku")
    Columns(image='photo', id='sku')
    >>> bool(Columns())
    False
    """

    image: str | None = None
    id: str | None = None

    def __bool__(self) -> bool:
        """Whether at least one column is named."""
        return self.image is not None or self.id is not None


class Source(Protocol):
    """A countable, repeatable sequence of images.

    `name` identifies the source. It is the same whenever the same source is read again, because `sync` compares it.
    """

    name: str

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Entry]: ...
