"""Adds the images of a source, a batch and a commit at a time: classify its entries, encode what is new, commit.

Classification reads hashes, no pixels. While a batch is encoded, the next ones are classified and the one before is committed, in order.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import Lock
from typing import TypeVar
from unicodedata import normalize
from zlib import crc32

import numpy as np

from mmretrieve.concurrency import StreamWorker, map_ahead
from mmretrieve.encoders.base import Encoder, Progress
from mmretrieve.errors import GalleryError, ImageError, OptionError
from mmretrieve.gallery.encoding import EncodedImage, Failed, ItemEncoder
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.recognition import KnownFiles
from mmretrieve.gallery.removal import removal_problem
from mmretrieve.gallery.store.records import FieldType, Item, ItemRecord, fit_fields, unicode_forms
from mmretrieve.gallery.store.store import Store
from mmretrieve.images import content_hash
from mmretrieve.sources.base import Entry, ReportingSource, Source, SourceItem, SourceReport, UnreadableItem
from mmretrieve.sources.values import Value, is_text

INGEST_BATCH_SIZE = 256  # images between two commits; fixed, so that an interrupted run repeats the same batches
MAX_BATCHES_AHEAD = 2  # that are not committed yet while another is classified: metadata, vectors and thumbnails
MAX_HASHED_AHEAD = 2 * (os.cpu_count() or 1)
CONTENT_CHANGED = "its content has changed since it was added; update it, or delete it and add it again"
REPEATED_ID = "this id occurs more than once in the source"
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
    """The new record of an existing image whose location, source or fields have changed, and the item before."""

    record: ItemRecord
    before: Item

    @property
    def fields_changed(self) -> bool:
        return self.record.item.fields != self.before.fields


@dataclass(frozen=True)
class Unchanged:
    """An image that exists and has not changed."""


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
    """Adds a source. Call within `writing`. Ids are stored in Unicode's form NFC. `progress` is called from two threads, never at once."""
    captions = Manifest.of(store).captions
    items = ItemEncoder(encoder, store.decode, store.colors, _one_at_a_time(progress), captions)
    with StreamWorker(items.encode_batches) as worker:
        addition = _Addition(store, items, worker, normalize("NFC", source.name), update=rule.update)
        for entries in addition.read(source):
            addition.add(entries)
        addition.commit_all()
    report = addition.report + AddReport(notes=addition.notes())
    if rule.remove:
        report += _remove(store, addition, rule.allow_removal)
    if isinstance(source, ReportingSource):
        told = source.report()
        report += AddReport(ignored=told.ignored, notes=told.notes)
    return report


def _one_at_a_time(progress: Progress | None) -> Progress:
    """The callback, called by one thread at a time."""
    lock = Lock()

    def locked(count: int) -> None:
        if progress is not None:
            with lock:
                progress(count)

    return locked


@dataclass(frozen=True)
class _Batch:
    """A classified batch of entries.

    `images`: what is known of its new items, by `key`, which is equal for items with the same vector; `to_encode`: the items that the
    encoder got.
    """

    entries: Sequence[Entry]
    outcomes: Sequence[Outcome]
    images: dict[str, EncodedImage | Failed]
    to_encode: Sequence[Item]
    key: Callable[[Item], str]

    @property
    def new(self) -> list[New]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, New)]

    @property
    def ids(self) -> set[str]:
        """All ids that its commit may change, in form NFC."""
        updated = (one.record.item.id for one in self.outcomes if isinstance(one, MetadataUpdated))
        changed = (*updated, *(one.item.id for one in self.new))
        return {entry.id for entry in self.entries} | {normalize("NFC", id_) for id_ in changed}

    def image_of(self, new: New) -> EncodedImage | Failed:
        """The encoded image of a new item, or why there is none."""
        return self.images[self.key(new.item)]


class _Addition:
    """The batches of one source on their way into the gallery: some are encoded, the oldest is committed next.

    A batch is classified before those on their way are committed. If it names an item of theirs, they are committed first.
    """

    def __init__(
        self,
        store: Store,
        items: ItemEncoder,
        worker: StreamWorker[Item, list[EncodedImage | Failed]],
        name: str,
        *,
        update: bool,
    ) -> None:
        self._store, self._items, self._worker, self._update = store, items, worker, update
        self.source, self.before, self.report, self.is_whole = name, store.ledger.version(), AddReport(), True
        self.is_seen = np.zeros(self.before.total, bool)
        self._known = KnownFiles(store, name) if name else None  # a program that gives single items means their ids
        self._field_types = store.ledger.field_types()
        self._added = self._uncaptioned = 0  # items that were encoded, and those of them without a caption
        self._batches = deque[_Batch]()  # on their way

    def read(self, source: Source) -> Iterator[list[Entry]]:
        """Yields the batches of the source. If reading raises an error, those before are committed first."""
        try:
            yield from batches(source, INGEST_BATCH_SIZE)
        except Exception:
            self.commit_all()
            raise

    def add(self, entries: Sequence[Entry]) -> None:
        """Classifies a batch, gives its new images to the encoder, and commits the oldest batch if enough are on their way."""
        batch: list[Entry] = [replace(entry, id=normalize("NFC", entry.id)) for entry in entries]
        if any(one.ids & {entry.id for entry in batch} for one in self._batches):
            self.commit_all()
        outcomes = self._classify(batch)
        key = self._items.key
        new = {key(outcome.item): outcome.item for outcome in reversed(outcomes) if isinstance(outcome, New)}
        images: dict[str, EncodedImage | Failed] = dict(_stored_images(self._store, new, key))
        others = {key(item) for one in self._batches for item in one.to_encode}
        to_encode = [item for each, item in reversed(new.items()) if each not in images and each not in others]
        if to_encode:
            self._worker.put(to_encode)
        self._batches.append(_Batch(batch, outcomes, images, to_encode, key))
        is_in_memory = any(isinstance(entry, SourceItem) and not entry.location.path for entry in batch)
        while len(self._batches) > (0 if is_in_memory else MAX_BATCHES_AHEAD):
            self._commit()

    def commit_all(self) -> None:
        """Commits all batches that are on their way."""
        while self._batches:
            self._commit()

    def _classify(self, batch: list[Entry]) -> list[Outcome]:
        existing = self._store.ledger.records_by_id([entry.id for entry in batch if is_text(entry.id)])
        self.is_whole = self.is_whole and not any(isinstance(entry, UnreadableItem) for entry in batch)
        if self._known is not None:
            again = {id_ for id_, record in existing.items() if record.row >= self.before.total or self.is_seen[record.row]}
            batch = [UnreadableItem(entry.id, REPEATED_ID) if entry.id in again else entry for entry in batch]
        outcomes = classify(batch, existing, self.source, self._field_types, update=self._update)
        if self._known is not None:
            self._known.take(existing.values())
            outcomes = _recognize(self._known, outcomes)
        outcomes = [self._encode_again(outcome) for outcome in outcomes]
        self.is_seen[[record.row for record in existing.values() if record.row < self.before.total]] = True
        return outcomes

    def _encode_again(self, outcome: Outcome) -> Outcome:
        """An existing image whose caption changes gets another vector, so it replaces itself."""
        if not isinstance(outcome, MetadataUpdated) or self._items.key(outcome.before) == self._items.key(outcome.record.item):
            return outcome
        return New(outcome.record.item, outcome.record.row)

    def notes(self) -> tuple[str, ...]:
        """How many of the items that were encoded have no caption, if captions count."""
        if self._items.captions is None or not self._uncaptioned:
            return ()
        name = f"{self.source}: " if self.source else ""
        return (
            f"{name}{self._uncaptioned:,} of {self._added:,} new items have no caption: their vectors are those of their images",
        )

    def _commit(self) -> None:
        """Waits for the images of the oldest batch, and commits it."""
        batch = self._batches.popleft()
        images = batch.images
        if batch.to_encode:
            images |= zip(map(batch.key, batch.to_encode), self._worker.get(), strict=True)
        copies = {key: one.item for one in batch.new if (key := batch.key(one.item)) not in images}
        if copies:  # of images that were on their way
            images |= _stored_images(self._store, copies, batch.key)
            images |= {key: self._items.encode(item) for key, item in copies.items() if key not in images}
        self.report += _commit(self._store, batch)
        if (captions := self._items.captions) is not None:
            items = [one.item for one in batch.new if isinstance(batch.image_of(one), EncodedImage)]
            self._added += len(items)
            self._uncaptioned += sum(captions.caption(item.fields) is None for item in items)
        self._items.progress(len(batch.outcomes) - len(batch.to_encode))


def _remove(store: Store, addition: _Addition, allowed: float | None) -> AddReport:
    """Deletes the items of a source that were not seen, all or none. Of a file that was moved, the new item has the same content."""
    source, before, is_seen = addition.source, addition.before, addition.is_seen
    rows = {row for form in unicode_forms(source) for row in store.ledger.rows_of_source(form) if row < before.total}
    missing = [row for row in sorted(rows) if not is_seen[row]]
    if not missing:
        return AddReport()
    problem: str | None = "the source could not be read completely"
    if addition.is_whole:
        ids = {int(row): id_ for row, id_ in zip(before.rows(), store.ledger.ids(before), strict=True) if row in rows}
        records = store.ledger.records_of(missing, before)
        moved = store.ledger.records_since(before.total, {record.item.hash for record in records})
        problem = removal_problem(ids, [record.row for record in records if record.item.hash not in moved], allowed)
    if problem is not None:
        return AddReport(not_removed=len(missing), notes=(f"{source}: no item was removed: {problem}",))
    if Manifest.of(store).captions is None:  # else a vector depends on the fields of its item
        store.ledger.rewrite(_with_earlier_fields(records, moved))
    store.ledger.mark_deleted(missing)
    return AddReport(removed=len(missing))


def _with_earlier_fields(gone: Sequence[ItemRecord], moved: Mapping[str, Sequence[ItemRecord]]) -> list[ItemRecord]:
    """The records of files that were moved, with the fields of their items under the earlier names, which a table may have added."""
    new = {content: deque(records) for content, records in moved.items()}
    pairs = [(earlier.item, new[earlier.item.hash].popleft()) for earlier in gone if new.get(earlier.item.hash)]
    return [
        replace(record, item=replace(record.item, fields=fields))
        for earlier, record in pairs
        if (fields := _merged_fields(earlier, record.item.fields)) != record.item.fields
    ]


def classify(
    entries: Sequence[Entry], existing: Mapping[str, ItemRecord], source: str, types: dict[str, FieldType], *, update: bool
) -> list[Outcome]:
    """Returns an outcome for each entry, given the records of the existing ids. New fields are added to `types`."""
    ids: set[str] = set()
    outcomes: list[Outcome] = []
    fitting = _fit_fields(entries, types)
    once = (New, MetadataUpdated, Unchanged) if source else (New,)  # a program that gives single items may change one twice
    for entry, outcome in zip(
        entries,
        map_ahead(
            lambda entry: _classify_entry(entry, existing.get(entry.id), source, update=update), fitting, MAX_HASHED_AHEAD
        ),
        strict=True,
    ):
        is_once = isinstance(outcome, once)
        outcomes.append(Failed(REPEATED_ID) if is_once and entry.id in ids else outcome)
        if is_once:
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
            same = replace(record.item, location=entry.location, fields=entry.fields, source=source or record.item.source)
            return _update_metadata(record, same)
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
        location = record.item.location if record.item.location.path else entry.location
        return _update_metadata(record, replace(record.item, location=location, fields=entry.fields))
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
    fields = _merged_fields(record.item, entry.fields)
    return New(Item(entry.id, entry.location, content, fields=fields, source=source, fingerprint=fingerprint), record.row)


def _update_metadata(record: ItemRecord, item: Item) -> MetadataUpdated | Unchanged:
    """Returns the record with the metadata of `item`."""
    item = replace(item, fields=_merged_fields(record.item, item.fields))
    return Unchanged() if item == record.item else MetadataUpdated(replace(record, item=item), record.item)


def _merged_fields(item: Item, fields: Mapping[str, Value]) -> dict[str, Value]:
    """The fields of an item with others. Those that the others do not name stay; those that are None are removed."""
    return {name: value for name, value in {**item.fields, **fields}.items() if value is not None}


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


def _commit(store: Store, batch: _Batch) -> AddReport:
    """Commits a batch whose images are complete."""
    added = [(one, image) for one in batch.new if isinstance(image := batch.image_of(one), EncodedImage)]
    updated = [outcome for outcome in batch.outcomes if isinstance(outcome, MetadataUpdated)]
    replaced = [outcome.replaced_row for outcome, _ in added if outcome.replaced_row is not None]
    if added:
        items = [replace(outcome.item, width=image.width, height=image.height) for outcome, image in added]
        vectors = np.array([image.vector for _, image in added], dtype=np.float16)
        store.append(items, vectors, [image.thumbnail for _, image in added], replaced)
    if updated:
        store.ledger.rewrite([outcome.record for outcome in updated])
    outcomes = zip(batch.entries, batch.outcomes, strict=True)
    failed = {entry.id: outcome.reason for entry, outcome in outcomes if isinstance(outcome, Failed)}
    failed |= {one.item.id: image.reason for one in batch.new if isinstance(image := batch.image_of(one), Failed)}
    fields_changed = sum(outcome.fields_changed for outcome in updated)
    unchanged = sum(isinstance(outcome, Unchanged) for outcome in batch.outcomes) + len(updated) - fields_changed
    return AddReport(len(added) - len(replaced), unchanged, failed, len(replaced) + fields_changed)


def _stored_images(store: Store, items: Mapping[str, Item], key: Callable[[Item], str]) -> dict[str, EncodedImage]:
    """Returns the vectors of those items, by `key`, that an item of the gallery has, a deleted one included. A copy gets the same vector."""
    existing = store.ledger.records_by_content({item.hash for item in items.values()})
    if not existing:
        return {}
    stored = store.float16_rows(store.ledger.version())
    return {
        each: EncodedImage(stored[record.row], record.item.width, record.item.height)
        for each, item in items.items()
        if (record := existing.get(item.hash)) is not None
        and key(record.item) == each
        and crc32(stored[record.row].tobytes()) == record.stored.vector  # otherwise it is damaged; a copy would hide that
    }
