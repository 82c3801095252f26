"""The ledger, `gallery.sqlite`: which items there are, what is known of them, and what has been committed.

A row is an item's number, counted from 0 in insertion order, and its place in `vectors.f16`. Rows are never given twice:
an item that is deleted or replaced keeps its row, marked with the generation in which it died, until compaction numbers
all rows anew and begins another epoch. So within an epoch a generation says exactly which items there were.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import GalleryError, MissingError
from mmretrieve.filters import Expression, to_sqlite
from mmretrieve.filters.sqlite import refusal
from mmretrieve.gallery.store.fields import FieldType
from mmretrieve.gallery.store.records import ItemRecord, StaleViewError, StoreVersion
from mmretrieve.gallery.store.statements import (
    ROW,
    TABLES,
    WHERE_SECONDS,
    RecordReader,
    add_fields,
    confined,
    connection,
    insert,
    keep_meta,
    kill,
    meta_of,
    remove,
)

UNREADABLE = (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError)  # what a damaged entry leads to
DISK = {"SQLITE_FULL", "SQLITE_READONLY", "SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_CANTOPEN"}  # nothing is wrong with the file


class Ledger:
    """Every method is one transaction, or part of the one that `reading` or `writing` opened in this call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, path: Path, meta: Mapping[str, Any]) -> None:
        """A new file. OSError where it cannot be written."""
        try:
            with connection(path) as db:
                db.executescript(f"BEGIN; {TABLES}")
                keep_meta(db, {"rows": 0, "thumbnail_bytes": 0, "epoch": 0, "generation": 0, "fields": {}, **meta})
        except sqlite3.Error as error:
            raise OSError(str(error)) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One moment, for as long as the block lasts. GalleryError where the file is damaged."""
        try:
            with connection(self.path) as db:
                db.execute("BEGIN")
                yield db
        except UnicodeEncodeError as error:
            raise MissingError(f"{self.path.parent}: no item {error.object!r}: the id is not valid text") from error
        except (sqlite3.DatabaseError, *UNREADABLE) as error:
            raise GalleryError(f"{self.path}: {' '.join(str(error).split())}; {_meaning(error)}") from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that begins a new generation: committed when the block ends, rolled back when it raises."""
        with self.reading() as db:
            db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
            yield db

    def meta(self) -> dict[str, Any]:
        with self.reading() as db:
            return meta_of(db)

    def set_meta(self, **values: object) -> None:
        with self.writing() as db:
            keep_meta(db, values)

    def kinds(self) -> dict[str, FieldType]:
        """What each field holds."""
        return {name: FieldType(kind) for name, kind in self.meta()["fields"].items()}

    def moment(self) -> StoreVersion:
        with self.reading() as db:
            meta = meta_of(db)
            dead = [row for (row,) in db.execute("SELECT row FROM items WHERE died > 0 ORDER BY row")]
        return StoreVersion(meta["epoch"], meta["generation"], meta["rows"], np.array(dead, dtype=np.int64))

    def ids(self, moment: StoreVersion) -> tuple[str, ...]:
        """All ids of that moment, in insertion order."""
        with self._within(moment) as db:
            return tuple(id_ for (id_,) in db.execute(f"SELECT id FROM items WHERE {moment.lives} ORDER BY row"))

    def rows_of(self, ids: Iterable[str], moment: StoreVersion) -> list[int]:
        """Their rows, in that order. GalleryError for one that was not there."""
        query = f"SELECT row FROM items WHERE id = ? AND {moment.lives}"
        with self._within(moment) as db:
            return [self._found(db.execute(query, (id_,)), id_)[0] for id_ in ids]

    def copies(self, hashes: Sequence[str], moment: StoreVersion) -> list[list[str]]:
        """For each content hash the ids of the items whose picture has it."""
        query = f"SELECT id FROM items WHERE hash = ? AND {moment.lives} ORDER BY row"
        with self._within(moment) as db:
            return [[id_ for (id_,) in db.execute(query, (content,))] for content in hashes]

    def records_of(self, rows: Sequence[int], moment: StoreVersion) -> list[ItemRecord]:
        """What is kept of those rows, in that order, whether they have died since or not."""
        with self._within(moment) as db:
            return RecordReader(db).records(rows)

    def groups_of_content(self, moment: StoreVersion) -> list[tuple[str, ...]]:
        """The ids of items that share their content with another, by content, all in insertion order."""
        shared = f"SELECT hash FROM items WHERE {moment.lives} GROUP BY hash HAVING count(*) > 1"
        groups: dict[str, list[str]] = {}
        with self._within(moment) as db:
            for content, id_ in db.execute(
                f"SELECT hash, id FROM items WHERE {moment.lives} AND hash IN ({shared}) ORDER BY row"
            ):
                groups.setdefault(content, []).append(id_)
        return [tuple(ids) for ids in groups.values()]

    def matching(self, where: Expression, moment: StoreVersion) -> NDArray[np.int64]:
        """(m,) rows of the items for which a filter holds, in order. OptionError where it cannot be evaluated.

        It may read the columns that it names, and nothing else.
        """
        with self._within(moment) as db:
            condition = to_sqlite(where, meta_of(db)["fields"])
            query = (
                f"SELECT items.row FROM items LEFT JOIN fields ON {ROW} = items.row "
                f"WHERE {moment.lives} AND {condition.sql} ORDER BY items.row"
            )
            try:
                with confined(db, condition.reads):
                    return np.array([row for (row,) in db.execute(query, condition.parameters)], dtype=np.int64)
            except (sqlite3.Error, UnicodeError) as error:
                late = getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT"
                raise refusal(where, f"took longer than {WHERE_SECONDS:g} s" if late else str(error)) from error

    def live(self, ids: Iterable[str]) -> dict[str, ItemRecord]:
        """What is kept of those ids that are there now."""
        with self.reading() as db:
            read = RecordReader(db)
            found = ((id_, db.execute("SELECT row FROM items WHERE id = ? AND died = 0", (id_,)).fetchone()) for id_ in ids)
            return {id_: read.record(row[0]) for id_, row in found if row}

    def with_content(self, hashes: Iterable[str]) -> dict[str, ItemRecord]:
        """One live record for each content hash that is there."""
        with self.reading() as db:
            read, query = RecordReader(db), "SELECT min(row) FROM items WHERE hash = ? AND died = 0"
            found = ((content, db.execute(query, (content,)).fetchone()[0]) for content in hashes)
            return {content: read.record(row) for content, row in found if row is not None}

    def of_source(self, source: str) -> list[ItemRecord]:
        """The live records that came from there."""
        with self.reading() as db:
            rows = db.execute("SELECT row FROM items WHERE source = ? AND died = 0 ORDER BY row", (source,))
            return RecordReader(db).records([row for (row,) in rows])

    def records(self, after: int, count: int) -> list[ItemRecord]:
        """Up to `count` records from row `after` on, dead ones included."""
        with self.reading() as db:
            rows = db.execute("SELECT row FROM items WHERE row >= ? ORDER BY row LIMIT ?", (after, count))
            return RecordReader(db).records([row for (row,) in rows])

    def commit(self, new: Sequence[ItemRecord], thumbnail_bytes: int, *, instead: Sequence[ItemRecord] = ()) -> None:
        """Adds records at the end, and lets those die that they replace: all or none."""
        with self.writing() as db:
            kill(db, instead)
            add_fields(db, new)
            for record in new:
                insert(db, record)
            rows = new[-1].row + 1 if new else meta_of(db)["rows"]
            keep_meta(db, {"rows": rows, "thumbnail_bytes": thumbnail_bytes})

    def kill(self, records: Sequence[ItemRecord]) -> None:
        with self.writing() as db:
            kill(db, records)

    def renumber(self, thumbnails_at: Mapping[int, int], thumbnail_bytes: int, **more: object) -> None:
        """Forgets the dead, numbers the rest from 0 and begins a new epoch; `thumbnails_at` is old place → new place."""
        with self.writing() as db:
            db.execute(f"DELETE FROM fields WHERE {ROW} IN (SELECT row FROM items WHERE died > 0)")
            db.execute("DELETE FROM items WHERE died > 0")
            rows, read = db.execute("SELECT row FROM items ORDER BY row").fetchall(), RecordReader(db)
            for new, (old,) in enumerate(rows):
                record = read.record(old)
                remove(db, old)
                kept = replace(record.kept, thumbnail_at=thumbnails_at.get(record.kept.thumbnail_at, 0))
                insert(db, replace(record, row=new, kept=kept))
            now = {"rows": len(rows), "thumbnail_bytes": thumbnail_bytes, "epoch": meta_of(db)["epoch"] + 1}
            keep_meta(db, now | more)

    def shrink(self) -> None:
        """Gives the room of what was forgotten back to the disk."""
        with self.reading() as db:
            db.rollback()
            db.execute("VACUUM")

    def rewrite(self, records: Sequence[ItemRecord]) -> None:
        """Puts these in the place of what is kept of their rows."""
        with self.writing() as db:
            add_fields(db, records)
            for record in records:
                insert(db, record)

    def _found(self, cursor: sqlite3.Cursor, id_: str) -> tuple[Any, ...]:
        found = cursor.fetchone()
        if found is None:
            raise MissingError(f"{self.path.parent}: no item {id_!r} in this gallery")
        return tuple(found)

    @contextmanager
    def _within(self, moment: StoreVersion) -> Iterator[sqlite3.Connection]:
        with self.reading() as db:
            if meta_of(db)["epoch"] != moment.epoch:
                raise StaleViewError(f"{self.path.parent}: was compacted meanwhile; open it again")
            yield db


def _meaning(error: Exception) -> str:
    if "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2]) in DISK:
        return "what was committed before is safe"
    return "the gallery is damaged or is not one"
