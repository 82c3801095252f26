"""Reads annotation files. Every error is one line that names the file, and the record or line in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from eval.benchmarks.base import BenchmarkQuery
from eval.files import read_json
from mmretrieve import MMRetrieveError

T = TypeVar("T")
TYPE_NAMES: Mapping[type, str] = {str: "a text", int: "a whole number", float: "a number", dict: "an object", list: "a list"}
MAX_DIGITS = 100  # of a number that is written as a text
COUNT_TOLERANCE = 0.1  # a file whose count differs from the released one by less than this share is a damaged copy of it


@dataclass(frozen=True)
class JsonRecord:
    """One object of a JSON file; `where` is its name in errors. A field that is missing or has another type is an MMRetrieveError."""

    where: str
    fields: Mapping[str, object]

    def text(self, name: str) -> str:
        return self._get(name, str)

    def number(self, name: str) -> int:
        """A whole number, or a text of digits, as derivatives of Visual Genome have it."""
        value = self.fields.get(name)
        is_digits = isinstance(value, str) and len(value) <= MAX_DIGITS and value.isdecimal()
        return int(str(value)) if is_digits else self._get(name, int)

    def texts(self, name: str) -> tuple[str, ...]:
        return self._get_list(name, str)

    def numbers(self, name: str) -> tuple[int, ...]:
        return self._get_list(name, int)

    def measures(self, name: str) -> tuple[float, ...]:
        return self._get_list(name, float)

    def part(self, name: str) -> JsonRecord:
        return JsonRecord(f"{self.where}, {name}", self._get(name, dict))

    def parts(self, name: str) -> tuple[JsonRecord, ...]:
        return tuple(JsonRecord(f"{self.where}, {name}[{i}]", item) for i, item in enumerate(self._get_list(name, dict)))

    def check_absent(self, name: str) -> None:
        """MMRetrieveError where the record has the field, which is not public for this split."""
        if name in self.fields:
            raise self.error(f"has {name!r}, which is not public in this split: is it the file of another split?")

    def error(self, message: str) -> MMRetrieveError:
        return MMRetrieveError(f"{self.where}: {message}")

    def _get(self, name: str, kind: type[T]) -> T:
        if name not in self.fields:
            raise self.error(f"there is no field {name!r}, only {', '.join(self.fields) or 'an empty object'}")
        value = self.fields[name]
        if not _has_type(value, kind):
            raise self.error(f"{name!r} should be {TYPE_NAMES[kind]}, not {value!r:.60}")
        return value  # type: ignore[return-value]

    def _get_list(self, name: str, kind: type[T]) -> tuple[T, ...]:
        values: list[T] = self._get(name, list)
        for i, value in enumerate(values):
            if not _has_type(value, kind):
                raise self.error(f"{name}[{i}] should be {TYPE_NAMES[kind]}, not {value!r:.60}")
        return tuple(values)


def read_list(path: Path, kind: type[T]) -> list[T]:
    """A JSON file that is a list of at least one item, all of one type."""
    values = read_json(path)
    if not isinstance(values, list) or not values:
        raise MMRetrieveError(f"{path}: expected a list of records, not {_describe(values)}")
    for number, value in enumerate(values, start=1):
        if not _has_type(value, kind):
            raise MMRetrieveError(f"{path}, record {number}: should be {TYPE_NAMES[kind]}, not {value!r:.60}")
    return values


def read_records(path: Path) -> tuple[JsonRecord, ...]:
    """A JSON file that is a list of objects."""
    return tuple(JsonRecord(f"{path}, record {i}", item) for i, item in enumerate(read_list(path, dict), start=1))


def read_object(path: Path) -> JsonRecord:
    """A JSON file that is one object."""
    value = read_json(path)
    if not isinstance(value, dict) or not value:
        raise MMRetrieveError(f"{path}: expected an object, not {_describe(value)}")
    return JsonRecord(str(path), value)


def check_references(queries: Iterable[BenchmarkQuery], path: Path, gallery_ids: Iterable[str], gallery_path: Path) -> None:
    """MMRetrieveError where a query of `path` mentions an image that the gallery file lacks."""
    ids = frozenset(gallery_ids)
    for number, query in enumerate(queries, start=1):
        for id_ in query.image_ids:
            if id_ not in ids:
                raise MMRetrieveError(
                    f"{path}, record {number}: mentions {id_!r}, which is not in {gallery_path}: do the files belong to two splits, or is one incomplete?"
                )


def find_file(root: Path, paths: Sequence[str]) -> Path:
    """The first of the paths below `root` that is a file. MMRetrieveError, listing all of them, where none is."""
    for path in paths:
        if (root / path).is_file():
            return root / path
    expected = " or ".join(str(Path(path)) for path in paths)
    if not root.is_dir():
        raise MMRetrieveError(f"{root}: there is no such folder; expected one with {expected}")
    raise MMRetrieveError(f"{root}: there is no {expected} in this folder")


def find_folder(root: Path, paths: Sequence[str]) -> Path:
    """The first of the paths below `root` that is a folder, otherwise the first path: images may be absent."""
    return next((root / path for path in paths if (root / path).is_dir()), root / paths[0])


def check_counts(
    layout: str, queries: tuple[Path, int, int], images: tuple[Path, int, int], noun: str = "images"
) -> str | None:
    """None where the counts are the released ones; a remark where this is another data set in the same `layout`.

    Parameters
    ----------
    layout : the name of the released data set.
    queries, images : a file, how many records it has, and how many the released file has.
    noun : what the second count is of.

    Raises
    ------
    MMRetrieveError : both counts are almost the released ones, so that this is the released set, damaged. Names the file.
    """
    wrong = [count for count in (queries, images) if count[1] != count[2]]
    if not wrong:
        return None
    if all(abs(actual - released) < COUNT_TOLERANCE * released for _, actual, released in (queries, images)):
        path, actual, released = wrong[0]
        raise MMRetrieveError(f"{path}: damaged: expected {released} records, found {actual}; download the released file again")
    return (
        f"{queries[1]:,} queries over {images[1]:,} {noun} in {layout}'s layout: "
        f"not the released {layout} ({queries[2]:,} over {images[2]:,})"
    )


def _has_type(value: object, kind: type) -> bool:
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def _describe(value: object) -> str:
    return "an empty list" if value == [] else "an object" if isinstance(value, dict) else f"{value!r:.60}"
