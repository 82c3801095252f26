"""Encodes batches of items: decoded ahead of the encoder across their borders, with thumbnails.

Full-size images are in memory only between their decoding and the encoder's own resizing, a few at a time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmretrieve.concurrency import map_batches_ahead
from mmretrieve.encoders.base import BatchEncoder, Encoder, Progress
from mmretrieve.encoders.checked import check_shape, encode_images
from mmretrieve.errors import GalleryError, ImageError, VectorError
from mmretrieve.gallery.captions import CaptionBlend
from mmretrieve.gallery.store.records import Item
from mmretrieve.images import DEFAULT_IMAGE_SIZE, open_image, thumbnail
from mmretrieve.options import Colors, Decode
from mmretrieve.vectors import Float32, bad_rows, unit

THUMBNAIL_SIDE = 320
CHANGED_MEANWHILE = "its file changed while it was added; add it again"


@dataclass(frozen=True)
class EncodedImage:
    """What is stored of an image: its (dim,) vector, its size, and its thumbnail unless another item with its content has one."""

    vector: NDArray[np.floating]
    width: int | None
    height: int | None
    thumbnail: bytes = b""


@dataclass(frozen=True)
class Failed:
    """An entry that cannot be added."""

    reason: str


@dataclass(frozen=True)
class ItemEncoder:
    """Encodes the files of items with the encoder of a gallery, decoded as all of its images, and blends in their captions.

    `progress` is called for each item that was decoded.
    """

    encoder: Encoder
    decode: Decode
    colors: Colors
    progress: Progress
    captions: CaptionBlend | None = None

    def key(self, item: Item) -> str:
        """What the vector of an item depends on: its content, and its caption if captions count."""
        caption = None if self.captions is None else self.captions.caption(item.fields)
        return item.hash if caption is None else f"{item.hash} {caption}"

    def encode_batches(self, batches: Iterator[Iterator[Item]]) -> Iterator[list[EncodedImage | Failed]]:
        """Yields for each batch, as soon as it is encoded, the encoded image of each item, or why there is none."""
        opened = deque[list[_Opened | Failed]]()  # of batches that are not yielded yet
        images = self._images(batches, opened)
        if isinstance(self.encoder, BatchEncoder):
            for features in self.encoder.feature_batches(images):
                results = opened.popleft()
                rows = check_shape(self.encoder, features, len(_opened_items(results)), "images")
                yield self._results(results, _unit_if_possible(rows))
            return
        for batch in images:
            try:
                yield self._results(opened[0], encode_images(self.encoder, batch))
            except VectorError:  # of one image, or of several; each by itself tells which
                deque(batch, maxlen=0)
                yield [one if isinstance(one, Failed) else self.encode(one.item) for one in opened[0]]
            opened.popleft()

    def encode(self, item: Item) -> EncodedImage | Failed:
        """The encoded image of one item, or why there is none."""
        opened = self._open(item)
        if isinstance(opened, Failed):
            return opened
        image, one = opened
        try:
            return self._results([one], encode_images(self.encoder, [image]))[0]
        except VectorError as error:
            return Failed(f"the encoder cannot encode it ({error})")

    def _images(
        self, batches: Iterator[Iterator[Item]], opened: deque[list[_Opened | Failed]]
    ) -> Iterator[Iterator[Image.Image]]:
        """Yields the images of each batch, decoded ahead, and appends a list to `opened`: what else is known of each item."""
        for results in map_batches_ahead(self._open, batches, 2 * (os.cpu_count() or 1)):
            opened.append([])
            yield self._images_of_batch(results, opened[-1])

    def _images_of_batch(
        self, results: Iterator[tuple[Image.Image, _Opened] | Failed], opened: list[_Opened | Failed]
    ) -> Iterator[Image.Image]:
        for result in results:
            self.progress(1)
            if isinstance(result, Failed):
                opened.append(result)
                continue
            image, one = result
            opened.append(one)
            yield image
            del image, result  # what is decoded next may need the memory

    def _results(self, opened: Sequence[_Opened | Failed], vectors: Float32) -> list[EncodedImage | Failed]:
        """What became of each item of a batch, given the vectors of the images of those that were opened."""
        items = _opened_items(opened)
        if self.captions is not None:
            vectors = self.captions.blend(self.encoder, items, vectors)
        rows, problems = iter(vectors), map(bad_rows(vectors).get, range(len(items)))
        return [one if isinstance(one, Failed) else _result(one, next(rows), next(problems)) for one in opened]

    def _open(self, item: Item) -> tuple[Image.Image, _Opened] | Failed:
        """The image of an item, and what is stored besides its vector."""
        try:
            with item.location.open() as file:
                size = getattr(self.encoder, "image_size", DEFAULT_IMAGE_SIZE)
                image = open_image(file, decode=self.decode, size=size, colors=self.colors)
            if item.location.fingerprint() != item.fingerprint:
                return Failed(CHANGED_MEANWHILE)
        except (ImageError, GalleryError) as error:
            return Failed(str(error))
        return image, _Opened(item, image.size, thumbnail(image, THUMBNAIL_SIDE))


@dataclass(frozen=True)
class _Opened:
    """An item whose image was decoded, the size of the image, and its thumbnail."""

    item: Item
    size: tuple[int, int]
    thumbnail: bytes


def _opened_items(opened: Sequence[_Opened | Failed]) -> list[Item]:
    return [one.item for one in opened if isinstance(one, _Opened)]


def _result(one: _Opened, vector: Float32, problem: str | None) -> EncodedImage | Failed:
    if problem is not None:
        return Failed(f"the encoder cannot encode it: {problem}")
    return EncodedImage(vector, *one.size, one.thumbnail)


def _unit_if_possible(features: Float32) -> Float32:
    """(n, dim) features with rows of length 1, except for those without a direction, which are left as they are."""
    good = np.setdiff1d(np.arange(len(features)), list(bad_rows(features)))
    vectors = features.copy()
    vectors[good] = unit(features[good], "image features")
    return vectors
