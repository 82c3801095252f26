"""From a folder to a collection and back: vectors, places, hashes and fields travel as they are, thumbnails stay behind.

Both ways copy what is not there yet, in its order, a block at a time, and can be interrupted and run again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from mmretrieve.encoders.base import Progress
from mmretrieve.filters.milvus import one_of
from mmretrieve.gallery.copying import EncodedBatch, StoreTarget, TargetState, check_copy, copy_missing, view_batches
from mmretrieve.gallery.ingest import AddReport
from mmretrieve.gallery.local_view import LocalView
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import ExistingItem, FieldType, fit_fields
from mmretrieve.gallery.store.store import Store
from mmretrieve.gallery.view import Rows
from mmretrieve.milvus.client import HASH, ID, ITEM, ROW, MilvusClient
from mmretrieve.milvus.manifest import add_choices
from mmretrieve.milvus.schema import is_news, row_of
from mmretrieve.milvus.view import BATCH_SIZE, CollectionView


def push_items(
    store: Store,
    server: MilvusClient,
    manifest: Manifest,
    *,
    update: bool = False,
    mirror: bool = False,
    progress: Progress | None = None,
) -> AddReport:
    """Copies the items of a store into the collection of that manifest.

    update: images that are others there are replaced. mirror: what the store does not have is deleted there. GalleryError, with
    nothing pushed, where an id is another image there and `update` is not given, or a field has another type.
    """
    view = LocalView(store)
    _remove_repeated(server)
    target = CollectionTarget(server, add_choices(server, manifest, store))
    check_copy(target, view_batches(view, BATCH_SIZE), view.name, update=update)
    report = copy_missing(target, view_batches(view, BATCH_SIZE), view.name, update=update, progress=progress)
    return report + AddReport(removed=_remove_absent(server, set(view.ids))) if mirror else report


def pull_items(view: CollectionView, store: Store, progress: Progress | None = None) -> AddReport:
    """Copies the items of a collection that the store does not have. Call within `writing`.

    GalleryError, with nothing changed, where an id is another image in the store, or a field has another type there.
    """
    target = StoreTarget(store)
    check_copy(target, _collection_batches(view), view.name)
    return copy_missing(target, _collection_batches(view), view.name, progress=progress)


class CollectionTarget:
    """A collection, for `copy_missing`. An item gets a number above all that are there, so that numbers grow as items come."""

    remedy = "push with --update to replace it"

    def __init__(self, server: MilvusClient, manifest: Manifest) -> None:
        self._server, self._manifest, self.name = server, manifest, str(server.address)
        self._last = int(server.rows().max(initial=0))

    def fields(self) -> dict[str, FieldType]:
        return dict(self._manifest.fields)

    def existing(self, ids: Sequence[str]) -> Mapping[str, ExistingItem]:
        rows = self._server.get(one_of(ID, ids), [ROW, ID, HASH, ITEM]) if ids else []
        return {row[ID]: ExistingItem(row[ROW], row[HASH], row[ITEM]) for row in rows}

    def write(self, batch: EncodedBatch, comparison: TargetState) -> AddReport:
        """Upserts what is missing or has other metadata there; another image gets a new row, and the old one is deleted after it."""
        items = [replace(item, fields=fit_fields(item.fields, self.fields())) for item in batch.items]
        changed = [i for i in comparison.same if is_news(items[i], comparison.existing[items[i].id])]
        new = sorted([*comparison.missing, *comparison.different])
        first = max(self._last + 1, time.time_ns())  # so that two who push at once do not give one number twice
        numbers = {i: comparison.existing[items[i].id].row for i in changed} | {i: first + n for n, i in enumerate(new)}
        vectors = batch.vectors_of(list(numbers))
        if numbers:
            rows = zip(numbers.items(), vectors, strict=True)
            self._server.upsert([row_of(number, items[i], vector, self._manifest.fields) for (i, number), vector in rows])
            self._last = max(self._last, *numbers.values())
        replaced = [comparison.existing[items[i].id].row for i in comparison.different]
        if replaced:
            self._server.delete_rows(replaced)
        skipped = len(comparison.same) - len(changed)
        return AddReport(len(comparison.missing), skipped, updated=len(changed) + len(replaced))


def _collection_batches(view: CollectionView) -> Iterator[EncodedBatch]:
    for start in range(0, len(view), BATCH_SIZE):
        yield _collection_batch(view, view.rows[start : start + BATCH_SIZE])


def _collection_batch(view: CollectionView, rows: Rows) -> EncodedBatch:
    return EncodedBatch(view.items_of(rows), lambda positions: view.float16_rows_of(rows[list(positions)]))


def _remove_absent(server: MilvusClient, ids: Collection[str]) -> int:
    rows = [row[ROW] for page in server.pages([ROW, ID]) for row in page if row[ID] not in ids]
    for start in range(0, len(rows), BATCH_SIZE):
        server.delete_rows(rows[start : start + BATCH_SIZE])
    return len(rows)


def _remove_repeated(server: MilvusClient) -> None:
    """Where an interrupted or a second push left an id with two rows, the newer one stays."""
    rows = sorted((row[ROW], row[ID]) for page in server.pages([ROW, ID]) for row in page)
    newest = {id_: row for row, id_ in rows}
    if older := [row for row, id_ in rows if newest[id_] != row]:
        server.delete_rows(older)
