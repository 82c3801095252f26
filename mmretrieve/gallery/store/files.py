"""The names of the files of a gallery, what they must be, and the locks of its writers.

Someone else may have made the folder, with links, pipes, devices or folders in place of the files. Opening a pipe waits for ever, a device has
no end, and writing to a link changes a file outside of the gallery.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mmretrieve.errors import GalleryError

LEDGER, VECTORS, THUMBNAILS, INDEX = "gallery.sqlite", "vectors.f16", "thumbnails.bin", "index.faiss"
SEAL, PATCHES = "gallery.seal", "patches.sqlite"
LOCK, INDEX_LOCK = "writer.lock", "index.lock"
NEXT = ".next"  # suffix of a file that compaction will rename
PATCH_FILES = (PATCHES, f"{PATCHES}-journal")
LEDGER_FILES = (LEDGER, *(f"{LEDGER}-{suffix}" for suffix in ("journal", "wal", "shm")))  # SQLite opens all of them
FILES = (
    *LEDGER_FILES,
    *PATCH_FILES,
    *(f"{name}{suffix}" for name in (SEAL, VECTORS, THUMBNAILS, INDEX) for suffix in ("", ".part", NEXT, ".new")),
    LOCK,
    INDEX_LOCK,
)


def check_files(folder: Path, names: Iterable[str] = FILES, *, writing: bool = False) -> None:
    """Raises GalleryError unless those files of a gallery that exist are regular files.

    When reading, links to such files are followed, as caches of downloads contain them.
    """
    for path in [f"{folder}{os.sep}{name}" for name in names]:
        try:
            if stat.S_ISREG(os.lstat(path).st_mode):
                continue
            if os.path.islink(path) and writing:
                raise GalleryError(f"{path}: is a link, so this gallery can only be read; put the file itself in its place")
            if os.path.lexists(path) and not os.path.isfile(path) and os.path.lexists(path):  # others may remove it meanwhile
                raise GalleryError(f"{path}: is not a regular file; remove it, or restore it from a copy")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise GalleryError(f"{folder}: this gallery cannot be read ({error.strerror})") from error


@contextmanager
def locked(folder: Path, name: str, doing: str) -> Iterator[None]:
    """Holds a lock of a gallery. Raises GalleryError if another process or thread holds it, or the folder cannot be written."""
    check_files(folder, [name], writing=True)
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise GalleryError(f"{folder}: another process is {doing}; wait until it is done") from error
    except OSError as error:
        raise GalleryError(f"{folder}: this gallery cannot be written ({error.strerror})") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writes_files(
    folder: Path, failure: str = "could not write ({}); what was committed before is safe, run it again"
) -> Iterator[None]:
    """Turns an OSError in the block into a GalleryError."""
    try:
        yield
    except OSError as error:
        raise GalleryError(f"{folder}: {failure.format(error)}") from error
