"""Reads one chunk of a source: tells new pictures from known and broken ones, and hands the new ones on to be encoded.

Full-size pictures are alive only between their decoding and the encoder's own shrinking, a few at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import ImageError
from mmretrieve.gallery.sources.base import SourceItem
from mmretrieve.gallery.store import Item, Store
from mmretrieve.images import content_hash, open_image, thumbnail
from mmretrieve.threads import map_ahead
from mmretrieve.vectors import Float32

THUMBNAIL_SIDE = 320
CHANGED = "its content has changed since it was added; delete it and add it again"


@dataclass
class Intake:
    """One chunk on its way in. `items` and `thumbnails` fill while `vectors` runs; `failed` is name → reason."""

    store: Store
    size: int
    progress: Progress | None = None
    items: list[Item] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: int = 0
    _copies: dict[int, int | None] = field(default_factory=dict)  # item → row it repeats; None: an earlier one here

    def vectors(self, chunk: Sequence[SourceItem], encode: Callable[[Iterator[Image.Image]], Float32]) -> Float32:
        """(len(items), dim): encoded, or copied where the same content is in the gallery or came earlier in the chunk."""
        with self.store.finding_copies() as find_copy:
            encoded = encode(self._new_pictures(chunk, find_copy))
        out = np.empty((len(self.items), self.store.dim), np.float32)
        out[[i for i in range(len(self.items)) if i not in self._copies]] = encoded
        first = {item.hash: i for i, item in reversed(list(enumerate(self.items)))}
        for i, row in self._copies.items():
            out[i] = out[first[self.items[i].hash]] if row is None else self.store.read(np.array([row], dtype=np.int64))[0]
        return out

    def _new_pictures(self, chunk: Sequence[SourceItem], find_copy: Callable[[str], int | None]) -> Iterator[Image.Image]:
        """The pictures that must be encoded, while everything else about the chunk is noted down."""
        here: set[str] = set()
        for item, small, picture in self._readable(chunk):
            row = find_copy(item.hash)
            if row is not None or item.hash in here:
                self._copies[len(self.items)] = row
            self.items.append(item)
            self.thumbnails.append(small)
            if row is None and item.hash not in here:
                here.add(item.hash)
                yield picture

    def _readable(self, chunk: Sequence[SourceItem]) -> Iterator[tuple[Item, bytes, Image.Image]]:
        known = self.store.known([item.id for item in chunk if _is_text(item.id)])
        outcomes = map_ahead(lambda item: self._read(item, known), chunk, 2 * (os.cpu_count() or 1))
        for source, outcome in zip(chunk, outcomes, strict=True):
            if self.progress is not None:
                self.progress(1)
            if outcome is None:
                self.skipped += 1
            elif isinstance(outcome, str):
                self.failed[source.id] = outcome
            else:
                yield outcome

    def _read(self, source: SourceItem, known: Mapping[str, str]) -> tuple[Item, bytes, Image.Image] | str | None:
        """A new picture, None for one that is there already, or why it cannot be added."""
        if not (_is_text(source.id) and _is_text(source.place.path)):
            return "its name is not valid text"
        try:
            content = content_hash(Path(source.place.path))
            if source.id in known:
                return None if known[source.id] == content else CHANGED
            picture = open_image(source.place.path, decode=self.store.decode, size=self.size)
            return Item(source.id, source.place.path, content, *picture.size), thumbnail(picture, THUMBNAIL_SIDE), picture
        except ImageError as error:
            return str(error)


def _is_text(name: str) -> bool:
    """Whether a file name was valid UTF-8: the ledger keeps nothing else."""
    return name.isascii() or name.encode(errors="replace").decode() == name
