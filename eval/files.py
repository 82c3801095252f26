"""Files on disk: atomic writes, reads whose errors are one line that names the file, and checksums."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from mmretrieve import MMRetrieveError
from mmretrieve.options import load_json


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Writes a temporary file beside `path`, then renames it: a reader sees the old content or the new one, never a part.

    Missing folders are created. Returns `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. MMRetrieveError where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise MMRetrieveError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise MMRetrieveError(f"{path}: not UTF-8 text, at byte {error.start}") from error


def read_json(path: Path) -> object:
    """The value of a JSON file. MMRetrieveError where it cannot be read, is not JSON (with the line) or repeats a key."""

    def build_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
        value = dict(pairs)
        if len(value) != len(pairs):
            check_unique((name for name, _ in pairs), path)
        return value

    text = read_text(path)
    try:
        return load_json(text, build_object)
    except MMRetrieveError:
        raise
    except json.JSONDecodeError as error:
        raise MMRetrieveError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})") from error
    except ValueError as error:
        raise MMRetrieveError(f"{path}: not JSON that can be read ({error})") from error


def check_unique(ids: Iterable[str], path: Path) -> tuple[str, ...]:
    """The ids in their order. MMRetrieveError, naming the id and `path`, where one occurs twice."""
    seen: dict[str, None] = {}
    for id_ in ids:
        if id_ in seen:
            raise MMRetrieveError(f"{path}: {id_!r} occurs twice")
        seen[id_] = None
    return tuple(seen)


def file_checksum(*paths: Path) -> str:
    """32 hexadecimal digits (BLAKE2b, 128 bits) of the bytes of the files, one after the other."""
    return digest(path.read_bytes() for path in paths)


def digest(chunks: Iterable[bytes]) -> str:
    """32 hexadecimal digits (BLAKE2b, 128 bits) of the chunks, one after the other.

    >>> digest([b"ab", b"c"]) == digest([b"abc"])
    True
    """
    hasher = hashlib.blake2b(digest_size=16)
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.hexdigest()
