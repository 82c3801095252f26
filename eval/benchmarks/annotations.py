"""Reads annotation files. Every error is one line that names the file, and the record or the line in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from eval.benchmarks.base import BenchmarkQuery
from mmretrieve import MMRetrieveError

T = TypeVar("T")
KINDS: Mapping[type, str] = {str: "a text", int: "a whole number", float: "a number", dict: "an object", list: "a list"}


@dataclass(frozen=True)
class JsonRecord:
    """One object of a JSON file; `where` is what an error calls it. A field that is missing or of another type raises MMRetrieveError."""

    where: str
    fields: Mapping[str, object]

    def text(self, name: str) -> str:
        return self._get(name, str)

    def number(self, name: str) -> int:
        """A whole number, also one written as a text, as Visual Genome's derivatives do."""
        value = self.fields.get(name)
        return int(value) if isinstance(value, str) and value.isdecimal() else self._get(name, int)

    def texts(self, name: str) -> tuple[str, ...]:
        return self._list(name, str)

    def numbers(self, name: str) -> tuple[int, ...]:
        return self._list(name, int)

    def measures(self, name: str) -> tuple[float, ...]:
        return self._list(name, float)

    def part(self, name: str) -> JsonRecord:
        return JsonRecord(f"{self.where}, {name}", self._get(name, dict))

    def parts(self, name: str) -> tuple[JsonRecord, ...]:
        return tuple(JsonRecord(f"{self.where}, {name}[{i}]", item) for i, item in enumerate(self._list(name, dict)))

    def must_lack(self, name: str) -> None:
        """MMRetrieveError where it has the field, which only a server knows for this split."""
        if name in self.fields:
            raise self.error(f"has {name!r}, which is not public in this split: is it the file of another split?")

    def error(self, message: str) -> MMRetrieveError:
        return MMRetrieveError(f"{self.where}: {message}")

    def _get(self, name: str, kind: type[T]) -> T:
        if name not in self.fields:
            raise self.error(f"there is no field {name!r}, only {', '.join(self.fields) or 'an empty object'}")
        value = self.fields[name]
        if not _is(value, kind):
            raise self.error(f"{name!r} should be {KINDS[kind]}, not {value!r:.60}")
        return value  # type: ignore[return-value]

    def _list(self, name: str, kind: type[T]) -> tuple[T, ...]:
        values: list[T] = self._get(name, list)
        for i, value in enumerate(values):
            if not _is(value, kind):
                raise self.error(f"{name}[{i}] should be {KINDS[kind]}, not {value!r:.60}")
        return tuple(values)


def read_json(path: Path) -> object:
    """What a JSON file holds. MMRetrieveError where it cannot be read, is not JSON (with the line) or names a key twice."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        whole = dict(items)
        if len(whole) != len(items):
            unique((name for name, _ in items), path)
        return whole

    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise MMRetrieveError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise MMRetrieveError(f"{path}: not JSON that can be read (nested too deeply)") from error


def read_text(path: Path) -> str:
    """MMRetrieveError where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise MMRetrieveError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise MMRetrieveError(f"{path}: not UTF-8 text, at byte {error.start}") from error


def read_list(path: Path, kind: type[T]) -> list[T]:
    """A JSON file that is a list, with at least one item, all of one kind."""
    return _items(read_json(path), kind, path)


def read_records(path: Path) -> tuple[JsonRecord, ...]:
    """A JSON file that is a list of objects."""
    return tuple(JsonRecord(f"{path}, record {i}", item) for i, item in enumerate(read_list(path, dict), start=1))


def read_object(path: Path) -> JsonRecord:
    """A JSON file that is one object."""
    whole = read_json(path)
    if not isinstance(whole, dict) or not whole:
        raise MMRetrieveError(f"{path}: expected an object, not {_short(whole)}")
    return JsonRecord(str(path), whole)


def unique(ids: Iterable[str], path: Path) -> tuple[str, ...]:
    """The ids as they come. MMRetrieveError, naming it, where one comes twice."""
    seen: dict[str, None] = {}
    for id_ in ids:
        if id_ in seen:
            raise MMRetrieveError(f"{path}: {id_!r} comes twice")
        seen[id_] = None
    return tuple(seen)


def check_named(queries: Iterable[BenchmarkQuery], path: Path, gallery_ids: Iterable[str], gallery_path: Path) -> None:
    """MMRetrieveError where a query of `path` names an id that the gallery file lacks."""
    known = frozenset(gallery_ids)
    for number, query in enumerate(queries, start=1):
        for id_ in (query.reference, *query.targets, *(query.candidates or ())):
            if id_ not in known:
                raise MMRetrieveError(
                    f"{path}, record {number}: names {id_!r}, which is not in {gallery_path}: are two splits mixed up, or is one file cut short?"
                )


def find_file(root: Path, places: Sequence[str]) -> Path:
    """The first of the places below `root` that is a file. MMRetrieveError, listing all of them, where none is."""
    for place in places:
        if (root / place).is_file():
            return root / place
    looked_for = " or ".join(str(Path(place)) for place in places)
    if not root.is_dir():
        raise MMRetrieveError(f"{root}: there is no such folder; expected one with {looked_for}")
    raise MMRetrieveError(f"{root}: there is no {looked_for} in this folder")


def find_folder(root: Path, places: Sequence[str]) -> Path:
    """The first of the places below `root` that is a folder, else the first of all: pictures may come later."""
    return next((root / place for place in places if (root / place).is_dir()), root / places[0])


def checksum(*paths: Path) -> str:
    """32 hexadecimal digits (BLAKE2b, 128 bit) of the bytes of the files, one after the other."""
    return digest(path.read_bytes() for path in paths)


def digest(chunks: Iterable[bytes]) -> str:
    """32 hexadecimal digits (BLAKE2b, 128 bit) of the chunks, one after the other."""
    whole = hashlib.blake2b(digest_size=16)
    for chunk in chunks:
        whole.update(chunk)
    return whole.hexdigest()


def _items(values: object, kind: type[T], path: Path) -> list[T]:
    if not isinstance(values, list) or not values:
        raise MMRetrieveError(f"{path}: expected a list of records, not {_short(values)}")
    for number, value in enumerate(values, start=1):
        if not _is(value, kind):
            raise MMRetrieveError(f"{path}, record {number}: should be {KINDS[kind]}, not {value!r:.60}")
    return values


def _is(value: object, kind: type) -> bool:
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


def _short(value: object) -> str:
    return "an empty list" if value == [] else "an object" if isinstance(value, dict) else f"{value!r:.60}"
