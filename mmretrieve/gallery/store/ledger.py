"""The ledger, `gallery.sqlite`: which items there are, what is known of them, and what has been committed.

A row is an item's number, counted from 0 in insertion order, and its place in `vectors.f16`. Rows are never given twice:
an item that is deleted or replaced keeps its row, marked with the generation in which it died, until compaction numbers
all rows anew and begins another epoch. So within an epoch a generation says exactly which items there were.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.sources.base import Value
from mmretrieve.gallery.sources.place import Place
from mmretrieve.gallery.store.fields import RESERVED, Kind, kind_of
from mmretrieve.gallery.store.filters import check_where
from mmretrieve.gallery.store.records import Item, Kept, Moment, MovedError, Record

BUSY_SECONDS = 30.0
WHERE_SECONDS = 30.0  # then a filter is given up
WHERE_BYTES = 10_000_000  # the longest text that a filter may make on its way
STEPS = 100_000  # of SQLite's machine between two looks at the clock
UNREADABLE = (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError)  # what a damaged entry leads to
ROW = RESERVED
TABLES = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (
  row INTEGER PRIMARY KEY, id TEXT NOT NULL, path TEXT NOT NULL, part TEXT, hash TEXT NOT NULL, width INTEGER, height INTEGER,
  source TEXT NOT NULL, stamp TEXT NOT NULL, vector INTEGER NOT NULL, thumbnail INTEGER NOT NULL, thumbnail_at INTEGER NOT NULL,
  thumbnail_size INTEGER NOT NULL, died INTEGER NOT NULL DEFAULT 0, seal INTEGER NOT NULL
);
CREATE TABLE fields ({ROW} INTEGER PRIMARY KEY);
CREATE UNIQUE INDEX ids ON items (id, died);
CREATE INDEX hashes ON items (hash);
CREATE INDEX dead ON items (row) WHERE died > 0;
"""


class Ledger:
    """Every method is one transaction, or part of the one that `reading` or `writing` opened in this call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, path: Path, meta: Mapping[str, Any]) -> None:
        """A new file. OSError where it cannot be written."""
        try:
            with _connection(path) as db:
                db.executescript(f"BEGIN; {TABLES}")
                _set_meta(db, {"rows": 0, "thumbnail_bytes": 0, "epoch": 0, "generation": 0, "fields": {}, **meta})
        except sqlite3.Error as error:
            raise OSError(str(error)) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One moment, for as long as the block lasts. GalleryError where the file is damaged."""
        try:
            with _connection(self.path) as db:
                db.execute("BEGIN")
                yield db
        except UnicodeEncodeError as error:
            raise GalleryError(f"{self.path.parent}: no item {error.object!r}: the id is not valid text") from error
        except (sqlite3.DatabaseError, *UNREADABLE) as error:
            told = " ".join(str(error).split())
            raise GalleryError(f"{self.path}: {told}; the gallery is damaged or is not one") from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that begins a new generation: committed when the block ends, rolled back when it raises."""
        with self.reading() as db:
            db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
            yield db

    def meta(self) -> dict[str, Any]:
        with self.reading() as db:
            return _meta(db)

    def set_meta(self, **values: object) -> None:
        with self.writing() as db:
            _set_meta(db, values)

    def kinds(self) -> dict[str, Kind]:
        """What each field holds."""
        return {name: Kind(kind) for name, kind in self.meta()["fields"].items()}

    def moment(self) -> Moment:
        with self.reading() as db:
            meta = _meta(db)
            dead = [row for (row,) in db.execute("SELECT row FROM items WHERE died > 0 ORDER BY row")]
        return Moment(meta["epoch"], meta["generation"], meta["rows"], np.array(dead, dtype=np.int64))

    def ids(self, moment: Moment) -> tuple[str, ...]:
        """All ids of that moment, in insertion order."""
        with self._within(moment) as db:
            return tuple(id_ for (id_,) in db.execute(f"SELECT id FROM items WHERE {moment.lives} ORDER BY row"))

    def rows_of(self, ids: Iterable[str], moment: Moment) -> list[int]:
        """Their rows, in that order. GalleryError for one that was not there."""
        query = f"SELECT row FROM items WHERE id = ? AND {moment.lives}"
        with self._within(moment) as db:
            return [self._found(db.execute(query, (id_,)), id_)[0] for id_ in ids]

    def copies(self, content: str, moment: Moment) -> list[str]:
        """The ids of items whose picture has that content hash."""
        query = f"SELECT id FROM items WHERE hash = ? AND {moment.lives} ORDER BY row"
        with self._within(moment) as db:
            return [id_ for (id_,) in db.execute(query, (content,))]

    def records_of(self, rows: Iterable[int], moment: Moment) -> list[Record]:
        """What is kept of those rows, in that order, whether they have died since or not."""
        with self._within(moment) as db:
            read = _Reader(db)
            return [read.record(row) for row in rows]

    def groups_of_content(self, moment: Moment) -> list[tuple[str, ...]]:
        """The ids of items that share their content with another, by content, all in insertion order."""
        shared = f"SELECT hash FROM items WHERE {moment.lives} GROUP BY hash HAVING count(*) > 1"
        groups: dict[str, list[str]] = {}
        with self._within(moment) as db:
            for content, id_ in db.execute(
                f"SELECT hash, id FROM items WHERE {moment.lives} AND hash IN ({shared}) ORDER BY row"
            ):
                groups.setdefault(content, []).append(id_)
        return [tuple(ids) for ids in groups.values()]

    def matching(self, where: str, moment: Moment) -> NDArray[np.int64]:
        """(m,) rows of the items for which that SQL expression holds, in order. OptionError where it cannot be worked out.

        It sees the columns of `items` and `fields` and SQLite's functions, and nothing else: no other table, no second SELECT.
        """
        query = f"SELECT items.row FROM items LEFT JOIN fields ON {ROW} = items.row WHERE {moment.lives} AND ({check_where(where)}) ORDER BY items.row"
        with self._within(moment) as db:
            names = ", ".join(
                name for table in ("items", "fields") for _, name, *_ in db.execute(f"PRAGMA table_info({table})")
            )
            try:
                with _confined(db):
                    return np.array([row for (row,) in db.execute(query)], dtype=np.int64)
            except (sqlite3.Error, UnicodeError) as error:
                raise OptionError(f"where {where!r}: {error}; there are the fields {names}") from error

    def live(self, ids: Iterable[str]) -> dict[str, Record]:
        """What is kept of those ids that are there now."""
        with self.reading() as db:
            read = _Reader(db)
            found = ((id_, db.execute("SELECT row FROM items WHERE id = ? AND died = 0", (id_,)).fetchone()) for id_ in ids)
            return {id_: read.record(row[0]) for id_, row in found if row}

    def with_content(self, hashes: Iterable[str]) -> dict[str, Record]:
        """One live record for each content hash that is there."""
        with self.reading() as db:
            read, query = _Reader(db), "SELECT min(row) FROM items WHERE hash = ? AND died = 0"
            found = ((content, db.execute(query, (content,)).fetchone()[0]) for content in hashes)
            return {content: read.record(row) for content, row in found if row is not None}

    def of_source(self, source: str) -> list[Record]:
        """The live records that came from there."""
        with self.reading() as db:
            read = _Reader(db)
            rows = db.execute("SELECT row FROM items WHERE source = ? AND died = 0 ORDER BY row", (source,)).fetchall()
            return [read.record(row) for (row,) in rows]

    def records(self, after: int, count: int) -> list[Record]:
        """Up to `count` records from row `after` on, dead ones included."""
        with self.reading() as db:
            read = _Reader(db)
            rows = db.execute("SELECT row FROM items WHERE row >= ? ORDER BY row LIMIT ?", (after, count)).fetchall()
            return [read.record(row) for (row,) in rows]

    def commit(self, new: Sequence[Record], thumbnail_bytes: int, *, instead: Sequence[Record] = ()) -> None:
        """Adds records at the end, and lets those die that they replace: all or none."""
        with self.writing() as db:
            _kill(db, instead)
            _add_fields(db, {name: value for record in new for name, value in record.item.fields.items()})
            for record in new:
                _insert(db, record)
            rows = new[-1].row + 1 if new else _meta(db)["rows"]
            _set_meta(db, {"rows": rows, "thumbnail_bytes": thumbnail_bytes})

    def kill(self, records: Sequence[Record]) -> None:
        with self.writing() as db:
            _kill(db, records)

    def renumber(self, thumbnails_at: Mapping[int, int], thumbnail_bytes: int, **more: object) -> None:
        """Forgets the dead, numbers the rest from 0 and begins a new epoch; `thumbnails_at` is old place → new place."""
        with self.writing() as db:
            db.execute(f"DELETE FROM fields WHERE {ROW} IN (SELECT row FROM items WHERE died > 0)")
            db.execute("DELETE FROM items WHERE died > 0")
            rows, read = db.execute("SELECT row FROM items ORDER BY row").fetchall(), _Reader(db)
            for new, (old,) in enumerate(rows):
                record = read.record(old)
                _remove(db, old)
                kept = replace(record.kept, thumbnail_at=thumbnails_at.get(record.kept.thumbnail_at, 0))
                _insert(db, replace(record, row=new, kept=kept))
            now = {"rows": len(rows), "thumbnail_bytes": thumbnail_bytes, "epoch": _meta(db)["epoch"] + 1}
            _set_meta(db, now | more)

    def shrink(self) -> None:
        """Gives the room of what was forgotten back to the disk."""
        with self.reading() as db:
            db.rollback()
            db.execute("VACUUM")

    def rewrite(self, records: Sequence[Record]) -> None:
        """Puts these in the place of what is kept of their rows."""
        with self.writing() as db:
            _add_fields(db, {name: value for record in records for name, value in record.item.fields.items()})
            for record in records:
                _insert(db, record)

    def _found(self, cursor: sqlite3.Cursor, id_: str) -> tuple[Any, ...]:
        found = cursor.fetchone()
        if found is None:
            raise GalleryError(f"{self.path.parent}: no item {id_!r} in this gallery")
        return tuple(found)

    @contextmanager
    def _within(self, moment: Moment) -> Iterator[sqlite3.Connection]:
        with self.reading() as db:
            if _meta(db)["epoch"] != moment.epoch:
                raise MovedError(f"{self.path.parent}: was compacted meanwhile; open it again")
            yield db


class _Reader:
    """Reads records of one transaction, the names of the fields only once."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db, self._names = db, [name for _, name, *_ in db.execute("PRAGMA table_info(fields)")][1:]

    def record(self, row: int) -> Record:
        found = self._db.execute("SELECT * FROM items WHERE row = ?", (row,)).fetchone()
        given = self._db.execute(f"SELECT * FROM fields WHERE {ROW} = ?", (row,)).fetchone() if self._names else None
        fields = {name: value for name, value in zip(self._names, given[1:], strict=True) if value is not None} if given else {}
        _, id_, path, part, content, width, height, source, stamp, *kept, died, seal = found
        item = Item(id_, Place(path, part), content, width, height, fields, source, stamp)
        return Record(row, item, Kept(*kept), died, seal)


@contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def _meta(db: sqlite3.Connection) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}


def _set_meta(db: sqlite3.Connection, values: Mapping[str, object]) -> None:
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in values.items()])


def _insert(db: sqlite3.Connection, record: Record) -> None:
    _remove(db, record.row)
    values = record.values()
    db.execute(f"INSERT INTO items VALUES ({', '.join('?' * len(values))})", values)
    given = {name: value for name, value in record.item.fields.items() if value is not None}
    if given:
        names = ", ".join(map(quoted, given))
        db.execute(f"INSERT INTO fields ({ROW}, {names}) VALUES (?{', ?' * len(given)})", (record.row, *given.values()))


def _remove(db: sqlite3.Connection, row: int) -> None:
    db.execute("DELETE FROM items WHERE row = ?", (row,))
    db.execute(f"DELETE FROM fields WHERE {ROW} = ?", (row,))


def _kill(db: sqlite3.Connection, records: Sequence[Record]) -> None:
    now = _meta(db)["generation"]
    for record in records:
        _insert(db, replace(record, died=now))


def _add_fields(db: sqlite3.Connection, given: Mapping[str, Value]) -> None:
    """Columns for fields that are new here. A number's has no type, so that every value stays what it was."""
    kinds = _meta(db)["fields"]
    new = {name: kind_of(name, value) for name, value in given.items() if name not in kinds and value is not None}
    for name, kind in new.items():
        db.execute(f"ALTER TABLE fields ADD COLUMN {quoted(name)} {'TEXT' if kind is Kind.TEXT else ''}")
    if new:
        _set_meta(db, {"fields": kinds | new})


@contextmanager
def _confined(db: sqlite3.Connection) -> Iterator[None]:
    """Meanwhile the connection runs one SELECT over items and fields, not for long, and nothing that takes much memory."""
    selects, deadline = iter((True,)), time.monotonic() + WHERE_SECONDS

    def allow(action: int, table: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_SELECT:
            return sqlite3.SQLITE_OK if next(selects, False) else sqlite3.SQLITE_DENY
        known = action == sqlite3.SQLITE_READ and table in ("items", "fields", "")
        return sqlite3.SQLITE_OK if known or action == sqlite3.SQLITE_FUNCTION else sqlite3.SQLITE_DENY

    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, WHERE_BYTES)
    db.set_authorizer(allow)
    db.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
    try:
        yield
    finally:
        db.set_authorizer(None)
        db.set_progress_handler(None, STEPS)


def quoted(name: str) -> str:
    """A field's name as SQL writes it."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
