"""Maintenance of a store: compaction, and the comparison of all data with their checksums.

Compaction removes deleted rows from the files and renumbers the rest. Complete new files are written under other names first. One transaction
then renumbers all rows and makes the new files count; after it they are renamed. If the process is killed before the transaction, nothing has
changed; after it, the next writer renames them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO
from zlib import crc32

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.store.files import INDEX, LEDGER, NEXT, THUMBNAILS, VECTORS, writes_files
from mmretrieve.gallery.store.records import ItemRecord
from mmretrieve.gallery.store.store import Store

ROW_BATCH_SIZE = 16_384  # rows that are copied at once


def compact(store: Store, progress: Progress | None = None) -> int:
    """Returns the number of rows that were removed. Call within `writing`. Raises GalleryError if the new files cannot be written."""
    version = store.ledger.version()
    if not len(version.dead):
        return 0
    with writes_files(store.folder):
        _copy_vectors(store, progress)
        new_offsets, end = _copy_thumbnails(store)
        store.ledger.renumber(new_offsets, end, compacted=True, index=None)
        store.recover()
        (store.folder / INDEX).unlink(missing_ok=True)
        store.ledger.shrink()
    return len(version.dead)


def problems(store: Store) -> Iterator[str]:
    """Yields one line for each problem with the ledger, the vectors or the thumbnails, with the item if it concerns one."""
    store.ledger.connections.close()  # what is checked is read from the disk
    yield from _ledger_problems(store)
    try:
        meta = store.ledger.meta()
        sizes = {VECTORS: (store.dim * 2, meta["rows"], "rows"), THUMBNAILS: (1, meta["thumbnail_bytes"], "bytes")}
        for name, (size, committed, unit) in sizes.items():
            with store.open(name) as file:
                count = file.seek(0, os.SEEK_END) // size
            if count < committed:
                yield f"{name}: has {count} {unit}, but the ledger counts {committed}"
        yield from _item_problems(store, meta["rows"])
    except (GalleryError, OSError, KeyError, TypeError, ValueError) as error:
        yield f"{LEDGER}: cannot be read to its end ({error})"


def _copy_vectors(store: Store, progress: Progress | None) -> None:
    version = store.ledger.version()
    rows, float16_rows = version.rows(), store.float16_rows(version)
    with (store.folder / f"{VECTORS}{NEXT}").open("wb") as file:
        for start in range(0, len(rows), ROW_BATCH_SIZE):
            batch = rows[start : start + ROW_BATCH_SIZE]
            file.write(float16_rows[batch].tobytes())
            if progress is not None:
                progress(len(batch))
        _flush(file)


def _copy_thumbnails(store: Store) -> tuple[dict[int, int], int]:
    """Copies the thumbnails that are still used. Returns old offset → new offset, and the length of the new file."""
    new_offsets: dict[int, int] = {}
    with store.open(THUMBNAILS) as old, (store.folder / f"{THUMBNAILS}{NEXT}").open("wb") as new:
        for record in _records(store):
            stored = record.stored
            if record.died or not stored.thumbnail_size or stored.thumbnail_at in new_offsets:
                continue
            new_offsets[stored.thumbnail_at] = new.tell()
            old.seek(stored.thumbnail_at)
            new.write(old.read(stored.thumbnail_size))
        end = new.tell()
        _flush(new)
    return new_offsets, end


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _ledger_problems(store: Store) -> Iterator[str]:
    try:
        if problem := store.ledger.problem():
            yield problem
        with store.ledger.reading() as db:
            yield from (
                f"{LEDGER}: {' '.join(line.split())}" for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"
            )
    except GalleryError as error:
        yield str(error)


def _item_problems(store: Store, committed: int) -> Iterator[str]:
    counted = 0
    with store.open(VECTORS) as vectors, store.open(THUMBNAILS) as thumbnails:
        for record in _records(store):
            whose, stored = f"of {record.item.id!r} (row {record.row})", record.stored
            if not record.is_intact or record.row != counted:
                yield f"{LEDGER}: the entry {whose} is not the one that was committed"
            counted = record.row + 1
            if _checksum(vectors, record.row * store.dim * 2, store.dim * 2) != stored.vector:
                yield f"{VECTORS}: the vector {whose} is not the one that was committed"
            if _checksum(thumbnails, stored.thumbnail_at, stored.thumbnail_size) != stored.thumbnail:
                yield f"{THUMBNAILS}: the thumbnail {whose} is not the one that was committed"
    if counted != committed:
        yield f"{LEDGER}: has {counted} entries, but counts {committed}"


def _checksum(file: BinaryIO, at: int, size: int) -> int:
    file.seek(at)
    return crc32(file.read(size))


def _records(store: Store) -> Iterator[ItemRecord]:
    """Yields all records of the ledger, deleted ones included."""
    after = 0
    while block := store.ledger.records(after, ROW_BATCH_SIZE):
        yield from block
        if block[-1].row < after:
            raise GalleryError(f"row {block[-1].row} comes after row {after - 1}")
        after = block[-1].row + 1
