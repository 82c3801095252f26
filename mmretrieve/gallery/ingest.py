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

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmretrieve.concurrency import map_ahead
from mmretrieve.encoders.base import Encoder, Progress
from mmretrieve.errors import GalleryError, ImageError, OptionError
from mmretrieve.gallery.store.records import FieldType, Item, ItemRecord, fit_fields
from mmretrieve.gallery.store.store import Float16Rows, Store
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
    """An image to encode, and the record that it replaces. `item` has no width and height yet."""

    item: Item
    replaced: ItemRecord | None = None


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
    """The part of a source that one of several machines indexes. It consists of whole batches, so merging all parts gives the same gallery."""

    def __init__(self, source: Source, number: int, of: int) -> None:
        """`number` counts from 1 to `of`; another one raises OptionError."""
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
    is_seen = np.zeros(before.total, bool)
    for batch in batches(source, INGEST_BATCH_SIZE):
        existing = store.ledger.live([entry.id for entry in batch if is_text(entry.id)])
        outcomes = classify(store, batch, existing, source.name, update=update)
        report += _add(store, encoder, batch, outcomes, progress)
        is_seen[[record.row for record in existing.values() if record.row < before.total]] = True
        is_whole = is_whole and not any(isinstance(entry, UnreadableItem) for entry in batch)
    if remove and is_whole:
        rows = [row for row in store.ledger.rows_of_source(source.name) if row < before.total and not is_seen[row]]
        store.ledger.kill(rows)
        report += AddReport(removed=len(rows))
    return report


def classify(
    store: Store, entries: Sequence[Entry], existing: Mapping[str, ItemRecord], source: str, *, update: bool
) -> list[Outcome]:
    """Returns an outcome for each entry, given the records of the existing ids. Writes nothing."""
    ids: set[str] = set()
    outcomes: list[Outcome] = []
    fitting = _fit_fields(entries, store.ledger.kinds())
    for entry, outcome in zip(
        entries,
        map_ahead(lambda entry: _classified(entry, existing.get(entry.id), source, update=update), fitting, _window()),
        strict=True,
    ):
        is_repeated = isinstance(outcome, New) and entry.id in ids
        outcomes.append(Failed(REPEATED_ID) if is_repeated else outcome)
        if isinstance(outcome, New):
            ids.add(entry.id)
    return outcomes


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` items; the last may be shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _fit_fields(entries: Iterable[Entry], kinds: dict[str, FieldType]) -> Iterator[Entry]:
    """Yields the entries with their fields as the gallery stores them, in order: the first value of a field decides its type."""
    for entry in entries:
        try:
            yield entry if isinstance(entry, UnreadableItem) else replace(entry, fields=fit_fields(entry.fields, kinds))
        except GalleryError as error:
            yield UnreadableItem(entry.id, str(error))


def _classified(entry: Entry, record: ItemRecord | None, source: str, *, update: bool) -> Outcome:
    if isinstance(entry, UnreadableItem):
        return Failed(entry.reason)
    if not (is_text(entry.id) and is_text(entry.location.path)):
        return Failed("its name is not valid text")
    try:
        fingerprint = entry.location.fingerprint()
        if record is not None and (record.item.location, record.item.fingerprint) == (entry.location, fingerprint):
            return _with_metadata(record, replace(record.item, fields=entry.fields, source=source))
        with entry.location.open() as file:
            content = content_hash(file)
    except (ImageError, GalleryError) as error:
        return Failed(str(error))
    if record is None:
        return New(Item(entry.id, entry.location, content, fields=entry.fields, source=source, fingerprint=fingerprint))
    is_same = record.item.hash == content
    if _belongs_to_another(record.item, entry, source):
        return Unchanged() if is_same else Failed(f"the id already exists, from {record.item.source}")
    if is_same:
        return _with_metadata(
            record, replace(record.item, location=entry.location, fingerprint=fingerprint, fields=entry.fields, source=source)
        )
    if not update:
        return Failed(CONTENT_CHANGED)
    return New(Item(entry.id, entry.location, content, fields=entry.fields, source=source, fingerprint=fingerprint), record)


def _with_metadata(record: ItemRecord, item: Item) -> MetadataUpdated | Unchanged:
    """Returns the record with the metadata of `item`. Fields that `item` does not name stay; those that are None are removed."""
    fields = {name: value for name, value in {**record.item.fields, **item.fields}.items() if value is not None}
    item = replace(item, fields=fields)
    return Unchanged() if item == record.item else MetadataUpdated(replace(record, item=item), fields != record.item.fields)


def _belongs_to_another(item: Item, entry: SourceItem, source: str) -> bool:
    """Returns whether the item came from another source that still has its file. Then this source must neither update nor remove it."""
    if item.source in ("", source) or not os.path.exists(item.path):
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
    if progress is not None:
        progress(len(outcomes) - len(new))
    encoded = _encode(store, encoder, new, progress)
    updated = [outcome for outcome in outcomes if isinstance(outcome, MetadataUpdated)]
    if encoded.items:
        store.append(encoded.items, encoded.vectors, encoded.thumbnails, encoded.replaced)
    if updated:
        store.ledger.rewrite([outcome.record for outcome in updated])
    failed = {entry.id: outcome.reason for entry, outcome in zip(entries, outcomes, strict=True) if isinstance(outcome, Failed)}
    fields_changed, replaced = sum(outcome.fields_changed for outcome in updated), len(encoded.replaced)
    unchanged = sum(isinstance(outcome, Unchanged) for outcome in outcomes) + len(updated) - fields_changed
    return AddReport(len(encoded.items) - replaced, unchanged, failed | encoded.failed, replaced + fields_changed)


@dataclass(frozen=True)
class _Decoded:
    """What is stored of an image besides its vector."""

    width: int | None
    height: int | None
    thumbnail: bytes = b""


@dataclass(frozen=True)
class _Encoded:
    """Items ready for the commit, the rows that they replace, and what could not be decoded."""

    items: list[Item]
    vectors: Float16Rows
    thumbnails: list[bytes]
    replaced: list[int]
    failed: dict[str, str]


def _encode(store: Store, encoder: Encoder, new: Sequence[New], progress: Progress | None) -> _Encoded:
    """Encodes each content once. A copy gets the vector of the item with the same content in the gallery or the batch."""
    existing = store.ledger.with_content({one.item.hash for one in new})
    images: dict[str, _Decoded | Failed] = {
        content: _Decoded(record.item.width, record.item.height) for content, record in existing.items()
    }
    vectors: dict[str, NDArray[np.floating]] = {}
    if existing:
        stored = store.float16_rows(store.ledger.version())
        vectors = {content: stored[record.row] for content, record in existing.items()}
    to_encode = {one.item.hash: one.item for one in reversed(new) if one.item.hash not in existing}
    decoded: dict[str, _Decoded | Failed] = {}
    encoded = encoder.encode_images(_decode_all(store, encoder, list(to_encode.values())[::-1], decoded, progress))
    contents = [content for content, image in decoded.items() if isinstance(image, _Decoded)]
    vectors |= zip(contents, encoded, strict=True)
    images |= decoded
    if progress is not None:
        progress(len(new) - len(to_encode))
    outcomes = [(one, images[one.item.hash]) for one in new]
    added = [(one, image) for one, image in outcomes if isinstance(image, _Decoded)]
    return _Encoded(
        [replace(one.item, width=image.width, height=image.height) for one, image in added],
        np.array([vectors[one.item.hash] for one, _ in added], dtype=np.float16).reshape(len(added), store.dim),
        [image.thumbnail for _, image in added],
        [one.replaced.row for one, _ in added if one.replaced is not None],
        {one.item.id: image.reason for one, image in outcomes if isinstance(image, Failed)},
    )


def _decode_all(
    store: Store, encoder: Encoder, items: Sequence[Item], decoded: dict[str, _Decoded | Failed], progress: Progress | None
) -> Iterator[Image.Image]:
    """Yields the images, decoded ahead of the encoder. `decoded` receives what is stored of each content, in this order."""
    size = getattr(encoder, "image_size", DEFAULT_IMAGE_SIZE)
    for item, outcome in zip(items, map_ahead(lambda item: _decode(item, store.decode, size), items, _window()), strict=True):
        if progress is not None:
            progress(1)
        if isinstance(outcome, Failed):
            decoded[item.hash] = outcome
        else:
            decoded[item.hash], image = outcome
            yield image


def _decode(item: Item, decode: Decode, size: int) -> tuple[_Decoded, Image.Image] | Failed:
    try:
        with item.location.open() as file:
            image = open_image(file, decode=decode, size=size)
        if item.location.fingerprint() != item.fingerprint:
            return Failed(CHANGED_MEANWHILE)
    except (ImageError, GalleryError) as error:
        return Failed(str(error))
    return _Decoded(*image.size, thumbnail(image, THUMBNAIL_SIDE)), image


def _window() -> int:
    """Returns how many images are decoded ahead."""
    return 2 * (os.cpu_count() or 1)
