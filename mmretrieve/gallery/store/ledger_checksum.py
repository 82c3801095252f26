"""The seal of the ledger: a digest of the whole file, so that a bit that no query would ever read is missed nowhere."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from zlib import crc32

from mmretrieve.gallery.store.ledger import Ledger

SEAL = "gallery.seal"
logger = logging.getLogger(__name__)


def write(ledger: Ledger) -> None:
    """Seals the ledger as it is. A folder that cannot be written keeps its old seal, which then says nothing."""
    part = _place(ledger).with_suffix(".part")
    try:
        part.write_bytes(_seal(*_state(ledger)))
        os.replace(part, _place(ledger))
    except OSError as error:
        part.unlink(missing_ok=True)
        logger.info("%s: not sealed (%s)", ledger.path, error)


def problem(ledger: Ledger) -> str | None:
    """One line where the ledger, or the seal itself, is not what was written; None where all is well or nothing was sealed."""
    place = _place(ledger)
    if not place.exists():
        return None
    generation, digest = _state(ledger)
    said = place.read_bytes()
    try:
        sealed = json.loads(said.splitlines()[0])
        if said != _seal(sealed["generation"], sealed["digest"]):
            raise ValueError("another checksum")
    except (ValueError, LookupError, TypeError):
        return f"{SEAL}: is damaged; it is written again when the gallery is next written"
    if sealed["generation"] == generation and sealed["digest"] != digest:
        return f"{ledger.path.name}: is not the file that was committed"
    return None


def _seal(generation: int, digest: str) -> bytes:
    """One line for the ledger, and one for that line."""
    said = json.dumps({"generation": generation, "digest": digest}).encode()
    return b"%b\n%d\n" % (said, crc32(said))


def _state(ledger: Ledger) -> tuple[int, str]:
    """Generation and digest, of one moment. Read through SQLite: closing the file elsewhere would break its locks."""
    with ledger.reading() as db:
        (generation,) = db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        return int(generation), hashlib.blake2b(db.serialize(), digest_size=16).hexdigest()


def _place(ledger: Ledger) -> Path:
    return ledger.path.with_name(SEAL)
