"""Adds vectors that were computed elsewhere. Their images are not read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import OptionError
from mmretrieve.gallery.copying import COPY_BATCH_SIZE, EncodedBatch, StoreTarget, copy_missing
from mmretrieve.gallery.ingest import AddReport
from mmretrieve.gallery.store.records import UNSEEN, Item, fit_fields
from mmretrieve.gallery.store.store import Float16Rows, Store
from mmretrieve.sources.base import Value
from mmretrieve.sources.location import Location
from mmretrieve.sources.values import is_text
from mmretrieve.vectors import UNIT_TOLERANCE, unit


def add_vectors(
    store: Store,
    ids: Sequence[str],
    vectors: ArrayLike,
    paths: Sequence[str] | None,
    fields: Sequence[Mapping[str, Value]] | None,
    progress: Progress | None,
) -> AddReport:
    """Adds (n, dim) vectors with n ids, and optionally the paths of their images and their fields. Call within `writing`.

    Raises OptionError for lists of another length and invalid ids; GalleryError, with the batches before it committed, for an id that has
    another vector.
    """
    float16_rows = to_float16_rows(vectors, "vectors", store.dim)
    for name, given in (("ids", ids), ("paths", paths), ("fields", fields)):
        if given is not None and (isinstance(given, str) or len(given) != len(float16_rows)):
            raise OptionError(f"{name}: expected a list of {len(float16_rows)}, one for each vector")
    if odd := [id_ for id_ in ids if not isinstance(id_, str) or not id_ or not is_text(id_)]:
        raise OptionError(f"ids must be text, got {odd[0]!r}")
    all_fields, types = fields or [{}] * len(ids), store.ledger.kinds()

    def batch(start: int, end: int) -> EncodedBatch:
        rows = range(start, end)
        items = [
            vector_item(ids[i], paths[i] if paths else ids[i], float16_rows[i], fit_fields(all_fields[i], types), "")
            for i in rows
        ]
        return EncodedBatch.of(items, float16_rows[start:end])

    starts = range(0, len(float16_rows), COPY_BATCH_SIZE)
    batches = (batch(start, min(start + COPY_BATCH_SIZE, len(float16_rows))) for start in starts)
    return copy_missing(StoreTarget(store), batches, "vectors", progress=progress)


def vector_item(id_: str, path: str, vector: NDArray[np.float16], fields: Mapping[str, Value], source: str) -> Item:
    """Makes an item whose image was never read: its content hash is that of its vector."""
    content = f"{UNSEEN}{hashlib.blake2b(vector.tobytes(), digest_size=16).hexdigest()}"
    return Item(id_, Location(path), content, fields=fields, source=source)


def to_float16_rows(vectors: ArrayLike, name: str, dim: int) -> Float16Rows:
    """Normalizes (n, dim) vectors and rounds them to float16. Unit rows in float16 are returned as they are. Raises VectorError as `unit` does."""
    given = np.asarray(vectors)
    if given.dtype == np.float16 and given.ndim == 2 and given.shape[1] == dim and _are_unit(given):
        return given
    return unit(given, name, dim=dim).astype(np.float16)


def _are_unit(float16_rows: Float16Rows) -> bool:
    for start in range(0, len(float16_rows), COPY_BATCH_SIZE):
        norms = np.linalg.norm(float16_rows[start : start + COPY_BATCH_SIZE].astype(np.float32), axis=1)
        if not (np.abs(norms - 1) <= UNIT_TOLERANCE).all():
            return False
    return True
