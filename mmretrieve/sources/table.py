"""Tables of paths: a record a picture, the rest of its columns are what is known about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmretrieve.errors import GalleryError
from mmretrieve.sources.base import Columns, SourceItem, UnreadableItem, Value
from mmretrieve.sources.ids import PATHS, IdRegistry, find, first_of
from mmretrieve.sources.location import Location


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One record of a text file, and the line it starts in."""

    line: int
    values: Mapping[str, object]


class TableReader(Protocol):
    """How a file is written: what its columns are (those of the first record), its records, and what their values mean."""

    names: tuple[str, ...]

    def records(self) -> Iterator[TableRecord]: ...

    def fields(self, record: TableRecord, used: frozenset[str]) -> dict[str, Value]:
        """All of a record but the columns that are used otherwise. GalleryError where one cannot be kept."""


class TextTable:
    """The records of a file that name pictures, in the file's order; paths start from the file's folder.

    The whole file is read and checked at once, so that nothing is wrong with it when it is gone through: GalleryError
    where a column is missing or an id is empty or comes twice. Whether a picture is there shows when it is read.
    """

    def __init__(self, path: Path, columns: Columns, reader: TableReader) -> None:
        self.name = str(path.resolve())
        self._folder, self._reader = path.resolve().parent, reader
        self._image, self._id = _chosen(self.name, reader.names, columns)
        self._named = columns.id is not None
        self._used = frozenset((self._image, self._id))
        self._count = self._check()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SourceItem | UnreadableItem]:
        for record in self._reader.records():
            id_, path = self._text(record, self._id), self._text(record, self._image)
            if not path.strip():
                yield UnreadableItem(id_, f"{self.name}, line {record.line}: no picture is named in {self._image!r}")
            else:
                yield SourceItem(id_, Location(str(self._folder / path)), self._reader.fields(record, self._used))

    def _check(self) -> int:
        """The number of records."""
        ids, count = IdRegistry("line"), 0
        for count, record in enumerate(self._reader.records(), start=1):  # noqa: B007 - the last count is the number
            ids.add(self._text(record, self._id), self.name, record.line)
            self._text(record, self._image)
            if self._id == self._image and not self._named and first_of(("id",), record.values):
                raise GalleryError(f"{self.name}, line {record.line}: has an 'id', which the first record has not")
            self._reader.fields(record, self._used)
        if not count:
            raise GalleryError(f"{self.name}: there are no records in it")
        return count

    def _text(self, record: TableRecord, column: str) -> str:
        """A path or an id as written; whole numbers may be ids too."""
        where = f"{self.name}, line {record.line}"
        if column not in record.values:
            raise GalleryError(f"{where}: there is no {column!r}, only {', '.join(record.values) or 'an empty object'}")
        value = record.values[column]
        if value is None or isinstance(value, str):
            return value or ""
        if isinstance(value, int) and not isinstance(value, bool) and column != self._image:
            return str(value)
        raise GalleryError(f"{where}: {column!r} should be a text, not {value!r:.60}")


def _chosen(path: str, names: tuple[str, ...], columns: Columns) -> tuple[str, str]:
    """The columns of the pictures and of the ids."""
    image = first_of(PATHS, names) if columns.image is None else find(columns.image, names, path)
    if image is None:
        raise GalleryError(f"{path}: no column of pictures among {', '.join(names)}; name it, or call it {' or '.join(PATHS)}")
    id_ = first_of(("id",), names) if columns.id is None else find(columns.id, names, path)
    return image, id_ or image
