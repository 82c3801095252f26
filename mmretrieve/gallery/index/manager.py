"""Opens, writes, extends and verifies the index of a gallery. Without a stored index, a flat one is made in memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.index.builder import N_QUERIES, BuiltIndex, build_fastest, build_index, tune_index
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.gpu import resolve_device
from mmretrieve.gallery.index.index_manifest import NEW, UNBUILT, IndexManifest, sizes
from mmretrieve.gallery.index.kinds import check_fits
from mmretrieve.gallery.index.plan import Device, IndexPlan
from mmretrieve.gallery.index.tuning import IndexReport, composed_queries, exact_best_with_ties, report
from mmretrieve.gallery.store.files import INDEX
from mmretrieve.gallery.store.records import StoreVersion
from mmretrieve.gallery.store.store import Float16Rows, Store
from mmretrieve.options import check_bytes, format_bytes, is_number

MAX_INDEX_BYTES, MAX_ROW_BYTES = (
    1 << 26,
    1 << 16,
)  # of an index, and of each row; a larger file is not read, it could be endless
MAX_UNCOVERED_SHARE = 0.05  # share of rows; if more are not covered, the index is extended
MIN_TAIL_ROWS = 1_024  # fewer rows that the index does not cover are scored exactly
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedIndex:
    """An index in memory, its epoch, and the digest of its file if it has one. `tail` is a flat index of the rows after those of the index, if they are many."""

    index: FaissIndex
    epoch: int
    digest: str | None
    tail: FaissIndex | None = None


def open_index(
    store: Store, version: StoreVersion, float16_rows: Float16Rows, device: Device, earlier: LoadedIndex | None = None
) -> LoadedIndex:
    """Loads the stored index, or makes a flat one in memory, and moves it to the device. Writes nothing.

    `earlier` served an earlier version. It is reused unless another index was built since, or it has no file and too many rows are new.
    """
    manifest = IndexManifest.of(store, version)
    digest = None if manifest is None else manifest.digest
    is_current = earlier is not None and earlier.epoch == version.epoch and digest in (None, earlier.digest)
    if earlier is not None and is_current and (earlier.digest is not None or _covers_most(earlier.index, version.total)):
        return _with_tail(earlier, float16_rows)
    index = None if manifest is None else _load(store, manifest)
    if index is None:
        if manifest is not None and manifest.plan != UNBUILT:
            logger.warning("%s: the index file is not the one that was built; searching without it", store.folder)
        index = FaissIndex.build(UNBUILT, float16_rows)
    return _with_tail(LoadedIndex(_move_to_device(index, device, float16_rows), version.epoch, digest), float16_rows)


def _covers_most(index: FaissIndex, count: int) -> bool:
    return count - len(index) <= MAX_UNCOVERED_SHARE * len(index)


def _with_tail(loaded: LoadedIndex, float16_rows: Float16Rows) -> LoadedIndex:
    """Returns the index with a tail if it leaves many rows out. That of an earlier version is kept while it covers most of them."""
    uncovered = float16_rows[len(loaded.index) :]
    if len(uncovered) <= MIN_TAIL_ROWS:
        return replace(loaded, tail=None)
    if loaded.tail is not None and _covers_most(loaded.tail, len(uncovered)):
        return loaded
    return replace(loaded, tail=FaissIndex.build(UNBUILT, uncovered))


def build(
    store: Store,
    version: StoreVersion,
    float16_rows: Float16Rows,
    factory: str | None,
    target: float,
    memory: int | str | None = None,
    progress: Progress | None = None,
) -> IndexManifest:
    """Builds the index, tunes its parameters to a recall@10 of composed queries, and writes it.

    `factory` is a FAISS factory string; None builds the fastest that reaches the recall. `memory` is the largest size of the index. Raises
    OptionError for an index that cannot be built or does not fit, a target that is out of range or a memory that is no size, GalleryError if
    another process is building.
    """
    _check_target(target)
    memory = None if memory is None else check_bytes("memory", memory)
    if not version.total:
        raise GalleryError(f"{store.folder}: the gallery is empty; add items before building an index")
    with store.writing_index():
        store.check_vectors(store.ledger.vector_checksums(version), float16_rows)
        built = _build(float16_rows, factory, target, memory, progress)
        manifest = IndexManifest(
            epoch=version.epoch,
            rows=len(built.index),
            digest="",
            factory=built.plan.factory,
            reason=built.plan.reason,
            trained=len(built.index),
            seconds=built.seconds,
            memory=memory,
            **vars(built.tuned),
        )
        limit = {} if memory is None else {"memory": memory}
        return _write(store, version, built.index, manifest, index_wanted={"factory": factory, "target": target, **limit})


def maintain(store: Store, version: StoreVersion, float16_rows: Callable[[], Float16Rows]) -> None:
    """Extends the index, without training, if it does not cover many rows. Builds it again if compaction has removed it.

    An index that was once built is thus not lost, even if the compaction was killed before it built it again. Call after every write.
    """
    manifest, options = IndexManifest.of(store, version), store.ledger.meta().get("index_wanted")
    try:
        if manifest is not None and version.total - manifest.rows > MAX_UNCOVERED_SHARE * manifest.rows:
            _extend(store, version, manifest, float16_rows())
        elif manifest is None and options is not None and version.total:
            build(store, version, float16_rows(), **options)
    except (GalleryError, OptionError) as error:  # searches find the rows without the index
        logger.warning("the index does not cover all items: %s", error)


def _build(rows: Float16Rows, factory: str | None, target: float, memory: int | None, progress: Progress | None) -> BuiltIndex:
    """Builds the index that was requested by name, or the fastest. Where a memory was given, the reason says what the index takes of it."""
    if factory is None:
        built = build_fastest(rows, target, progress, memory=memory)
    else:
        if memory is not None:
            check_fits(factory, len(rows), rows.shape[1], memory)
        built = build_index(rows, IndexPlan(factory, "requested by name"), target, progress)
    if memory is None:
        return built
    size = f"{format_bytes(built.index.size)} of {format_bytes(memory)}; the stored vectors, which rescore, stay on the disk"
    return replace(built, plan=replace(built.plan, reason=f"{built.plan.reason}; it takes {size}"))


def _extend(store: Store, version: StoreVersion, manifest: IndexManifest, float16_rows: Float16Rows) -> None:
    with store.writing_index():
        index = _load(store, manifest)
        if index is not None:
            store.check_vectors(store.ledger.vector_checksums(version, manifest.rows), float16_rows)
            index.extend(float16_rows)
            _write(store, version, index, replace(manifest, rows=len(index)))


def measure(store: Store, version: StoreVersion, float16_rows: Float16Rows, target: float) -> tuple[IndexManifest, IndexReport]:
    """Tunes the index to a recall@10 and measures it on other composed queries.

    Raises GalleryError if no index was built, OptionError for a target that is out of range.
    """
    _check_target(target)
    manifest = IndexManifest.of(store, version)
    index = None if manifest is None else _load(store, manifest)
    if manifest is None or index is None:
        raise GalleryError(f"{store.folder}: there is no index; build one with `mmretrieve build {store.folder}`")
    rows = float16_rows[: len(index)]
    tuned = replace(manifest, **vars(tune_index(index, rows, target)))
    if tuned != manifest:
        manifest = tuned
        with store.writing_index():
            store.ledger.set_meta(index=manifest.to_dict())
    queries = composed_queries(rows, N_QUERIES, seed=1)
    truth = exact_best_with_ties(rows, queries, min(100, len(rows)))
    index_report = report(index.with_params(manifest.params), rows, queries, truth, build_seconds=manifest.seconds)
    return manifest, index_report


def problems(store: Store) -> list[str]:
    """Returns one line if the index file is damaged or missing."""
    manifest = IndexManifest.of(store)
    if manifest is None or (manifest.plan == UNBUILT and not any(sizes(store))) or _load(store, manifest) is not None:
        return []
    what = "is not the file that was written" if any(sizes(store)) else "is missing"
    return [f"{INDEX}: {what}; searches work without it; build it again"]


def _check_target(target: float) -> None:
    if not is_number(target) or not 0 < target <= 1:
        raise OptionError(f"recall must be a number above 0 and up to 1, got {target!r}")


def _move_to_device(index: FaissIndex, device: Device, float16_rows: Float16Rows) -> FaissIndex:
    """Moves an index to the device. `auto` stays on the CPU if GPUs do not support the index; `cuda` raises OptionError."""
    if resolve_device(device) is Device.CPU:
        return index
    try:
        moved = index.on(Device.CUDA, float16_rows)
    except OptionError as error:
        if device is Device.CUDA:
            raise
        logger.warning("searching on the CPU: %s", error)
        return index
    logger.info("searching on the GPU: %s", index.plan.factory)
    return moved


def _load(store: Store, manifest: IndexManifest) -> FaissIndex | None:
    """Loads the index of the manifest from its file, or from the new file if the writer was killed before renaming it."""
    max_bytes = MAX_INDEX_BYTES + (manifest.rows + store.dim) * (MAX_ROW_BYTES + 8 * store.dim)
    for name, size in sizes(store).items():
        if size <= max_bytes:
            index = FaissIndex.load(store.folder / name, manifest.digest, manifest.plan, manifest.params)
            if index is not None and (len(index), index.dim) == (manifest.rows, store.dim):
                return index
    return None


def _write(store: Store, version: StoreVersion, index: FaissIndex, manifest: IndexManifest, **meta: object) -> IndexManifest:
    """Writes the file and records it in the ledger, unless rows were renumbered meanwhile. Call within `writing_index`."""
    new = store.folder / NEW
    try:
        manifest = replace(manifest, digest=index.save(new))
    except RuntimeError as error:  # FAISS, where the disk is full
        raise GalleryError(f"{new}: could not be written; check the free space of the disk") from error
    if store.ledger.version().epoch != version.epoch:
        raise GalleryError(f"{store.folder}: was compacted during the build; build the index again")
    store.ledger.set_meta(index=manifest.to_dict(), **meta)
    os.replace(new, store.folder / INDEX)
    return manifest
