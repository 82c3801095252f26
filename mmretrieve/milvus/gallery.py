"""A gallery on a Milvus server. It is filled from a folder with `push`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mmretrieve.encoders.base import Encoder, Progress
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.ingest import THUMBNAIL_SIDE, AddReport
from mmretrieve.gallery.local_view import read_manifest
from mmretrieve.gallery.store.store import Store, is_gallery
from mmretrieve.gallery.view import check_ids
from mmretrieve.images import thumbnail
from mmretrieve.milvus.address import MilvusAddress
from mmretrieve.milvus.client import HASH, ID, ITEM, VECTOR, MilvusClient
from mmretrieve.milvus.manifest import from_text, open_collection
from mmretrieve.milvus.schema import item_of
from mmretrieve.milvus.transfer import pull_items, push_items
from mmretrieve.milvus.view import BATCH_SIZE, CollectionView


class MilvusGallery(GalleryBase[CollectionView]):
    """A gallery in a collection of a Milvus server. It has the methods of a folder for reading, searching and deleting.

    Open it with `open_gallery("milvus://HOST:PORT/COLLECTION")`; fill it with `push` from a folder. Others may write at the same time: a
    search sees their writes at once, `len` and `ids` after `refresh`.

    Parameters
    ----------
    server : MilvusClient
        The connection to the collection.
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

    def __init__(self, server: MilvusClient, encoder: Encoder | None = None) -> None:
        self._server, self._encoder = server, encoder
        self._view = self._seen()
        if encoder is not None:
            self.check_encoder(encoder)

    @classmethod
    def open(cls, address: str, *, encoder: Encoder | None = None) -> MilvusGallery:
        """Opens the gallery in a collection.

        Parameters
        ----------
        address : str
            ``"milvus://[USER:PASSWORD@]HOST[:PORT]/[DATABASE/]COLLECTION"``, or ``milvuss://`` over TLS.
        encoder : Encoder, optional
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
        server = MilvusClient(MilvusAddress.read(address))
        from_text(server.manifest(), server.address)
        server.load()
        return cls(server, encoder)

    @property
    def path(self) -> str:
        """The address of the collection, without the password."""
        return str(self._server.address)

    @property
    def is_local(self) -> bool:
        """False: the vectors are on the server."""
        return False

    def thumbnail(self, id_: str) -> bytes:
        """Returns a JPEG thumbnail of an item, made from its image file: thumbnails are not pushed.

        Parameters
        ----------
        id_ : str
            The id of the item.

        Returns
        -------
        bytes
            The JPEG file; its longer side has at most 320 pixels.

        Raises
        ------
        GalleryError
            If there is no such item.
        ImageError
            If the image file is missing on this machine or has changed.
        """
        return thumbnail(self.picture(id_), THUMBNAIL_SIDE)

    def refresh(self) -> None:
        """Reads the current number of items and the manifest, with the writes of others."""
        self._view = self._seen(self._view)

    def _seen(self, before: CollectionView | None = None) -> CollectionView:
        return CollectionView(self._server, from_text(self._server.manifest(), self._server.address), before)

    def delete(self, ids: Sequence[str]) -> None:
        """Deletes items, 1,024 at a time.

        Parameters
        ----------
        ids : sequence of str
            The ids of the items.

        Raises
        ------
        GalleryError
            If an id is unknown; nothing is deleted.
        OptionError
            If `ids` is not a list of strings.
        """
        rows = self._with_view(lambda view: view.rows_of(check_ids(ids))).tolist()
        for start in range(0, len(rows), BATCH_SIZE):
            self._server.delete_rows(rows[start : start + BATCH_SIZE])
        self.refresh()

    def info(self) -> dict[str, Any]:
        """Describes the collection.

        Returns
        -------
        dict of str to object
            `path`, `items`, `dim`, `encoder`, `decode`, `setting`, `fields`, `vocabulary` and `index` (its type, and the version of the server).
        """
        return {
            "path": self.path,
            "items": len(self),
            "dim": self.dim,
            "encoder": asdict(self.encoder_identity),
            "decode": str(self.decode),
            "setting": asdict(self.setting) if self.setting else None,
            "fields": {name: str(kind) for name, kind in self.manifest.fields.items()},
            "vocabulary": str(self._gallery_vocabulary),
            "index": {"type": self._server.index(), "server": self._server.version().text},
        }

    def verify(self) -> list[str]:
        """Reads all rows and checks them.

        Returns
        -------
        list of str
            One line for each duplicate id, invalid vector or unreadable item; empty if there is none. The server checks its own files.
        """
        return list(problems(self._view))


def push(
    gallery: str | Path,
    address: str,
    *,
    index: str | None = None,
    update: bool = False,
    mirror: bool = False,
    progress: Progress | None = None,
) -> AddReport:
    """Copies the items of a folder that a collection does not have; creates the collection if there is none. It can be repeated.

    Parameters
    ----------
    gallery : str or Path
        The folder.
    address : str
        The address of the collection.
    index : str, optional
        An index type of the server. By default FLAT, which is exact.
    update : bool, default=False
        Whether images that have changed replace those in the collection.
    mirror : bool, default=False
        Whether items that the folder does not have are deleted from the collection.
    progress : callable, optional
        Called with the number of items that were processed since the last call.

    Returns
    -------
    AddReport
        How many items were added, updated, removed and skipped.

    Raises
    ------
    GalleryError
        If another encoder made the collection, an id is another image there and `update` is False, or a field has another type. Nothing
        is pushed.
    OptionError
        If the server does not have the index.
    """
    store, server = Store(Path(gallery)), MilvusClient(MilvusAddress.read(address))
    manifest = open_collection(server, read_manifest(store), len(store.ledger.version()), index)
    return push_items(store, server, manifest, update=update, mirror=mirror, progress=progress)


def pull_into(gallery: str | Path, address: str, *, progress: Progress | None = None) -> AddReport:
    """Copies the items of a collection that a folder does not have; creates the folder if there is none. It can be repeated.

    Parameters
    ----------
    gallery : str or Path
        The folder.
    address : str
        The address of the collection.
    progress : callable, optional
        Called with the number of items that were processed since the last call.

    Returns
    -------
    AddReport
        How many items were added and skipped.

    Raises
    ------
    GalleryError
        If another encoder made the folder, an id is another image there, or a field has another type. Nothing is changed.
    """
    home, folder = MilvusGallery.open(address), Path(gallery)
    manifest = home.manifest
    if is_gallery(folder):
        store = Store(folder)
        if not manifest.has_vectors_of(own := read_manifest(store)):
            raise GalleryError(f"{home.path}: {manifest}; {folder}: {own}")
    else:
        store = Store.create(folder, manifest.encoder, manifest.dim, manifest.decode, **manifest.choices)
    with store.writing():
        return pull_items(home._view, store, progress)


def problems(view: CollectionView) -> Iterator[str]:
    """Yields one line for each problem. The server checks its own files."""
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
