"""The gallery on disk: `gallery.sqlite` is the ledger, `vectors.f16` the vectors, `thumbnails.sqlite` small pictures.

Vectors are only ever appended: first the rows are written and flushed, then the ledger commits their items together
with the new row count. What lies behind that count is the rest of an interrupted write and is cut back on open.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from mmretrieve.encoders.base import EncoderIdentity
from mmretrieve.errors import GalleryError
from mmretrieve.options import Decode
from mmretrieve.vectors import Float32, unit

LEDGER, VECTORS, THUMBNAILS = "gallery.sqlite", "vectors.f16", "thumbnails.sqlite"
LOCK, DERIVING = "writer.lock", "index.lock"
FORMAT = 1
BUSY_SECONDS = 30.0
READ_BLOCK = 65_536
logger = logging.getLogger(__name__)
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (
  row INTEGER PRIMARY KEY, id TEXT NOT NULL, path TEXT NOT NULL, hash TEXT NOT NULL,
  width INTEGER NOT NULL, height INTEGER NOT NULL, checksum INTEGER NOT NULL, deleted INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX live_ids ON items (id) WHERE deleted = 0;
CREATE INDEX hashes ON items (hash);
"""


@dataclass(frozen=True)
class Item:
    """One picture of a gallery: `path` is where its file was when it was added, `hash` its content."""

    id: str
    path: str
    hash: str
    width: int
    height: int


@dataclass(frozen=True)
class Live:
    """What a gallery holds at one moment: ids and their rows in `vectors.f16`, in insertion order."""

    ids: tuple[str, ...]
    rows: NDArray[np.int64]
    generation: int


class Store:
    """Opens an existing gallery folder. Every method is one transaction; readers never wait for the encoder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / LEDGER).is_file():
            raise GalleryError(
                f"{folder}: not a gallery (no {LEDGER} in it); make one with `mmretrieve index SOURCE --gallery {folder}`"
            )
        meta = self.meta()
        if meta.get("format") != FORMAT:
            raise GalleryError(f"{folder}: gallery format {meta.get('format')}, this version reads format {FORMAT}")
        self.dim = int(meta["dim"])
        self.decode = Decode(meta["decode"])
        self.identity = EncoderIdentity(**meta["encoder"])
        self._cut_back()

    @classmethod
    def create(cls, folder: Path, identity: EncoderIdentity, dim: int, decode: Decode, **more: object) -> Store:
        """Makes the folder and an empty gallery in it, whole or not at all; `more` goes into its meta data.

        GalleryError where there is a gallery or anything else already, or the folder cannot be written.
        """
        partial = folder / f"{LEDGER}.part"
        unfinished = {VECTORS, partial.name, f"{partial.name}-journal"}
        if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - unfinished):
            what = "a gallery" if (folder / LEDGER).exists() else "something else"
            raise GalleryError(f"{folder}: there is {what} here already; open it, or name an empty folder")
        meta = {"format": FORMAT, "dim": dim, "decode": decode, "encoder": asdict(identity), "rows": 0, "generation": 0}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / VECTORS).write_bytes(b"")
            partial.unlink(missing_ok=True)
            with _connection(partial) as ledger:
                ledger.executescript(f"BEGIN; {TABLES}")
                _set_meta(ledger, meta | more)
            os.replace(partial, folder / LEDGER)
        except (OSError, sqlite3.Error) as error:
            raise GalleryError(f"{folder}: could not make a gallery here ({error})") from error
        return cls(folder)

    def writing(self) -> AbstractContextManager[None]:
        """Holds the gallery's one writer's place. GalleryError where another process or thread has it."""
        return self._alone(LOCK, "writing to this gallery")

    def deriving(self) -> AbstractContextManager[None]:
        """The same for what is derived, the index: a writer may go on meanwhile."""
        return self._alone(DERIVING, "writing the index of this gallery")

    def meta(self) -> dict[str, Any]:
        with self._ledger() as ledger:
            return {key: json.loads(value) for key, value in ledger.execute("SELECT key, value FROM meta")}

    def set_meta(self, **values: object) -> None:
        with self._ledger() as ledger:
            _set_meta(ledger, values)

    def live(self) -> Live:
        with self._ledger() as ledger:
            generation = json.loads(ledger.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0])
            found = ledger.execute("SELECT id, row FROM items WHERE deleted = 0 ORDER BY row").fetchall()
        return Live(tuple(id_ for id_, _ in found), np.array([row for _, row in found], dtype=np.int64), generation)

    def items(self, ids: Sequence[str]) -> list[Item]:
        """The items of those ids, in that order. GalleryError for an unknown one."""
        with self._ledger() as ledger:
            return [self._item(ledger, id_) for id_ in ids]

    def items_in(self, rows: NDArray[np.int64]) -> list[Item]:
        """The items of those rows, in that order, whether they are deleted since or not."""
        query = "SELECT id, path, hash, width, height FROM items WHERE row = ?"
        with self._ledger() as ledger:
            return [Item(*ledger.execute(query, (row,)).fetchone()) for row in rows.tolist()]

    def known(self, ids: Sequence[str]) -> dict[str, str]:
        """id → content hash of those ids that are there."""
        with self._ledger() as ledger:
            query = "SELECT hash FROM items WHERE id = ? AND deleted = 0"
            found = ((id_, ledger.execute(query, (id_,)).fetchone()) for id_ in ids)
            return {id_: row[0] for id_, row in found if row}

    def ids_of(self, content: str) -> list[str]:
        """The live items whose picture has that content hash."""
        with self._ledger() as ledger:
            found = ledger.execute("SELECT id FROM items WHERE hash = ? AND deleted = 0 ORDER BY row", (content,)).fetchall()
        return [id_ for (id_,) in found]

    @contextmanager
    def finding_copies(self) -> Iterator[Callable[[str], int | None]]:
        """For as long as the block lasts: content hash → a live row whose picture has that content, or None."""
        query = "SELECT row FROM items WHERE hash = ? AND deleted = 0 LIMIT 1"
        with self._ledger() as ledger:
            yield lambda content: next((int(row) for (row,) in ledger.execute(query, (content,))), None)

    def read(self, rows: NDArray[np.int64]) -> Float32:
        """(n, dim) unit float32 of those rows."""
        count, committed = self._rows_on_disk(), int(self.meta()["rows"])
        if count < committed:
            raise GalleryError(
                f"{self.folder / VECTORS}: holds {count} rows, the ledger counts {committed}; run `mmretrieve verify {self.folder}`"
            )
        if not len(rows):
            return np.empty((0, self.dim), np.float32)
        stored = np.memmap(self.folder / VECTORS, np.float16, "r", shape=(count, self.dim))
        out = np.empty((len(rows), self.dim), np.float32)
        for start in range(0, len(rows), READ_BLOCK):
            out[start : start + READ_BLOCK] = unit(stored[rows[start : start + READ_BLOCK]], f"{VECTORS}")
        return out

    def append(self, items: Sequence[Item], vectors: Float32, thumbnails: Sequence[bytes]) -> None:
        """Commits items with their vectors (n, dim) and thumbnails, all or none. Call within `writing`."""
        half = np.ascontiguousarray(vectors, dtype=np.float16)
        try:
            self._keep_thumbnails([item.hash for item in items], thumbnails)
            first = int(self.meta()["rows"])
            with (self.folder / VECTORS).open("r+b") as file:
                file.seek(first * self.dim * 2)
                file.write(half.tobytes())
                file.flush()
                os.fsync(file.fileno())
            with self._ledger() as ledger:
                ledger.executemany(
                    "INSERT INTO items (row, id, path, hash, width, height, checksum) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(first + i, *_fields(item), crc32(half[i].tobytes())) for i, item in enumerate(items)],
                )
                _set_meta(ledger, {"rows": first + len(items)})
                _next_generation(ledger)
        except (OSError, sqlite3.Error) as error:
            raise GalleryError(
                f"{self.folder}: could not write ({error}); what was committed before is safe, run it again"
            ) from error

    def delete(self, ids: Sequence[str]) -> None:
        """Marks items as deleted, all or none. GalleryError for an unknown id. Call within `writing`."""
        with self._ledger() as ledger:
            for id_ in ids:
                self._item(ledger, id_)
            ledger.executemany("UPDATE items SET deleted = 1 WHERE id = ? AND deleted = 0", [(id_,) for id_ in ids])
            _next_generation(ledger)

    def thumbnail(self, content: str) -> bytes | None:
        """The thumbnail of a picture by its content hash, or None where it is lost: it can be made again."""
        if not (self.folder / THUMBNAILS).exists():
            return None
        try:
            with _connection(self.folder / THUMBNAILS) as file:
                found = file.execute("SELECT jpeg FROM thumbnails WHERE hash = ?", (content,)).fetchone()
        except sqlite3.DatabaseError as error:
            logger.warning("%s: %s", self.folder / THUMBNAILS, error)
            return None
        return None if found is None else bytes(found[0])

    def problems(self) -> list[str]:
        """What is wrong with ledger and vectors, one line each; empty when all is well."""
        with self._ledger() as ledger:
            said = [f"{LEDGER}: {line}" for (line,) in ledger.execute("PRAGMA integrity_check") if line != "ok"]
            rows = ledger.execute("SELECT row, id, checksum FROM items WHERE deleted = 0 ORDER BY row").fetchall()
        committed, on_disk = int(self.meta()["rows"]), self._rows_on_disk()
        if on_disk < committed:
            said.append(f"{VECTORS}: holds {on_disk} rows, the ledger counts {committed}")
        with (self.folder / VECTORS).open("rb") as file:
            for row, id_, checksum in rows:
                file.seek(row * self.dim * 2)
                if crc32(file.read(self.dim * 2)) != checksum:
                    said.append(f"{VECTORS}: the vector of {id_!r} (row {row}) is not the one that was committed")
        return said

    @contextmanager
    def _alone(self, name: str, doing: str) -> Iterator[None]:
        try:
            with FileLock(self.folder / name, timeout=0):
                yield
        except Timeout as error:
            raise GalleryError(f"{self.folder}: another process is {doing}; wait until it is done") from error

    def _cut_back(self) -> None:
        """Drops rows that were written but never committed, unless a writer is at work on them."""
        try:
            if self._bytes_beyond() > 0:
                with FileLock(self.folder / LOCK, timeout=0):
                    if (beyond := self._bytes_beyond()) > 0:
                        os.truncate(self.folder / VECTORS, (self.folder / VECTORS).stat().st_size - beyond)
        except (Timeout, PermissionError):
            return
        except OSError as error:
            raise GalleryError(f"{self.folder / VECTORS}: {error.strerror or error}") from error

    def _bytes_beyond(self) -> int:
        return (self.folder / VECTORS).stat().st_size - int(self.meta()["rows"]) * self.dim * 2

    def _rows_on_disk(self) -> int:
        return (self.folder / VECTORS).stat().st_size // (self.dim * 2)

    def _item(self, ledger: sqlite3.Connection, id_: str) -> Item:
        query = "SELECT id, path, hash, width, height FROM items WHERE id = ? AND deleted = 0"
        found = ledger.execute(query, (id_,)).fetchone()
        if found is None:
            raise GalleryError(f"{self.folder}: no item {id_!r} in this gallery")
        return Item(*found)

    def _keep_thumbnails(self, hashes: Sequence[str], thumbnails: Sequence[bytes]) -> None:
        with _connection(self.folder / THUMBNAILS) as file:
            file.execute("CREATE TABLE IF NOT EXISTS thumbnails (hash TEXT PRIMARY KEY, jpeg BLOB NOT NULL)")
            file.executemany("INSERT OR REPLACE INTO thumbnails VALUES (?, ?)", zip(hashes, thumbnails, strict=True))

    @contextmanager
    def _ledger(self) -> Iterator[sqlite3.Connection]:
        try:
            with _connection(self.folder / LEDGER) as ledger:
                yield ledger
        except UnicodeEncodeError as error:
            raise GalleryError(f"{self.folder}: no item {error.object!r} in this gallery: the id is not valid text") from error
        except sqlite3.DatabaseError as error:
            raise GalleryError(f"{self.folder / LEDGER}: {error}; the gallery is damaged or is not one") from error


@contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction: committed when the block ends, rolled back when it raises."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def _fields(item: Item) -> tuple[str, str, str, int, int]:
    return item.id, item.path, item.hash, item.width, item.height


def _set_meta(ledger: sqlite3.Connection, values: dict[str, Any]) -> None:
    ledger.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in values.items()])


def _next_generation(ledger: sqlite3.Connection) -> None:
    ledger.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
