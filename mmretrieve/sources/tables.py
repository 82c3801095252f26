"""CSV, TSV and JSONL files of image paths: one record per image, the other columns are its metadata."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import fold_case
from mmretrieve.sources.base import (
    PATH_COLUMNS,
    Columns,
    IdRegistry,
    SourceItem,
    UnreadableItem,
    Value,
    find_column,
    first_column,
)
from mmretrieve.sources.location import Location
from mmretrieve.sources.values import field_names, fields_of, number_of, read_object


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One record of a text file and the number of the line it starts in."""

    line: int
    values: Mapping[str, object]


class TableReader(Protocol):
    """Parses one file format: the column names (those of the first record), the records, and the values of the fields."""

    names: tuple[str, ...]

    def records(self) -> Iterator[TableRecord]: ...

    def fields(self, record: TableRecord, used: frozenset[str]) -> dict[str, Value]:
        """The values of all columns except those in `used`. Raises GalleryError for a value that cannot be stored."""


class TextTable:
    """The images that a table names, in the order of the file. Paths are relative to the folder of the file.

    The whole file is read and checked first, so that iterating over it cannot fail later. Image files are not opened.
    Raises GalleryError if a column is missing, an id is empty or repeated, or a value cannot be stored.
    """

    def __init__(self, path: Path, columns: Columns, reader: TableReader) -> None:
        self.name = str(path.resolve())
        self._folder, self._reader = path.resolve().parent, reader
        self._image, self._id = _image_and_id(self.name, reader.names, columns)
        self._id_is_named = columns.id is not None
        self._used = frozenset((self._image, self._id))
        self._count = self._check_records()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[SourceItem | UnreadableItem]:
        for record in self._reader.records():
            id_, path = self._text(record, self._id), self._text(record, self._image)
            if not path.strip():
                yield UnreadableItem(id_, f"{self.name}, line {record.line}: the column {self._image!r} is empty")
            else:
                yield SourceItem(id_, Location(str(self._folder / path)), self._reader.fields(record, self._used))

    def _check_records(self) -> int:
        """Checks every record and returns how many there are."""
        ids, count = IdRegistry("line"), 0
        for count, record in enumerate(self._reader.records(), start=1):  # noqa: B007 - the last count is the number
            ids.add(self._text(record, self._id), self.name, record.line)
            self._text(record, self._image)
            if self._id == self._image and not self._id_is_named and first_column(("id",), record.values):
                raise GalleryError(f"{self.name}, line {record.line}: has an 'id', but the first record has none")
            self._reader.fields(record, self._used)
        if not count:
            raise GalleryError(f"{self.name}: the table has no records")
        return count

    def _text(self, record: TableRecord, column: str) -> str:
        """A path or an id as text. Whole numbers are valid ids."""
        position = f"{self.name}, line {record.line}"
        if column not in record.values:
            names = ", ".join(record.values) or "(none)"
            raise GalleryError(f"{position}: there is no {column!r}; the fields of this record are: {names}")
        value = record.values[column]
        if value is None or isinstance(value, str):
            return value or ""
        if isinstance(value, int) and not isinstance(value, bool) and column != self._image:
            return str(value)
        raise GalleryError(f"{position}: {column!r} must be text, got {value!r:.60}")


def _image_and_id(path: str, names: tuple[str, ...], columns: Columns) -> tuple[str, str]:
    """The columns of image paths and of ids."""
    image = first_column(PATH_COLUMNS, names) if columns.image is None else find_column(columns.image, names, path)
    if image is None:
        raise GalleryError(
            f"{path}: no column of image paths among {', '.join(names)}; "
            f"name the column, or rename it to one of {', '.join(PATH_COLUMNS)}"
        )
    id_ = first_column(("id",), names) if columns.id is None else find_column(columns.id, names, path)
    return image, id_ or image


class Delimited:
    """A CSV or TSV file in UTF-8, with a header line; a byte order mark is accepted.

    An empty value is None. A column is numeric if all of its values are numbers. Raises GalleryError, naming file and line,
    for a row with too many or too few values, an unclosed quote, and text that is not UTF-8.
    """

    def __init__(self, path: Path, delimiter: str) -> None:
        self._path, self._delimiter = path, delimiter
        rows = self._rows()
        line, header = next(rows, (1, []))
        if not header:
            raise GalleryError(f"{path}: the file is empty; expected a header line with the column names")
        self.names: tuple[str, ...] = field_names(header, f"{path}, line {line}")
        self._numeric = self._numeric_columns()

    def records(self) -> Iterator[TableRecord]:
        rows = self._rows()
        next(rows)
        for line, row in rows:
            if len(row) != len(self.names):
                raise GalleryError(f"{self._path}, line {line}: {len(row)} values for {len(self.names)} columns")
            yield TableRecord(line, dict(zip(self.names, row, strict=True)))

    def fields(self, record: TableRecord, used: frozenset[str]) -> dict[str, Value]:
        return {name: self._value(name, str(text)) for name, text in record.values.items() if name not in used}

    def _value(self, name: str, text: str) -> Value:
        if not text:
            return None
        return number_of(text) if name in self._numeric else text

    def _numeric_columns(self) -> frozenset[str]:
        numeric = set(self.names)
        for record in self.records():
            numeric -= {name for name in numeric if (text := str(record.values[name])) and number_of(text) is None}
            if not numeric:
                break
        return frozenset(numeric)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Every row that is not blank, with the number of the line it starts in."""
        line = 0
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self._delimiter, strict=True)
                for row in reader:
                    if row:
                        yield line + 1, row
                    line = reader.line_num
        except OSError as error:
            raise GalleryError(f"{self._path}: cannot be read ({error.strerror or error})") from error
        except UnicodeDecodeError as error:
            raise GalleryError(f"{self._path}, after line {line}: not UTF-8 text") from error
        except csv.Error as error:
            raise GalleryError(f"{self._path}, line {line + 1}: {error}") from error


class JsonLines:
    """A JSONL file in UTF-8: one JSON object per line. Blank lines are skipped; a byte order mark is accepted.

    The columns to choose from are those of the first record. Other records may have more or fewer fields, but the spelling
    of a name must not vary. Raises GalleryError, naming file and line, for a line that is not a JSON object or not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        first = next(self._objects(), None)
        if first is None:
            raise GalleryError(f"{path}: the file is empty; expected one JSON object per line")
        self.names: tuple[str, ...] = tuple(first.values)

    def records(self) -> Iterator[TableRecord]:
        """The records. Raises GalleryError if two records write the name of a field in different case."""
        spellings: dict[str, tuple[str, int]] = {}
        for record in self._objects():
            for name in record.values:
                spelling, line = spellings.setdefault(fold_case(name), (name, record.line))
                if spelling != name:
                    raise self._error(record.line, f"the field {name!r} is called {spelling!r} in line {line}")
            yield record

    def fields(self, record: TableRecord, used: frozenset[str]) -> dict[str, Value]:
        metadata = {name: value for name, value in record.values.items() if name not in used}
        return fields_of(metadata, f"{self._path}, line {record.line}")

    def _objects(self) -> Iterator[TableRecord]:
        line = 0
        try:
            with self._path.open(encoding="utf-8-sig", newline="\n") as file:
                for line, text in enumerate(file, start=1):
                    if text.strip():
                        yield self._record(line, text)
        except OSError as error:
            raise GalleryError(f"{self._path}: cannot be read ({error.strerror or error})") from error
        except UnicodeDecodeError as error:
            raise GalleryError(f"{self._path}, after line {line}: not UTF-8 text") from error

    def _record(self, line: int, text: str) -> TableRecord:
        try:
            record = read_object(text)
        except GalleryError as error:
            raise self._error(line, str(error)) from error
        names = field_names(record, f"{self._path}, line {line}")
        return TableRecord(line, dict(zip(names, record.values(), strict=True)))

    def _error(self, line: int, message: str) -> GalleryError:
        return GalleryError(f"{self._path}, line {line}: {message}")
