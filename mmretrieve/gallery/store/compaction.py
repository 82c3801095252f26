"""Compaction: what died leaves the files, and the rest moves together.

The files are first written whole under other names. One transaction of the ledger then numbers all rows anew and says that
those names count; only after it they are renamed. Killed before it, nothing has happened; after it, the next one who opens
the gallery renames them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.store.records import ItemRecord
from mmretrieve.gallery.store.store import INDEX, NEXT, THUMBNAILS, VECTORS, Store

ROW_BATCH_SIZE = 16_384  # rows copied at once


def compact(store: Store, progress: Progress | None = None) -> int:
    """Gives back how many rows are gone. Call within `writing`. GalleryError where there is no room for the new files."""
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
    """All that the ledger holds, the dead included, a block at a time."""
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
    """Old place → new place of what is still shown, and where the new file ends."""
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
