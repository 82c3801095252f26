"""Adds the images of a source, a batch and a commit at a time: classify its entries, encode what is new, commit.

Classification reads hashes, no pixels. Full-size images are in memory only between their decoding and the encoder's own
resizing, a few at a time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar
from unicodedata import normalize
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmretrieve.concurrency import map_ahead
from mmretrieve.encoders.base import Encoder, Progress
from mmretrieve.errors import GalleryError, ImageError, OptionError, VectorError
from mmretrieve.gallery.recognition import KnownFiles
from mmretrieve.gallery.removal import removal_problem
from mmretrieve.gallery.store.records import FieldType, Item, ItemRecord, StoreVersion, fit_fields, unicode_forms
from mmretrieve.gallery.store.store import Store
from mmretrieve.images import DEFAULT_IMAGE_SIZE, content_hash, open_image, thumbnail
from mmretrieve.sources.base import Entry, ReportingSource, Source, SourceItem, SourceReport, UnreadableItem
from mmretrieve.sources.values import is_text
from mmretrieve.vectors import bad_rows

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
    not_removed : int, default=0
        Items that are missing in the source and that `sync` kept, because the source may be away.
    ignored : mapping of str to int, optional
        Kind of file → how many files or folders of this kind were left out.
    notes : tuple of str, optional
        What else is worth knowing, one line each.

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
    not_removed: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.describe("skipped")

    def describe(self, skipped: str) -> str:
        """The counts in one line. `skipped`: the word for items that exist and are unchanged."""
        changes = ((self.updated, "updated"), (self.removed, "removed"), (self.not_removed, "not removed"))
        counts = [(self.added, "added"), *(change for change in changes if change[0]), (self.skipped, skipped)]
        return ", ".join(f"{count} {what}" for count, what in (*counts, (len(self.failed), "failed")))

    def __add__(self, other: AddReport) -> AddReport:
        return AddReport(
            self.added + other.added,
            self.skipped + other.skipped,
            {**self.failed, **other.failed},
            self.updated + other.updated,
            self.removed + other.removed,
            self.not_removed + other.not_removed,
            dict(Counter(self.ignored) + Counter(other.ignored)),
            tuple(dict.fromkeys(self.notes + other.notes)),
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
        self._source, self._number, self.name = source, number, source.name

    def __len__(self) -> int:
        return max(0, min(self._end, len(self._source)) - self._start)

    def __iter__(self) -> Iterator[Entry]:
        return islice(iter(self._source), self._start, self._end)

    def report(self) -> SourceReport:
        """What the whole source noticed; of the first part only, so that merged reports count it once."""
        told = self._number == 1 and isinstance(self._source, ReportingSource)
        return self._source.report() if told else SourceReport()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class SyncRule:
    """What `add_source` does with items that exist.

    `update`: images that have changed replace them. `remove`: those that came from this source and are no longer in it are deleted, unless
    the source could not be read completely or may be away (see `removal_problem`, which reads `allow_removal`).
    """

    update: bool = False
    remove: bool = False
    allow_removal: float | None = None


def add_source(store: Store, encoder: Encoder, source: Source, rule: SyncRule, progress: Progress | None = None) -> AddReport:
    """Adds a source. Call within `writing`. Ids are stored in Unicode's form NFC."""
    before, report, is_whole, name = store.ledger.version(), AddReport(), True, normalize("NFC", source.name)
    known = KnownFiles(store, name) if name else None  # a program that gives single items means their ids
    is_seen = np.zeros(before.total, bool)
    for entries in batches(source, INGEST_BATCH_SIZE):
        batch: list[Entry] = [replace(entry, id=normalize("NFC", entry.id)) for entry in entries]
        existing = store.ledger.records_by_id([entry.id for entry in batch if is_text(entry.id)])
        is_whole = is_whole and not any(isinstance(entry, UnreadableItem) for entry in batch)
        if known is not None:
            again = {id_ for id_, record in existing.items() if record.row >= before.total or is_seen[record.row]}
            batch = [UnreadableItem(entry.id, REPEATED_ID) if entry.id in again else entry for entry in batch]
        outcomes = classify(store, batch, existing, name, update=rule.update)
        if known is not None:
            known.take(existing.values())
            outcomes = _recognize(known, outcomes)
        report += _add(store, encoder, batch, outcomes, progress)
        is_seen[[record.row for record in existing.values() if record.row < before.total]] = True
    if rule.remove:
        report += _remove(store, name, before, is_seen, is_whole, rule.allow_removal)
    if isinstance(source, ReportingSource):
        told = source.report()
        report += AddReport(ignored=told.ignored, notes=told.notes)
    return report


def _remove(
    store: Store, source: str, before: StoreVersion, is_seen: NDArray[np.bool_], is_whole: bool, allowed: float | None
) -> AddReport:
    """Deletes the items of a source that were not seen, all or none. Of a file that was moved, the new item has the same content."""
    rows = {row for form in unicode_forms(source) for row in store.ledger.rows_of_source(form) if row < before.total}
    missing = [row for row in sorted(rows) if not is_seen[row]]
    if not missing:
        return AddReport()
    problem: str | None = "the source could not be read completely"
    if is_whole:
        ids = {int(row): id_ for row, id_ in zip(before.rows(), store.ledger.ids(before), strict=True) if row in rows}
        hashes = {record.row: record.item.hash for record in store.ledger.records_of(missing, before)}
        moved = store.ledger.contents_since(before.total, hashes.values())
        problem = removal_problem(ids, [row for row in missing if hashes[row] not in moved], allowed)
    if problem is not None:
        return AddReport(not_removed=len(missing), notes=(f"{source}: no item was removed: {problem}",))
    store.ledger.mark_deleted(missing)
    return AddReport(removed=len(missing))


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
    if "" in (item.source, source) or normalize("NFC", item.source) == source or not os.path.exists(item.path):
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

    Each content is encoded once. A copy gets the vector of the item with the same content in the gallery, deleted ones included, or in the
    batch.
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
    try:
        images |= _encode_contents(store, encoder, to_encode, progress)
    except VectorError:  # of one image, or of several; each by itself tells which
        for item in to_encode:
            try:
                images |= _encode_contents(store, encoder, [item], None)
            except VectorError as error:
                images[item.hash] = Failed(f"the encoder cannot encode it ({error})")
    if progress is not None:
        progress(len(items) - len(to_encode))
    return images


def _encode_contents(
    store: Store, encoder: Encoder, items: Sequence[Item], progress: Progress | None
) -> dict[str, _EncodedImage | Failed]:
    """Returns for the content hash of each item its encoded image, or why there is none. Raises VectorError as the encoder does."""
    images: dict[str, _EncodedImage | Failed] = {}
    decoded: list[tuple[str, tuple[int, int], bytes]] = []

    def decode_all() -> Iterator[Image.Image]:
        """Yields the images, decoded ahead of the encoder."""
        size = getattr(encoder, "image_size", DEFAULT_IMAGE_SIZE)
        results = map_ahead(lambda item: _decode(item, store, size), items, _window())
        for item, result in zip(items, results, strict=True):
            if progress is not None:
                progress(1)
            if isinstance(result, Failed):
                images[item.hash] = result
            else:
                image, small = result
                decoded.append((item.hash, image.size, small))
                yield image
                del image, result  # what is decoded next may need the memory

    vectors = encoder.encode_images(decode_all())
    problems = bad_rows(vectors)
    for row, ((content, (width, height), small), vector) in enumerate(zip(decoded, vectors, strict=True)):
        failed = f"the encoder cannot encode it: {problems[row]}" if row in problems else None
        images[content] = _EncodedImage(vector, width, height, small) if failed is None else Failed(failed)
    return images


def _decode(item: Item, store: Store, size: int) -> tuple[Image.Image, bytes] | Failed:
    """Returns the image and its thumbnail."""
    try:
        with item.location.open() as file:
            image = open_image(file, decode=store.decode, size=size, colors=store.colors)
        if item.location.fingerprint() != item.fingerprint:
            return Failed(CHANGED_MEANWHILE)
    except (ImageError, GalleryError) as error:
        return Failed(str(error))
    return image, thumbnail(image, THUMBNAIL_SIDE)


def _window() -> int:
    """Returns how many images are decoded ahead."""
    return 2 * (os.cpu_count() or 1)
