"""Copies items that have vectors already into a place that does not have them: `copy_missing`, the one way for all.

`add_vectors`, `merge`, `import_vectors` and `pull` copy into a gallery's store; `push` copies into a collection of a Milvus server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.ingest import AddReport
from mmretrieve.gallery.local_view import LocalView
from mmretrieve.gallery.store.records import ExistingItem, FieldType, Item, fit_fields
from mmretrieve.gallery.store.store import Float16Rows, Store
from mmretrieve.gallery.view import Rows

COPY_BATCH_SIZE = 4_096  # items between two commits


@dataclass(frozen=True)
class EncodedBatch:
    """Some items of a source, and how to read the vectors (m, dim) and thumbnails of those of them that are copied, by position."""

    items: Sequence[Item]
    vectors_of: Callable[[Sequence[int]], Float16Rows]
    thumbnails_of: Callable[[Sequence[int]], list[bytes]] = lambda positions: [b""] * len(positions)

    @classmethod
    def of(cls, items: Sequence[Item], vectors: Float16Rows) -> EncodedBatch:
        """Items with their (n, dim) vectors, without thumbnails."""
        return cls(items, lambda positions: vectors[list(positions)])


@dataclass(frozen=True)
class TargetState:
    """The positions of a batch's items by what the target has: nothing of that id, the same image, or another one."""

    missing: list[int]
    same: list[int]
    different: list[int]
    existing: Mapping[str, ExistingItem]

    @classmethod
    def of(cls, items: Sequence[Item], existing: Mapping[str, ExistingItem]) -> TargetState:
        """Of two items with one id the first counts as there for the second."""
        comparison, hashes = cls([], [], [], existing), {id_: item.hash for id_, item in existing.items()}
        for i, item in enumerate(items):
            if item.id not in hashes:
                hashes[item.id] = item.hash
                comparison.missing.append(i)
            else:
                (comparison.same if hashes[item.id] == item.hash else comparison.different).append(i)
        return comparison


class CopyTarget(Protocol):
    """Where items are copied to."""

    @property
    def name(self) -> str: ...

    @property
    def remedy(self) -> str:
        """What to do where an id is another image there."""

    def fields(self) -> dict[str, FieldType]:
        """What each field holds there."""

    def existing(self, ids: Sequence[str]) -> Mapping[str, ExistingItem]: ...

    def write(self, batch: EncodedBatch, comparison: TargetState) -> AddReport:
        """Commits what of a batch is to be there."""


def copy_missing(
    target: CopyTarget, batches: Iterable[EncodedBatch], source: str, *, update: bool = False, progress: Progress | None = None
) -> AddReport:
    """Writes each batch. GalleryError, with the batches before it written, for an id that is another image in the target.

    update: the target replaces those.
    """
    report = AddReport()
    for batch in batches:
        comparison = TargetState.of(batch.items, target.existing([item.id for item in batch.items]))
        if comparison.different and not update:
            raise _different(target, source, [batch.items[i].id for i in comparison.different])
        report += target.write(batch, comparison)
        if progress is not None:
            progress(len(batch.items))
    return report


def check_copy(target: CopyTarget, batches: Iterable[EncodedBatch], source: str, *, update: bool = False) -> None:
    """GalleryError where `copy_missing` would raise one, or a field has another type in the target. Nothing is written."""
    fields, different = target.fields(), list[str]()
    for batch in batches:
        for item in batch.items:
            try:
                fit_fields(item.fields, fields)
            except GalleryError as error:
                raise GalleryError(f"{source}: {item.id!r}: {error}; nothing was copied") from error
        if not update:
            comparison = TargetState.of(batch.items, target.existing([item.id for item in batch.items]))
            different += [batch.items[i].id for i in comparison.different]
    if different:
        raise _different(target, source, different, "; nothing was copied")


def _different(target: CopyTarget, source: str, ids: Sequence[str], outcome: str = "") -> GalleryError:
    return GalleryError(
        f"{source}: {ids[0]!r} is another image than in {target.name} ({len(ids)} such ids); {target.remedy}{outcome}"
    )


class StoreTarget:
    """A gallery's store. Write within `writing`."""

    remedy = "delete it there first, or give one of them another id"

    def __init__(self, store: Store) -> None:
        self._store, self.name = store, str(store.folder)

    def fields(self) -> dict[str, FieldType]:
        return self._store.ledger.kinds()

    def existing(self, ids: Sequence[str]) -> Mapping[str, ExistingItem]:
        return self._store.ledger.existing(ids)

    def write(self, batch: EncodedBatch, comparison: TargetState) -> AddReport:
        """Appends what is missing, its fields under the names that they have here."""
        if missing := comparison.missing:
            fields = self.fields()
            items = [replace(batch.items[i], fields=fit_fields(batch.items[i].fields, fields)) for i in missing]
            self._store.append(items, batch.vectors_of(missing), batch.thumbnails_of(missing))
        return AddReport(len(missing), len(batch.items) - len(missing))


def view_batches(view: LocalView, size: int = COPY_BATCH_SIZE) -> Iterator[EncodedBatch]:
    """All items of a gallery, in order."""
    for start in range(0, len(view), size):
        yield _view_batch(view, view.rows[start : start + size])


def _view_batch(view: LocalView, rows: Rows) -> EncodedBatch:
    records = view.records_of(rows)
    return EncodedBatch(
        [record.item for record in records],
        lambda positions: view.float16_rows[rows[list(positions)]],
        lambda positions: [view.store.thumbnail(records[i].stored) or b"" for i in positions],
    )


def merge(store: Store, other: Store, progress: Progress | None = None) -> AddReport:
    """Copies the items of `other` that are not there yet, in their order. Call within `writing`.

    Raises GalleryError, before anything is copied, where the galleries were made by another encoder or decode otherwise,
    where a field has another type there, or an id is another image.
    """
    if (store.identity, store.decode, store.dim) != (other.identity, other.decode, other.dim):
        raise GalleryError(
            f"{other.folder}: {other.dim} dimensions by {other.identity}, decoding {other.decode}; "
            f"{store.folder}: {store.dim} by {store.identity}, decoding {store.decode}"
        )
    target, view = StoreTarget(store), LocalView(other)
    check_copy(target, view_batches(view), view.name)
    return copy_missing(target, view_batches(view), view.name, progress=progress)
