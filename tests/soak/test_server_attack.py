"""A server under attack goes on answering, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import long_text_gallery
from hostile_clients import attacked, observe, peak_memory, request, status_of
from live_server import command

import mmretrieve as mm

HALF_OPEN = 1_000  # connections whose headers never end
MEMORY = 700_000_000  # bytes that the attack may take, besides what a server takes that has answered one search


@pytest.mark.soak(share=1)
def test_an_attacked_server_answers_others(
    tmp_path: Path, encoder: mm.Encoder, seconds: float, record: Callable[..., None]
) -> None:
    gallery = long_text_gallery(tmp_path / "long.gallery", encoder)
    with command("mmretrieve.cli.main", "serve", str(gallery)) as (process, link):
        assert status_of(link, request("/api/search", b'{"prompt": "in red"}', "Connection: close")) == 200
        before = peak_memory(process.pid)
        with attacked(link, half_open=HALF_OPEN):
            seen = observe(link, max(10.0, seconds - 60))
            grown = peak_memory(process.pid) - before
            started = time.monotonic()
            process.terminate()
            status = process.wait(60)
            ended = time.monotonic() - started
    record(
        "hostile clients: half-open connections, worst filters, large bodies",
        tried=len(seen.health) + len(seen.searches),
        lost=len(seen.failures),
        note=f"health p99 {seen.health_p99:.2f} s, {grown / 1e6:.0f} MB more memory, ended {ended:.1f} s after SIGTERM",
    )
    assert seen.failures == []
    assert seen.searches
    assert seen.health_p99 <= 0.5
    assert grown < MEMORY
    assert (status, ended <= 10) == (0, True)
