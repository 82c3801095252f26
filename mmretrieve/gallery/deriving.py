"""The index is derived: opened where its file fits the ledger, made where it does not, and never trusted for what exists."""

from __future__ import annotations

import logging

from mmretrieve.errors import GalleryError
from mmretrieve.gallery.index import FaissIndex
from mmretrieve.gallery.records import Moment
from mmretrieve.gallery.store import Half, Store

INDEX = "index.faiss"
logger = logging.getLogger(__name__)


def opened(store: Store, moment: Moment, halves: Half) -> FaissIndex:
    """The index of the ledger's stamp, else a flat one, which is written where that is possible."""
    stamp = store.ledger.meta().get("index") or {}
    if stamp.get("epoch") == moment.epoch and stamp["rows"] <= moment.total:
        index = FaissIndex.load(store.folder / INDEX, stamp["digest"])
        if index is not None:
            return index
    index = FaissIndex.build(halves)
    try:
        with store.deriving():
            write(store, moment, index)
    except (OSError, RuntimeError, GalleryError) as error:
        logger.info("%s: the index stays in memory (%s)", store.folder, error)
    return index


def write(store: Store, moment: Moment, index: FaissIndex) -> None:
    """Writes the file and stamps it. Call within `deriving`."""
    digest = index.save(store.folder / INDEX)
    store.ledger.set_meta(index={"epoch": moment.epoch, "rows": len(index), "digest": digest})


def problems(store: Store) -> list[str]:
    stamp = store.ledger.meta().get("index")
    if (store.folder / INDEX).exists() and stamp and FaissIndex.load(store.folder / INDEX, stamp["digest"]) is None:
        return [f"{INDEX}: is not the file that was written; it will be built again at the next search"]
    return []


def sizes(store: Store) -> dict[str, int]:
    path = store.folder / INDEX
    return {INDEX: path.stat().st_size} if path.exists() else {}
