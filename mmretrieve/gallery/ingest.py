"""Reads one chunk of a source: tells new pictures from known, changed and broken ones, and hands on those to be encoded.

Full-size pictures are alive only between their decoding and the encoder's own shrinking, a few at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from mmretrieve.concurrency import map_ahead
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError, ImageError
from mmretrieve.gallery.store.fields import fitted
from mmretrieve.gallery.store.records import Item, ItemRecord
from mmretrieve.gallery.store.store import Half, Store
from mmretrieve.images import content_hash, open_image, thumbnail
from mmretrieve.sources.base import Entry, SourceItem, UnreadableItem
from mmretrieve.sources.values import is_text
from mmretrieve.vectors import Float32

THUMBNAIL_SIDE = 320
CHANGED = "its content has changed since it was added; update it, or delete it and add it again"


@dataclass(frozen=True)
class AddReport:
    """What was done: how many items are new, replaced or told anew, gone, and there already; why others failed (name → reason)."""

    added: int = 0
    skipped: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    updated: int = 0
    vanished: int = 0

    def __str__(self) -> str:
        more = [f"{count} {what}" for count, what in ((self.updated, "updated"), (self.vanished, "vanished")) if count]
        return ", ".join([f"{self.added} added", *more, f"{self.skipped} skipped", f"{len(self.failed)} failed"])

    def __add__(self, other: AddReport) -> AddReport:
        return AddReport(
            self.added + other.added,
            self.skipped + other.skipped,
            {**self.failed, **other.failed},
            self.updated + other.updated,
            self.vanished + other.vanished,
        )


@dataclass(frozen=True)
class _NewPicture:
    """A picture to be encoded, and what is kept of the one that it replaces."""

    item: Item
    thumbnail: bytes
    picture: Image.Image
    instead: ItemRecord | None


@dataclass
class IngestBatch:
    """One chunk on its way in; the lists fill while `vectors` runs. `failed` is name → reason.

    `refreshed` are records whose vector stays, but whose place or fields are others now; `seen` the rows of whatever the
    source still has. `update` lets changed pictures replace what is there.
    """

    store: Store
    source: str
    size: int
    update: bool = False
    progress: Progress | None = None
    items: list[Item] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)
    instead: list[ItemRecord] = field(default_factory=list)
    refreshed: list[ItemRecord] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    skipped: int = 0
    told: int = 0
    _copies: dict[int, int | None] = field(default_factory=dict)  # item → row it repeats; None: an earlier one here

    @property
    def report(self) -> AddReport:
        replaced = len(self.instead)
        return AddReport(len(self.items) - replaced, self.skipped, self.failed, replaced + self.told)

    def vectors(self, chunk: Sequence[Entry], encode: Callable[[Iterator[Image.Image]], Float32]) -> Half:
        """(len(items), dim): encoded, or copied where the same content is in the gallery or came earlier in the chunk."""
        encoded = encode(self._new_pictures(chunk))
        out = np.empty((len(self.items), self.store.dim), np.float16)
        out[[i for i in range(len(self.items)) if i not in self._copies]] = encoded
        first = {item.hash: i for i, item in reversed(list(enumerate(self.items)))}
        halves = self.store.halves(self.store.ledger.moment()) if self._copies else out
        for i, row in self._copies.items():
            out[i] = out[first[self.items[i].hash]] if row is None else halves[row]
        return out

    def _new_pictures(self, chunk: Sequence[Entry]) -> Iterator[Image.Image]:
        """The pictures that must be encoded, while everything else about the chunk is noted down."""
        here: set[str] = set()
        ids: set[str] = set()
        for new in self._readable(chunk):
            if new.item.id in ids:
                self.failed[new.item.id] = "this id occurs more than once in the source"
                continue
            ids.add(new.item.id)
            copy = self.store.ledger.with_content([new.item.hash]).get(new.item.hash)
            if copy is not None or new.item.hash in here:
                self._copies[len(self.items)] = None if copy is None else copy.row
            self.items.append(new.item)
            self.thumbnails.append(new.thumbnail)
            if new.instead is not None:
                self.instead.append(new.instead)
            if copy is None and new.item.hash not in here:
                here.add(new.item.hash)
                yield new.picture

    def _readable(self, chunk: Sequence[Entry]) -> Iterator[_NewPicture]:
        known = self.store.ledger.live(item.id for item in chunk if is_text(item.id))
        told = list(self._fitted(chunk))
        outcomes = map_ahead(lambda item: self._read(item, known), told, 2 * (os.cpu_count() or 1))
        for source, outcome in zip(chunk, outcomes, strict=True):
            if self.progress is not None:
                self.progress(1)
            if source.id in known:
                self.seen.append(known[source.id].row)
            if isinstance(outcome, _NewPicture):
                yield outcome
            elif isinstance(outcome, str):
                self.failed[source.id] = outcome
            elif outcome is None:
                self.skipped += 1
            else:
                self.refreshed.append(outcome)
                is_told = outcome.item.fields != known[source.id].item.fields
                self.told, self.skipped = self.told + is_told, self.skipped + (not is_told)

    def _fitted(self, chunk: Sequence[Entry]) -> Iterator[Entry]:
        """The chunk with its fields as this gallery keeps them; one after another, as the first value decides for the next."""
        kinds = self.store.ledger.kinds()
        for entry in chunk:
            try:
                yield entry if isinstance(entry, UnreadableItem) else replace(entry, fields=fitted(entry.fields, kinds))
            except GalleryError as error:
                yield UnreadableItem(entry.id, str(error))

    def _read(self, source: Entry, known: Mapping[str, ItemRecord]) -> _NewPicture | ItemRecord | str | None:
        """A new picture, a record to refresh, None for one that is there already, or why it cannot be added."""
        if isinstance(source, UnreadableItem):
            return source.reason
        if not (is_text(source.id) and is_text(source.place.path)):
            return "its name is not valid text"
        try:
            fields, record, stamp = source.fields, known.get(source.id), source.place.stamp()
            if record is not None and (record.item.place, record.item.stamp) == (source.place, stamp):
                return _refreshed(record, replace(record.item, fields=fields, source=self.source))
            with source.place.open() as file:
                content = content_hash(file)
                if record is not None and self._is_anothers(record.item, source):
                    same = record.item.hash == content
                    return None if same else f"there is an item of that id already, from {record.item.source}"
                if record is not None and record.item.hash == content:
                    return _refreshed(
                        record, replace(record.item, place=source.place, stamp=stamp, fields=fields, source=self.source)
                    )
                if record is not None and not self.update:
                    return CHANGED
                file.seek(0)
                picture = open_image(file, decode=self.store.decode, size=self.size)
            item = Item(source.id, source.place, content, *picture.size, fields, self.source, stamp)
            return _NewPicture(item, thumbnail(picture, THUMBNAIL_SIDE), picture, record)
        except (ImageError, GalleryError) as error:
            return str(error)

    def _is_anothers(self, item: Item, source: SourceItem) -> bool:
        """Whether the item came from another source, which still has its file: it must not be taken over, nor vanish with this one."""
        if item.source in ("", self.source) or not os.path.exists(item.path):
            return False
        return not _same_file(item.path, source.place.path)


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _refreshed(record: ItemRecord, item: Item) -> ItemRecord | None:
    """The record with what is known now: fields that are not named stay, those that are None go. None if that is no news."""
    fields = {name: value for name, value in {**record.item.fields, **item.fields}.items() if value is not None}
    item = replace(item, fields=fields)
    return None if item == record.item else replace(record, item=item)
