"""A folder tree of pictures, loose or in tars, or one picture."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmretrieve.errors import GalleryError
from mmretrieve.images import SUFFIXES
from mmretrieve.sources import tar
from mmretrieve.sources.base import SourceItem, UnreadableItem
from mmretrieve.sources.location import Location


class OneFile:
    """One picture; its name is its id."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self.name = str(self._path)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[SourceItem]:
        yield SourceItem(self._path.name, Location(self.name))


class Folder:
    """Every image below a folder, sorted by id; a tar counts as a folder. Hidden ones and links to folders are left out.

    The tree is walked again each time, one directory's names and one tar's headers in memory. Raises GalleryError where
    there is nothing to give.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.name = str(self._root)
        if not any(self._counts()):
            raise GalleryError(f"{root}: no images in this folder; looked for {' '.join(sorted(SUFFIXES))} and {tar.SUFFIX}")

    def __len__(self) -> int:
        return sum(self._counts())

    def __iter__(self) -> Iterator[SourceItem | UnreadableItem]:
        for found in self._walk():
            if isinstance(found, UnreadableItem):
                yield found
            elif found.is_tar:
                yield from tar.entries(found.location(), found.id, f"{found.id}/")
            else:
                yield SourceItem(found.id, Location(found.location()))

    def _counts(self) -> Iterator[int]:
        """How many entries come from each file."""
        for found in self._walk():
            yield sum(1 for _ in tar.pictures(found.location())) if isinstance(found, FolderEntry) and found.is_tar else 1

    def _walk(self) -> Iterator[FolderEntry | UnreadableItem]:
        return walk(self._root, SUFFIXES | {tar.SUFFIX})


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """A file or a folder below `root`; its id is the path below it."""

    root: Path
    id: str
    is_folder: bool = False
    is_link: bool = False

    @property
    def is_tar(self) -> bool:
        return not self.is_folder and suffix(self.id) == tar.SUFFIX

    @property
    def key(self) -> str:
        """Sorting the entries of each folder by it sorts the whole tree by id: a folder's ids go on with a slash."""
        return f"{self.id}/" if self.is_folder or self.is_tar else self.id

    def location(self) -> str:
        """The file itself, wherever a link to it stands."""
        path = os.path.join(self.root, self.id)
        return os.path.realpath(path) if self.is_link else path


def walk(root: Path, suffixes: Collection[str]) -> Iterator[FolderEntry | UnreadableItem]:
    """Every file with such a suffix below `root`, sorted by id; a folder that cannot be listed is Unreadable."""
    waiting = [iter([FolderEntry(root, "", is_folder=True)])]  # a list, not a recursion: trees may be deep
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
        elif not found.is_folder:
            yield found
        else:
            try:
                waiting.append(iter(sorted(_listed(found, suffixes), key=lambda entry: entry.key)))
            except OSError as error:
                yield UnreadableItem(found.id or str(root), f"this folder cannot be listed ({error.strerror or error})")


def suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _listed(folder: FolderEntry, suffixes: Collection[str]) -> Iterator[FolderEntry]:
    """The folders in a folder, and those files that are looked for."""
    with os.scandir(os.path.join(folder.root, folder.id)) as entries:
        for entry in entries:
            if entry.name.startswith(".") or _links_to_folder(entry):
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or suffix(entry.name) in suffixes:
                id_ = f"{folder.id}/{entry.name}" if folder.id else entry.name
                yield FolderEntry(folder.root, id_, is_folder, entry.is_symlink())


def _links_to_folder(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere, or to itself, is a picture that cannot be read: it is named later."""
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:
        return False
