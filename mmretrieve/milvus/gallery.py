"""A gallery on a Milvus server. It is filled from a folder with `push`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmretrieve.encoders.loading import EncoderLike
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.encoding import THUMBNAIL_SIDE
from mmretrieve.gallery.view import row_batches
from mmretrieve.images import thumbnail
from mmretrieve.milvus.client import HASH, ID, ITEM, VECTOR
from mmretrieve.milvus.schema import item_of
from mmretrieve.milvus.view import BATCH_SIZE, CollectionView


class MilvusGallery(GalleryBase[CollectionView]):
    """A gallery in a collection of a Milvus server. It has the methods of a folder for reading, searching and deleting.

    Open it with `open_gallery("milvus://HOST:PORT/COLLECTION")`; fill it with `push` from a folder. Others may write at the same time: a
    search sees their writes at once, `len` and `ids` after `refresh`.

    Parameters
    ----------
    view : CollectionView
        The items of the collection.
    encoder : Encoder, optional
        The encoder that made the gallery.

    Raises
    ------
    GalleryError
        If another encoder made the gallery, the server does not answer, or the collection is not a gallery.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> gallery = mm.open_gallery("milvus://localhost:19530/shop")  # doctest: +SKIP
    >>> gallery.search(composition, k=3, where="price < 20").ids  # doctest: +SKIP
    ('a.jpg', 'b.jpg', 'c.jpg')
    """

    def __init__(self, view: CollectionView, encoder: EncoderLike | None = None) -> None:
        self._view, self._encoder = view, None
        if encoder is not None:
            self.use_encoder(encoder)

    @classmethod
    def open(cls, address: str, *, encoder: EncoderLike | None = None) -> MilvusGallery:
        """Opens the gallery in a collection.

        Parameters
        ----------
        address : str
            ``"milvus://[USER:PASSWORD@]HOST[:PORT]/[DATABASE/]COLLECTION"``, or ``milvuss://`` over TLS.
        encoder : Encoder, or an object that `load_encoder` takes, optional
            The encoder that made the gallery.

        Returns
        -------
        MilvusGallery
            The gallery; its collection is loaded.

        Raises
        ------
        GalleryError
            If the server does not answer, there is no such collection, it is not a gallery, or another encoder made it.
        OptionError
            If the address is invalid.
        """
        return cls(CollectionView.open(address), encoder)

    @property
    def path(self) -> str:
        return self._view.name

    @property
    def is_local(self) -> bool:
        return False

    def thumbnail(self, id_: str) -> bytes:
        return thumbnail(self.picture(id_), THUMBNAIL_SIDE)

    def refresh(self) -> None:
        self._view = self._view.read_again()

    def delete(self, ids: Sequence[str]) -> None:
        for rows in row_batches(self._with_view(lambda view: view.rows_of(ids)), BATCH_SIZE):
            self._view.server.delete_rows(rows.tolist())
        self.refresh()

    def info(self) -> dict[str, Any]:
        server = self._view.server
        return super().info() | {"index": {"type": server.index(), "server": server.version().text}}

    def verify(self) -> list[str]:
        return list(_problems(self._view))


def _problems(view: CollectionView) -> Iterator[str]:
    """Yields one line for each duplicate id, invalid vector or unreadable item. The server checks its own files."""
    counts: Counter[str] = Counter()
    for page in view.server.pages([ID, HASH, ITEM, VECTOR], size=BATCH_SIZE):
        for row in page:
            counts[row[ID]] += 1
            yield from _row_problems(row)
    yield from (f"{id_!r} occurs {count} times; push again" for id_, count in counts.items() if count > 1)


def _row_problems(row: dict[str, object]) -> Iterator[str]:
    vector = np.array(row[VECTOR], dtype=np.float32)
    if not np.isfinite(vector).all() or not vector.any():
        yield f"the vector of {row[ID]!r} is zero or not finite"
    if not np.array_equal(vector, vector.astype(np.float16).astype(np.float32)):
        yield f"the vector of {row[ID]!r} is not one that was pushed"
    try:
        item = item_of(row)
    except (ValueError, KeyError, TypeError):
        yield f"the entry of {row[ID]!r} cannot be read"
        return
    if (item.id, item.hash) != (row[ID], row[HASH]):
        yield f"the entry of {row[ID]!r} contains the item {item.id!r}"
