"""Items whose vectors were made elsewhere: they go in as they are, and nobody has seen their pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.ingest import AddReport
from mmretrieve.gallery.store.fields import fitted
from mmretrieve.gallery.store.records import UNSEEN, Item
from mmretrieve.gallery.store.store import Half, Store
from mmretrieve.sources.base import Value
from mmretrieve.sources.location import Location
from mmretrieve.sources.values import is_text
from mmretrieve.vectors import UNIT_TOLERANCE, unit

BLOCK = 4_096  # items between two commits


def add_vectors(
    store: Store,
    ids: Sequence[str],
    vectors: ArrayLike,
    paths: Sequence[str] | None,
    fields: Sequence[Mapping[str, Value]] | None,
    progress: Progress | None,
) -> AddReport:
    """Adds (n, dim) vectors under n ids, with the paths of their pictures and their fields where these are given.

    Call within `writing`. OptionError for lists of other lengths or what is no id; GalleryError, with the blocks before it
    committed, for an id that has another vector here.
    """
    halves = rounded(vectors, "vectors", store.dim)
    for name, given in (("ids", ids), ("paths", paths), ("fields", fields)):
        if given is not None and (isinstance(given, str) or len(given) != len(halves)):
            raise OptionError(f"{name}: expected a list of {len(halves)}, one for each vector")
    if odd := [id_ for id_ in ids if not isinstance(id_, str) or not id_ or not is_text(id_)]:
        raise OptionError(f"ids must be text, got {odd[0]!r}")
    report, kinds = AddReport(), store.ledger.kinds()
    for start in range(0, len(halves), BLOCK):
        some = range(start, min(start + BLOCK, len(halves)))
        items = [
            unseen(ids[i], paths[i] if paths else ids[i], halves[i], fitted(fields[i] if fields else {}, kinds), "")
            for i in some
        ]
        report += add_items(store, items, halves[some.start : some.stop], "vectors")
        if progress is not None:
            progress(len(some))
    return report


def add_items(store: Store, items: Sequence[Item], halves: Half, where: str) -> AddReport:
    """Adds items with their vectors (n, dim); those known are left out. GalleryError for an id that is another picture here."""
    known = {id_: record.item.hash for id_, record in store.ledger.live(item.id for item in items).items()}
    new: list[int] = []
    for i, item in enumerate(items):
        if item.id not in known:
            known[item.id] = item.hash
            new.append(i)
        elif known[item.id] != item.hash:
            raise GalleryError(f"{where}: {item.id!r} is another picture than the one of that id that is here already")
    if new:
        store.append([items[i] for i in new], halves[new], [b""] * len(new))
    return AddReport(len(new), len(items) - len(new))


def unseen(id_: str, path: str, half: NDArray[np.float16], fields: Mapping[str, Value], source: str) -> Item:
    """An item that is known by its vector alone, so its content is that."""
    content = f"{UNSEEN}{hashlib.blake2b(half.tobytes(), digest_size=16).hexdigest()}"
    return Item(id_, Location(path), content, fields=fields, source=source)


def rounded(vectors: ArrayLike, name: str, dim: int) -> Half:
    """(n, dim) of any length → unit rows in float16; rows that are so already are kept to the bit. VectorError as of `unit`."""
    given = np.asarray(vectors)
    if given.dtype == np.float16 and given.ndim == 2 and given.shape[1] == dim and _are_unit(given):
        return given
    return unit(given, name, dim=dim).astype(np.float16)


def _are_unit(halves: Half) -> bool:
    for start in range(0, len(halves), BLOCK):
        norms = np.linalg.norm(halves[start : start + BLOCK].astype(np.float32), axis=1)
        if not (np.abs(norms - 1) <= UNIT_TOLERANCE).all():
            return False
    return True
