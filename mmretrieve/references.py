"""References of a query, read for composers: files, pictures and items of the gallery → vectors, pictures, names and fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import ImageError, OptionError
from mmretrieve.gallery.gallery import Gallery
from mmretrieve.gallery.store.records import Item
from mmretrieve.images import DEFAULT_IMAGE_SIZE, ImageLike, Region, content_hash, cropped, open_image
from mmretrieve.question import Asked


@dataclass(frozen=True)
class References:
    """Reads references as the gallery's own pictures were read."""

    gallery: Gallery
    encoder: Encoder

    def read(self, asks: Sequence[Asked]) -> list[list[dict[str, Any]]]:
        """For each question what a `Query` says of each of its references: images first, then items. All images are encoded at once.

        ImageError for an unreadable image, GalleryError for an unknown id.
        """
        looked_at = [
            [*map(self._image, ask.images, ask.regions), *map(self._item, ask.ids, ask.regions[len(ask.images) :])]
            for ask in asks
        ]
        unseen = [picture for several in looked_at for _, picture in several if picture is not None]
        vectors = iter(self.encoder.encode_images(unseen) if unseen else ())
        captions: list[Sequence[str | None]] = [[*ask.captions] or [None] * ask.references for ask in asks]
        return [
            [
                said | {"caption": caption} | ({} if picture is None else {"vector": next(vectors)})
                for (said, picture), caption in zip(several, of_each, strict=True)
            ]
            for several, of_each in zip(looked_at, captions, strict=True)
        ]

    def ids(self, ask: Asked) -> list[str]:
        """The items that the references of a question are: by id, or by the content of their files.

        OptionError where it has no reference, or one that is neither.
        """
        if not ask.references:
            raise OptionError("exclude_reference was asked for, but the query has no reference")
        if unnamed := [image for image in ask.images if not isinstance(image, str | Path)]:
            raise OptionError(f"exclude_reference needs a file or an item's id; a {type(unnamed[0]).__name__} has neither")
        copies = [self._copies(image) for image in ask.images if isinstance(image, str | Path)]
        return [*ask.ids, *(id_ for several in copies for id_ in several)]

    def _image(self, image: ImageLike, region: Region | None) -> tuple[dict[str, Any], ImageLike | None]:
        """What a query says of an image, and the picture that has yet to be encoded. A part of it is another picture, without a name."""
        opened = self._opened(image)
        if region is not None:
            part = cropped(opened, region)
            return {"image": part}, part
        if not isinstance(image, str | Path):
            return {"image": opened}, opened
        copies = self._copies(image)
        known = {"fields": self.gallery.item(copies[0]).fields} if copies else {}
        return {"image": image, "id": Path(image).name} | known, opened

    def _item(self, id_: str, region: Region | None) -> tuple[dict[str, Any], ImageLike | None]:
        """The same of an item, whose vector is there already."""
        if region is not None:
            part = cropped(self.gallery.picture(id_), region)
            return {"image": part}, part
        item = self.gallery.item(id_)
        vector = self.gallery.vectors([id_])[0]
        return {"vector": vector, "image": self._shown(item), "id": id_, "fields": item.fields}, None

    def _copies(self, image: str | Path) -> list[str]:
        """The items that are the same file."""
        return self.gallery.copies(content_hash(Path(image)))

    def _shown(self, item: Item) -> ImageLike | None:
        """The picture of an item, None where it is no longer the one that was added: a method must not look at another."""
        try:
            picture = self.gallery.picture(item.id)
        except ImageError:
            return None
        return picture if item.place.part else Path(item.path)

    def _opened(self, image: ImageLike) -> Image.Image:
        """The reference decoded as the gallery's own pictures were."""
        return open_image(image, decode=self.gallery.decode, size=getattr(self.encoder, "image_size", DEFAULT_IMAGE_SIZE))
