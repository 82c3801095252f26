"""The checksums of the ledger as a whole, beside those of its rows.

`LedgerChecksum` is the sum of the checksums of all rows, and one over that sum, the meta data and the schema. A write adjusts the
sum by the rows that it changes, inside its own transaction, so it costs the same in a gallery of any size; `verify` computes
everything again. It covers every entry, but not the room in SQLite's pages that nothing is stored in. So a ledger of up to
MAX_SEALED_BYTES is sealed too: `gallery.seal` holds the digest of the whole file, as the last finished write left it. In galleries
of format 2 the seal is all there is, whatever their size; the first write checks it and adds the checksum.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

KEY = "checksum"  # of the meta data
SEAL = "gallery.seal"
MAX_SEALED_BYTES = 1 << 22  # hashed twice at every write, in a few milliseconds
DAMAGED = "is not the file that was committed"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LedgerChecksum:
    """`row_sum` is the sum of the checksums of all rows; `meta` the CRC-32 of that sum, the other meta data and the schema."""

    row_sum: int
    meta: int

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def of(cls, db: sqlite3.Connection, row_sum: int) -> LedgerChecksum:
        """With the meta data as it is now."""
        meta = db.execute("SELECT key, value FROM meta WHERE key <> ? ORDER BY key", (KEY,)).fetchall()
        schema = db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        return cls(row_sum, crc32(json.dumps([row_sum, meta, schema]).encode()))


def row_sum_of(db: sqlite3.Connection) -> int:
    """Reads all rows."""
    (total,) = db.execute("SELECT coalesce(sum(seal), 0) FROM items").fetchone()
    return int(total)


def stored(db: sqlite3.Connection) -> LedgerChecksum | None:
    """The checksum in the meta data, None where it does not fit that. No row is read."""
    try:
        (text,) = db.execute("SELECT value FROM meta WHERE key = ?", (KEY,)).fetchone()
        checksum = LedgerChecksum(**json.loads(text))
    except (TypeError, ValueError):
        return None
    return checksum if checksum == LedgerChecksum.of(db, checksum.row_sum) else None


def is_intact(db: sqlite3.Connection) -> bool:
    """Whether meta data, schema and the checksums of all rows are those that were committed. Reads all rows."""
    checksum = stored(db)
    return checksum is not None and checksum.row_sum == row_sum_of(db)


def write_seal(db: sqlite3.Connection, path: Path) -> None:
    """Seals the ledger as it is. A folder that cannot be written keeps its old seal, which then says nothing."""
    generation, digest = _state(db)
    partial = path.with_suffix(".part")
    try:
        partial.write_bytes(_lines(generation, digest))
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        logger.info("%s: not written (%s)", path, error)


def problem_of_seal(db: sqlite3.Connection, path: Path) -> str | None:
    """One line where the seal is damaged, or the ledger is not the file that was sealed.

    None where all is well, nothing was sealed, or the writer was killed before it sealed what it had committed.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    try:
        sealed = json.loads(content.splitlines()[0])
        if content != _lines(sealed["generation"], sealed["digest"]):
            raise ValueError("another checksum")
    except (ValueError, LookupError, TypeError):
        return f"{SEAL}: is damaged; it is written again when the gallery is next written"
    if sealed["generation"] != _generation(db) or _state(db) == (sealed["generation"], sealed["digest"]):
        return None
    return DAMAGED


def _lines(generation: int, digest: str) -> bytes:
    """One line for the ledger, and one for that line."""
    line = json.dumps({"generation": generation, "digest": digest}).encode()
    return b"%b\n%d\n" % (line, crc32(line))


def _generation(db: sqlite3.Connection) -> int:
    (generation,) = db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
    return int(generation)


def _state(db: sqlite3.Connection) -> tuple[int, str]:
    """Generation and digest. Read through SQLite: closing the file elsewhere would drop the locks of this process on it."""
    return _generation(db), hashlib.blake2b(db.serialize(), digest_size=16).hexdigest()
