"""Adds the images of a source, a batch and a commit at a time: classify its entries, encode what is new, commit.

Classification reads hashes, no pixels. Full-size images are in memory only between their decoding and the encoder's own
resizing, a few at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmretrieve.concurrency import map_ahead
from mmretrieve.encoders.base import Encoder, Progress
from mmretrieve.errors import GalleryError, ImageError, OptionError
from mmretrieve.gallery.recognition import KnownFiles
from mmretrieve.gallery.store.records import FieldType, Item, ItemRecord, fit_fields
from mmretrieve.gallery.store.store import Store
from mmretrieve.images import DEFAULT_IMAGE_SIZE, content_hash, open_image, thumbnail
from mmretrieve.options import Decode
from mmretrieve.sources.base import Entry, Source, SourceItem, UnreadableItem
from mmretrieve.sources.values import is_text

INGEST_BATCH_SIZE = 256  # images between two commits; fixed, so that an interrupted run repeats the same batches
THUMBNAIL_SIDE = 320
CONTENT_CHANGED = "its content has changed since it was added; update it, or delete it and add it again"
REPEATED_ID = "this id occurs more than once in the source"
CHANGED_MEANWHILE = "its file changed while it was added; add it again"
T = TypeVar("T")


@dataclass(frozen=True)
class AddReport:
    """What a write did with each entry of a source. Reports can be added.

    Parameters
    ----------
    added : int, default=0
        New items.
    skipped : int, default=0
        Items that exist already and are unchanged.
    failed : mapping of str to str, optional
        Name of an entry → the reason why it was not added.
    updated : int, default=0
        Items whose image was replaced or whose fields changed.
    removed : int, default=0
        Items that were deleted.

    Examples
    --------
    >>> from mmretrieve import AddReport
    >>> print(AddReport(added=2) + AddReport(skipped=1, failed={"a.txt": "not an image"}))
    2 added, 1 skipped, 1 failed
    """

    added: int = 0
    skipped: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    updated: int = 0
    removed: int = 0

    def __str__(self) -> str:
        changes = [f"{count} {what}" for count, what in ((self.updated, "updated"), (self.removed, "removed")) if count]
        return ", ".join([f"{self.added} added", *changes, f"{self.skipped} skipped", f"{len(self.failed)} failed"])

    def __add__(self, other: AddReport) -> AddReport:
        return AddReport(
            self.added + other.added,
            self.skipped + other.skipped,
            {**self.failed, **other.failed},
            self.updated + other.updated,
            self.removed + other.removed,
        )


@dataclass(frozen=True)
class New:
    """An image to encode, and the row that it replaces. `item` has no width and height yet."""

    item: Item
    replaced_row: int | None = None


@dataclass(frozen=True)
class MetadataUpdated:
    """The new record of an existing image whose location, source or fields have changed."""

    record: ItemRecord
    fields_changed: bool


@dataclass(frozen=True)
class Unchanged:
    """An image that exists and has not changed."""


@dataclass(frozen=True)
class Failed:
    """An entry that cannot be added."""

    reason: str


Outcome = New | MetadataUpdated | Unchanged | Failed


class Shard:
    """The part of a source that one of several machines indexes. It consists of whole batches, so that the merged parts give the same gallery."""

    def __init__(self, source: Source, number: int, of: int) -> None:
        """Part `number` of `of` parts. Raises OptionError unless the number is from 1 to `of`."""
        if not 1 <= number <= of:
            raise OptionError(f"shard {number}/{of}: expected a number from 1 to {of}")
        count = -(-len(source) // INGEST_BATCH_SIZE)
        self._start, self._end = (INGEST_BATCH_SIZE * (count * n // of) for n in (number - 1, number))
        self._source, self.name = source, source.name

    def __len__(self) -> int:
        return max(0, min(self._end, len(self._source)) - self._start)

    def __iter__(self) -> Iterator[Entry]:
        return islice(iter(self._source), self._start, self._end)


def add_source(
    store: Store, encoder: Encoder, source: Source, *, update: bool, remove: bool = False, progress: Progress | None = None
) -> AddReport:
    """Adds a source. Call within `writing`.

    `update`: images that have changed replace the existing ones. `remove`: items that came from this source and are no longer in it are deleted,
    unless the source could not be read completely.
    """
    before, report, is_whole = store.ledger.version(), AddReport(), True
    known = KnownFiles(store, source.name) if source.name else None  # a program that gives single items means their ids
    is_seen = np.zeros(before.total, bool)
    for batch in batches(source, INGEST_BATCH_SIZE):
        existing = store.ledger.records_by_id([entry.id for entry in batch if is_text(entry.id)])
        outcomes = classify(store, batch, existing, source.name, update=update)
        if known is not None:
            known.take(existing.values())
            outcomes = _recognize(known, outcomes)
        report += _add(store, encoder, batch, outcomes, progress)
        is_seen[[record.row for record in existing.values() if record.row < before.total]] = True
        is_whole = is_whole and not any(isinstance(entry, UnreadableItem) for entry in batch)
    if remove and is_whole:
        rows = [row for row in store.ledger.rows_of_source(source.name) if row < before.total and not is_seen[row]]
        store.ledger.mark_deleted(rows)
        report += AddReport(removed=len(rows))
    return report


def classify(
    store: Store, entries: Sequence[Entry], existing: Mapping[str, ItemRecord], source: str, *, update: bool
) -> list[Outcome]:
    """Returns an outcome for each entry, given the records of the existing ids. Writes nothing."""
    ids: set[str] = set()
    outcomes: list[Outcome] = []
    fitting = _fit_fields(entries, store.ledger.field_types())
    for entry, outcome in zip(
        entries,
        map_ahead(lambda entry: _classify_entry(entry, existing.get(entry.id), source, update=update), fitting, _window()),
        strict=True,
    ):
        is_repeated = isinstance(outcome, New) and entry.id in ids
        outcomes.append(Failed(REPEATED_ID) if is_repeated else outcome)
        if isinstance(outcome, New):
            ids.add(entry.id)
    return outcomes


def _recognize(known: KnownFiles, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Returns the outcomes; an image that is in the gallery under another id adds its fields to that item."""
    new = [outcome.item for outcome in outcomes if isinstance(outcome, New) and outcome.replaced_row is None]
    records = known.records_of(new) if new else {}
    return [
        _update_metadata(record, replace(record.item, fields=outcome.item.fields))
        if isinstance(outcome, New) and (record := records.get(outcome.item.id)) is not None
        else outcome
        for outcome in outcomes
    ]


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` items; the last may be shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _fit_fields(entries: Iterable[Entry], types: dict[str, FieldType]) -> Iterator[Entry]:
    """Yields the entries with their fields as the gallery stores them, in order: the first value of a field decides its type."""
    for entry in entries:
        try:
            yield entry if isinstance(entry, UnreadableItem) else replace(entry, fields=fit_fields(entry.fields, types))
        except GalleryError as error:
            yield UnreadableItem(entry.id, str(error))


def _classify_entry(entry: Entry, record: ItemRecord | None, source: str, *, update: bool) -> Outcome:
    if isinstance(entry, UnreadableItem):
        return Failed(entry.reason)
    if not (is_text(entry.id) and is_text(entry.location.path)):
        return Failed("its name is not valid text")
    try:
        fingerprint = entry.location.fingerprint()
        if record is not None and (record.item.location, record.item.fingerprint) == (entry.location, fingerprint):
            return _update_metadata(record, replace(record.item, fields=entry.fields, source=source or record.item.source))
        with entry.location.open() as file:
            content = content_hash(file)
    except (ImageError, GalleryError) as error:
        return Failed(str(error))
    if record is None:
        return New(Item(entry.id, entry.location, content, fields=entry.fields, source=source, fingerprint=fingerprint))
    is_same = record.item.hash == content
    if _belongs_to_another(record.item, entry, source):
        return Unchanged() if is_same else Failed(f"the id already exists, from {record.item.source}")
    if is_same and not entry.location.path:  # in memory: the file of the item stays
        return _update_metadata(record, replace(record.item, fields=entry.fields))
    if is_same:
        return _update_metadata(
            record,
            replace(
                record.item,
                location=entry.location,
                fingerprint=fingerprint,
                fields=entry.fields,
                source=source or record.item.source,
            ),
        )
    if not update:
        return Failed(CONTENT_CHANGED)
    return New(Item(entry.id, entry.location, content, fields=entry.fields, source=source, fingerprint=fingerprint), record.row)


def _update_metadata(record: ItemRecord, item: Item) -> MetadataUpdated | Unchanged:
    """Returns the record with the metadata of `item`. Fields that `item` does not name stay; those that are None are removed."""
    fields = {name: value for name, value in {**record.item.fields, **item.fields}.items() if value is not None}
    item = replace(item, fields=fields)
    return Unchanged() if item == record.item else MetadataUpdated(replace(record, item=item), fields != record.item.fields)


def _belongs_to_another(item: Item, entry: SourceItem, source: str) -> bool:
    """Returns whether the item came from another source that still has its file. Then this source must neither update nor remove it.

    Items without a source, and those that a program adds by themselves, belong to no source.
    """
    if "" in (item.source, source) or item.source == source or not os.path.exists(item.path):
        return False
    try:
        return not os.path.samefile(item.path, entry.location.path)
    except OSError:
        return True


def _add(
    store: Store, encoder: Encoder, entries: Sequence[Entry], outcomes: Sequence[Outcome], progress: Progress | None
) -> AddReport:
    """Encodes and commits one classified batch."""
    new = [outcome for outcome in outcomes if isinstance(outcome, New)]
    updated = [outcome for outcome in outcomes if isinstance(outcome, MetadataUpdated)]
    if progress is not None:
        progress(len(outcomes) - len(new))
    images = _encode(store, encoder, [outcome.item for outcome in new], progress)
    added = [(outcome, image) for outcome in new if isinstance(image := images[outcome.item.hash], _EncodedImage)]
    replaced = [outcome.replaced_row for outcome, _ in added if outcome.replaced_row is not None]
    if added:
        items = [replace(outcome.item, width=image.width, height=image.height) for outcome, image in added]
        vectors = np.array([image.vector for _, image in added], dtype=np.float16)
        store.append(items, vectors, [image.thumbnail for _, image in added], replaced)
    if updated:
        store.ledger.rewrite([outcome.record for outcome in updated])
    failed = {entry.id: outcome.reason for entry, outcome in zip(entries, outcomes, strict=True) if isinstance(outcome, Failed)}
    failed |= {outcome.item.id: image.reason for outcome in new if isinstance(image := images[outcome.item.hash], Failed)}
    fields_changed = sum(outcome.fields_changed for outcome in updated)
    unchanged = sum(isinstance(outcome, Unchanged) for outcome in outcomes) + len(updated) - fields_changed
    return AddReport(len(added) - len(replaced), unchanged, failed, len(replaced) + fields_changed)


@dataclass(frozen=True)
class _EncodedImage:
    """What is stored of an image: its (dim,) vector, its size, and its thumbnail unless another item with its content has one."""

    vector: NDArray[np.floating]
    width: int | None
    height: int | None
    thumbnail: bytes = b""


def _encode(
    store: Store, encoder: Encoder, items: Sequence[Item], progress: Progress | None
) -> dict[str, _EncodedImage | Failed]:
    """Returns for each content hash its encoded image, or why it cannot be decoded.

    Each content is encoded once. A copy gets the vector of the item with the same content in the gallery or the batch.
    """
    existing = store.ledger.records_by_content({item.hash for item in items})
    images: dict[str, _EncodedImage | Failed] = {}
    if existing:
        stored = store.float16_rows(store.ledger.version())
        for content, record in existing.items():
            if crc32(stored[record.row].tobytes()) == record.stored.vector:  # a damaged vector is not copied
                images[content] = _EncodedImage(stored[record.row], record.item.width, record.item.height)
    first_of_content = {item.hash: item for item in reversed(items) if item.hash not in images}
    to_encode = list(first_of_content.values())[::-1]
    decoded: list[tuple[str, tuple[int, int], bytes]] = []

    def decode_all() -> Iterator[Image.Image]:
        """Yields the images, decoded ahead of the encoder."""
        size = getattr(encoder, "image_size", DEFAULT_IMAGE_SIZE)
        results = map_ahead(lambda item: _decode(item, store.decode, size), to_encode, _window())
        for item, result in zip(to_encode, results, strict=True):
            if progress is not None:
                progress(1)
            if isinstance(result, Failed):
                images[item.hash] = result
            else:
                image, small = result
                decoded.append((item.hash, image.size, small))
                yield image

    vectors = encoder.encode_images(decode_all())
    for (content, (width, height), small), vector in zip(decoded, vectors, strict=True):
        images[content] = _EncodedImage(vector, width, height, small)
    if progress is not None:
        progress(len(items) - len(to_encode))
    return images


def _decode(item: Item, decode: Decode, size: int) -> tuple[Image.Image, bytes] | Failed:
    """Returns the image and its thumbnail."""
    try:
        with item.location.open() as file:
            image = open_image(file, decode=decode, size=size)
        if item.location.fingerprint() != item.fingerprint:
            return Failed(CHANGED_MEANWHILE)
    except (ImageError, GalleryError) as error:
        return Failed(str(error))
    return image, thumbnail(image, THUMBNAIL_SIDE)


def _window() -> int:
    """Returns how many images are decoded ahead."""
    return 2 * (os.cpu_count() or 1)
