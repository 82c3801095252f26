"""How much a client may ask for. Every bound of the server is stated here, and nowhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass

PROMPT_CHARACTERS = 2_000  # of one prompt or caption: far more than any encoder reads
PROMPTS = 16  # of one request, phrases to avoid included
REFERENCES = 8  # of one request
IDS = 1_000  # of one list of ids
K = 1_000  # hits of one ranking; whole rankings are what `export` of the gallery is for
BATCH = 64  # requests at once
PAGE = 500  # items listed at once


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that depend on the machine.

    Parameters
    ----------
    body_bytes : int
        The size of one request.
    upload_bytes : int
        The size of all uploads together.
    upload_seconds : float
        How long an upload is stored after its last use.
    workers : int
        How many requests compute at once, and how many read at once.
    waiting : int
        How many searches may wait.
    reading : int
        How many requests for images and items may wait; a page sends many at once.
    seconds : float
        How long a request, or each request of a batch, may take, waiting included.
    """

    body_bytes: int = 25_000_000
    upload_bytes: int = 256_000_000
    upload_seconds: float = 24 * 3600
    workers: int = max(2, os.cpu_count() or 2)
    waiting: int = 64
    reading: int = 1_024
    seconds: float = 30.0
