"""Copies items between a folder and a collection: vectors, locations, hashes and fields, without thumbnails.

Both directions copy missing items in order, a batch at a time, and can be interrupted and repeated.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmretrieve.encoders.base import Progress
from mmretrieve.filters.milvus import one_of
from mmretrieve.gallery.copying import EncodedBatch, StoreTarget, TargetState, check_and_copy, view_batches
from mmretrieve.gallery.ingest import AddReport
from mmretrieve.gallery.local_view import LocalView
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import ExistingItem, FieldType, fit_fields
from mmretrieve.gallery.store.store import Store, is_gallery
from mmretrieve.gallery.view import Rows, row_batches
from mmretrieve.milvus.address import MilvusAddress
from mmretrieve.milvus.client import HASH, ID, ITEM, ROW, MilvusClient
from mmretrieve.milvus.manifest import add_choices, open_collection
from mmretrieve.milvus.schema import has_new_metadata, row_of
from mmretrieve.milvus.view import BATCH_SIZE, CollectionView


def push(
    gallery: str | Path,
    address: str,
    *,
    index: str | None = None,
    update: bool = False,
    mirror: bool = False,
    progress: Progress | None = None,
) -> AddReport:
    """Copies the items of a folder that a collection does not have; creates the collection if there is none. It can be repeated.

    Parameters
    ----------
    gallery : str or Path
        The folder.
    address : str
        The address of the collection.
    index : str, optional
        An index type of the server. By default FLAT, which is exact.
    update : bool, default=False
        Whether images that have changed replace those in the collection.
    mirror : bool, default=False
        Whether items that the folder does not have are deleted from the collection.
    progress : callable, optional
        Called with the number of items that were processed since the last call.

    Returns
    -------
    AddReport
        How many items were added, updated, removed and skipped.

    Raises
    ------
    GalleryError
        If another encoder made the collection, an id is another image there and `update` is False, or a field has another type. Nothing
        is pushed.
    OptionError
        If the server does not have the index.
    """
    view, server = LocalView(Store(Path(gallery))), MilvusClient(MilvusAddress.read(address))
    manifest = open_collection(server, view, index)
    _remove_repeated(server)
    target = CollectionTarget(server, add_choices(server, manifest, view.manifest))
    report = check_and_copy(target, lambda: view_batches(view, BATCH_SIZE), view.name, update=update, progress=progress)
    return report + AddReport(removed=_remove_absent(server, set(view.ids))) if mirror else report


def pull_into(gallery: str | Path, address: str, *, progress: Progress | None = None) -> AddReport:
    """Copies the items of a collection that a folder does not have; creates the folder if there is none. It can be repeated.

    Parameters
    ----------
    gallery : str or Path
        The folder.
    address : str
        The address of the collection.
    progress : callable, optional
        Called with the number of items that were processed since the last call.

    Returns
    -------
    AddReport
        How many items were added and skipped.

    Raises
    ------
    GalleryError
        If another encoder made the folder, an id is another image there, or a field has another type. Nothing is changed.
    """
    source, folder = CollectionView.open(address), Path(gallery)
    if is_gallery(folder):
        store = Store(folder)
        source.manifest.check_same_vectors(source.name, Manifest.of(store), folder)
    else:
        store = source.manifest.create_store(folder)
    with store.writing():
        return check_and_copy(StoreTarget(store), lambda: _collection_batches(source), source.name, progress=progress)


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
        changed = [i for i in state.same if has_new_metadata(items[i], state.existing[items[i].id])]
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
    for rows in row_batches(view.rows, BATCH_SIZE):
        yield _collection_batch(view, rows)


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
