"""A gallery on a Milvus server. It answers whatever a folder answers; what goes into it is pushed from a folder."""

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
from mmretrieve.gallery.view import checked_ids
from mmretrieve.images import thumbnail
from mmretrieve.milvus.address import MilvusAddress
from mmretrieve.milvus.client import HASH, ID, ITEM, VECTOR, MilvusClient
from mmretrieve.milvus.manifest import from_text, open_collection
from mmretrieve.milvus.schema import item_of
from mmretrieve.milvus.transfer import pull_items, push_items
from mmretrieve.milvus.view import BATCH_SIZE, CollectionView


class MilvusGallery(GalleryBase[CollectionView]):
    """One collection of one server. Open it with `open_gallery("milvus://host:port/collection")`, fill it with `push`."""

    def __init__(self, server: MilvusClient, encoder: Encoder | None = None) -> None:
        self._server, self._encoder = server, encoder
        self._view = self._seen()
        if encoder is not None:
            self.check_encoder(encoder)

    @classmethod
    def open(cls, address: str, *, encoder: Encoder | None = None) -> MilvusGallery:
        """The gallery there. GalleryError where the server does not answer, or has no such collection, or one that is none of ours."""
        server = MilvusClient(MilvusAddress.read(address))
        from_text(server.manifest(), server.address)
        server.load()
        return cls(server, encoder)

    @property
    def path(self) -> str:
        return str(self._server.address)

    @property
    def is_local(self) -> bool:
        return False

    def thumbnail(self, id_: str) -> bytes:
        """A small JPEG picture of one item, made from its file: thumbnails are not pushed."""
        return thumbnail(self.picture(id_), THUMBNAIL_SIDE)

    def refresh(self) -> None:
        self._view = self._seen(self._view)

    def _seen(self, before: CollectionView | None = None) -> CollectionView:
        return CollectionView(self._server, from_text(self._server.manifest(), self._server.address), before)

    def delete(self, ids: Sequence[str]) -> None:
        """Removes items. GalleryError for an unknown id, and then none is removed; of very many, BATCH_SIZE at a time are."""
        rows = self._with_view(lambda view: view.rows_of(checked_ids(ids))).tolist()
        for start in range(0, len(rows), BATCH_SIZE):
            self._server.drop(rows[start : start + BATCH_SIZE])
        self.refresh()

    def info(self) -> dict[str, Any]:
        """What the collection is: items, dimensions, encoder, decoding, setting, fields, vocabulary, and the index that the server keeps."""
        return {
            "path": self.path,
            "items": len(self),
            "dim": self.dim,
            "encoder": asdict(self.encoder_identity),
            "decode": str(self.decode),
            "setting": asdict(self.setting) if self.setting else None,
            "fields": {name: str(kind) for name, kind in self.manifest.fields.items()},
            "vocabulary": str(self._gallery_vocabulary),
            "index": {"type": self._server.index(), "server": self._server.version().said},
        }

    def verify(self) -> list[str]:
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
    """Copies the items of a folder that the collection does not have; makes the collection where there is none. Can be repeated.

    index: of the server's allowed types, FLAT by default (exact). update: pictures that have changed replace those there.
    mirror: what the folder does not have is deleted there. Raises GalleryError, with nothing pushed, where another encoder made
    the collection, or an id is another picture there; OptionError for an index that this server does not have.
    """
    store, server = Store(Path(gallery)), MilvusClient(MilvusAddress.read(address))
    manifest = open_collection(server, read_manifest(store), len(store.ledger.version()), index)
    return push_items(store, server, manifest, update=update, mirror=mirror, progress=progress)


def pull_into(gallery: str | Path, address: str, *, progress: Progress | None = None) -> AddReport:
    """Copies the items of a collection that the folder does not have; makes the folder where there is none. Can be repeated.

    Raises GalleryError, with nothing changed, where another encoder made the folder, or an id is another picture there.
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
