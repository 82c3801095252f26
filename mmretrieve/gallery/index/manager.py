"""The index is derived: loaded where its file fits the ledger, made in memory where there is none. The store decides what exists."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.gpu import resolve_device
from mmretrieve.gallery.index.index_manifest import NEW, UNBUILT, IndexManifest
from mmretrieve.gallery.index.plan import Device, IndexPlan, choose
from mmretrieve.gallery.index.tuning import IndexReport, composed_queries, exact_best, report, tune
from mmretrieve.gallery.store.records import StoreVersion
from mmretrieve.gallery.store.store import INDEX, Float16Rows, Store
from mmretrieve.vectors import is_number

N_QUERIES = 200  # composed queries that an index is tuned with, and as many others that it is reported with
TUNING_K = 10  # recall@10 is what has to reach the target
MAX_UNCOVERED_SHARE = 0.05  # of the rows: so many that the index does not cover are put into it after adding
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedIndex:
    """An index that is ready, and which one it is: its epoch, and the digest of its file where it has one."""

    index: FaissIndex
    epoch: int
    digest: str | None


def open_index(
    store: Store, version: StoreVersion, float16_rows: Float16Rows, device: Device, earlier: LoadedIndex | None = None
) -> LoadedIndex:
    """The stored index, else a flat one in memory; on that device. Nothing is written.

    `earlier` is what served an earlier version: it serves this one too, unless another was built since, or one that was never
    stored does not cover many of the rows.
    """
    manifest = IndexManifest.of(store, version)
    digest = None if manifest is None else manifest.digest
    if earlier is not None and earlier.epoch == version.epoch and digest in (None, earlier.digest):
        covered = len(earlier.index)
        if earlier.digest is not None or version.total - covered <= MAX_UNCOVERED_SHARE * covered:
            return earlier
    index = None if manifest is None else _load(store, manifest)
    if index is None:
        if manifest is not None and manifest.plan != UNBUILT:
            logger.warning("%s: the index is not the one that was built; searching without it", store.folder)
        index = FaissIndex.build(UNBUILT, float16_rows)
    return LoadedIndex(_move_to_device(index, device, float16_rows), version.epoch, digest)


def build(
    store: Store,
    version: StoreVersion,
    float16_rows: Float16Rows,
    factory: str | None,
    target: float,
    progress: Progress | None = None,
) -> IndexManifest:
    """Makes the index anew, tunes how hard it looks to that recall@10 of composed queries, and writes it.

    factory: of FAISS; None chooses by size and memory. OptionError for one that cannot be carried out, or a target that is
    no share; GalleryError where another process is at it.
    """
    _check_target(target)
    if not version.total:
        raise GalleryError(f"{store.folder}: an empty gallery needs no index")
    plan = choose(len(float16_rows), store.dim) if factory is None else IndexPlan(factory, "asked for by name")
    with store.writing_index():
        started = time.perf_counter()
        index = FaissIndex.build(plan, float16_rows, progress=progress)
        made = replace(IndexManifest.unwritten(version, index), seconds=time.perf_counter() - started)
        made = replace(made, **_tune(index, float16_rows, target))
        return _write(store, version, index, made, index_wanted={"factory": factory, "target": target})


def rebuild(store: Store, version: StoreVersion, float16_rows: Float16Rows, progress: Progress | None = None) -> None:
    """Builds again what was once built and is no more, as after a compaction."""
    wanted = store.ledger.meta().get("index_wanted")
    if wanted is not None and version.total and IndexManifest.of(store, version) is None:
        build(store, version, float16_rows, progress=progress, **wanted)


def grow(store: Store, version: StoreVersion, float16_rows: Callable[[], Float16Rows]) -> None:
    """Puts rows into the index that it does not cover, if they have become many; without training again."""
    manifest = IndexManifest.of(store, version)
    if manifest is None or version.total - manifest.rows <= MAX_UNCOVERED_SHARE * manifest.rows:
        return
    try:
        with store.writing_index():
            index = _load(store, manifest)
            if index is not None:
                index.extend(float16_rows())
                _write(store, version, index, replace(manifest, rows=len(index)))
    except GalleryError as error:  # the rows are safe, and are found without it
        logger.warning("the index does not cover what was added: %s", error)


def measure(store: Store, version: StoreVersion, float16_rows: Float16Rows, target: float) -> tuple[IndexManifest, IndexReport]:
    """Tunes the index to that recall@10, and says what it finds and costs on composed queries that it was not tuned with.

    GalleryError where there is no index of this gallery; OptionError for a target that is no share.
    """
    _check_target(target)
    manifest = IndexManifest.of(store, version)
    index = None if manifest is None else _load(store, manifest)
    if manifest is None or index is None:
        raise GalleryError(f"{store.folder}: has no index yet; build one with `mmretrieve build {store.folder}`")
    rows = float16_rows[: len(index)]
    tuned = _tune(index, rows, target)
    if replace(manifest, **tuned) != manifest:
        manifest = replace(manifest, **tuned)
        with store.writing_index():
            store.ledger.set_meta(index=manifest.to_dict())
    queries = composed_queries(rows, N_QUERIES, seed=1)
    truth = exact_best(rows, queries, min(100, len(rows)))
    found = report(index.with_params(manifest.params), rows, queries, truth, build_seconds=manifest.seconds)
    return manifest, found


def problems(store: Store) -> list[str]:
    manifest = IndexManifest.of(store)
    if manifest is None or (manifest.plan == UNBUILT and not any(sizes(store))) or _load(store, manifest) is not None:
        return []
    what = "is not the file that was written" if any(sizes(store)) else "is missing"
    return [f"{INDEX}: {what}; a search does without it until it is built again"]


def sizes(store: Store) -> dict[str, int]:
    return {name: path.stat().st_size for name in (INDEX, NEW) if (path := store.folder / name).exists()}


def _check_target(target: float) -> None:
    if not is_number(target) or not 0 < target <= 1:
        raise OptionError(f"recall must be a number above 0 and up to 1, got {target!r}")


def _tune(index: FaissIndex, rows: Float16Rows, target: float) -> dict[str, Any]:
    """What the manifest says of the cheapest parameters that reach the target."""
    queries = composed_queries(rows, N_QUERIES)
    tuned = tune(index, exact_best(rows, queries, min(TUNING_K, len(rows))), queries, target=target)
    return {"params": tuned.params, "recall": tuned.recall, "target": target}


def _move_to_device(index: FaissIndex, device: Device, float16_rows: Float16Rows) -> FaissIndex:
    """On a GPU where one is wanted. `auto` stays where the index has no form for it; `cuda` says so."""
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
    """The index of the manifest, under its name or, where the writer was killed before renaming it, the other."""
    for name in (INDEX, NEW):
        if (store.folder / name).exists():
            index = FaissIndex.load(store.folder / name, manifest.digest, manifest.plan, manifest.params)
            if index is not None and (len(index), index.dim) == (manifest.rows, store.dim):
                return index
    return None


def _write(store: Store, version: StoreVersion, index: FaissIndex, manifest: IndexManifest, **more: object) -> IndexManifest:
    """Writes the file and stamps it, unless the rows have other numbers meanwhile. Call within `writing_index`."""
    new = store.folder / NEW
    try:
        manifest = replace(manifest, digest=index.save(new))
    except RuntimeError as error:  # FAISS, where the disk is full
        raise GalleryError(f"{new}: could not be written; is the disk full?") from error
    if store.ledger.version().epoch != version.epoch:
        raise GalleryError(f"{store.folder}: was compacted meanwhile; build the index again")
    store.ledger.set_meta(index=manifest.to_dict(), **more)
    os.replace(new, store.folder / INDEX)
    return manifest
