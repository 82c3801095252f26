"""From what a client asks to what it gets: everything that API, MCP and page do with a gallery, without any of their protocols."""

from __future__ import annotations

import io
from collections.abc import Mapping
from threading import Lock
from time import monotonic, perf_counter
from typing import Any

from PIL import Image

from mmretrieve.errors import ImageError, MissingError
from mmretrieve.filters import Where
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.store.records import Item
from mmretrieve.gallery.view import ItemPage
from mmretrieve.images import ImageLike
from mmretrieve.ranking import Ranking
from mmretrieve.retriever import Retriever
from mmretrieve.server import error_text
from mmretrieve.server.request_schemas import SearchBody
from mmretrieve.server.schemas import SearchResponse
from mmretrieve.server.uploads import Uploads

FRESH_SECONDS = 1.0  # how old what is known of the gallery may be: others may write to it
PICTURE_SIDE = 2_048  # of a picture that is served: enough for any screen, whatever lies in the gallery


class SearchService:
    """One gallery and the pictures that were sent for it. Errors never say where files lie."""

    def __init__(self, retriever: Retriever, uploads: Uploads) -> None:
        self.retriever, self.uploads = retriever, uploads
        self._seen, self._refreshing = monotonic(), Lock()

    @property
    def gallery(self) -> GalleryBase[Any]:
        """As of at most a second ago."""
        if monotonic() - self._seen > FRESH_SECONDS and self._refreshing.acquire(blocking=False):
            try:
                self.retriever.gallery.refresh()
                self._seen = monotonic()
            finally:
                self._refreshing.release()
        return self.retriever.gallery

    def images(self, ask: SearchBody) -> list[ImageLike]:
        """The files of the pictures that were sent, in the order that `region` and the like count them in."""
        return [self.uploads.path(token) for token in (*map(self.uploads.keep_text, ask.image), *ask.upload)]

    def search(self, ask: SearchBody) -> Ranking:
        """What `Retriever.search` answers to the same words."""
        _ = self.gallery
        words = ask.question | ask.weighing | ask.cut
        return self.retriever.search(
            self.images(ask) or None, ask.prompt or None, exclude_reference=ask.exclude_reference, **words
        )

    def found(self, ask: SearchBody) -> SearchResponse:
        """The same as it goes over a wire, with what is known of each hit and how long it took."""
        started = perf_counter()
        ranking = self.search(ask)
        return SearchResponse.of(ranking, self.fields(ranking), perf_counter() - started)

    def similar(self, id_: str, k: int) -> SearchResponse:
        """What looks like an item, without it."""
        return self.found(SearchBody(reference_id=[id_], k=k, exclude_reference=True))

    def item(self, id_: str) -> Item:
        """MissingError for an id that is not there."""
        return self.gallery.item(id_)

    def items(self, where: Where | None = None, offset: int = 0, limit: int = 50) -> ItemPage:
        """Some items in insertion order. OptionError for a filter that is none."""
        return self.gallery.listed(where=where, offset=offset, limit=limit)

    def fields(self, ranking: Ranking) -> list[Mapping[str, Any]]:
        """What is known of each hit; nothing of one that others have deleted since."""
        gallery = self.retriever.gallery
        try:
            return [item.fields for item in gallery.items(ranking.ids)]
        except MissingError:
            return [_fields(gallery, id_) for id_ in ranking.ids]

    def thumbnail(self, id_: str) -> bytes:
        """A small JPEG. MissingError for an id that is not there, ImageError where its picture is gone."""
        try:
            return self.gallery.thumbnail(id_)
        except ImageError as error:
            raise ImageError(f"the picture of {id_!r} cannot be read any more") from error

    def picture(self, id_: str) -> bytes:
        """The picture of an item as JPEG, turned upright and without whatever else its file holds."""
        try:
            picture = self.gallery.picture(id_)
        except ImageError as error:
            raise ImageError(f"the picture of {id_!r} cannot be read any more, or is another one now") from error
        picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    def info(self) -> dict[str, Any]:
        """What `Gallery.info` says, but for where it lies and where its encoder does."""
        info = {name: value for name, value in self.gallery.info().items() if name not in ("path", "bytes")}
        return info | {"encoder": {name: error_text.without_folders(value) for name, value in info["encoder"].items()}}

    def told(self, error: Exception) -> str:
        """The error in one line, without the folders of this machine."""
        return error_text.told(error, self.retriever.gallery.path)


def _fields(gallery: GalleryBase[Any], id_: str) -> Mapping[str, Any]:
    try:
        return gallery.item(id_).fields
    except MissingError:
        return {}
