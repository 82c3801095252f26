"""The ledger, `gallery.sqlite`: the items, their metadata, and what has been committed.

A row is the number of an item, counted from 0 in insertion order, and its position in `vectors.f16`. Rows are never reused: a deleted or
replaced item keeps its row, marked with the generation of its deletion, until compaction renumbers all rows and begins a new epoch. Within an
epoch, a generation therefore determines which items existed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import GalleryError, MissingError, MMRetrieveError
from mmretrieve.filters import Expression, to_sqlite
from mmretrieve.filters.sqlite import check_order, filter_error
from mmretrieve.forks import FORK_GATE
from mmretrieve.gallery.store import ledger_checksum
from mmretrieve.gallery.store.connections import ConnectionPool
from mmretrieve.gallery.store.files import SEAL
from mmretrieve.gallery.store.ledger_checksum import LedgerChecksum
from mmretrieve.gallery.store.records import (
    RESTORE,
    ExistingItem,
    FieldType,
    ItemRecord,
    StaleViewError,
    StoreVersion,
    unicode_forms,
)
from mmretrieve.gallery.store.statements import (
    BUSY_SECONDS,
    DEAD_INDEX,
    RECORD_BATCH_SIZE,
    ROW,
    STATEMENT_BATCH_SIZE,
    TABLES,
    WHERE_SECONDS,
    LedgerTransaction,
    connect,
    epoch_of,
    in_transaction,
    meta_of,
    put_meta,
    read_ids_and_paths,
    read_records,
    restrict_reads,
)

FORMAT, OLDER_FORMAT = 3, 2
BEGIN_WRITING = "BEGIN IMMEDIATE"  # rows that a write reads must not change before it writes
# errors that a damaged entry causes
UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError, MemoryError)
DISK = {"SQLITE_FULL", "SQLITE_READONLY", "SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_CANTOPEN"}  # the file itself is intact


class Ledger:
    """Each method is one transaction, or part of the transaction that `reading` or `writing` opened in the same call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections = ConnectionPool(path)

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, Any]) -> None:
        """Creates the file. Raises OSError if it cannot be written."""
        try:
            with FORK_GATE.no_fork(), closing(connect(path)) as db, in_transaction(db):
                create_tables(db, meta)
        except sqlite3.Error as error:
            raise OSError(str(error)) from error

    @contextmanager
    def reading(self, begin: str = "BEGIN") -> Iterator[sqlite3.Connection]:
        """One version of the ledger until the block ends. Raises GalleryError if the file is damaged."""
        with explains_errors(self.path), FORK_GATE.no_fork(), self._connection() as db, in_transaction(db, begin):
            yield db

    def _connection(self) -> AbstractContextManager[sqlite3.Connection]:
        """Returns a connection for one transaction."""
        return self.connections.connection()

    @contextmanager
    def writing(self) -> Iterator[LedgerTransaction]:
        """One transaction that begins a new generation: committed when the block ends, rolled back when it raises."""
        with self.reading(BEGIN_WRITING) as db:
            transaction = LedgerTransaction(db, self.path)
            yield transaction
            transaction.close()

    def check(self) -> None:
        """Raises GalleryError if the metadata, or a sealed ledger, is not what was committed. Reads no rows."""
        with self.reading() as db:
            is_damaged = ledger_checksum.problem_of_seal(db, self._seal_path) == ledger_checksum.DAMAGED
            if is_damaged or ledger_checksum.read_checksum(db) is None:
                raise GalleryError(f"{self.path}: {ledger_checksum.DAMAGED}; nothing was written")

    def seal(self) -> None:
        """Seals a small ledger; removes the seal of a larger one."""
        if self.path.stat().st_size > ledger_checksum.MAX_SEALED_BYTES:
            self._seal_path.unlink(missing_ok=True)
            return
        with self.reading() as db:
            ledger_checksum.write_seal(db, self._seal_path)

    def problem(self) -> str | None:
        """Returns one line if the ledger as a whole, or its seal, is not what was committed. Reads all rows."""
        with self.reading() as db:
            problem = ledger_checksum.problem_of_seal(db, self._seal_path)
            if problem is None and meta_of(db)["format"] == FORMAT and not ledger_checksum.is_intact(db):
                problem = ledger_checksum.DAMAGED
        return f"{self.path.name}: {problem}" if problem == ledger_checksum.DAMAGED else problem

    def migrate(self) -> None:
        """Migrates a ledger of OLDER_FORMAT: adds the checksum that writes maintain, and an index of deletions.

        Raises GalleryError, with nothing written, if the file is not the one that was sealed.
        """
        if self.meta()["format"] == FORMAT:
            return
        with self.reading(BEGIN_WRITING) as db:
            meta = meta_of(db)
            if meta["format"] == FORMAT:  # another process has migrated it
                return
            if ledger_checksum.problem_of_seal(db, self._seal_path) == ledger_checksum.DAMAGED:
                raise GalleryError(f"{self.path}: {ledger_checksum.DAMAGED}; nothing was written")
            db.execute("DROP INDEX dead")
            db.execute(DEAD_INDEX)
            put_meta(db, {"format": FORMAT, "generation": meta["generation"] + 1})
            row_sum = ledger_checksum.row_sum_of(db)
            put_meta(db, {ledger_checksum.KEY: LedgerChecksum.of(db, row_sum).to_dict()})

    def unmigrated_thumbnails(self) -> bytes | None:
        """Returns the content of `thumbnails.bin` as the migration will write it; None if the gallery has that file."""
        return None

    @property
    def _seal_path(self) -> Path:
        return self.path.with_name(SEAL)

    def meta(self) -> dict[str, Any]:
        with self.reading() as db:
            return meta_of(db)

    def set_meta(self, **values: object) -> None:
        with self.writing() as transaction:
            transaction.set_meta(**values)

    def field_types(self) -> dict[str, FieldType]:
        """Returns field name → type."""
        return {name: FieldType(kind) for name, kind in self.meta()["fields"].items()}

    def version(self, earlier: StoreVersion | None = None) -> StoreVersion:
        """Returns the current version. With an earlier one of the same epoch, only later deletions are read."""
        with self.reading() as db:
            meta = meta_of(db)
            if meta["rows"] > ledger_checksum.size_of(db):  # each takes more than a byte
                raise ValueError(f"rows is {meta['rows']}")
            if earlier is None or earlier.epoch != meta["epoch"]:
                earlier = StoreVersion(meta["epoch"], 0, 0, np.empty(0, np.int64))
            query = "SELECT row FROM items WHERE died > 0 AND died > ?"
            deleted = [row for (row,) in db.execute(query, (earlier.generation,))]
            if deleted and not 0 <= min(deleted) <= max(deleted) < meta["rows"]:
                raise ValueError(f"row {max(deleted)} was deleted, of {meta['rows']}")
        dead = np.union1d(earlier.dead, np.array(deleted, dtype=np.int64)) if deleted else earlier.dead
        return StoreVersion(meta["epoch"], meta["generation"], meta["rows"], dead)

    def ids(self, version: StoreVersion, first_row: int = 0) -> tuple[str, ...]:
        """Returns the ids of a version from a row on, in insertion order."""
        query = f"SELECT id FROM items WHERE row >= ? AND {version.condition} ORDER BY row"
        with self._within(version) as db:
            ids = _texts(db.execute(query, (first_row,)))
            expected = version.total - first_row - int(np.count_nonzero(version.dead >= first_row))
            if len(ids) != expected:
                raise ValueError(f"{len(ids)} items from row {first_row} on, expected {expected}")
            return ids

    def rows_of(self, ids: Iterable[str], version: StoreVersion) -> list[int]:
        """Returns the rows of ids, in any Unicode form, in their order. Raises GalleryError for an unknown id."""
        query = f"SELECT row FROM items WHERE id = ? AND {version.condition}"
        with self._within(version) as db:
            rows = ((id_, (db.execute(query, (form,)).fetchone() for form in unicode_forms(id_))) for id_ in ids)
            return [self._checked(next(filter(None, found), None), id_)[0] for id_, found in rows]

    def copies(self, hashes: Sequence[str], version: StoreVersion) -> list[list[str]]:
        """Returns for each content hash the ids of the items with it."""
        query = f"SELECT id FROM items WHERE hash = ? AND {version.condition} ORDER BY row"
        with self._within(version) as db:
            return [list(_texts(db.execute(query, (content,)))) for content in hashes]

    def records_of(self, rows: Sequence[int], version: StoreVersion) -> list[ItemRecord]:
        """Returns the records of rows, in their order, whether they were deleted since or not."""
        with self._within(version) as db:
            return read_records(db, rows)

    def ids_and_paths(self, rows: Sequence[int], version: StoreVersion) -> list[tuple[str, str]]:
        """Returns the id and the path of each row, in their order, whether they were deleted since or not. Every search reads them."""
        with explains_errors(self.path), FORK_GATE.no_fork(), self._connection() as db:
            epoch, found = read_ids_and_paths(db, rows)
            self._check_epoch(epoch, version)
            if len(found) != len(rows):
                raise LookupError("the entry of a row is missing")
            "".join(chain.from_iterable(found))  # a TypeError unless all are text
            return found

    def groups_of_content(self, version: StoreVersion) -> list[tuple[str, ...]]:
        """Returns groups of ids with equal content, in insertion order."""
        shared = f"SELECT hash FROM items WHERE {version.condition} GROUP BY hash HAVING count(*) > 1"
        groups: dict[str, list[str]] = {}
        with self._within(version) as db:
            for content, id_ in db.execute(
                f"SELECT hash, id FROM items WHERE {version.condition} AND hash IN ({shared}) ORDER BY row"
            ):
                groups.setdefault(content, []).append(id_)
            return [_texts((id_,) for id_ in ids) for ids in groups.values()]

    def matching(self, where: Expression, version: StoreVersion) -> NDArray[np.int64]:
        """Returns (m,) rows of the items that match a filter, in order. Raises OptionError if it cannot be evaluated.

        The query can read the columns that the filter names, and nothing else.
        """
        with self._within(version) as db:
            fields = meta_of(db)["fields"]
            check_order(where, fields)
            condition = to_sqlite(where, fields)
            query = (
                f"SELECT items.row FROM items LEFT JOIN fields ON {ROW} = items.row "
                f"WHERE {version.condition} AND {condition.sql} ORDER BY items.row"
            )
            try:
                with restrict_reads(db, condition.reads):
                    return np.fromiter((row for (row,) in db.execute(query, condition.parameters)), np.int64)
            except (sqlite3.Error, UnicodeError) as error:
                late = getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT"
                raise filter_error(
                    where, f"took longer than {WHERE_SECONDS:g} s; write a simpler filter" if late else str(error)
                ) from error

    def existing(self, ids: Iterable[str]) -> dict[str, ExistingItem]:
        """Returns the row and the content hash of those ids that exist, in any Unicode form."""
        with self.reading() as db:
            return _existing(db, ids)

    def records_by_id(self, ids: Iterable[str]) -> dict[str, ItemRecord]:
        """Returns the records of those ids that exist, in any Unicode form, by the ids that were given."""
        with self.reading() as db:
            existing = _existing(db, ids)
            records = read_records(db, [item.row for item in existing.values()])
            return dict(zip(existing, records, strict=True))

    def records_by_content(self, hashes: Iterable[str]) -> dict[str, ItemRecord]:
        """Returns the first record of each content hash: of a live item, otherwise of one that was deleted since the last compaction."""
        first = "SELECT row FROM items WHERE hash = wanted.value AND {} ORDER BY row LIMIT 1"  # of any number of copies
        query = f"SELECT coalesce(({first.format('died = 0')}), ({first.format('died > 0')})) FROM json_each(?) AS wanted"
        with self.reading() as db:
            rows = sorted(row for (row,) in db.execute(query, (json.dumps(list(hashes)),)) if row is not None)
            return {record.item.hash: record for record in read_records(db, rows)}

    def records_since(self, first_row: int, hashes: Iterable[str]) -> dict[str, list[ItemRecord]]:
        """Returns for each content hash that live items from a row on have their records, in order."""
        records: dict[str, list[ItemRecord]] = {}
        with self.reading() as db:
            for record in read_records(db, sorted(row.row for row in _rows(db, "hash", hashes) if row.row >= first_row)):
                records.setdefault(record.item.hash, []).append(record)
        return records

    def records_of_other_sources(self, hashes: Iterable[str], source: str) -> dict[str, list[ItemRecord]]:
        """Returns for each content hash the live records with it that came from another source, in order."""
        records: dict[str, list[ItemRecord]] = {}
        with self.reading() as db:
            rows = sorted(row.row for row in _rows(db, "hash", hashes, "died = 0 AND source IS NOT ?", (source,)))
            for record in read_records(db, rows):
                records.setdefault(record.item.hash, []).append(record)
        return records

    def rows_of_source(self, source: str) -> list[int]:
        """Returns the live rows that came from a source, in order."""
        with self.reading() as db:
            query = "SELECT row FROM items WHERE source = ? AND died = 0 ORDER BY row"
            return [row for (row,) in db.execute(query, (source,))]

    def vector_checksums(self, version: StoreVersion, first_row: int = 0) -> Iterator[tuple[int, int]]:
        """Yields the row and the checksum of the vector of each item of a version from a row on, in order. Writers need not wait for the end."""
        query = f"SELECT row, vector FROM items WHERE row >= ? AND {version.condition} ORDER BY row LIMIT {RECORD_BATCH_SIZE}"
        while True:
            with self._within(version) as db:
                batch = db.execute(query, (first_row,)).fetchall()
            yield from batch
            if len(batch) < RECORD_BATCH_SIZE:
                return
            first_row = batch[-1][0] + 1

    def records(self, after: int, count: int) -> list[ItemRecord]:
        """Returns up to `count` records from row `after` on, deleted ones included."""
        with self.reading() as db:
            rows = db.execute("SELECT row FROM items WHERE row >= ? ORDER BY row LIMIT ?", (after, count))
            return read_records(db, [row for (row,) in rows])

    def commit(self, new: Sequence[ItemRecord], thumbnail_bytes: int, *, replaced: Sequence[int] = ()) -> None:
        """Appends records and deletes the rows that they replace, all or none."""
        with self.writing() as transaction:
            transaction.mark_deleted(replaced)
            transaction.add_fields(new)
            for record in new:
                transaction.insert(record)
            rows = new[-1].row + 1 if new else transaction.meta["rows"]
            transaction.set_meta(rows=rows, thumbnail_bytes=thumbnail_bytes)

    def mark_deleted(self, rows: Sequence[int]) -> None:
        with self.writing() as transaction:
            transaction.mark_deleted(rows)

    def renumber(self, thumbnails_at: Mapping[int, int], thumbnail_bytes: int, **meta: object) -> None:
        """Removes deleted rows, numbers the rest from 0 and begins a new epoch. `thumbnails_at` maps old offsets to new ones."""
        with self.writing() as transaction:
            rows = transaction.renumber(thumbnails_at)
            epoch = transaction.meta["epoch"] + 1
            transaction.set_meta(rows=rows, thumbnail_bytes=thumbnail_bytes, epoch=epoch, **meta)

    def shrink(self) -> None:
        """Returns free pages of the file to the file system."""
        with self.reading() as db:
            db.rollback()
            db.execute("VACUUM")

    def rewrite(self, records: Sequence[ItemRecord]) -> None:
        """Replaces the records of these rows."""
        with self.writing() as transaction:
            transaction.add_fields(records)
            for record in records:
                transaction.replace(record)

    def _checked(self, row: tuple[Any, ...] | None, id_: str) -> tuple[Any, ...]:
        if row is None:
            raise MissingError(f"{self.path.parent}: no item {id_!r} in this gallery")
        return row

    @contextmanager
    def _within(self, version: StoreVersion) -> Iterator[sqlite3.Connection]:
        with self.reading() as db:
            self._check_epoch(epoch_of(db), version)
            yield db

    def _check_epoch(self, epoch: object, version: StoreVersion) -> None:
        if epoch != version.epoch:
            raise StaleViewError(f"{self.path.parent}: was compacted during the read; open it again")


def create_tables(db: sqlite3.Connection, meta: Mapping[str, Any]) -> None:
    """Creates the tables of an empty ledger, within a transaction."""
    for statement in TABLES.split(";"):
        db.execute(statement)
    put_meta(db, {"format": FORMAT, "rows": 0, "thumbnail_bytes": 0, "epoch": 0, "generation": 0, "fields": {}, **meta})
    put_meta(db, {ledger_checksum.KEY: LedgerChecksum.of(db, row_sum=0).to_dict()})


@contextmanager
def explains_errors(path: Path) -> Iterator[None]:
    """Turns errors of SQLite, and those that damaged entries cause, in the block into errors that say what to do."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise MissingError(f"{path.parent}: no item {error.object!r}: the id is not valid text") from error
    except MMRetrieveError:
        raise
    except (sqlite3.DatabaseError, *UNREADABLE) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise GalleryError(f"{path}: {reason}; {_explanation(error)}") from error


class _Row(NamedTuple):
    """What a look-up needs of an item."""

    row: int
    id: str
    content: str


def _texts(rows: Iterable[tuple[str]]) -> tuple[str, ...]:
    """Returns the texts of rows of one column. Raises TypeError for one that is no text."""
    texts = tuple([text for (text,) in rows])
    if not {str}.issuperset(map(type, texts)):
        raise TypeError("an id is not text")
    return texts


def _existing(db: sqlite3.Connection, ids: Iterable[str]) -> dict[str, ExistingItem]:
    """Returns the row and the content hash of those ids that exist in any Unicode form."""
    forms = {id_: unicode_forms(id_) for id_ in ids}
    rows = {row.id: ExistingItem(row.row, row.content) for row in _rows(db, "id", chain.from_iterable(forms.values()))}
    existing = {id_: next(filter(None, map(rows.get, forms[id_])), None) for id_ in forms}
    return {id_: item for id_, item in existing.items() if item is not None}


def _rows(
    db: sqlite3.Connection, column: str, values: Iterable[str], condition: str = "died = 0", parameters: tuple[str, ...] = ()
) -> Iterator[_Row]:
    """Yields the items whose column has one of the values and that meet a condition, a batch of values at a time."""
    rest = iter(dict.fromkeys(values))
    while batch := list(islice(rest, STATEMENT_BATCH_SIZE)):
        query = f"SELECT row, id, hash FROM items WHERE {column} IN ({', '.join('?' * len(batch))}) AND {condition}"
        yield from map(_Row._make, db.execute(query, (*batch, *parameters)))


def _explanation(error: Exception) -> str:
    if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
        return f"another process has kept it locked for {BUSY_SECONDS:g} s; end that process, or wait; what was committed before is safe"
    if "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2]) in DISK:
        return "what was committed before is safe"
    return f"the gallery is damaged or is not one; {RESTORE}"
