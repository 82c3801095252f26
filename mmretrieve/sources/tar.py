"""Pictures inside a plain tar, read where they lie: WebDataset and img2dataset shards, and any folder that was packed.

Members belong together up to the first dot of their file name: x.jpg is a picture, x.json, x.txt and x.cls are about it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mmretrieve.errors import GalleryError
from mmretrieve.images import SUFFIXES
from mmretrieve.sources.base import SourceItem, UnreadableItem
from mmretrieve.sources.location import Location
from mmretrieve.sources.sidecars import Sidecar, fields_beside
from mmretrieve.sources.tar_headers import TarDamage, TarMember, headers

SUFFIX = ".tar"


class Tar:
    """Every image of a tar, sorted by id, which is the member's name; hidden members are left out, as in folders.

    Raises GalleryError where it is compressed, is no tar or holds no image.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self.name = str(self._path)
        first = next(pictures(self.name), None)
        if isinstance(first, TarDamage) and not first.after:
            raise GalleryError(f"{path}: {first.reason}")
        if first is None:
            raise GalleryError(f"{path}: no images in this tar; looked for {' '.join(sorted(SUFFIXES))}")

    def __len__(self) -> int:
        return sum(1 for _ in pictures(self.name))

    def __iter__(self) -> Iterator[SourceItem | UnreadableItem]:
        return entries(self.name, self._path.name)


def pictures(path: str) -> Iterator[TarMember | TarDamage]:
    """The headers that become entries, in the tar's order: those of images, and the damage that ends it."""
    return (header for header in headers(path) if isinstance(header, TarDamage) or _suffix(header.name) in SUFFIXES)


def entries(path: str, name: str, prefix: str = "") -> Iterator[SourceItem | UnreadableItem]:
    """The images sorted by id, which starts with `prefix`, then what is wrong with the tar, called by `name`.

    The headers of the tar are in memory meanwhile, never the pictures. Of two members of one name the last counts, as
    when they are unpacked. A picture whose neighbours cannot be read is Unreadable.
    """
    found = list(headers(path))
    contents = _Contents(path, [header for header in found if isinstance(header, TarMember)])
    if contents.images:
        with Location(path).open() as file:
            for image in contents.images:
                yield contents.entry(image, prefix + image.name, file)
    yield from (UnreadableItem(name, header.reason) for header in found if isinstance(header, TarDamage))


class _Contents:
    """The members of a tar by name and by group."""

    def __init__(self, path: str, members: list[TarMember]) -> None:
        self._path = path
        self._by_name = {member.name: member for member in members}
        self._beside = _sidecars(members)
        self.images = sorted((member for member in members if _suffix(member.name) in SUFFIXES), key=lambda image: image.name)

    def entry(self, image: TarMember, id_: str, file: BinaryIO) -> SourceItem | UnreadableItem:
        if self._by_name[image.name] is not image:
            return UnreadableItem(id_, "its name comes again later in the tar, and the last one counts")
        there = image if image.link is None else self._by_name.get(image.link)
        if there is None or there.link is not None:
            return UnreadableItem(id_, f"a link to {image.link}, which is no file in this tar")
        if there.trouble is not None:
            return UnreadableItem(id_, there.trouble)
        try:
            fields = fields_beside(self._beside.get(_group(image.name), {}), file)
        except GalleryError as error:
            return UnreadableItem(id_, str(error))
        return SourceItem(id_, Location(self._path, f"tar:{there.offset}:{there.size}"), fields)


def _sidecars(members: list[TarMember]) -> dict[str, dict[Sidecar, TarMember]]:
    """Group → what it says about its pictures. Members of a group need not stand together."""
    endings = {str(kind): kind for kind in Sidecar}
    beside: dict[str, dict[Sidecar, TarMember]] = {}
    for member in members:
        kind = endings.get(os.path.basename(member.name).partition(".")[2].lower())
        if kind is not None:
            beside.setdefault(_group(member.name), {})[kind] = member
    return beside


def _group(name: str) -> str:
    """ "a/x.left.jpg" → "a/x": what the members of a group have in common."""
    folder, file = os.path.split(name)
    return f"{folder}/{file.partition('.')[0]}"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
