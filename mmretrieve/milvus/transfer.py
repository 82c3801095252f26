"""From a folder to a collection and back: vectors, places, hashes and fields travel as they are, thumbnails stay behind.

Both ways copy what is not there yet, in its order, a block at a time, and can be interrupted and run again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import folded
from mmretrieve.filters.milvus import one_of
from mmretrieve.gallery import vocabularies
from mmretrieve.gallery.ingest import AddReport
from mmretrieve.gallery.snapshot import LocalView
from mmretrieve.gallery.store.fields import FieldType, fitted
from mmretrieve.gallery.store.records import ItemRecord
from mmretrieve.gallery.store.store import Store
from mmretrieve.gallery.view import Rows
from mmretrieve.gallery.vocabularies import GalleryVocabulary
from mmretrieve.milvus.client import HASH, ID, ITEM, ROW, MilvusClient
from mmretrieve.milvus.errors import CollectionNotFoundError
from mmretrieve.milvus.indexes import MilvusIndexName, build_parameters
from mmretrieve.milvus.manifest import Manifest
from mmretrieve.milvus.schema import is_news, row_of
from mmretrieve.milvus.view import BLOCK, CollectionView


def opened(server: MilvusClient, about: Manifest, items: int, index: MilvusIndexName | str | None) -> Manifest:
    """What the collection says of itself, for vectors like these; made where there is none, for so many items.

    GalleryError where another encoder or decoding made it; OptionError for an index that the server does not have.
    """
    version = server.version()
    name = version.check(version.indexes[0] if index is None else index)
    try:
        known = Manifest.read(server.about(), server.address)
    except CollectionNotFoundError:
        server.create(about.dim, replace(about, fields={}).text, name, build_parameters(name, items))
        server.load()
        return replace(about, fields={})
    if (known.encoder, known.decode) != (about.encoder, about.decode):
        raise GalleryError(
            f"{server.address}: made by {known.encoder}, decoding {known.decode}; not by {about.encoder}, decoding {about.decode}"
        )
    server.load()
    if index is not None and server.index() != name:
        server.set_index(name, build_parameters(name, items))
    return known


class Push:
    """One run of copying a folder's items into a collection."""

    def __init__(self, store: Store, server: MilvusClient, about: Manifest, *, update: bool = False) -> None:
        self._now, self._server, self._about, self._update = LocalView(store), server, about, update

    def run(self, *, mirror: bool = False, progress: Progress | None = None) -> AddReport:
        """`mirror`: what the folder does not have is deleted there. GalleryError, with nothing written, where an id is another picture."""
        _once_each(self._server)
        self._know_fields()
        self._check()
        last = int(self._server.rows().max(initial=0))
        report = AddReport()
        for records in self._blocks():
            done, last = self._block(records, last)
            report += done
            if progress is not None:
                progress(len(records))
        return report + AddReport(vanished=self._vanish()) if mirror else report

    def _know_fields(self) -> None:
        """The collection learns the folder's chosen vocabulary, and fields that are new to it, before any item has them."""
        fields, meta = dict(self._about.fields), self._now.store.ledger.meta()
        for name, kind in meta["fields"].items():
            own = next((known for known in fields if folded(known) == folded(name)), name)
            if fields.setdefault(own, FieldType(kind)) is not FieldType(kind):
                raise GalleryError(f"{self._server.address}: field {own!r} holds {fields[own]}s there, {kind}s here")
        stored = meta.get(vocabularies.KEY)
        chosen = self._about.vocabulary if stored is None else GalleryVocabulary.from_dict(stored, self._now.name)
        if (fields, chosen) != (self._about.fields, self._about.vocabulary):
            self._about = replace(self._about, fields=fields, vocabulary=chosen)
            self._server.set_about(self._about.text)

    def _check(self) -> None:
        if self._update:
            return
        clashes: list[str] = []
        for records in self._blocks():
            there = self._there(records)
            clashes += [r.item.id for r in records if r.item.id in there and there[r.item.id][HASH] != r.item.hash]
        if clashes:
            raise GalleryError(
                f"{self._server.address}: {clashes[0]!r} is another picture than here ({len(clashes)} such ids); update them, nothing was pushed"
            )

    def _block(self, records: list[ItemRecord], last: int) -> tuple[AddReport, int]:
        there = self._there(records)
        items = [replace(record.item, fields=fitted(record.item.fields, dict(self._about.fields))) for record in records]
        told = [
            item for item in items if item.id in there and there[item.id][HASH] == item.hash and is_news(item, there[item.id])
        ]
        instead = [there[item.id][ROW] for item in items if item.id in there and there[item.id][HASH] != item.hash]
        new = [item for item in items if item.id not in there or there[item.id][HASH] != item.hash]
        first = max(last + 1, time.time_ns())  # so that two who push at once do not give one number twice
        numbers = {item.id: there[item.id][ROW] for item in told} | {item.id: first + i for i, item in enumerate(new)}
        halves = dict(zip((item.id for item in items), self._now.halves[np.array([r.row for r in records])], strict=True))
        rows = [row_of(numbers[item.id], item, halves[item.id], self._about.fields) for item in (*told, *new)]
        if rows:
            self._server.put(rows)
        if instead:
            self._server.drop(instead)
        done = AddReport(len(new) - len(instead), len(items) - len(new) - len(told), updated=len(told) + len(instead))
        return done, max(last, first + len(new) - 1 if new else last)

    def _there(self, records: list[ItemRecord]) -> dict[str, dict[str, Any]]:
        """Id → row of those that the collection has."""
        found = self._server.get(one_of(ID, [record.item.id for record in records]), [ROW, ID, HASH, ITEM])
        return {row[ID]: row for row in found}

    def _vanish(self) -> int:
        here = set(self._now.ids)
        gone = [row[ROW] for page in self._server.pages([ROW, ID]) for row in page if row[ID] not in here]
        for start in range(0, len(gone), BLOCK):
            self._server.drop(gone[start : start + BLOCK])
        return len(gone)

    def _blocks(self) -> Iterator[list[ItemRecord]]:
        for start in range(0, len(self._now), BLOCK):
            yield self._now.records_of(self._now.rows[start : start + BLOCK])


def pull(now: CollectionView, store: Store, progress: Progress | None = None) -> AddReport:
    """Copies the items of a collection that the folder does not have. Call within `writing`.

    GalleryError, with nothing changed, where an id names another picture in the folder, or a field has another kind there.
    """
    report, kinds = AddReport(), {name: FieldType(kind) for name, kind in store.ledger.meta()["fields"].items()}
    blocks = [now.rows[start : start + BLOCK] for start in range(0, len(now), BLOCK)]
    for rows in blocks:
        items = now.items_of(rows)
        known = store.ledger.live(item.id for item in items)
        if clashes := [item.id for item in items if item.id in known and known[item.id].item.hash != item.hash]:
            raise GalleryError(f"{now.name}: {clashes[0]!r} is another picture than in {store.folder}; nothing was pulled")
        for item in items:
            fitted(item.fields, kinds)
    for rows in blocks:
        report += _pulled(now, store, rows)
        if progress is not None:
            progress(len(rows))
    return report


def _pulled(now: CollectionView, store: Store, rows: Rows) -> AddReport:
    items = now.items_of(rows)
    kinds = {name: FieldType(kind) for name, kind in store.ledger.meta()["fields"].items()}
    known = store.ledger.live(item.id for item in items)
    new = [(row, item) for row, item in zip(rows, items, strict=True) if item.id not in known]
    if new:
        told = [replace(item, fields=fitted(item.fields, kinds)) for _, item in new]
        store.append(told, now.halves_of(np.array([row for row, _ in new])), [b""] * len(new))
    return AddReport(len(new), len(items) - len(new))


def _once_each(server: MilvusClient) -> None:
    """Where an interrupted or a second push left an id with two rows, the newer one stays."""
    rows = sorted((row[ROW], row[ID]) for page in server.pages([ROW, ID]) for row in page)
    newest = {id_: row for row, id_ in rows}
    if older := [row for row, id_ in rows if newest[id_] != row]:
        server.drop(older)
