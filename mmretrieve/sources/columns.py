"""Column lookup and id checks shared by tables and Parquet files."""

from __future__ import annotations

from collections.abc import Iterable

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import folded

PATH_COLUMNS = ("image_path", "path", "file", "file_name", "filepath", "filename", "image")  # in order of preference


class IdRegistry:
    """Checks that ids are not empty and unique, across one or several files.

    `unit` names what positions are counted in, "line" or "row".
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._first_seen: dict[str, tuple[str, int]] = {}

    def add(self, id_: str, path: str, number: int) -> None:
        """Registers the id at line or row `number` of a file. Raises GalleryError for an empty or repeated id."""
        position = f"{path}, {self._unit} {number}"
        if not id_.strip():
            raise GalleryError(f"{position}: the id is empty")
        if id_ in self._first_seen:
            first_path, first_number = self._first_seen[id_]
            first = f"{self._unit} {first_number}" if first_path == path else f"{first_path}, {self._unit} {first_number}"
            raise GalleryError(f"{position}: duplicate id {id_!r}, first used in {first}; choose another id column")
        self._first_seen[id_] = (path, number)


def find_column(name: str, names: Iterable[str], path: str) -> str:
    """The column with that name, ignoring case. Raises GalleryError, listing the columns, if there is none."""
    wanted, columns = folded(name.strip()), tuple(names)
    for column in columns:
        if folded(column) == wanted:
            return column
    raise GalleryError(f"{path}: there is no column {name!r}; the columns are: {', '.join(columns) or '(none)'}")


def first_column(choices: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of the choices that is among the column names, ignoring case; None if none is.

    >>> first_column(("path", "file"), ["Id", "File"])
    'File'
    """
    columns = {folded(name): name for name in reversed(tuple(names))}
    return next((columns[choice] for choice in choices if choice in columns), None)
