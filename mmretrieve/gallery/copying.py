"""Copies items that have vectors to a target that lacks them. `copy_missing` does it for all commands.

`add_vectors`, `merge`, `import_vectors` and `pull` copy into a folder; `push` copies into a collection of a Milvus server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from unicodedata import normalize

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.ingest import AddReport
from mmretrieve.gallery.local_view import LocalView
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import UNSEEN, ExistingItem, FieldType, Item, fit_fields
from mmretrieve.gallery.store.store import Float16Rows, Store
from mmretrieve.gallery.view import Rows, check_ids, row_batches
from mmretrieve.options import check_path
from mmretrieve.sources.base import Value
from mmretrieve.sources.location import Location
from mmretrieve.sources.values import is_text
from mmretrieve.vectors import UNIT_TOLERANCE, as_array, bad_rows, unit

COPY_BATCH_SIZE = 4_096  # items between two commits


@dataclass(frozen=True)
class EncodedBatch:
    """Items of a source, and functions that read the (m, dim) vectors and the thumbnails of those at given positions."""

    items: Sequence[Item]
    vectors_of: Callable[[Sequence[int]], Float16Rows]
    thumbnails_of: Callable[[Sequence[int]], list[bytes]] = lambda positions: [b""] * len(positions)

    @classmethod
    def of(cls, items: Sequence[Item], vectors: Float16Rows) -> EncodedBatch:
        """A batch of items with their (n, dim) vectors, without thumbnails."""
        return cls(items, lambda positions: vectors[list(positions)])


@dataclass(frozen=True)
class TargetState:
    """The positions of the items of a batch by the state of their id in the target: missing, same image, different image."""

    missing: list[int]
    same: list[int]
    different: list[int]
    existing: Mapping[str, ExistingItem]

    @classmethod
    def of(cls, target: CopyTarget, items: Sequence[Item]) -> TargetState:
        """Compares items with the target. If two items have one id, the first counts as existing for the second."""
        existing = target.existing([item.id for item in items])
        state, hashes = cls([], [], [], existing), {id_: item.hash for id_, item in existing.items()}
        for i, item in enumerate(items):
            if item.id not in hashes:
                hashes[item.id] = item.hash
                state.missing.append(i)
            else:
                (state.same if hashes[item.id] == item.hash else state.different).append(i)
        return state


class CopyTarget(Protocol):
    """What items are copied to."""

    @property
    def name(self) -> str: ...

    @property
    def remedy(self) -> str:
        """What to do if an id is another image in the target."""

    def fields(self) -> dict[str, FieldType]:
        """Field name → its type in the target."""

    def existing(self, ids: Sequence[str]) -> Mapping[str, ExistingItem]:
        """Returns the items of those ids that exist in the target."""

    def write(self, batch: EncodedBatch, state: TargetState) -> AddReport:
        """Commits the items of a batch that the target needs."""


def copy_missing(
    target: CopyTarget, batches: Iterable[EncodedBatch], source: str, *, update: bool = False, progress: Progress | None = None
) -> AddReport:
    """Writes each batch to the target.

    `update`: the target replaces items whose id is another image in the source. Otherwise such an id raises GalleryError; batches before it are written.
    """
    report = AddReport()
    for batch in batches:
        state = TargetState.of(target, batch.items)
        if state.different and not update:
            raise _conflict_error(target, source, [batch.items[i].id for i in state.different])
        report += target.write(batch, state)
        if progress is not None:
            progress(len(batch.items))
    return report


def check_and_copy(
    target: CopyTarget,
    batches: Callable[[], Iterable[EncodedBatch]],
    source: str,
    *,
    update: bool = False,
    progress: Progress | None = None,
) -> AddReport:
    """Copies a source that can be read twice: everything is checked first, so that an error leaves the target unchanged.

    Raises GalleryError as `copy_missing` does, and if a field has another type in the target.
    """
    _check_copy(target, batches(), source, update=update)
    return copy_missing(target, batches(), source, update=update, progress=progress)


def _check_copy(target: CopyTarget, batches: Iterable[EncodedBatch], source: str, *, update: bool) -> None:
    types, different = target.fields(), list[str]()
    for batch in batches:
        for item in batch.items:
            try:
                fit_fields(item.fields, types)
            except GalleryError as error:
                raise GalleryError(f"{source}: {item.id!r}: {error}; nothing was copied") from error
        if not update:
            state = TargetState.of(target, batch.items)
            different += [batch.items[i].id for i in state.different]
    if different:
        raise _conflict_error(target, source, different, "; nothing was copied")


def _conflict_error(target: CopyTarget, source: str, ids: Sequence[str], outcome: str = "") -> GalleryError:
    return GalleryError(
        f"{source}: {ids[0]!r} is another image than in {target.name} ({len(ids)} such ids); {target.remedy}{outcome}"
    )


class StoreTarget:
    """The store of a gallery. Write within `writing`."""

    remedy = "delete it there first, or give one of them another id"

    def __init__(self, store: Store) -> None:
        self._store, self.name = store, str(store.folder)

    def fields(self) -> dict[str, FieldType]:
        return self._store.ledger.field_types()

    def existing(self, ids: Sequence[str]) -> Mapping[str, ExistingItem]:
        return self._store.ledger.existing(ids)

    def write(self, batch: EncodedBatch, state: TargetState) -> AddReport:
        """Appends the missing items; fields get the names that they have here."""
        if missing := state.missing:
            fields = self.fields()
            items = [replace(batch.items[i], fields=fit_fields(batch.items[i].fields, fields)) for i in missing]
            self._store.append(items, batch.vectors_of(missing), batch.thumbnails_of(missing))
        return AddReport(len(missing), len(batch.items) - len(missing))


def view_batches(view: LocalView, size: int = COPY_BATCH_SIZE) -> Iterator[EncodedBatch]:
    """Yields all items of a gallery, in order."""
    for rows in row_batches(view.rows, size):
        yield _view_batch(view, rows)


def _view_batch(view: LocalView, rows: Rows) -> EncodedBatch:
    records = view.records_of(rows)

    def read_vectors(positions: Sequence[int]) -> Float16Rows:
        view.store.check_vectors(((records[i].row, records[i].stored.vector) for i in positions), view.float16_rows)
        return view.float16_rows[rows[list(positions)]]

    return EncodedBatch(
        [record.item for record in records],
        read_vectors,
        lambda positions: [view.store.thumbnail(records[i].stored) or b"" for i in positions],
    )


def merge(store: Store, other: Store, progress: Progress | None = None) -> AddReport:
    """Copies the items of `other` that are missing, in order. Call within `writing`.

    Raises GalleryError, before anything is copied, if the encoder, the decoding or the dimension differs, a field has another type, or an id is
    another image.
    """
    Manifest.of(other).check_same_vectors(other.folder, Manifest.of(store), store.folder)
    view = LocalView(other)
    return check_and_copy(StoreTarget(store), lambda: view_batches(view), view.name, progress=progress)


def add_vectors(
    store: Store,
    ids: Sequence[str],
    vectors: ArrayLike,
    paths: Sequence[str | Path] | None,
    fields: Sequence[Mapping[str, Value]] | None,
    progress: Progress | None,
) -> AddReport:
    """Adds (n, dim) vectors with n ids, and optionally the paths of their images and their fields. Call within `writing`.

    A vector without a direction is reported as failed, and the others are added.

    Raises OptionError as `check_lists` does; GalleryError, with the batches before it committed, for an id that has another vector.
    """
    float16_rows, problems = to_checked_rows(vectors, "vectors", store.dim)
    check_lists(len(float16_rows), ids, paths, fields)
    all_fields = fields or [{}] * len(ids)

    def batch(start: int, end: int) -> EncodedBatch:
        rows = [i for i in range(start, end) if i not in problems]
        items = [vector_item(ids[i], str(paths[i]) if paths else ids[i], float16_rows[i], all_fields[i], "") for i in rows]
        return EncodedBatch.of(items, float16_rows[rows])

    starts = range(0, len(float16_rows), COPY_BATCH_SIZE)
    batches = (batch(start, min(start + COPY_BATCH_SIZE, len(float16_rows))) for start in starts)
    report = copy_missing(StoreTarget(store), batches, "vectors", progress=progress)
    return report + AddReport(failed={ids[i]: reason for i, reason in problems.items()})


def check_lists(
    count: int, ids: Sequence[str], paths: Sequence[str | Path] | None, fields: Sequence[Mapping[str, Value]] | None
) -> None:
    """Raises OptionError unless there is a valid id, and if they are given a path and a mapping of fields, for each of `count` vectors."""
    for name, given in (("ids", check_ids(ids)), ("paths", paths), ("fields", fields)):
        if given is not None and (isinstance(given, str | Mapping) or not isinstance(given, Sized) or len(given) != count):
            raise OptionError(f"{name}: expected a list of {count}, one for each vector")
    if invalid := [id_ for id_ in ids if not id_ or not is_text(id_)]:
        raise OptionError(f"ids must be text, got {invalid[0]!r}")
    for path in paths or ():
        check_path("paths", path, on_disk=False)
    if others := [one for one in fields or () if not isinstance(one, Mapping)]:
        raise OptionError(f"fields: expected a mapping such as {{'colour': 'red'}} for each vector, got {others[0]!r:.80}")


def vector_item(id_: str, path: str, vector: NDArray[np.float16], fields: Mapping[str, Value], source: str) -> Item:
    """Makes an item whose image was never read: its content hash is that of its vector."""
    content = f"{UNSEEN}{hashlib.blake2b(vector.tobytes(), digest_size=16).hexdigest()}"
    return Item(normalize("NFC", id_), Location(path), content, fields=fields, source=source)


def to_checked_rows(vectors: ArrayLike, name: str, dim: int | None = None) -> tuple[Float16Rows, dict[int, str]]:
    """Returns `to_float16_rows`, and the rows that have no direction, with the reason; these are zero.

    Raises VectorError as `to_float16_rows` does, and if no row has a direction.
    """
    problems = bad_rows(vectors)
    array = np.asarray(vectors) if problems else None
    if array is None or len(problems) == len(array):
        return to_float16_rows(vectors, name, dim), {}
    good = np.setdiff1d(np.arange(len(array)), list(problems))
    rows = np.zeros(array.shape, np.float16)
    rows[good] = to_float16_rows(array[good], name, dim)
    return rows, problems


def to_float16_rows(vectors: ArrayLike, name: str, dim: int | None) -> Float16Rows:
    """Normalizes (n, dim) vectors and rounds them to float16. Unit rows in float16 are returned as they are. Raises VectorError as `unit` does."""
    array = as_array(vectors, name)
    if array.dtype == np.float16 and array.ndim == 2 and dim in (None, array.shape[1]) and _are_unit(array):
        return array
    return unit(array, name, dim=dim).astype(np.float16)


def _are_unit(float16_rows: Float16Rows) -> bool:
    for start in range(0, len(float16_rows), COPY_BATCH_SIZE):
        norms = np.linalg.norm(float16_rows[start : start + COPY_BATCH_SIZE].astype(np.float32), axis=1)
        if not (np.abs(norms - 1) <= UNIT_TOLERANCE).all():
            return False
    return True
