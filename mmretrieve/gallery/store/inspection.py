"""Verifies a gallery: every entry of the ledger, every vector and every thumbnail has a checksum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO
from zlib import crc32

from mmretrieve.errors import GalleryError
from mmretrieve.gallery.store.compaction import records
from mmretrieve.gallery.store.store import LEDGER, THUMBNAILS, VECTORS, Store


def problems(store: Store) -> Iterator[str]:
    """Yields one line for each problem with the ledger, the vectors or the thumbnails, with the item if it concerns one."""
    yield from _of_ledger(store)
    try:
        meta = store.ledger.meta()
        sizes = {VECTORS: (store.dim * 2, meta["rows"], "rows"), THUMBNAILS: (1, meta["thumbnail_bytes"], "bytes")}
        for name, (size, committed, unit) in sizes.items():
            if (count := store.file(name).stat().st_size // size) < committed:
                yield f"{name}: holds {count} {unit}, the ledger counts {committed}"
        yield from _of_items(store, meta["rows"])
    except (GalleryError, OSError, KeyError, TypeError, ValueError) as error:
        yield f"{LEDGER}: cannot be read to its end ({error})"


def _of_ledger(store: Store) -> Iterator[str]:
    try:
        if problem := store.problem_of_checksum():
            yield problem
        with store.ledger.reading() as db:
            yield from (
                f"{LEDGER}: {' '.join(line.split())}" for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"
            )
    except GalleryError as error:
        yield str(error)


def _of_items(store: Store, committed: int) -> Iterator[str]:
    counted = 0
    with store.file(VECTORS).open("rb") as vectors, store.file(THUMBNAILS).open("rb") as thumbnails:
        for record in records(store):
            whose, stored = f"of {record.item.id!r} (row {record.row})", record.stored
            if not record.is_intact or record.row != counted:
                yield f"{LEDGER}: the entry {whose} is not the one that was committed"
            counted = record.row + 1
            if _checksum(vectors, record.row * store.dim * 2, store.dim * 2) != stored.vector:
                yield f"{VECTORS}: the vector {whose} is not the one that was committed"
            if _checksum(thumbnails, stored.thumbnail_at, stored.thumbnail_size) != stored.thumbnail:
                yield f"{THUMBNAILS}: the thumbnail {whose} is not the one that was committed"
    if counted != committed:
        yield f"{LEDGER}: holds {counted} entries, but counts {committed}"


def _checksum(file: BinaryIO, at: int, size: int) -> int:
    file.seek(at)
    return crc32(file.read(size))
