"""References of a query, read for composers: files, pictures and items of the gallery → vectors, pictures, names and fields."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from mmretrieve.concurrency import map_ahead
from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import ImageError, OptionError
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.store.records import Item
from mmretrieve.images import DEFAULT_IMAGE_SIZE, ImageLike, Region, content_hash, cropped, open_image
from mmretrieve.request import ParsedRequest

AHEAD = 64  # pictures that are opened before they are encoded


@dataclass(frozen=True)
class References:
    """Reads references as the gallery's own pictures were read."""

    gallery: GalleryBase[Any]
    encoder: Encoder

    def read(self, asks: Sequence[ParsedRequest]) -> list[list[dict[str, Any]]]:
        """For each question what a `Query` says of each of its references: images first, then items.

        All pictures are opened in threads and encoded together, one that several questions share only once.
        ImageError for an unreadable image, GalleryError for an unknown id.
        """
        references = [_references(ask) for ask in asks]
        once = {reference.key: reference for several in references for reference in several}
        said = self._items([each for each in once.values() if each.has_vector])
        said |= self._pictures([each for each in once.values() if not each.has_vector])
        captions: list[Sequence[str | None]] = [[*ask.captions] or [None] * ask.references for ask in asks]
        return [
            [{**said[reference.key], "caption": caption} for reference, caption in zip(several, of_each, strict=True)]
            for several, of_each in zip(references, captions, strict=True)
        ]

    def ids(self, ask: ParsedRequest) -> list[str]:
        """The items that the references of a question are: by id, or by the content of their files.

        OptionError where it has no reference, or one that is neither.
        """
        if not ask.references:
            raise OptionError("exclude_reference was asked for, but the query has no reference")
        if unnamed := [image for image in ask.images if not isinstance(image, str | Path)]:
            raise OptionError(f"exclude_reference needs a file or an item's id; a {type(unnamed[0]).__name__} has neither")
        copies = self.gallery.copies_of([content_hash(Path(image)) for image in ask.images if isinstance(image, str | Path)])
        return [*ask.ids, *(id_ for several in copies for id_ in several)]

    def _items(self, references: Sequence[_Reference]) -> dict[Hashable, dict[str, Any]]:
        """What a query says of whole items, whose vectors are there already."""
        ids = [str(reference.source) for reference in references]
        items, vectors = self.gallery.items(ids), self.gallery.vectors(ids)
        shown = map_ahead(self._shown, items, AHEAD)
        return {
            reference.key: {"vector": vector, "image": image, "id": item.id, "fields": item.fields}
            for reference, item, vector, image in zip(references, items, vectors, shown, strict=True)
        }

    def _pictures(self, references: Sequence[_Reference]) -> dict[Hashable, dict[str, Any]]:
        """The same of files, pictures, and parts of either or of items, which have yet to be encoded."""
        looks: list[_Look] = []

        def pixels() -> Iterator[Image.Image]:
            for look, picture in map_ahead(self._look, references, AHEAD):
                looks.append(look)
                yield picture

        vectors = self.encoder.encode_images(pixels()) if references else ()
        fields = self._fields_of([look.content for look in looks if look.content])
        return {
            reference.key: {"vector": vector, **look.said, **fields.get(look.content, {})}
            for reference, vector, look in zip(references, vectors, looks, strict=True)
        }

    def _fields_of(self, hashes: Sequence[str]) -> dict[str | None, dict[str, Any]]:
        """What a query says of the fields of each content that is in the gallery: those of the first item that has it."""
        copies = zip(hashes, self.gallery.copies_of(hashes) if hashes else (), strict=True)
        first = {content: ids[0] for content, ids in copies if ids}
        items = self.gallery.items(list(first.values())) if first else ()
        return {content: {"fields": item.fields} for content, item in zip(first, items, strict=True)}

    def _look(self, reference: _Reference) -> tuple[_Look, Image.Image]:
        """A picture, or the part of it that counts, and what a query says of it. A part is another picture, without a name."""
        source = reference.source
        opened = self.gallery.picture(str(source)) if reference.is_item else self._opened(source)
        if reference.region is not None:
            opened = cropped(opened, reference.region)
        if reference.region is not None or not isinstance(source, str | Path):
            return _Look({"image": opened}), opened
        return _Look({"image": source, "id": Path(source).name}, content_hash(Path(source))), opened

    def _shown(self, item: Item) -> ImageLike | None:
        """The picture of an item, None where it is no longer the one that was added: a method must not look at another."""
        if item.location.member is None:
            return Path(item.path) if self.gallery.has_picture(item) else None
        try:
            return self.gallery.picture(item.id)
        except ImageError:
            return None

    def _opened(self, image: ImageLike) -> Image.Image:
        """The reference decoded as the gallery's own pictures were."""
        return open_image(image, decode=self.gallery.decode, size=getattr(self.encoder, "image_size", DEFAULT_IMAGE_SIZE))


@dataclass(frozen=True)
class _Reference:
    """One reference of a question: an image, or an item by its id; and the part of it that counts."""

    source: ImageLike
    is_item: bool
    region: Region | None

    @property
    def has_vector(self) -> bool:
        """Whether it is a whole item, which needs no encoding."""
        return self.is_item and self.region is None

    @property
    def key(self) -> Hashable:
        """The same for the same reference: files count as one by their path, pictures if they are one object."""
        return self.is_item, str(self.source) if isinstance(self.source, str | Path) else id(self.source), self.region


@dataclass(frozen=True)
class _Look:
    """What a query says of a picture before it is encoded, and the content hash of a whole file."""

    said: Mapping[str, Any]
    content: str | None = None


def _references(ask: ParsedRequest) -> list[_Reference]:
    given = [*((image, False) for image in ask.images), *((id_, True) for id_ in ask.ids)]
    return [_Reference(source, is_item, region) for (source, is_item), region in zip(given, ask.regions, strict=True)]
