"""Vectors of patches on disk: one SQLite file in the folder of a gallery, from which the judge "local" reads what was encoded before.

The file is derived from images, as an index is from vectors, and may be removed at any time. An entry belongs to the content of an image and to
an encoder, so a changed image or another encoder has none. What is damaged is encoded again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar, cast
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmretrieve.encoders.base import Encoder, PatchEncoder, check_supports, dtype_of
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.store.files import PATCH_FILES, PATCHES, check_files
from mmretrieve.gallery.store.ledger import Ledger
from mmretrieve.options import Modality

LOCK_TIMEOUT = 5.0  # seconds to wait for another process
MAX_BYTES = 1 << 30  # of the entries that searches add: 16,384 images of 64 patches and 512 dimensions
CONTENT_BATCH_SIZE = 512  # entries that are compared with the ledger at once
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS patches (
    id INTEGER PRIMARY KEY,
    content TEXT NOT NULL,
    encoder TEXT NOT NULL,
    is_ahead INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    vectors BLOB NOT NULL,
    UNIQUE (content, encoder)
)""",
    "CREATE INDEX IF NOT EXISTS by_age ON patches (is_ahead, id)",
)
SELECT = "SELECT checksum, vectors FROM patches WHERE content = ? AND encoder = ?"
INSERT = "INSERT OR REPLACE INTO patches (content, encoder, is_ahead, checksum, vectors) VALUES (?, ?, ?, ?, ?)"
DELETE_OLDEST = """
DELETE FROM patches WHERE is_ahead = 0
AND id <= (SELECT id FROM patches WHERE is_ahead = 0 ORDER BY id DESC LIMIT 1 OFFSET ?)"""
SELECT_CONTENTS = "SELECT DISTINCT content FROM patches WHERE content > ? ORDER BY content LIMIT ?"
DELETE_CONTENT = "DELETE FROM patches WHERE content = ?"
Float16Patches = NDArray[np.float16]
T = TypeVar("T")
logger = logging.getLogger(__name__)


class PatchCache:
    """The stored patches of one encoder. Threads and processes may share the file.

    Parameters
    ----------
    folder : the folder of a gallery.
    encoder : what makes the patches. Weights, preprocessing and the dtype of the image tower identify it.

    Raises
    ------
    OptionError : if the encoder does not encode patches.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        check_supports(encoder, Modality.PATCHES, "storing patches")  # one that is loaded later has its dtype now
        self.path, self._encoder = folder / PATCHES, encoder
        parts = (encoder.identity.weights, encoder.identity.preprocessing, str(dtype_of(encoder)))
        self._key = hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def get(self, contents: Sequence[str]) -> dict[str, Float16Patches]:
        """Returns the (p, dim) patches of those images, named by their content hash, that are stored and intact."""

        def read(db: sqlite3.Connection) -> dict[str, Float16Patches]:
            entries = ((content, db.execute(SELECT, (content, self._key)).fetchone()) for content in contents)
            return {
                content: np.frombuffer(entry[1], np.float16).reshape(-1, self._encoder.dim)
                for content, entry in entries
                if entry is not None and entry[0] == _checksum(content, entry[1])
            }

        if not self.path.exists():
            return {}
        try:
            return _connected(self.path, "ro", read)
        except GalleryError as error:
            logger.warning("%s; its patches are encoded again", error)
            return {}

    def encode(
        self, contents: Sequence[str], pictures: Iterator[Image.Image | None], *, is_ahead: bool = False
    ) -> dict[str, Float16Patches]:
        """Encodes and stores the patches of images. Returns them as they are stored; an image that is None has none.

        Raises GalleryError if the folder cannot be written.
        """
        check_writable(self.path.parent)  # before anything is encoded
        encoded: list[str] = []

        def available() -> Iterator[Image.Image]:
            for content, picture in zip(contents, pictures, strict=True):
                if picture is not None:
                    encoded.append(content)
                    yield picture

        vectors_npd = cast(PatchEncoder, self._encoder).encode_patches(available()).astype(np.float16)
        patches = dict(zip(encoded, vectors_npd, strict=True))
        self.put(patches, is_ahead=is_ahead)
        return patches

    def put(self, patches: Mapping[str, Float16Patches], *, is_ahead: bool = False) -> None:
        """Stores the patches of images, all or none. A damaged file is replaced.

        The oldest entries make room if those that searches added exceed MAX_BYTES; entries that are stored ahead are not counted.

        Raises GalleryError if the folder cannot be written.
        """
        rows = [(content, self._key, is_ahead, _checksum(content, data), data) for content, data in _to_bytes(patches)]
        if not rows:
            return

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            with db:
                for statement in SCHEMA:
                    db.execute(statement)
                db.executemany(INSERT, rows)
                db.execute(DELETE_OLDEST, (MAX_BYTES // len(rows[0][-1]),))

        check_writable(self.path.parent)
        try:
            _connected(self.path, "rwc", write)
        except DamagedPatchesError as error:
            logger.warning("%s; it is made again", error)
            remove_patches(self.path.parent)
            _connected(self.path, "rwc", write)


class DamagedPatchesError(GalleryError):
    """The file of patches is damaged."""


def check_writable(folder: Path) -> None:
    """Raises GalleryError unless patches can be stored in the folder of a gallery."""
    check_files(folder, PATCH_FILES, writing=True)
    if not os.access(folder, os.W_OK):
        raise GalleryError(
            f"{folder}: patches cannot be stored in this gallery, which can only be read; copy it to a folder of yours"
        )


def remove_patches(folder: Path) -> None:
    """Removes the file of patches of a gallery, if there is one."""
    for name in reversed(PATCH_FILES):  # its journal first, which must not be applied to another file
        (folder / name).unlink(missing_ok=True)


def remove_unused(folder: Path, ledger: Ledger) -> None:
    """Removes the patches of images that no item has any more. Raises GalleryError if the file cannot be written."""

    def prune(db: sqlite3.Connection) -> None:
        after = ""
        while contents := [content for (content,) in db.execute(SELECT_CONTENTS, (after, CONTENT_BATCH_SIZE))]:
            unused = set(contents) - ledger.records_by_content(set(contents)).keys()
            db.execute("BEGIN IMMEDIATE")
            with db:
                db.executemany(DELETE_CONTENT, [(content,) for content in unused])
            after = contents[-1]
        db.execute("VACUUM")

    if (folder / PATCHES).exists():
        check_files(folder, PATCH_FILES, writing=True)
        try:
            _connected(folder / PATCHES, "rw", prune)
        except DamagedPatchesError:
            remove_patches(folder)


def _connected(path: Path, mode: str, work: Callable[[sqlite3.Connection], T]) -> T:
    """What `work` returns for a connection to the file. Errors of SQLite become a GalleryError of one line."""
    try:
        check_files(path.parent, PATCH_FILES)
        address = f"{path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True, timeout=LOCK_TIMEOUT, isolation_level=None)) as db:
            return work(db)
    except (sqlite3.Error, ValueError) as error:  # ValueError: an entry is not of whole vectors
        is_damaged = type(error) is sqlite3.DatabaseError  # errors of locks and of the disk are subclasses
        kind = DamagedPatchesError if is_damaged else GalleryError
        raise kind(f"{path}: stored patches cannot be used ({error})") from error


def _to_bytes(patches: Mapping[str, Float16Patches]) -> Iterator[tuple[str, bytes]]:
    return ((content, rows.tobytes()) for content, rows in patches.items())


def _checksum(content: str, data: Any) -> int:
    return crc32(data, crc32(content.encode()))
