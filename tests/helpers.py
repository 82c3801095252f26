"""What tests of several rooms share: an encoder without a model, a source with fields, and the state of a gallery."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mmretrieve as mm
from mmretrieve.sources.base import SourceItem, UnreadableItem
from mmretrieve.sources.location import Location
from mmretrieve.vectors import unit

COLOUR_DIM = 32
FUZZ = int(os.environ.get("MMRETRIEVE_FUZZ", "1"))  # times as many random examples as usual; above 1 other ones in every run


class ColourEncoder:
    """An encoder quick enough to be killed a hundred times: a few pixels of the picture, as they are."""

    identity = mm.EncoderIdentity("colours", "none", "none")
    dim = COLOUR_DIM
    image_size = 8

    def encode_images(self, images: Iterable[Any], progress: Any = None) -> np.ndarray:  # noqa: ARG002
        pixels = [np.asarray(image.resize((4, 3)), dtype=np.float32).ravel()[:COLOUR_DIM] + 1 for image in images]
        return unit(np.stack(pixels)) if pixels else np.empty((0, COLOUR_DIM), np.float32)

    def encode_texts(self, texts: Iterable[str]) -> np.ndarray:
        raise NotImplementedError


def long_text_gallery(path: Path, encoder: mm.Encoder, items: int = 60, characters: int = 100_000) -> Path:
    """A gallery without images whose items have one long text each, on which filters take long."""
    vectors = np.random.default_rng(0).normal(size=(items, encoder.dim)).astype(np.float32)
    mm.Gallery.create(path, encoder=encoder).add_vectors(
        [f"item {i}" for i in range(items)], unit(vectors), fields=[{"text": "a" * characters}] * items
    )
    return path


class FieldSource:
    """Pictures with fields: what a table of them would give."""

    name = "the shop"

    def __init__(self, photos: Path, **fields: object) -> None:
        self.items: list[SourceItem | UnreadableItem] = [
            SourceItem(path.name, Location(str(path)), {"number": i, "half": i / 2, "name": path.stem, **fields})
            for i, path in enumerate(sorted(photos.rglob("*.png")))
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[SourceItem | UnreadableItem]:
        return iter(self.items)


def gallery_state(gallery: mm.Gallery) -> tuple[tuple[str, ...], bytes, tuple[object, ...]]:
    known = tuple((item.hash, tuple(sorted(item.fields.items()))) for item in map(gallery.item, gallery.ids))
    return gallery.ids, gallery.vectors().tobytes(), known
