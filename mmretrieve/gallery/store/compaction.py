"""Compaction: removes deleted rows from the files and renumbers the rest.

Complete new files are written under other names first. One transaction then renumbers all rows and makes the new files count; after it they
are renamed. If the process is killed before the transaction, nothing has changed; after it, the next writer renames them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.store.records import ItemRecord
from mmretrieve.gallery.store.store import INDEX, NEXT, THUMBNAILS, VECTORS, Store

ROW_BATCH_SIZE = 16_384  # rows that are copied at once


def compact(store: Store, progress: Progress | None = None) -> int:
    """Returns the number of rows that were removed. Call within `writing`. Raises GalleryError if the new files cannot be written."""
    version = store.ledger.version()
    if not len(version.dead):
        return 0
    try:
        _copy_vectors(store, progress)
        places, end = _copy_thumbnails(store)
        store.ledger.renumber(places, end, compacted=True, index=None)
        store.settle()
        (store.folder / INDEX).unlink(missing_ok=True)
        store.ledger.shrink()
    except OSError as error:
        raise GalleryError(f"{store.folder}: could not write ({error}); the gallery is as it was") from error
    return len(version.dead)


def records(store: Store) -> Iterator[ItemRecord]:
    """Yields all records of the ledger, deleted ones included."""
    after = 0
    while block := store.ledger.records(after, ROW_BATCH_SIZE):
        yield from block
        after = block[-1].row + 1


def _copy_vectors(store: Store, progress: Progress | None) -> None:
    version = store.ledger.version()
    rows, float16_rows = version.rows(), store.float16_rows(version)
    with (store.folder / f"{VECTORS}{NEXT}").open("wb") as file:
        for start in range(0, len(rows), ROW_BATCH_SIZE):
            some = rows[start : start + ROW_BATCH_SIZE]
            file.write(float16_rows[some].tobytes())
            if progress is not None:
                progress(len(some))
        _flush(file)


def _copy_thumbnails(store: Store) -> tuple[dict[int, int], int]:
    """Copies the thumbnails that are still used. Returns old offset → new offset, and the length of the new file."""
    places: dict[int, int] = {}
    with store.file(THUMBNAILS).open("rb") as old, (store.folder / f"{THUMBNAILS}{NEXT}").open("wb") as new:
        for record in records(store):
            stored = record.stored
            if record.died or not stored.thumbnail_size or stored.thumbnail_at in places:
                continue
            places[stored.thumbnail_at] = new.tell()
            old.seek(stored.thumbnail_at)
            new.write(old.read(stored.thumbnail_size))
        end = new.tell()
        _flush(new)
    return places, end


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
