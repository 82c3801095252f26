"""Folder trees of images, including tar archives in them, and single images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mmretrieve.errors import GalleryError
from mmretrieve.images import SUFFIXES
from mmretrieve.sources import tar
from mmretrieve.sources.base import SourceItem, SourceReport, UnreadableItem, suffix
from mmretrieve.sources.ignored import FileFilter, IgnoredKind, describe_ignored
from mmretrieve.sources.location import Location
from mmretrieve.sources.partitions import Partitions


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
    """Every image below a folder, sorted by id. A tar archive counts as a folder. Folders named `key=value` become fields.

    Hidden and system files, what a pattern excludes, and links to folders are left out and counted. Every iteration walks the tree again;
    only the names of one directory and the headers of one archive are in memory. Raises GalleryError if there is no image.
    """

    def __init__(self, root: Path, exclude: Iterable[str] = ()) -> None:
        self._root = root.resolve()
        self.name = str(self._root)
        self._filter = FileFilter(SUFFIXES | {tar.SUFFIX}, exclude)
        self._in_tars = FileFilter(SUFFIXES, exclude)
        self._ignored: Counter[str] | None = None
        self._partitions: Partitions | None = None
        if not any(count for _, count in self._counts(Counter())):
            ignored = describe_ignored(self.report().ignored)
            raise GalleryError(
                f"{root}: no images in this folder; looked for {' '.join(sorted(SUFFIXES))} and {tar.SUFFIX}"
                + (f"; it contains {ignored}" if ignored else "")
            )

    def __len__(self) -> int:
        total, paths = 0, []
        for path, count in self._counts(Counter()):
            total += count
            paths += [path] if "=" in path else []
        self._partitions = Partitions(paths)
        return total

    def __iter__(self) -> Iterator[SourceItem | UnreadableItem]:
        if self._partitions is None:
            len(self)
        assert self._partitions is not None
        ignored: Counter[str] = Counter()
        for entry in walk(self._root, self._filter, ignored):
            if isinstance(entry, UnreadableItem):
                yield entry
                continue
            fields = self._partitions.fields(entry.id)
            if not entry.is_tar:
                yield SourceItem(entry.id, Location(entry.real_path()), fields)
                continue
            for item in tar.entries(entry.real_path(), entry.id, f"{entry.id}/", self._in_tars, ignored):
                yield replace(item, fields={**fields, **item.fields}) if isinstance(item, SourceItem) else item
        self._ignored = ignored

    def report(self) -> SourceReport:
        """The counts of what is left out, of the last complete iteration."""
        if self._ignored is None:
            self._ignored = Counter()
            for _ in self._counts(self._ignored):
                pass
        return SourceReport(dict(self._ignored))

    def _counts(self, ignored: Counter[str]) -> Iterator[tuple[str, int]]:
        """The id of each file and the number of its entries. What is left out is counted in `ignored`."""
        for entry in walk(self._root, self._filter, ignored):
            if isinstance(entry, FolderEntry) and entry.is_tar:
                headers = tar.read_headers(entry.real_path())
                yield entry.id, sum(1 for _ in tar.image_headers(headers, f"{entry.id}/", self._in_tars, ignored))
            else:
                yield entry.id, 1


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


def walk(root: Path, files: FileFilter, ignored: Counter[str]) -> Iterator[FolderEntry | UnreadableItem]:
    """Every file below `root` that is read, sorted by id; a folder that cannot be listed is an UnreadableItem.

    The kinds of the files and folders that are left out are counted in `ignored`.
    """
    stack = [iter([FolderEntry(root, "", is_folder=True)])]  # no recursion: trees may be deep
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif not entry.is_folder:
            yield entry
        else:
            try:
                stack.append(iter(sorted(_list(entry, files, ignored), key=lambda child: child.sort_key)))
            except OSError as error:
                yield UnreadableItem(entry.id or str(root), f"this folder cannot be listed ({error.strerror or error})")


def _list(folder: FolderEntry, files: FileFilter, ignored: Counter[str]) -> Iterator[FolderEntry]:
    """The subfolders of a folder, and its files that are read."""
    with os.scandir(os.path.join(folder.root, folder.id)) as entries:
        for entry in entries:
            id_ = f"{folder.id}/{entry.name}" if folder.id else entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            kind = files.ignores_name(id_) or (IgnoredKind.LINK if _links_to_folder(entry) else None)
            if kind is None and not is_folder:
                kind = files.ignores_file(id_)
            if kind is None:
                yield FolderEntry(folder.root, id_, is_folder, entry.is_symlink())
            else:
                ignored[str(kind)] += 1


def _links_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link to a folder. A broken link is not: it is reported later as an unreadable image."""
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:
        return False
