"""CSV, TSV and JSONL files of image paths as sources: one record per image, the other columns are its metadata."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmretrieve.errors import GalleryError
from mmretrieve.sources.base import (
    PATH_COLUMNS,
    Columns,
    Entry,
    IdRegistry,
    SourceItem,
    SourceReport,
    UnreadableItem,
    find_column,
    first_column,
    list_names,
)
from mmretrieve.sources.location import Location
from mmretrieve.sources.table_files import DamagedRecord, TableReader, TableRecord
from mmretrieve.sources.values import is_text


class TextTable:
    """The images that a table names, in the order of the file. Paths are relative to the folder of the file.

    A record that cannot be read, without an image, or with an empty or repeated id is an UnreadableItem. Image files are not opened. The
    whole file is read first: raises GalleryError if a column is missing or no record can be read.
    """

    def __init__(self, path: Path, columns: Columns, reader: TableReader) -> None:
        self.name = str(path.resolve())
        self._path, self._reader = path.resolve(), reader
        self._image, self._id = _image_and_id(self.name, reader.names, columns)
        self._id_is_named = columns.id is not None
        self._used = frozenset((self._image, self._id))
        self._count, unreadable = 0, None
        for entry in self:
            self._count += 1
            unreadable = entry if unreadable is None or isinstance(entry, SourceItem) else unreadable
        if unreadable is None:
            raise GalleryError(f"{self.name}: the table has no records")
        if isinstance(unreadable, UnreadableItem):
            position = "" if unreadable.reason.startswith(self.name) else f"{self._path.parent / unreadable.id}: "
            raise GalleryError(position + unreadable.reason)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        ids = IdRegistry()
        return (self._entry(record, ids) for record in self._reader.records())

    def report(self) -> SourceReport:
        """What the reader noticed about columns."""
        return SourceReport(notes=tuple(f"{self._path.name}: {note}" for note in self._reader.notes(self._used)))

    def _entry(self, record: TableRecord | DamagedRecord, ids: IdRegistry) -> Entry:
        name = f"{self._path.name}, {record.where}"
        if isinstance(record, DamagedRecord):
            return UnreadableItem(name, record.reason)
        try:
            id_, path = self._text(record, self._id), self._text(record, self._image)
            if self._id == self._image and not self._id_is_named and first_column(("id",), record.values):
                raise GalleryError("has an 'id', but the first record has none")
            if id_.strip() and not path.strip():
                return UnreadableItem(id_, f"{self.name}, {record.where}: the column {self._image!r} is empty")
            ids.add(id_, self.name, record.where)
            return SourceItem(id_, Location(str(self._path.parent / path)), self._reader.fields(record, self._used))
        except GalleryError as error:
            return UnreadableItem(name, str(error))

    def _text(self, record: TableRecord, column: str) -> str:
        """A path or an id as text. Whole numbers are valid ids."""
        if column not in record.values:
            raise GalleryError(f"there is no {column!r}; the fields of this record are: {list_names(record.values)}")
        value = record.values[column]
        if value is None or (isinstance(value, str) and is_text(value)):
            return value or ""
        if isinstance(value, int) and not isinstance(value, bool) and column != self._image:
            return str(value)
        raise GalleryError(f"{column!r} must be valid text, got {value!r:.60}")


def _image_and_id(path: str, names: tuple[str, ...], columns: Columns) -> tuple[str, str]:
    """The columns of image paths and of ids."""
    image = first_column(PATH_COLUMNS, names) if columns.image is None else find_column(columns.image, names, path)
    if image is None:
        raise GalleryError(
            f"{path}: no column of image paths among {list_names(names)}; "
            f"name the column, or rename it to one of {', '.join(PATH_COLUMNS)}"
        )
    id_ = first_column(("id",), names) if columns.id is None else find_column(columns.id, names, path)
    return image, id_ or image
