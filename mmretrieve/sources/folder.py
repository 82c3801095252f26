"""Folder trees of images, including tar archives in them, and single images."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmretrieve.errors import GalleryError
from mmretrieve.images import SUFFIXES
from mmretrieve.sources import tar
from mmretrieve.sources.base import SourceItem, UnreadableItem, suffix
from mmretrieve.sources.location import Location


class OneFile:
    """A single image. Its id is its file name."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self.name = str(self._path)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[SourceItem]:
        yield SourceItem(self._path.name, Location(self.name))


class Folder:
    """Every image below a folder, sorted by id. A tar archive counts as a folder.

    Hidden files and folders and links to folders are skipped. Every iteration walks the tree again; only the names of one
    directory and the headers of one archive are in memory. Raises GalleryError if there is no image.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.name = str(self._root)
        if not any(self._counts()):
            raise GalleryError(f"{root}: no images in this folder; looked for {' '.join(sorted(SUFFIXES))} and {tar.SUFFIX}")

    def __len__(self) -> int:
        return sum(self._counts())

    def __iter__(self) -> Iterator[SourceItem | UnreadableItem]:
        for entry in self._walk():
            if isinstance(entry, UnreadableItem):
                yield entry
            elif entry.is_tar:
                yield from tar.entries(entry.real_path(), entry.id, f"{entry.id}/")
            else:
                yield SourceItem(entry.id, Location(entry.real_path()))

    def _counts(self) -> Iterator[int]:
        """The number of entries in each file."""
        for entry in self._walk():
            if isinstance(entry, FolderEntry) and entry.is_tar:
                yield sum(1 for _ in tar.image_headers(entry.real_path()))
            else:
                yield 1

    def _walk(self) -> Iterator[FolderEntry | UnreadableItem]:
        return walk(self._root, SUFFIXES | {tar.SUFFIX})


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """A file or folder below `root`. Its id is its path relative to `root`."""

    root: Path
    id: str
    is_folder: bool = False
    is_link: bool = False

    @property
    def is_tar(self) -> bool:
        return not self.is_folder and suffix(self.id) == tar.SUFFIX

    @property
    def sort_key(self) -> str:
        """Sorting the entries of each folder by this key sorts the whole tree by id."""
        return f"{self.id}/" if self.is_folder or self.is_tar else self.id

    def real_path(self) -> str:
        """The path of the file, with links resolved."""
        path = os.path.join(self.root, self.id)
        return os.path.realpath(path) if self.is_link else path


def walk(root: Path, suffixes: Collection[str]) -> Iterator[FolderEntry | UnreadableItem]:
    """Every file below `root` with one of the suffixes, sorted by id; a folder that cannot be listed is an UnreadableItem."""
    stack = [iter([FolderEntry(root, "", is_folder=True)])]  # no recursion: trees may be deep
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif not entry.is_folder:
            yield entry
        else:
            try:
                stack.append(iter(sorted(_list(entry, suffixes), key=lambda child: child.sort_key)))
            except OSError as error:
                yield UnreadableItem(entry.id or str(root), f"this folder cannot be listed ({error.strerror or error})")


def _list(folder: FolderEntry, suffixes: Collection[str]) -> Iterator[FolderEntry]:
    """The subfolders of a folder, and its files with one of the suffixes."""
    with os.scandir(os.path.join(folder.root, folder.id)) as entries:
        for entry in entries:
            if entry.name.startswith(".") or _links_to_folder(entry):
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or suffix(entry.name) in suffixes:
                id_ = f"{folder.id}/{entry.name}" if folder.id else entry.name
                yield FolderEntry(folder.root, id_, is_folder, entry.is_symlink())


def _links_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link to a folder. A broken link is not: it is reported later as an unreadable image."""
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:
        return False
