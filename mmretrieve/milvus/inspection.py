"""Reads a collection back: every id once, every vector one that can be compared, every item one that can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from mmretrieve.milvus.client import HASH, ID, ITEM, VECTOR
from mmretrieve.milvus.schema import item_of
from mmretrieve.milvus.view import BATCH_SIZE, CollectionView


def problems(view: CollectionView) -> Iterator[str]:
    """One line for each thing that is wrong. The server's own files are the server's to check."""
    seen: Counter[str] = Counter()
    for page in view.server.pages([ID, HASH, ITEM, VECTOR], size=BATCH_SIZE):
        for row in page:
            seen[row[ID]] += 1
            yield from _of_row(row)
    yield from (f"{id_!r} is there {count} times; push again" for id_, count in seen.items() if count > 1)


def _of_row(row: dict[str, object]) -> Iterator[str]:
    vector = np.array(row[VECTOR], dtype=np.float32)
    if not np.isfinite(vector).all() or not vector.any():
        yield f"the vector of {row[ID]!r} has no direction"
    if not np.array_equal(vector, vector.astype(np.float16).astype(np.float32)):
        yield f"the vector of {row[ID]!r} is not one that was pushed"
    try:
        item = item_of(row)
    except (ValueError, KeyError, TypeError):
        yield f"the entry of {row[ID]!r} cannot be read"
        return
    if (item.id, item.hash) != (row[ID], row[HASH]):
        yield f"the entry of {row[ID]!r} says that it is {item.id!r}"
