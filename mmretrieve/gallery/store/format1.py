"""Galleries of format 1, of the day before version 0.1: read through a converted copy in memory, migrated by the first write.

Their items have no fields, no source and no checksum of the entry, a deleted item has no generation, and the thumbnails are in a database of
their own, by content hash.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from mmretrieve.forks import FORK_GATE
from mmretrieve.gallery.store.files import THUMBNAILS, check_files, writes_files
from mmretrieve.gallery.store.ledger import BEGIN_WRITING, Ledger, create_tables, explains_errors
from mmretrieve.gallery.store.records import Item, ItemRecord, StoredChecksums
from mmretrieve.gallery.store.statements import MAX_THUMBNAIL_BYTES, LedgerTransaction, connect, in_transaction, meta_of
from mmretrieve.sources.location import Location

FORMAT_1 = 1
OLD_THUMBNAILS = "thumbnails.sqlite"
OLD_FILES = (OLD_THUMBNAILS, *(f"{OLD_THUMBNAILS}-{suffix}" for suffix in ("journal", "wal", "shm")))
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Copy:
    """What the migration would write: the ledger and `thumbnails.bin`. `generation` is that of the file that was converted."""

    generation: int
    ledger: bytes
    thumbnails: bytes


class Format1Ledger(Ledger):
    """Reads and migrates a ledger that had format 1 when it was opened; this or another process may have migrated it since."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._copy: _Copy | None = None

    def migrate(self) -> None:
        """Writes the thumbnails, then converts the ledger in one transaction. Until it is committed, the gallery has format 1."""
        folder = self.path.parent
        with explains_errors(self.path), FORK_GATE.no_fork(), super()._connection() as db, writes_files(folder):
            with in_transaction(db, BEGIN_WRITING):
                if meta_of(db)["format"] != FORMAT_1:  # another process has migrated it
                    return
                with (folder / THUMBNAILS).open("wb") as thumbnails:
                    is_whole = _convert(db, self.path, thumbnails)
                    thumbnails.flush()
                    os.fsync(thumbnails.fileno())
            if is_whole:
                for name in OLD_FILES:
                    (folder / name).unlink(missing_ok=True)

    def unmigrated_thumbnails(self) -> bytes | None:
        """Returns the content of `thumbnails.bin` as the migration will write it; None after the migration."""
        with explains_errors(self.path), FORK_GATE.no_fork():
            copy = self._current_copy()
        return None if copy is None else copy.thumbnails

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        copy = self._current_copy()
        if copy is None:
            with super()._connection() as db:
                yield db
        else:
            with closing(sqlite3.connect(":memory:")) as db:
                db.deserialize(copy.ledger)
                db.execute("PRAGMA query_only = 1")
                yield db

    def _current_copy(self) -> _Copy | None:
        """Returns the copy of what is committed; None after the migration, which waits until both files have been read."""
        with super()._connection() as file, in_transaction(file):
            meta = meta_of(file)
            if meta["format"] != FORMAT_1:
                self._copy = None
            elif self._copy is None or self._copy.generation != meta["generation"]:
                self._copy = _copy_of(file, meta["generation"], self.path)
            return self._copy


def _copy_of(file: sqlite3.Connection, generation: int, path: Path) -> _Copy:
    with closing(sqlite3.connect(":memory:")) as db:
        file.backup(db)
        thumbnails = BytesIO()
        with in_transaction(db):
            _convert(db, path, thumbnails)
        return _Copy(generation, db.serialize(), thumbnails.getvalue())


def _convert(db: sqlite3.Connection, path: Path, thumbnails: BinaryIO) -> bool:
    """Converts a ledger to the current format, within a transaction, and writes its thumbnails. Returns whether all could be read."""
    ((problem, *_),) = db.execute("PRAGMA integrity_check(1)")  # nothing else protects these ledgers
    if problem != "ok":
        raise ValueError(problem)
    meta, columns = meta_of(db), "row, id, path, hash, width, height, checksum, deleted"
    items = db.execute(f"SELECT {columns} FROM items ORDER BY rowid").fetchall()
    if len(items) != meta["rows"] or any(row != at for at, (row, *_) in enumerate(items)):
        raise ValueError(f"{len(items)} items, whose rows are not 0 to {meta['rows'] - 1}")
    db.execute("DROP TABLE items")
    db.execute("DROP TABLE meta")
    create_tables(db, {name: value for name, value in meta.items() if name not in ("format", "index")})
    stored, is_whole = _copy_thumbnails(path.parent, thumbnails)
    transaction, deletions = LedgerTransaction(db, path), Counter[str]()
    for row, id_, image_path, content, width, height, vector, is_deleted in items:
        deletions[id_] += bool(is_deleted)  # a number for each that is not above the generation it was in
        item = Item(id_, Location(image_path), content, width, height)
        checksums = replace(stored.get(content, StoredChecksums(0)), vector=vector)
        transaction.insert(ItemRecord(row, item, checksums, deletions[id_] if is_deleted else 0))
    transaction.set_meta(thumbnail_bytes=thumbnails.tell())
    transaction.close()
    return is_whole


def _copy_thumbnails(folder: Path, target: BinaryIO) -> tuple[dict[str, StoredChecksums], bool]:
    """Returns content hash → checksum and position of the thumbnail, and whether all could be read. Those that are lost are made again."""
    check_files(folder, OLD_FILES)
    stored: dict[str, StoredChecksums] = {}
    is_whole, path = True, folder / OLD_THUMBNAILS
    if not path.exists():
        return stored, is_whole
    try:
        with closing(connect(path)) as db:
            for content, image in db.execute("SELECT hash, jpeg FROM thumbnails ORDER BY rowid"):
                if not isinstance(image, bytes) or len(image) > MAX_THUMBNAIL_BYTES:
                    logger.warning("%s: the thumbnail of %s is damaged", path, content)
                    is_whole = False
                    continue
                stored[content] = StoredChecksums(0, crc32(image), target.tell(), len(image))
                target.write(image)
    except sqlite3.DatabaseError as error:
        logger.warning("%s: %s", path, error)
        return stored, False
    return stored, is_whole
