"""Copies items between a folder and a collection: vectors, locations, hashes and fields, without thumbnails.

Both directions copy missing items in order, a batch at a time, and can be interrupted and repeated.
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
    """Copies the items of a store to the collection.

    `update`: images that differ are replaced. `mirror`: items that the store does not have are deleted. Raises GalleryError, with nothing pushed, if an id
    is another image there and `update` is False, or a field has another type.
    """
    view = LocalView(store)
    _remove_repeated(server)
    target = CollectionTarget(server, add_choices(server, manifest, store))
    check_copy(target, view_batches(view, BATCH_SIZE), view.name, update=update)
    report = copy_missing(target, view_batches(view, BATCH_SIZE), view.name, update=update, progress=progress)
    return report + AddReport(removed=_remove_absent(server, set(view.ids))) if mirror else report


def pull_items(view: CollectionView, store: Store, progress: Progress | None = None) -> AddReport:
    """Copies the items of a collection that the store does not have. Call within `writing`.

    Raises GalleryError, with nothing changed, if an id is another image in the store or a field has another type.
    """
    target = StoreTarget(store)
    check_copy(target, _collection_batches(view), view.name)
    return copy_missing(target, _collection_batches(view), view.name, progress=progress)


class CollectionTarget:
    """A collection as the target of `copy_missing`. New items get numbers above all existing ones."""

    remedy = "push with --update to replace it"

    def __init__(self, server: MilvusClient, manifest: Manifest) -> None:
        self._server, self._manifest, self.name = server, manifest, str(server.address)
        self._last = int(server.rows().max(initial=0))

    def fields(self) -> dict[str, FieldType]:
        return dict(self._manifest.fields)

    def existing(self, ids: Sequence[str]) -> Mapping[str, ExistingItem]:
        rows = self._server.get(one_of(ID, ids), [ROW, ID, HASH, ITEM]) if ids else []
        return {row[ID]: ExistingItem(row[ROW], row[HASH], row[ITEM]) for row in rows}

    def write(self, batch: EncodedBatch, state: TargetState) -> AddReport:
        """Upserts items that are missing or have other metadata. A replaced image gets a new row; the old one is deleted afterwards."""
        items = [replace(item, fields=fit_fields(item.fields, self.fields())) for item in batch.items]
        changed = [i for i in state.same if is_news(items[i], state.existing[items[i].id])]
        new = sorted([*state.missing, *state.different])
        first = max(self._last + 1, time.time_ns())  # so that two concurrent pushes use different numbers
        numbers = {i: state.existing[items[i].id].row for i in changed} | {i: first + n for n, i in enumerate(new)}
        vectors = batch.vectors_of(list(numbers))
        if numbers:
            rows = zip(numbers.items(), vectors, strict=True)
            self._server.upsert([row_of(number, items[i], vector, self._manifest.fields) for (i, number), vector in rows])
            self._last = max(self._last, *numbers.values())
        replaced = [state.existing[items[i].id].row for i in state.different]
        if replaced:
            self._server.delete_rows(replaced)
        skipped = len(state.same) - len(changed)
        return AddReport(len(state.missing), skipped, updated=len(changed) + len(replaced))


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
    """Deletes the older row of ids that have two, after an interrupted or a concurrent push."""
    rows = sorted((row[ROW], row[ID]) for page in server.pages([ROW, ID]) for row in page)
    newest = {id_: row for row, id_ in rows}
    if older := [row for row, id_ in rows if newest[id_] != row]:
        server.delete_rows(older)
