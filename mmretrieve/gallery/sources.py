"""Where pictures come from: a folder tree or a single file becomes a list of (id, path), in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmretrieve.errors import GalleryError
from mmretrieve.images import SUFFIXES


@dataclass(frozen=True)
class SourceItem:
    """A picture to add: its id is the path below the source, with forward slashes."""

    id: str
    path: Path


def read_source(source: str | Path) -> list[SourceItem]:
    """Every image file below a folder (hidden ones and links to folders left out), sorted by id; or the one file named.

    Raises GalleryError where there is nothing, or nothing with the suffix of an image.
    """
    root = Path(source)
    if root.is_file():
        return [SourceItem(root.name, root.resolve())]
    if not root.is_dir():
        raise GalleryError(f"{root}: no such file or folder")
    items = sorted(_walk(root), key=lambda item: item.id)
    if not items:
        raise GalleryError(f"{root}: no images in this folder; looked for {' '.join(sorted(SUFFIXES))}")
    return items


def _walk(root: Path) -> Iterator[SourceItem]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield SourceItem(path.relative_to(root).as_posix(), path.resolve())
