"""A folder tree of pictures, or one picture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mmretrieve.errors import GalleryError
from mmretrieve.gallery.place import Place
from mmretrieve.gallery.sources.base import SourceItem
from mmretrieve.images import SUFFIXES


class OneFile:
    """One picture; its name is its id."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self.name = str(self._path)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[SourceItem]:
        yield SourceItem(self._path.name, Place(self.name))


class Folder:
    """Every image file below a folder, sorted by id; hidden ones and links to folders are left out."""

    def __init__(self, root: Path) -> None:
        self.name = str(root.resolve())
        self._items = sorted(_walk(root), key=lambda item: item.id)
        if not self._items:
            raise GalleryError(f"{root}: no images in this folder; looked for {' '.join(sorted(SUFFIXES))}")

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[SourceItem]:
        return iter(self._items)


def _walk(root: Path) -> Iterator[SourceItem]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield SourceItem(path.relative_to(root).as_posix(), Place(str(path.resolve())))
