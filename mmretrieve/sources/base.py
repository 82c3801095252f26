"""The `Source` protocol, the entries that a source yields, and the columns and ids of sources with columns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from mmretrieve.errors import GalleryError, checks_keywords
from mmretrieve.filters.expression import fold_case
from mmretrieve.sources.location import Location
from mmretrieve.sources.values import Value as Value

PATH_COLUMNS = ("image_path", "path", "file", "file_name", "filepath", "filename", "image")  # in order of preference


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One image to add to a gallery.

    Parameters
    ----------
    id : str
        The path of the image relative to the source, with forward slashes, unless a table has a column of ids.
    location : Location
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


@checks_keywords
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


@runtime_checkable
class Source(Protocol):
    """A countable, repeatable sequence of images.

    `name` identifies the source. It is the same whenever the same source is read again, because `sync` compares it.
    """

    name: str

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Entry]: ...


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What a source noticed while it was read: `ignored` counts files that are not read by kind, `notes` are one line each."""

    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@runtime_checkable
class ReportingSource(Source, Protocol):
    """A source that can say more than its entries do."""

    def report(self) -> SourceReport:
        """What the source noticed in the last complete iteration."""


class IdRegistry:
    """Checks that ids are not empty and unique, across one or several files."""

    def __init__(self) -> None:
        self._first_seen: dict[str, tuple[str, str]] = {}

    def add(self, id_: str, path: str, where: str) -> None:
        """Registers the id at a position in a file, such as "line 3". Raises GalleryError for an empty or repeated id."""
        if not id_.strip():
            raise GalleryError("the id is empty")
        first_path, first = self._first_seen.setdefault(id_, (path, where))
        if (first_path, first) != (path, where):
            position = first if first_path == path else f"{first_path}, {first}"
            raise GalleryError(f"duplicate id {id_!r}, first used in {position}; choose another id column")


def find_column(name: str, names: Iterable[str], path: str) -> str:
    """The column with that name, ignoring case. Raises GalleryError, listing the columns, if there is none."""
    wanted, columns = fold_case(name.strip()), tuple(names)
    for column in columns:
        if fold_case(column) == wanted:
            return column
    raise GalleryError(f"{path}: there is no column {name!r}; the columns are: {list_names(columns)}")


def list_names(names: Iterable[str]) -> str:
    """The names of columns in one line, for messages.

    >>> list_names(["id", "a name\\nin two lines"])
    'id, a name in two lines'
    """
    return ", ".join(" ".join(name.split()) for name in names) or "(none)"


def first_column(choices: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of the choices that is among the column names, ignoring case; None if none is.

    >>> first_column(("path", "file"), ["Id", "File"])
    'File'
    """
    columns = {fold_case(name): name for name in reversed(tuple(names))}
    return next((columns[choice] for choice in choices if choice in columns), None)


def suffix(name: str) -> str:
    """The suffix of a file name in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()
