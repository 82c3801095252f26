"""Reads and writes of the ledger in SQL. Each runs within the transaction of its connection.

Every change of a row goes through `LedgerTransaction`, which adjusts the checksum of the ledger.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from threading import Timer
from typing import Any

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import FUNCTIONS, MAX_PATTERN_BYTES
from mmretrieve.filters.sqlite import quote_name
from mmretrieve.gallery.store import ledger_checksum
from mmretrieve.gallery.store.ledger_checksum import LedgerChecksum
from mmretrieve.gallery.store.records import INT64, RESERVED, FieldType, Item, ItemRecord, StoredChecksums, field_type_of
from mmretrieve.options import load_json
from mmretrieve.sources.location import Location

WHERE_SECONDS = 30.0  # then a filter is interrupted
BUSY_SECONDS = 2 * WHERE_SECONDS  # a write waits for the readers before it, and none reads longer than a filter
MAX_WHERE_BYTES = 1_000_000  # the longest text that a filter may create
PROGRESS_STEPS = 100_000  # steps of SQLite's virtual machine between two checks of the time
MAX_MAPPED_BYTES = 1 << 40  # of the ledger: scattered rows are read twice as fast from a mapped file
STATEMENT_BATCH_SIZE = 500  # values in one statement
N_ITEM_COLUMNS = 15  # columns of `items`
RECORD_BATCH_SIZE = 10_000  # rows that are rewritten, or whose checksums are read, at once
READ_CACHE_KB = 2_000  # of pages of a connection that is kept
WRITE_CACHE_KB = 1 << 16  # of changed pages in memory; others are flushed to the disk before the commit, and read again
MAX_THUMBNAIL_BYTES = 1 << 24  # a JPEG file of 320 pixels has less than a megabyte
META_TYPES = {
    "dim": int,
    "rows": int,
    "thumbnail_bytes": int,
    "epoch": int,
    "generation": int,
    "fields": dict,
    "title_field": str,
    "captions": dict,
}
MAX_FIELDS = 1_900  # SQLite has 2,000 columns
ROW = RESERVED
READ_ALWAYS = frozenset(  # by the query around every filter; "" is a table of which no column is read
    [("items", "row"), ("items", "died"), ("items", ""), ("fields", ROW), ("fields", "")]
)
DEAD_INDEX = "CREATE INDEX dead ON items (died, row) WHERE died > 0"
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
{DEAD_INDEX};
"""


def read_records(db: sqlite3.Connection, rows: Sequence[int]) -> list[ItemRecord]:
    """Returns the records of rows, in their order. Raises KeyError for a missing row."""
    names = [name for _, name, *_ in db.execute("PRAGMA table_info(fields)")][1:]
    records: dict[int, ItemRecord] = {}
    for start in range(0, len(rows), STATEMENT_BATCH_SIZE):
        batch = ", ".join(str(int(row)) for row in rows[start : start + STATEMENT_BATCH_SIZE])
        query = f"SELECT * FROM items LEFT JOIN fields ON {ROW} = items.row WHERE items.row IN ({batch})"
        records |= {values[0]: _record(values, names) for values in _checked(db.execute(query).fetchall())}
    return [records[row] for row in rows]


def read_ids_and_paths(db: sqlite3.Connection, rows: Sequence[int]) -> tuple[object, list[tuple[str, str]]]:
    """Returns the epoch, and the id and the path of each row that exists, in their order, with one statement."""
    # a list of literals would be parsed anew each time; CROSS JOIN keeps the order of the rows
    query = """SELECT value, '' FROM meta WHERE key = 'epoch' UNION ALL
        SELECT items.id, items.path FROM json_each(?) AS wanted CROSS JOIN items ON items.row = wanted.value"""
    (epoch, _), *found = db.execute(query, (json.dumps(rows),)).fetchall()
    return load_json(epoch), found


def _checked(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Returns the rows. Raises TypeError or ValueError for values that were never committed: SQLite stores any type in any column.

    Whole columns are checked, which costs a fraction of what a check of each row does.
    """
    if not rows:
        return rows
    columns = list(zip(*rows, strict=True))
    row, id_, path, member, content, width, height, source, fingerprint, *stored, died, _ = columns[:N_ITEM_COLUMNS]
    for texts in (id_, path, content, source, fingerprint):
        "".join(texts)  # a TypeError unless all are text
    for numbers in (row, *stored, died):
        if type(sum(numbers)) is not int or min(numbers) < 0:
            raise ValueError("a number is below 0 or not whole")
    for values, type_ in ((member, str), (width, int), (height, int)):
        if not {type_, type(None)}.issuperset(map(type, values)):
            raise TypeError("a value has another type than its column")
    if min(filter(None, (*width, *height)), default=0) < 0 or max(stored[-1]) > MAX_THUMBNAIL_BYTES:
        raise ValueError("the size of an image or of a thumbnail is out of range")
    if any(bytes in map(type, values) for values in columns[N_ITEM_COLUMNS:]):
        raise TypeError("a field has bytes")
    return rows


def _record(values: tuple[Any, ...], names: Sequence[str]) -> ItemRecord:
    row, id_, path, member, content, width, height, source, fingerprint, *stored, died, checksum = values[:N_ITEM_COLUMNS]
    fields = {name: value for name, value in zip(names, values[N_ITEM_COLUMNS + 1 :], strict=True) if value is not None}
    item = Item(id_, Location(path, member), content, width, height, fields, source, fingerprint)
    return ItemRecord(row, item, StoredChecksums(*stored), died, checksum)


def connect(path: Path) -> sqlite3.Connection:
    """Opens the ledger. `in_transaction` begins and ends its transactions. One thread at a time may use the connection."""
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    db.execute(f"PRAGMA mmap_size = {MAX_MAPPED_BYTES}")
    return db


@contextmanager
def in_transaction(db: sqlite3.Connection, begin: str = "BEGIN") -> Iterator[sqlite3.Connection]:
    """One transaction: committed when the block ends, rolled back when it raises."""
    with db:
        db.execute(begin)
        yield db


def meta_of(db: sqlite3.Connection) -> dict[str, Any]:
    """Returns the metadata. Raises ValueError for values that were never committed."""
    meta = {key: load_json(value) for key, value in db.execute("SELECT key, value FROM meta")}
    for name, type_ in META_TYPES.items():
        value = meta.get(name)
        if value is not None and (type(value) is not type_ or (isinstance(value, int) and not 0 <= value < INT64)):
            raise ValueError(f"{name} is {value!r:.60}")
    return meta


def epoch_of(db: sqlite3.Connection) -> object:
    """Returns the epoch, of all metadata the one that every read needs."""
    return load_json(*db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone())


def put_meta(db: sqlite3.Connection, values: Mapping[str, object]) -> None:
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in values.items()])


class LedgerTransaction:
    """Begins a new generation. Raises GalleryError, with nothing written, if the metadata or an entry to be changed is damaged."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        checksum = ledger_checksum.read_checksum(db)
        if checksum is None:
            raise GalleryError(f"{path}: {ledger_checksum.DAMAGED}; nothing was written")
        self._db, self._path, self._row_sum = db, path, checksum.row_sum
        db.execute(f"PRAGMA cache_size = -{WRITE_CACHE_KB}")
        db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
        self.meta: dict[str, Any] = meta_of(db)

    def close(self) -> None:
        """Writes the checksum of the new content; the last statement of a transaction. The cache of pages is small again when it ends."""
        put_meta(self._db, {ledger_checksum.KEY: LedgerChecksum.of(self._db, self._row_sum).to_dict()})
        self._db.execute(f"PRAGMA cache_size = -{READ_CACHE_KB}")

    def set_meta(self, **values: object) -> None:
        put_meta(self._db, values)
        self.meta |= values

    def insert(self, record: ItemRecord) -> None:
        """Inserts a row that does not exist yet."""
        values, checksum = record.values, record.checksum
        self._db.execute(f"INSERT INTO items VALUES ({', '.join('?' * len(values))}, ?)", (*values, checksum))
        fields = {name: value for name, value in record.item.fields.items() if value is not None}
        if fields:
            names = ", ".join(map(quote_name, fields))
            self._db.execute(
                f"INSERT INTO fields ({ROW}, {names}) VALUES (?{', ?' * len(fields)})", (record.row, *fields.values())
            )
        self._row_sum += checksum

    def remove(self, row: int) -> ItemRecord:
        """Removes a row and returns its record."""
        (record,) = self._checked([row])
        self._db.execute("DELETE FROM items WHERE row = ?", (row,))
        self._db.execute(f"DELETE FROM fields WHERE {ROW} = ?", (row,))
        self._row_sum -= record.checksum
        return record

    def replace(self, record: ItemRecord) -> None:
        self.remove(record.row)
        self.insert(record)

    def mark_deleted(self, rows: Sequence[int]) -> None:
        """Marks items as deleted in this generation; their rows stay."""
        for record in self._checked(rows):
            dead = replace(record, died=self.meta["generation"])
            self._db.execute("UPDATE items SET died = ?, seal = ? WHERE row = ?", (dead.died, dead.checksum, dead.row))
            self._row_sum += dead.checksum - record.checksum

    def renumber(self, thumbnails_at: Mapping[int, int]) -> int:
        """Removes the dead rows, numbers the live ones from 0 and returns how many there are. `thumbnails_at` maps old offsets to new ones.

        Indexes are built again at the end, from sorted entries: each entry that moves by itself would rewrite a page of them.
        """
        indexes = self._db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
        for name, _ in indexes:
            self._db.execute(f"DROP INDEX {quote_name(name)}")
        first = count = 0
        while rows := self._rows_from(first):
            records = list(self._checked(rows))
            live = [record for record in records if not record.died]
            moved = [_moved(record, row, thumbnails_at) for row, record in enumerate(live, count)]
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(records, moved, strict=False)))
            self._remove_all(records[same:])
            for record in moved[same:]:
                self.insert(record)
            first, count = rows[-1] + 1, count + len(live)
        for _, sql in indexes:
            self._db.execute(sql)
        return count

    def _rows_from(self, first: int) -> list[int]:
        """Returns the next rows, deleted ones included."""
        rows = self._db.execute("SELECT row FROM items WHERE row >= ? ORDER BY row LIMIT ?", (first, RECORD_BATCH_SIZE))
        return [row for (row,) in rows]

    def _remove_all(self, records: Sequence[ItemRecord]) -> None:
        """Removes all rows from that of the first record to that of the last."""
        if records:
            rows = records[0].row, records[-1].row
            self._db.execute("DELETE FROM items WHERE row BETWEEN ? AND ?", rows)
            self._db.execute(f"DELETE FROM fields WHERE {ROW} BETWEEN ? AND ?", rows)
            self._row_sum -= sum(record.written_checksum for record in records)

    def add_fields(self, records: Iterable[ItemRecord]) -> None:
        """Adds columns for new fields. The column of a number has no type, so that integers stay integers."""
        fields = self.meta["fields"]
        values = {name: value for record in records for name, value in record.item.fields.items() if value is not None}
        new = {name: field_type_of(name, value) for name, value in values.items() if name not in fields}
        if len(fields) + len(new) > MAX_FIELDS:
            raise GalleryError(
                f"a gallery has up to {MAX_FIELDS:,} fields; {list(new)[-1]!r} would make {len(fields) + len(new):,}; leave some out"
            )
        for name, kind in new.items():
            self._db.execute(f"ALTER TABLE fields ADD COLUMN {quote_name(name)} {'TEXT' if kind is FieldType.TEXT else ''}")
        if new:
            self.set_meta(fields=fields | new)

    def _checked(self, rows: Sequence[int]) -> Iterator[ItemRecord]:
        """Yields the records of rows. Raises GalleryError for one that is not what was committed: a write must not hide damage."""
        for record in read_records(self._db, rows):
            if not record.is_intact:
                raise GalleryError(
                    f"{self._path}: the entry of {record.item.id!r} (row {record.row}) is not the one that was committed; nothing was written"
                )
            yield record


def _moved(record: ItemRecord, row: int, thumbnails_at: Mapping[int, int]) -> ItemRecord:
    stored = replace(record.stored, thumbnail_at=thumbnails_at.get(record.stored.thumbnail_at, 0))
    return replace(record, row=row, stored=stored)


@contextmanager
def restrict_reads(db: sqlite3.Connection, reads: Collection[tuple[str, str]]) -> Iterator[None]:
    """Restricts the connection to reading these (table, column) pairs and those of every query, and limits its memory.

    After WHERE_SECONDS the query is interrupted, by a progress handler, which counts steps, and by a timer, as one step may be long.
    """
    readable, deadline = READ_ALWAYS | frozenset(reads), time.monotonic() + WHERE_SECONDS

    def authorize(action: int, table: str | None, name: str | None, *_: object) -> int:
        allowed = (
            action == sqlite3.SQLITE_SELECT
            or (action == sqlite3.SQLITE_READ and (table, name) in readable)
            or (action == sqlite3.SQLITE_FUNCTION and str(name).lower() in FUNCTIONS)
        )
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    limits = {sqlite3.SQLITE_LIMIT_LENGTH: MAX_WHERE_BYTES, sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: MAX_PATTERN_BYTES}
    previous = {limit: db.setlimit(limit, value) for limit, value in limits.items()}
    db.set_authorizer(authorize)
    db.set_progress_handler(lambda: time.monotonic() > deadline, PROGRESS_STEPS)
    timer = Timer(WHERE_SECONDS, db.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # the connection may be closed next
        db.set_authorizer(None)
        db.set_progress_handler(None, PROGRESS_STEPS)
        for limit, value in previous.items():
            db.setlimit(limit, value)
