"""What tables have in common: which column is which, and ids that are there and come once."""

from __future__ import annotations

from collections.abc import Iterable

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import folded

PATHS = ("image_path", "path", "file", "file_name", "filepath", "filename", "image")  # columns of paths, the first counts


class IdRegistry:
    """Notes where each id came from. `unit` is what the places are counted in: "line", "row"."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._seen: dict[str, tuple[str, int]] = {}

    def add(self, id_: str, path: str, number: int) -> None:
        """GalleryError, naming the place, where the id is empty, and naming both where it was there before."""
        where = f"{path}, {self._unit} {number}"
        if not id_.strip():
            raise GalleryError(f"{where}: the id is empty")
        if id_ in self._seen:
            first, line = self._seen[id_]
            earlier = f"{self._unit} {line}" if first == path else f"{first}, {self._unit} {line}"
            raise GalleryError(f"{where}: the id {id_!r} comes twice, first in {earlier}: is another column the id?")
        self._seen[id_] = (path, number)


def find(name: str, names: Iterable[str], path: str) -> str:
    """The column of that name, whatever its case. GalleryError, listing those there are."""
    wanted, known = folded(name.strip()), tuple(names)
    for column in known:
        if folded(column) == wanted:
            return column
    raise GalleryError(f"{path}: there is no column {name!r}, only {', '.join(known) or 'none at all'}")


def first_of(choices: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of the choices that there is a column for."""
    columns = {folded(name): name for name in reversed(tuple(names))}
    return next((columns[choice] for choice in choices if choice in columns), None)
