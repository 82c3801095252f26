"""How much a client may ask for. Every bound of the server is stated here, and nowhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass

PROMPT_CHARACTERS = 2_000  # of one prompt or caption: far more than any encoder reads
PROMPTS = 16  # of one request, phrases to avoid included
TERMS = 100  # weights of one request
REFERENCES = 8  # of one request
IDS = 1_000  # of one list of ids
K = 1_000  # hits of one ranking; whole rankings are what `export` of the gallery is for
BATCH = 64  # requests at once
JUDGED = 100  # hits that a judge looks at, each of which is decoded
COMPUTED_TOGETHER = 16  # searches of different clients that one thread computes in one call
TURNS = 64  # of one session
PAGE = 500  # items listed at once
JSON_VALUES = 50_000  # values and names of one body


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that depend on the machine.

    Parameters
    ----------
    connections : int
        How many clients may be connected. If there are more, one that waits for its client is closed.
    connections_of_address : int
        The same, of one address.
    header_seconds : float
        How long a connection may be open without a complete request.
    body_bytes : int
        The size of one request.
    all_bodies_bytes : int
        The size of all requests that are being received and answered; small ones are not counted.
    unread_bytes : int
        The size of all responses that wait for clients to read them.
    image_pixels : int
        Width × height of an image that a client sends.
    upload_bytes : int
        The size of all uploads together.
    upload_seconds : float
        How long an upload is stored after its last use.
    workers : int
        How many requests compute at once, and how many read at once.
    filtering : int
        How many requests with a filter compute at once; they have workers of their own, because a filter may take long.
    waiting : int
        How many searches may wait, and how many of those with a filter.
    given_up : int
        How many threads that do not end may be replaced by new ones.
    reading : int
        How many requests for images and items may wait; a page sends many at once.
    seconds : float
        How long a request, or each request of a batch, may take, waiting included.
    """

    connections: int = 768
    connections_of_address: int = 512
    header_seconds: float = 10.0
    body_bytes: int = 25_000_000
    all_bodies_bytes: int = 100_000_000
    unread_bytes: int = 256_000_000
    image_pixels: int = 40_000_000
    upload_bytes: int = 256_000_000
    upload_seconds: float = 24 * 3600
    workers: int = max(2, os.cpu_count() or 2)
    filtering: int = max(1, (os.cpu_count() or 2) // 2)
    waiting: int = 64
    given_up: int = 8
    reading: int = 1_024
    seconds: float = 30.0
