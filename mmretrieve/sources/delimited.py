"""CSV and TSV files as tables."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from mmretrieve.errors import GalleryError
from mmretrieve.sources.base import Value
from mmretrieve.sources.table import TableRecord
from mmretrieve.sources.values import field_names, number_of


class Delimiter(StrEnum):
    COMMA = ","
    TAB = "\t"


class Delimited:
    """A file with a line of names. An empty value is None; a column is numbers only where all its values are.

    GalleryError, naming file and line, for a row with more or fewer values than there are names, quotes that do not
    close, and what is not UTF-8; a byte order mark may stand before it.
    """

    def __init__(self, path: Path, delimiter: Delimiter) -> None:
        self._path, self._delimiter = path, delimiter
        rows = self._rows()
        line, header = next(rows, (1, []))
        if not header:
            raise GalleryError(f"{path}: empty; expected a line with the names of the columns")
        self.names: tuple[str, ...] = field_names(header, f"{path}, line {line}")
        self._numbers = self._columns_of_numbers()

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
        return number_of(text) if name in self._numbers else text

    def _columns_of_numbers(self) -> frozenset[str]:
        left = set(self.names)
        for record in self.records():
            left -= {name for name in left if (text := str(record.values[name])) and number_of(text) is None}
            if not left:
                break
        return frozenset(left)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Every row that is not blank, and the line it starts in."""
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
