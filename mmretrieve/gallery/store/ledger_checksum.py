"""Checksums of the ledger as a whole, in addition to those of its rows.

`LedgerChecksum` contains the sum of the checksums of all rows and a CRC-32 of that sum, the metadata and the schema. A write adjusts the sum by
the rows that it changes, inside its transaction, so its cost does not depend on the size of the gallery; `verify` computes everything again.
Unused space in the pages of SQLite is not covered. A ledger of up to MAX_SEALED_BYTES is therefore also sealed: `gallery.seal` contains the
digest of the whole file after the last finished write. Galleries of format 2 have only the seal, whatever their size; the first write checks
it and adds the checksum.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

from mmretrieve.gallery.store.files import SEAL
from mmretrieve.options import load_json

KEY = "checksum"  # in the metadata
MAX_SEALED_BYTES = 1 << 22  # every write hashes it twice, in a few milliseconds
MAX_SEAL_BYTES = 1_000  # of the seal itself, which has about 100
DAMAGED = "is not the file that was committed"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LedgerChecksum:
    """`row_sum` is the sum of the checksums of all rows; `meta` the CRC-32 of that sum, the other metadata and the schema."""

    row_sum: int
    meta: int

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def of(cls, db: sqlite3.Connection, row_sum: int) -> LedgerChecksum:
        """Computes the checksum with the current metadata."""
        meta = db.execute("SELECT key, value FROM meta WHERE key <> ? ORDER BY key", (KEY,)).fetchall()
        schema = db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        return cls(row_sum, crc32(json.dumps([row_sum, meta, schema]).encode()))


def row_sum_of(db: sqlite3.Connection) -> int:
    """Returns the sum of the checksums of all rows. Reads all rows."""
    (total,) = db.execute("SELECT coalesce(sum(seal), 0) FROM items").fetchone()
    return int(total)


def read_checksum(db: sqlite3.Connection) -> LedgerChecksum | None:
    """Returns the stored checksum, None if it does not match the metadata. Reads no rows."""
    try:
        (text,) = db.execute("SELECT value FROM meta WHERE key = ?", (KEY,)).fetchone()
        checksum = LedgerChecksum(**load_json(text))
    except (TypeError, ValueError):
        return None
    return checksum if checksum == LedgerChecksum.of(db, checksum.row_sum) else None


def is_intact(db: sqlite3.Connection) -> bool:
    """Returns whether metadata, schema and the checksums of all rows are what was committed. Reads all rows."""
    checksum = read_checksum(db)
    return checksum is not None and checksum.row_sum == row_sum_of(db)


def write_seal(db: sqlite3.Connection, path: Path) -> None:
    """Seals the current ledger. In a folder that cannot be written the old seal stays; it is then ignored."""
    generation, digest = _current_state(db)
    partial = path.with_name(f"{SEAL}.part")
    try:
        partial.write_bytes(_seal_content(generation, digest))
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        logger.info("%s: not written (%s)", path, error)


def problem_of_seal(db: sqlite3.Connection, path: Path) -> str | None:
    """Returns one line if the seal is damaged, or the ledger is not the file that was sealed.

    None if all is well, there is no seal, or the writer was killed between its commit and the seal.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SEAL_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{SEAL}: cannot be read ({error.strerror})"
    try:
        sealed = load_json(content.splitlines()[0])
        if content != _seal_content(sealed["generation"], sealed["digest"]):
            raise ValueError("another checksum")
    except (ValueError, LookupError, TypeError):
        return f"{SEAL}: is damaged; it is written again when the gallery is next written"
    if sealed["generation"] != _generation(db):
        return None
    if size_of(db) > MAX_SEALED_BYTES and read_checksum(db) is not None:  # of format 3: it was not sealed with that size
        return None
    return None if _current_state(db) == (sealed["generation"], sealed["digest"]) else DAMAGED


def size_of(db: sqlite3.Connection) -> int:
    """Returns the size of the ledger in bytes. The file may be longer: what follows is not a part of it."""
    (pages,), (page_size,) = (db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return int(pages * page_size)


def _seal_content(generation: int, digest: str) -> bytes:
    """The content of the seal: a line of JSON, and its CRC-32."""
    line = json.dumps({"generation": generation, "digest": digest}).encode()
    return b"%b\n%d\n" % (line, crc32(line))


def _generation(db: sqlite3.Connection) -> int:
    (generation,) = db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
    return int(generation)


def _current_state(db: sqlite3.Connection) -> tuple[int, str]:
    """Returns generation and digest. Reads through SQLite: closing the file elsewhere would release the locks of this process."""
    return _generation(db), hashlib.blake2b(db.serialize(), digest_size=16).hexdigest()
