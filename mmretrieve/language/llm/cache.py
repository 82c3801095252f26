"""Cache of model answers: one SQLite table from which an interrupted run resumes and a finished one is replayed offline.

An answer belongs to a task ("rewrite"), a model and a request. The request holds everything that determines the answer: the
texts, the hash of the image, the digest of the instructions, the temperature. JSON lines are the exchange format, one answer a line:

    {"task": "rewrite", "model": "…", "asked": {"caption": "a dog", "prompt": "in snow", …}, "said": "a dog in snow"}
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from mmretrieve.errors import MMRetrieveError
from mmretrieve.images import ImageLike, content_hash, open_image
from mmretrieve.options import check_regular, load_json

Request = Mapping[str, object]
Key = tuple[str, str, str]  # task, model, request as canonical JSON
APPLICATION_ID = 0x6D6D6C61  # "mmla": tells this file from other SQLite files
SQLITE_HEADER = b"SQLite format 3\x00"
RECORD_START = b'{"task": '  # of every JSON line; tells an incomplete line from a line of another format
LOCK_TIMEOUT = 60.0  # seconds to wait for another process
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    model TEXT NOT NULL,
    request TEXT NOT NULL,
    answer TEXT NOT NULL,
    UNIQUE (task, model, request)
)"""
INSERT = "INSERT OR IGNORE INTO answers (task, model, request, answer) VALUES (?, ?, ?, ?)"
SELECT = "SELECT answer FROM answers WHERE task = ? AND model = ? AND request = ?"
SELECT_ANY = "SELECT 1 FROM answers LIMIT 1"
SELECT_ALL = "SELECT task, model, request, answer FROM answers ORDER BY id"


class AnswerCache:
    """Answers of models in one SQLite file. Threads and processes may share it.

    Each answer is one transaction: a killed process loses none that was stored. The first answer to a request stands.
    Reading never writes; the file is created when the first answer is stored.

    A file of JSON lines (`export_jsonl`, and the memory files of mmretrieve 0.1) can be named instead. Its answers are read and
    take precedence, the file is never changed, and new answers go to a SQLite file beside it, `NAME.jsonl.sqlite`.

    Parameters
    ----------
    path : the SQLite file, or a file of JSON lines (recognized by its content, or by the suffix .jsonl if it does not exist).

    Raises
    ------
    MMRetrieveError : if the folder does not exist, or the file is neither a cache nor JSON lines of answers.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        head, is_named_jsonl = _head(self.path), self.path.suffix.lower() == ".jsonl"
        is_jsonl = head.startswith(RECORD_START) or (is_named_jsonl and head != SQLITE_HEADER)
        self.database = Path(f"{self.path}.sqlite") if is_jsonl else self.path
        folder = self.path.absolute().parent
        if not folder.is_dir():
            raise MMRetrieveError(f"{self.path}: there is no folder {folder} to keep answers in; create it first")
        self._imported: dict[Key, Any] = {}
        if is_jsonl and self.path.exists():
            for key, answer in _read_jsonl(self.path):
                self._imported.setdefault(key, answer)
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None
        self._select(SELECT_ANY)  # an error about the file comes before any work

    def __len__(self) -> int:
        return sum(1 for _ in self._items())

    def get(self, task: str, model: str, request: Request) -> Any | None:
        """The stored answer to a request, or None if there is none."""
        key = _key(task, model, request)
        if key in self._imported:
            return self._imported[key]
        rows = self._select(SELECT, key)
        return self._parsed(rows[0][0]) if rows else None

    def put(self, task: str, model: str, request: Request, answer: object) -> None:
        """Store an answer durably. An existing answer to the same request is kept.

        Raises
        ------
        MMRetrieveError : if the file cannot be written.
        """
        key = _key(task, model, request)
        if key not in self._imported:
            self._insert([(key, answer)])

    def answers(self, task: str) -> Iterator[tuple[Request, Any]]:
        """Requests and answers of a task, of all models, in the order in which they were stored."""
        for (row_task, _, request), answer in self._items():
            if row_task == task:
                yield self._parsed(request), answer

    def export_jsonl(self, path: str | Path) -> int:
        """Write all answers as JSON lines, whole or not at all, and return their number.

        Raises
        ------
        MMRetrieveError : if `path` is the cache itself, or cannot be written.
        """
        path = Path(path)
        if path.absolute() in (self.path.absolute(), self.database.absolute()):
            raise MMRetrieveError(f"{path}: the cache cannot be exported to itself; name another file")
        lines = [_record(key, self._parsed(key[2]), answer) for key, answer in self._items()]
        partial = path.with_name(f"{path.name}.partial")
        try:
            partial.write_bytes(b"".join(lines))
            os.replace(partial, path)
        except OSError as error:
            raise MMRetrieveError(f"{path}: cannot be written ({error.strerror or error})") from error
        return len(lines)

    def import_jsonl(self, path: str | Path) -> int:
        """Store the answers of a file of JSON lines in one transaction, and return how many were new.

        Raises
        ------
        MMRetrieveError : if the file cannot be read or has a line of another format; nothing is stored then.
        """
        return self._insert((key, answer) for key, answer in list(_read_jsonl(Path(path))) if key not in self._imported)

    def _items(self) -> Iterator[tuple[Key, Any]]:
        yield from list(self._imported.items())
        for task, model, request, answer in self._select(SELECT_ALL):
            if (task, model, request) not in self._imported:
                yield (task, model, request), self._parsed(answer)

    def _insert(self, items: Iterable[tuple[Key, Any]]) -> int:
        rows = [(*key, json.dumps(answer)) for key, answer in items]
        with self._errors("written"):
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                return connection.executemany(INSERT, rows).rowcount

    def _select(self, statement: str, parameters: Key | tuple[()] = ()) -> list[Any]:
        with self._errors("read"):
            if self._connection is None and not _head(self.database):
                return []  # nothing is stored yet
            return self._open().execute(statement, parameters).fetchall()

    def _parsed(self, text: str) -> Any:
        try:
            return load_json(text)
        except (ValueError, TypeError) as error:
            raise MMRetrieveError(
                f"{self.database}: an entry of the cache of answers is not JSON ({error}); name another file, or remove this one"
            ) from error

    def _open(self) -> sqlite3.Connection:
        """The connection to a file that has the table."""
        if self._connection is None:
            connection = sqlite3.connect(self.database, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
            weakref.finalize(self, connection.close)
            if connection.execute("PRAGMA schema_version").fetchone() == (0,):
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(SCHEMA)
            if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
                raise sqlite3.DatabaseError("it is another kind of SQLite file")
            self._connection = connection
        return self._connection

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        """One thread at a time; errors of SQLite become one line that names the file."""
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise MMRetrieveError(
                f"{self.database}: the cache of answers cannot be {action} ({error}); name another file, or remove this one"
            ) from error


def is_answer_cache(path: Path) -> bool:
    """Whether a file holds answers as `AnswerCache` reads them. False if it cannot be read."""
    head = _head(path)
    return head == SQLITE_HEADER or head.startswith(RECORD_START)


def request_key(task: str, model: str, request: Request) -> str:
    """A text that is equal for equal requests, whatever the order of their fields."""
    return "\n".join(_key(task, model, request))


def picture_key(source: ImageLike) -> str:
    """The hash of an image in a request, 32 hexadecimal digits: of a file's bytes, else of size and pixels.

    Raises
    ------
    ImageError : if the image cannot be read.
    """
    if isinstance(source, str | Path):
        return content_hash(Path(source))
    picture = open_image(source)
    return hashlib.blake2b(f"{picture.size}".encode() + picture.tobytes(), digest_size=16).hexdigest()


def _key(task: str, model: str, request: Request) -> Key:
    return task, model, json.dumps(request, sort_keys=True, separators=(",", ":"))


def _record(key: Key, request: object, answer: object) -> bytes:
    task, model, _ = key
    record = {"task": task, "model": model, "asked": request, "said": answer}
    return json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def _head(path: Path) -> bytes:
    """The first 16 bytes of a file, fewer if it is shorter; none if it cannot be read."""
    try:
        with check_regular(path).open("rb") as file:
            return file.read(len(SQLITE_HEADER))
    except OSError:
        return b""


def _read_jsonl(path: Path) -> Iterator[tuple[Key, Any]]:
    """The answers of a file of JSON lines. A last line that a killed process left incomplete is ignored."""
    try:
        lines = check_regular(path).read_bytes().split(b"\n")
    except OSError as error:
        raise MMRetrieveError(f"{path}: cannot be read ({error.strerror or error})") from error
    for number, line in enumerate(lines, 1):
        record = _parse_record(line)
        is_incomplete = number == len(lines) and RECORD_START.startswith(line[: len(RECORD_START)])
        if record is not None:
            yield record
        elif line.strip() and not is_incomplete:
            raise MMRetrieveError(
                f"{path}, line {number}: not a record of an answer (JSON with task, model, asked and said); "
                "fix or remove the line, or name another file"
            )


def _parse_record(line: bytes) -> tuple[Key, Any] | None:
    try:
        record = load_json(line)
        key = _key(record["task"], record["model"], record["asked"])
        return (key, record["said"]) if all(isinstance(part, str) for part in key) else None
    except (ValueError, KeyError, TypeError):
        return None
