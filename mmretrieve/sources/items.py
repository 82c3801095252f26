"""Images that a program gives one by one, as files or from memory."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from mmretrieve.errors import GalleryError, ImageError, OptionError
from mmretrieve.images import URL, ImageLike, content_hash, open_image
from mmretrieve.sources.base import Entry, SourceItem, UnreadableItem, Value
from mmretrieve.sources.location import Location
from mmretrieve.sources.values import fields_of

NewItem = tuple[str, ImageLike] | tuple[str, ImageLike, Mapping[str, Value]]
"""An id, an image and optionally its fields."""
FORM = "(id, picture) or (id, picture, fields)"


@dataclass(frozen=True, eq=False)
class MemoryLocation(Location):
    """The location of an image in memory: it has no path, and its fingerprint is that of its content."""

    image: ImageLike = field(default=b"", repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Location) and (self.path, self.member) == (other.path, other.member)

    def __hash__(self) -> int:
        return hash((self.path, self.member))

    def open(self) -> BinaryIO:
        """The bytes of the file; of an image without a file, its pixels as PPM, which is lossless and takes no time.

        Raises ImageError as `open_image` does.
        """
        if isinstance(self.image, bytes):
            return io.BytesIO(self.image)
        buffer = io.BytesIO()
        open_image(self.image).save(buffer, "PPM")
        buffer.seek(0)
        return buffer

    def fingerprint(self) -> str:
        return f"memory-{self._content}"

    @cached_property
    def _content(self) -> str:
        return content_hash(self.open())


class ItemList:
    """The items of `Gallery.add_items`, read once and in order. Its name is empty, because a list is not a place that can be synced.

    Raises OptionError, while it is read, for what is not an id with a picture.
    """

    name = ""

    def __init__(self, items: Iterable[NewItem]) -> None:
        if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
            raise OptionError(f"expected a list of {FORM}, got {items!r:.80}")
        self._items = items

    def __len__(self) -> int:
        return len(self._items) if isinstance(self._items, Sized) else 0

    def __iter__(self) -> Iterator[Entry]:
        return map(item_entry, self._items)


class FileList:
    """Single image files. Their ids are their file names."""

    name = "files"

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[SourceItem]:
        return (SourceItem(path.name, Location(str(path.resolve()))) for path in self._paths)


def item_entry(given: object) -> Entry:
    """The entry of an id, a picture and optionally its fields."""
    if not isinstance(given, tuple | list) or len(given) not in (2, 3) or not isinstance(given[0], str):
        raise OptionError(f"expected {FORM} for each item, with text as the id, got {given!r:.80}")
    id_, picture, *rest = given
    fields = rest[0] if rest and rest[0] is not None else {}
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
        raise OptionError(f"{id_}: fields must be a mapping such as {{'colour': 'red'}}, got {fields!r:.80}")
    if not id_.strip():
        return UnreadableItem(id_, "the id is empty")
    try:
        return SourceItem(id_, _location(picture), fields_of(fields, id_))
    except (ImageError, OSError, GalleryError) as error:
        return UnreadableItem(id_, str(error))


def _location(picture: Any) -> Location:
    """The location of a picture. An open file is read, because it may be closed by the time its image is encoded."""
    if isinstance(picture, str | Path):
        return Location(str(picture) if URL.match(str(picture)) else str(Path(picture).resolve()))
    return MemoryLocation("", None, picture.read() if hasattr(picture, "read") else cast(ImageLike, picture))
