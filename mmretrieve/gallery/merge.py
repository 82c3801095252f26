"""One gallery into another: vectors, thumbnails and fields are copied as they are, nothing is encoded again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.ingest import AddReport
from mmretrieve.gallery.snapshot import LocalView
from mmretrieve.gallery.store.fields import fitted
from mmretrieve.gallery.store.records import ItemRecord
from mmretrieve.gallery.store.store import Store

BLOCK = 4_096  # items between two commits


def add_gallery(store: Store, other: Store, progress: Progress | None = None) -> AddReport:
    """Copies the items of `other` that are not there yet, in their order. Call within `writing`.

    Raises GalleryError, before anything is copied, where the galleries were made by another encoder or decode otherwise,
    where a field has another kind there, or an id names another picture.
    """
    if (store.identity, store.decode, store.dim) != (other.identity, other.decode, other.dim):
        raise GalleryError(
            f"{other.folder}: {other.dim} dimensions by {other.identity}, decoding {other.decode}; "
            f"{store.folder}: {store.dim} by {store.identity}, decoding {store.decode}"
        )
    now = LocalView(other)
    _check(store, now)
    report = AddReport()
    for records in _blocks(now):
        new = _unknown(store, records)
        if new:
            halves = now.halves[np.array([record.row for record in new])]
            thumbnails = [other.thumbnail(record.kept) or b"" for record in new]
            store.append([record.item for record in new], halves, thumbnails)
        report += AddReport(len(new), len(records) - len(new))
        if progress is not None:
            progress(len(records))
    return report


def _check(store: Store, now: LocalView) -> None:
    kinds = store.ledger.kinds()
    clashes: list[str] = []
    for records in _blocks(now):
        known = store.ledger.live(record.item.id for record in records)
        clashes += [r.item.id for r in records if r.item.id in known and known[r.item.id].item.hash != r.item.hash]
        for record in records:
            try:
                fitted(record.item.fields, kinds)
            except GalleryError as error:
                raise GalleryError(f"{now.store.folder}: {record.item.id!r}: {error}; nothing of it was merged") from error
    if clashes:
        raise GalleryError(
            f"{now.store.folder}: {clashes[0]!r} is another picture than in {store.folder} ({len(clashes)} such ids); nothing of it was merged"
        )


def _unknown(store: Store, records: list[ItemRecord]) -> list[ItemRecord]:
    """Those whose ids are not there, with their fields under the names that the gallery has for them."""
    known = store.ledger.live(record.item.id for record in records)
    kinds = store.ledger.kinds()
    new = [record for record in records if record.item.id not in known]
    return [replace(record, item=replace(record.item, fields=fitted(record.item.fields, kinds))) for record in new]


def _blocks(now: LocalView) -> Iterator[list[ItemRecord]]:
    for start in range(0, len(now), BLOCK):
        yield now.records_of(now.rows[start : start + BLOCK])
