"""Reads records from CSV, TSV and JSONL files. A record that cannot be read is named with its line, and the others are read."""

from __future__ import annotations

import codecs
import csv
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import fold_case
from mmretrieve.sources.values import Value, decode_object, field_names, fields_of, is_text, number_of, read_object

DELIMITERS = (",", ";", "\t", "|")
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # the first line of a file for a spreadsheet
BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MAX_FIELD_CHARACTERS = 16 << 20
MAX_RECORD_LINES = 500  # of a CSV record; after that many, a quote was not closed
MIN_WORDS = 100  # above this many more words than numbers, a column is certainly text
NOT_TEXT = "not UTF-8 text; save the table as UTF-8"


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One record of a text file and where it starts, as in "line 3"."""

    where: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """Where a record that cannot be read starts, and why it cannot."""

    where: str
    reason: str


class TableReader(Protocol):
    """Parses one file format: the column names (those of the first record), the records, and the values of the fields."""

    names: tuple[str, ...]

    def records(self) -> Iterator[TableRecord | DamagedRecord]: ...

    def fields(self, record: TableRecord, used: frozenset[str]) -> dict[str, Value]:
        """The values of all columns except those in `used`. Raises GalleryError for a value that cannot be stored."""

    def notes(self, used: frozenset[str]) -> list[str]:
        """What is worth knowing about the columns except those in `used`, a line each."""


class Delimited:
    """A CSV or TSV file with a header line, in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    The delimiter is the one that a first line `sep=;` names, otherwise the one of `,` `;` tab and `|` that splits the header into the most
    columns. Empty rows are skipped; an empty value is None. A column is numeric if all of its values are numbers. Columns without a name are
    left out. A row with too many or too few values, an unclosed quote, a null byte or wrong bytes is a DamagedRecord.
    Raises GalleryError if the file or its header cannot be read.
    """

    def __init__(self, path: Path, delimiter: str) -> None:
        self._path, self._delimiter, self._first_line = path, delimiter, 1
        with _open_text(path) as file:
            self._find_delimiter(file)
        rows = self._rows()
        line, header = next(rows, (1, []))
        if isinstance(header, str):
            raise GalleryError(f"{path}, line {line}: {header}")
        if not header:
            raise GalleryError(f"{path}: the file is empty; expected a header line with the column names")
        self._header = [name.strip() for name in header]
        self.names: tuple[str, ...] = field_names(filter(None, self._header), f"{path}, line {line}")
        self._contents = self._read_contents()

    def records(self) -> Iterator[TableRecord | DamagedRecord]:
        rows = self._rows()
        next(rows)
        for line, row in rows:
            yield self._record(f"line {line}", row)

    def fields(self, record: TableRecord, used: frozenset[str]) -> dict[str, Value]:
        return {name: self._value(name, str(text)) for name, text in record.values.items() if name not in used}

    def notes(self, used: frozenset[str]) -> list[str]:
        unnamed = [str(number) for number, name in enumerate(self._header, start=1) if not name]
        notes = [f"column {number} has no name and is left out" for number in unnamed]
        return notes + [
            f"the column {name!r} is text, because {content.first_word}; {content.numbers:,} other values are numbers"
            for name, content in self._contents.items()
            if name not in used and content.numbers > content.words > 0
        ]

    def _find_delimiter(self, file: TextIO) -> None:
        for line in file:
            if (match := SEPARATOR_LINE.fullmatch(line)) and self._first_line == 1:
                self._delimiter, self._first_line = match[1], 2
                return
            if line.strip():
                choices = dict.fromkeys((self._delimiter, *DELIMITERS))
                self._delimiter = max(choices, key=lambda choice: _columns_in(line, choice))
                return

    def _record(self, where: str, row: list[str] | str) -> TableRecord | DamagedRecord:
        if isinstance(row, str):
            return DamagedRecord(where, row)
        count = len(self._header)
        if len(row) < count or any(row[count:]):
            return DamagedRecord(where, f"{len(row)} values for {count} columns")
        return TableRecord(where, {name: text for name, text in zip(self._header, row, strict=False) if name})

    def _value(self, name: str, text: str) -> Value:
        if not text:
            return None
        return text if self._contents[name].words else number_of(text)

    def _read_contents(self) -> dict[str, _ColumnContent]:
        contents = {name: _ColumnContent() for name in self.names}
        undecided = dict(contents)
        for record in self.records():
            if isinstance(record, TableRecord):
                for name in [
                    name for name, content in undecided.items() if content.add(str(record.values[name]), record.where)
                ]:
                    del undecided[name]
        return contents

    def _rows(self) -> Iterator[tuple[int, list[str] | str]]:
        """Every row that is not blank, or why it cannot be read, with the number of the line it starts in."""
        if csv.field_size_limit() < MAX_FIELD_CHARACTERS:  # of the process; 131,072 by default
            csv.field_size_limit(MAX_FIELD_CHARACTERS)
        with _open_text(self._path) as file:
            lines = _RecordLines(file)
            for _ in range(1, self._first_line):
                next(lines, None)
            line, reader = self._first_line, csv.reader(lines, delimiter=self._delimiter, strict=True)
            lines.used.clear()
            while True:
                row: list[str] | str | None
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    row = str(error)
                    lines.put_back_all_but_the_first()
                    reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
                if row is None:
                    return
                text = "".join(lines.used)
                if not is_text(text) or "\0" in text:
                    row = "contains a null byte" if "\0" in text else NOT_TEXT
                if isinstance(row, str) or any(cell.strip() for cell in row):
                    yield line, row
                line += len(lines.used)
                lines.used.clear()


@dataclass(slots=True)
class _ColumnContent:
    """How many values of a column are numbers and how many are not, and where the first of these is."""

    numbers: int = 0
    words: int = 0
    first_word: str = field(default="")

    def add(self, text: str, where: str) -> bool:
        """Counts a value. Returns whether the column is certainly text."""
        if text and number_of(text) is not None:
            self.numbers += 1
        elif text:
            self.first_word = self.first_word or f"{where} has {text!r:.40}"
            self.words += 1
        return self.words > self.numbers + MIN_WORDS


class _RecordLines:
    """The lines of a file for a CSV reader, with those of the current record, which can be put back."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._again = file, deque[str]()
        self.used: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.used) >= MAX_RECORD_LINES:
            raise csv.Error("a quote is not closed")
        line = self._again.popleft() if self._again else next(self._file)
        self.used.append(line)
        return line

    def put_back_all_but_the_first(self) -> None:
        self._again.extendleft(reversed(self.used[1:]))
        del self.used[1:]


class JsonLines:
    """A JSONL file: one JSON object per line, or an array of objects. Blank lines are skipped; encodings are those of `Delimited`.

    The columns to choose from are those of the first record. Other records may have more or fewer fields, but the spelling
    of a name must not vary. A line that is not a JSON object is a DamagedRecord. Raises GalleryError if the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        damaged: DamagedRecord | None = None
        for record in self._objects():
            if isinstance(record, TableRecord):
                self.names: tuple[str, ...] = tuple(record.values)
                return
            damaged = damaged or record
        if damaged is None:
            raise GalleryError(f"{path}: the file is empty; expected one JSON object per line")
        raise GalleryError(f"{path}, {damaged.where}: {damaged.reason}")

    def records(self) -> Iterator[TableRecord | DamagedRecord]:
        """The records. One that writes the name of a field in different case than an earlier one is damaged."""
        spellings: dict[str, tuple[str, str]] = {}
        for record in self._objects():
            yield record if isinstance(record, DamagedRecord) else _check_spelling(record, spellings)

    def fields(self, record: TableRecord, used: frozenset[str]) -> dict[str, Value]:
        return fields_of({name: value for name, value in record.values.items() if name not in used}, record.where)

    def notes(self, used: frozenset[str]) -> list[str]:  # noqa: ARG002 - the first value of a field decides its type
        return []

    def _objects(self) -> Iterator[TableRecord | DamagedRecord]:
        with _open_text(self._path, newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.lstrip().startswith("[") and number == 1:
                    yield from _array_items(line + file.read())
                elif line.strip():
                    yield _parse_line(f"line {number}", line)


def _parse_line(where: str, text: str) -> TableRecord | DamagedRecord:
    if not is_text(text):
        return DamagedRecord(where, NOT_TEXT)
    try:
        return _object_record(where, read_object(text))
    except GalleryError as error:
        return DamagedRecord(where, str(error))


def _object_record(where: str, values: Mapping[str, object]) -> TableRecord:
    return TableRecord(where, dict(zip(field_names(values, where), values.values(), strict=True)))


def _array_items(text: str) -> Iterator[TableRecord | DamagedRecord]:
    """The objects of a JSON array. Nothing after an item that is not JSON can be read."""
    position, number = text.index("[") + 1, 0
    while rest := re.compile(r"[\s,]*").match(text, position):
        number, position = number + 1, rest.end()
        where = f"item {number}"
        if text.startswith("]", position):
            if text[position + 1 :].strip():
                yield DamagedRecord("after the array", "text that is not read; write one object per line, or one array")
            return
        try:
            values, position = decode_object(text, position)
        except GalleryError as error:
            yield DamagedRecord(where, f"{error}; the items after it are not read")
            return
        try:
            if not isinstance(values, dict):
                raise GalleryError(f"expected a JSON object, got {values!r:.60}")
            yield _object_record(where, values)
        except GalleryError as error:
            yield DamagedRecord(where, str(error))


def _check_spelling(record: TableRecord, spellings: dict[str, tuple[str, str]]) -> TableRecord | DamagedRecord:
    for name in record.values:
        spelling, where = spellings.setdefault(fold_case(name), (name, record.where))
        if spelling != name:
            return DamagedRecord(record.where, f"the field {name!r} is called {spelling!r} in {where}")
    return record


def _columns_in(line: str, delimiter: str) -> int:
    try:
        return max(map(len, csv.reader([line], delimiter=delimiter)), default=0)
    except csv.Error:
        return 0


@contextmanager
def _open_text(path: Path, newline: str = "") -> Iterator[TextIO]:
    """The file as text. Bytes that are not text become lone surrogates, or � in UTF-16. Raises GalleryError if it cannot be read."""
    try:
        with path.open("rb") as binary:
            start = binary.read(4)
        encoding = next((name for mark, name in BOMS.items() if start.startswith(mark)), _guess_encoding(start))
        errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
        with path.open(encoding=encoding, errors=errors, newline=newline) as file:
            yield file
    except OSError as error:
        raise GalleryError(f"{path}: cannot be read ({error.strerror or error})") from error


def _guess_encoding(start: Sequence[int]) -> str:
    """The encoding of a file without a byte order mark, whose first two characters are ASCII."""
    is_null = [byte == 0 for byte in start]
    if is_null == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if is_null == [True, False, True, False] else "utf-8"
