"""The files of a gallery: `gallery.sqlite` is the ledger, `vectors.f16` the vectors, `thumbnails.bin` the thumbnails.

Vectors and thumbnails are only appended: their bytes are written and flushed first, then the ledger commits their items and the new lengths
of the files. Bytes behind these lengths belong to an interrupted write. Opening and reading write nothing; the next writer cleans up.
`patches` is a cache beside them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mmretrieve.encoders.base import EncoderIdentity
from mmretrieve.errors import GalleryError, MissingError
from mmretrieve.gallery.store.files import (
    INDEX,
    INDEX_LOCK,
    LEDGER,
    LOCK,
    NEXT,
    PATCHES,
    THUMBNAILS,
    VECTORS,
    check_files,
    locked,
    writes_files,
)
from mmretrieve.gallery.store.format1 import FORMAT_1, Format1Ledger
from mmretrieve.gallery.store.ledger import FORMAT, OLDER_FORMAT, Ledger
from mmretrieve.gallery.store.records import RESTORE, Item, ItemRecord, StaleViewError, StoredChecksums, StoreVersion
from mmretrieve.options import OLD_COLORS, Colors, Decode
from mmretrieve.vectors import Float32

PARTIAL_LEDGER = f"{LEDGER}.part"
WRITING, NOT_CREATED = "writing to this gallery", "a gallery could not be created here ({})"
MAX_DIM = 1 << 20  # of the vectors of a gallery that is opened
ADDRESS = re.compile(r"[a-z]{2,}:/", re.IGNORECASE)  # what remains of scheme:// in a path
Float16Rows = NDArray[np.float16]
logger = logging.getLogger(__name__)


def is_gallery(folder: str | Path) -> bool:
    """Returns whether the folder contains a gallery."""
    return os.path.isfile(Path(folder) / LEDGER)


def check_folder(folder: Path) -> None:
    """Raises GalleryError if the path looks like an address."""
    if ADDRESS.match(str(folder)):
        raise GalleryError(
            f"{folder}: looks like an address; expected a folder (`mmretrieve push` and `pull` copy between folders and servers)"
        )


class Store:
    """Opens an existing gallery folder. Readers never wait for a writer that is encoding."""

    def __init__(self, folder: Path) -> None:
        check_folder(folder)
        check_files(folder)
        self.folder, self.ledger = folder, Ledger(folder / LEDGER)
        if not is_gallery(folder):
            raise GalleryError(
                f"{folder}: not a gallery (no {LEDGER} in it); make one with `mmretrieve index SOURCE --gallery {folder}`"
            )
        meta = self.ledger.meta()
        if meta.get("format") == FORMAT_1:
            self.ledger = Format1Ledger(folder / LEDGER)
            meta = self.ledger.meta()
        if meta.get("format") not in (OLDER_FORMAT, FORMAT):
            raise GalleryError(
                f"{folder}: gallery format {meta.get('format')}, this version reads formats {FORMAT_1} to {FORMAT}; index again"
            )
        try:
            self.dim, self.decode = meta["dim"], Decode(meta["decode"])
            self.colors = Colors(meta.get("colors", OLD_COLORS))
            self.identity = EncoderIdentity(**meta["encoder"])
            if not 1 <= self.dim <= MAX_DIM:
                raise ValueError(f"dim is {self.dim}")
        except (KeyError, TypeError, ValueError) as error:
            raise GalleryError(f"{folder / LEDGER}: the gallery is damaged ({error}); {RESTORE}") from error
        for name in (VECTORS,) if isinstance(self.ledger, Format1Ledger) else (VECTORS, THUMBNAILS):
            if not (folder / name).exists():
                raise GalleryError(f"{folder / name}: the file is missing, so the gallery is damaged; {RESTORE}")

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, Any]) -> Store:
        """Creates the folder and an empty gallery in it, whole or not at all. Its metadata are those of `Manifest.create_store`.

        Raises GalleryError if the folder is not empty or cannot be written.
        """
        check_folder(folder)
        _check_empty(folder)
        with writes_files(folder, NOT_CREATED):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, LOCK, WRITING), writes_files(folder, NOT_CREATED):
            _check_empty(folder)  # another process may have created one meanwhile
            check_files(folder, writing=True)
            for name in (VECTORS, THUMBNAILS):
                (folder / name).write_bytes(b"")
            (folder / PARTIAL_LEDGER).unlink(missing_ok=True)
            Ledger.create(folder / PARTIAL_LEDGER, meta)
            os.replace(folder / PARTIAL_LEDGER, folder / LEDGER)
        return cls(folder)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the lock of the writer. Raises GalleryError if another process or thread holds it, or the ledger is damaged."""
        with locked(self.folder, LOCK, WRITING):
            self._prepare()
            if self._needs_recovery():  # the last writer was killed
                self.recover()
            try:
                yield
            finally:
                self.ledger.seal()

    @contextmanager
    def writing_index(self) -> Iterator[None]:
        """The same for the index, which is derived: items can be written meanwhile. Who writes them seals the ledger."""
        with locked(self.folder, INDEX_LOCK, "writing the index of this gallery"):
            self._prepare()
            with writes_files(self.folder):
                for partial in self.folder.glob(f"{Path(INDEX).stem}.*.part"):  # of a writer that was killed
                    partial.unlink(missing_ok=True)
            try:
                yield
            finally:
                with suppress(GalleryError), locked(self.folder, LOCK, WRITING):
                    self.ledger.seal()

    def _prepare(self) -> None:
        """Checks what will be written and sealed. Raises GalleryError if it is damaged."""
        check_files(self.folder, writing=True)
        self.ledger.connections.close()  # what is checked is read from the disk
        self.ledger.migrate()
        self.ledger.check()

    def float16_rows(self, version: StoreVersion) -> Float16Rows:
        """Returns (total, dim) float16 rows of a version, mapped from the file. Raises StaleViewError if rows were renumbered."""
        path = self.file(VECTORS)
        try:
            count = path.stat().st_size // (self.dim * 2)
        except FileNotFoundError as error:
            raise StaleViewError(f"{path}: was renamed during the read; open the gallery again") from error
        rows: Float16Rows = np.empty((0, self.dim), np.float16)
        if 0 < version.total <= count:
            try:
                rows = np.asarray(
                    np.memmap(path, np.float16, "r", shape=(version.total, self.dim))
                )  # a memmap is slow to index
            except OSError as error:
                raise GalleryError(f"{path}: cannot be read ({error.strerror})") from error
        if self.ledger.meta()["epoch"] != version.epoch:  # then the file may well be shorter
            raise StaleViewError(f"{self.folder}: was compacted during the read; open it again")
        if count < version.total:
            raise GalleryError(
                f"{path}: has {count} rows, but the ledger counts {version.total}; run `mmretrieve verify {self.folder}`"
            )
        return rows

    def check_vectors(self, checksums: Iterable[tuple[int, int]], float16_rows: Float16Rows) -> None:
        """Raises GalleryError if the vector of one of these rows does not have its checksum.

        What is made of vectors (an index, a copy) gets a checksum of its own, which must not hide their damage.
        """
        rows = np.asarray(float16_rows)  # a row of a memmap is slow to make
        for row, checksum in checksums:
            if crc32(rows[row]) != checksum:
                raise GalleryError(
                    f"{self.file(VECTORS)}: the vector of row {row} is not the one that was committed; "
                    f"`mmretrieve verify {self.folder}` names the item: {RESTORE}, or delete the item and add it again"
                )

    def append(
        self, items: Sequence[Item], vectors: Float32 | Float16Rows, thumbnails: Sequence[bytes], replaced: Sequence[int] = ()
    ) -> None:
        """Commits items with their (n, dim) vectors and thumbnails and deletes the rows that they replace, all or none.

        Call within `writing`. Raises GalleryError if the disk is full or an id exists.
        """
        float16_rows = np.ascontiguousarray(vectors, dtype=np.float16)
        with writes_files(self.folder):
            meta = self.ledger.meta()
            stored, small = self._thumbnail_layout(items, float16_rows, thumbnails, meta["thumbnail_bytes"])
            _write(self.folder / THUMBNAILS, meta["thumbnail_bytes"], small)
            _write(self.folder / VECTORS, meta["rows"] * self.dim * 2, float16_rows.tobytes())
            records = [ItemRecord(meta["rows"] + i, item, stored[i]) for i, item in enumerate(items)]
            self.ledger.commit(records, meta["thumbnail_bytes"] + len(small), replaced=replaced)

    def delete(self, ids: Sequence[str]) -> None:
        """Deletes items, all or none. Raises GalleryError for an unknown id. Call within `writing`."""
        records = self.ledger.records_by_id(ids)
        if absent := [id_ for id_ in ids if id_ not in records]:
            raise MissingError(f"{self.folder}: no item {absent[0]!r} in this gallery")
        self.ledger.mark_deleted([records[id_].row for id_ in dict.fromkeys(ids)])

    def thumbnail(self, stored: StoredChecksums) -> bytes | None:
        """Returns the stored thumbnail; None if there is none or it is damaged, as it can be made again."""
        if not stored.thumbnail_size:
            return None
        try:
            with self.open(THUMBNAILS) as file:
                file.seek(stored.thumbnail_at)
                data = file.read(stored.thumbnail_size)
        except OSError as error:
            logger.warning("%s: %s", self.folder / THUMBNAILS, error)
            return None
        return data if crc32(data) == stored.thumbnail else None

    def sizes(self) -> dict[str, int]:
        """Returns the size of each file in bytes."""
        return {
            name: path.stat().st_size for name in (LEDGER, VECTORS, THUMBNAILS, PATCHES) if (path := self.file(name)).exists()
        }

    def file(self, name: str) -> Path:
        """Returns the path of a file; between the commit of a compaction and its renaming, that of the new version."""
        following = self.folder / f"{name}{NEXT}"
        return following if self.ledger.meta().get("compacted") and following.exists() else self.folder / name

    def open(self, name: str) -> BinaryIO:
        """Opens the current version of a file to be read."""
        converted = self.ledger.unmigrated_thumbnails() if name == THUMBNAILS else None
        return self.file(name).open("rb") if converted is None else BytesIO(converted)

    def _thumbnail_layout(
        self, items: Sequence[Item], float16_rows: Float16Rows, thumbnails: Sequence[bytes], end: int
    ) -> tuple[list[StoredChecksums], bytes]:
        """Returns the checksums and positions of items, and the thumbnails to write at `end`: one for each content that has none."""
        checksums = {
            content: record.stored for content, record in self.ledger.records_by_content({item.hash for item in items}).items()
        }
        small = bytearray()
        stored = []
        for item, vector, thumbnail in zip(items, float16_rows, thumbnails, strict=True):
            if thumbnail and (item.hash not in checksums or not checksums[item.hash].thumbnail_size):
                checksums[item.hash] = StoredChecksums(0, crc32(thumbnail), end + len(small), len(thumbnail))
                small += thumbnail
            known, checksum = checksums.get(item.hash), crc32(vector)
            stored.append(StoredChecksums(checksum) if known is None else replace(known, vector=checksum))
        return stored, bytes(small)

    def recover(self) -> None:
        """Finishes a committed compaction and removes what was never committed. Call within `writing`."""
        meta = self.ledger.meta()
        with writes_files(self.folder):
            for name in (VECTORS, THUMBNAILS):
                following = self.folder / f"{name}{NEXT}"
                if following.exists() and meta.get("compacted"):
                    os.replace(following, self.folder / name)
                following.unlink(missing_ok=True)
            if meta.get("compacted"):
                self.ledger.set_meta(compacted=False)
            for name, committed in self._committed(meta).items():
                if (self.folder / name).stat().st_size > committed:
                    os.truncate(self.folder / name, committed)

    def _committed(self, meta: dict[str, Any]) -> dict[str, int]:
        """Returns the committed length of each file in bytes."""
        return {VECTORS: meta["rows"] * self.dim * 2, THUMBNAILS: meta["thumbnail_bytes"]}

    def _needs_recovery(self) -> bool:
        meta = self.ledger.meta()
        with writes_files(self.folder):
            longer = any((self.folder / name).stat().st_size > size for name, size in self._committed(meta).items())
        return longer or meta.get("compacted", False) or any(self.folder.glob(f"*{NEXT}"))


def _check_empty(folder: Path) -> None:
    """Raises GalleryError if the folder contains anything but what an interrupted creation leaves."""
    unfinished = {VECTORS, THUMBNAILS, LOCK, PARTIAL_LEDGER, f"{PARTIAL_LEDGER}-journal"}
    try:
        is_free = not os.path.lexists(folder) or not set(os.listdir(folder)) - unfinished
    except OSError as error:
        raise GalleryError(
            f"{folder}: a gallery could not be created here ({error.strerror}); choose an empty folder"
        ) from error
    if not is_free:
        what = "a gallery" if is_gallery(folder) else "something else"
        raise GalleryError(f"{folder}: the folder already contains {what}; open it, or choose an empty folder")


def _write(path: Path, at: int, data: bytes) -> None:
    """Writes and flushes bytes at the end of what is committed."""
    if not data:
        return
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
