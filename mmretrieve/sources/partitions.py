"""Folders named `key=value`, as Hive, Spark and DuckDB write them: each is a field of the files below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from mmretrieve.sources.values import Value, is_text, number_of

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


class Partitions:
    """The fields that the folders of paths name. A key is numeric if all of its values are numbers, as in a CSV file.

    >>> Partitions(["year=2020/a.png", "year=2021/kind=red%20dress/b.png"]).fields("year=2021/kind=red%20dress/b.png")
    {'year': 2021, 'kind': 'red dress'}
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._texts: set[str] = set()
        folders = {path.rpartition("/")[0] for path in paths if "=" in path}
        for name, value in (pair for folder in folders for pair in _pairs(folder)):
            if value is not None and number_of(value) is None:
                self._texts.add(name)

    def fields(self, path: str) -> dict[str, Value]:
        """The fields of the file at a path."""
        if "=" not in path:
            return {}
        return {
            name: value if value is None or name in self._texts else number_of(value)
            for name, value in _pairs(path.rpartition("/")[0])
        }


def _pairs(folder: str) -> Iterator[tuple[str, str | None]]:
    for member in folder.split("/"):
        name, sign, value = member.partition("=")
        name, value = unquote(name).strip(), unquote(value)
        if sign and name and value and is_text(name) and is_text(value):
            yield name, None if value == NO_VALUE else value
