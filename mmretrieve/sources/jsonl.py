"""JSONL files as tables: a JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import folded
from mmretrieve.sources.base import Value
from mmretrieve.sources.memory import read_object
from mmretrieve.sources.table import TableRecord
from mmretrieve.sources.values import field_names, fields_of


class JsonLines:
    """Blank lines are passed over, a byte order mark may stand before the first.

    The first record says which columns there are to choose from; others may have more and fewer fields, but one field is
    always written the same. GalleryError, naming file and line, for what is no object and what is not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        first = next(self._objects(), None)
        if first is None:
            raise GalleryError(f"{path}: empty; expected a JSON object a line")
        self.names: tuple[str, ...] = tuple(first.values)

    def records(self) -> Iterator[TableRecord]:
        """Also GalleryError where two records write a field's name in a different case."""
        spelled: dict[str, tuple[str, int]] = {}
        for record in self._objects():
            for name in record.values:
                spelling, line = spelled.setdefault(folded(name), (name, record.line))
                if spelling != name:
                    raise self._error(record.line, f"the field {name!r} is called {spelling!r} in line {line}")
            yield record

    def fields(self, record: TableRecord, used: frozenset[str]) -> dict[str, Value]:
        left = {name: value for name, value in record.values.items() if name not in used}
        return fields_of(left, f"{self._path}, line {record.line}")

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
            found = read_object(text)
        except GalleryError as error:
            raise self._error(line, str(error)) from error
        names = field_names(found, f"{self._path}, line {line}")
        return TableRecord(line, dict(zip(names, found.values(), strict=True)))

    def _error(self, line: int, message: str) -> GalleryError:
        return GalleryError(f"{self._path}, line {line}: {message}")
