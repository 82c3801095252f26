"""Where pictures come from: whatever people keep them in becomes a `Source`, in a fixed order."""

from __future__ import annotations

from pathlib import Path

from mmretrieve.errors import GalleryError
from mmretrieve.gallery.sources.base import Source
from mmretrieve.gallery.sources.folder import Folder, OneFile


def read_source(source: str | Path) -> Source:
    """Every picture below a folder, or the one file named. GalleryError where there is nothing, or no picture in it."""
    root = Path(source)
    if root.is_file():
        return OneFile(root)
    if not root.is_dir():
        raise GalleryError(f"{root}: no such file or folder")
    return Folder(root)
