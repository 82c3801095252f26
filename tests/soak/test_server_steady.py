"""A served gallery neither grows nor loses handles, however many requests come."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

import httpx
import pytest
from live_server import command, free_port

REQUESTS = 50_000  # or as many as the time allows
WARM_UP = 0.2  # of the time
CLIENTS = 4
GROWTH_MB, HANDLES = 48, 8  # how far both may move after the warm-up


def usage(pid: int) -> tuple[float, int]:
    """The resident memory of a process in MB, and its open handles."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (resident,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(resident) / 1024, len(os.listdir(f"/proc/{pid}/fd"))


def requests(photos: Path) -> list[tuple[str, str, dict[str, Any], int]]:
    """What clients send, right and wrong: method, path, content, and the status of the answer."""
    ids = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))[:12]]
    picture = next(photos.rglob("*.png")).read_bytes()
    prompts = ("in red", "with stripes", "as a coat", "without sleeves")
    searches = [{"json": {"reference_id": id_, "prompt": prompts[i % 4], "k": 5}} for i, id_ in enumerate(ids)]
    return [
        *(("POST", "/api/search", content, 200) for content in searches),
        ("GET", "/api/item", {"params": {"id": ids[0]}}, 200),
        ("GET", "/api/image", {"params": {"id": ids[1]}}, 200),
        ("GET", "/api/thumbnail", {"params": {"id": ids[2]}}, 200),
        ("GET", "/api/items", {"params": {"where": "id LIKE 'summer%'"}}, 200),
        ("GET", "/api/health", {}, 200),
        ("POST", "/api/uploads", {"content": picture}, 200),
        ("POST", "/api/uploads", {"content": b"not an image"}, 422),
        ("POST", "/api/search", {"json": {"reference_id": "nothing", "prompt": "in red"}}, 404),
        ("POST", "/api/search", {"json": {"reference_id": ids[0], "prompt": "in red", "where": "path LIKE '/%'"}}, 400),
        ("POST", "/api/search", {"content": b"{"}, 400),
        ("GET", "/api/nothing", {}, 404),
    ]


@pytest.mark.soak(share=4)
def test_memory_and_handles_stay_flat(made: Path, photos: Path, seconds: float, record: Callable[..., None]) -> None:
    queue, lock, wrong = requests(photos), Lock(), list[str]()
    numbers: Iterator[int] = count()
    with command("mmretrieve.cli.main", "serve", str(made), "--port", str(free_port())) as (process, link):
        started = time.monotonic()
        before: tuple[float, int] | None = None

        def send(_: int) -> int:
            nonlocal before
            sent = 0
            with httpx.Client(base_url=link, timeout=60) as client:
                while time.monotonic() < started + seconds:
                    with lock:
                        number = next(numbers)
                        if before is None and (time.monotonic() > started + WARM_UP * seconds or number > WARM_UP * REQUESTS):
                            before = usage(process.pid)
                    if number >= REQUESTS:
                        break
                    method, path, content, status = queue[number % len(queue)]
                    answer = client.request(method, path, **content)
                    if answer.status_code != status:
                        wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
                    sent += 1
            return sent

        with ThreadPoolExecutor(CLIENTS) as clients:
            tried = sum(clients.map(send, range(CLIENTS)))
        after = usage(process.pid)
    assert before is not None
    grown, opened = after[0] - before[0], after[1] - before[1]
    note = f"{after[0]:.0f} MB ({grown:+.0f} MB after the warm-up), {after[1]} handles ({opened:+d})"
    record("requests to a served gallery, right and wrong, by four clients", tried=tried, lost=len(wrong), note=note)
    assert wrong == []
    assert grown < GROWTH_MB, note
    assert opened < HANDLES, note


def test_usage_sees_memory_and_handles() -> None:
    program = "import sys\nprint(flush=True)\nsys.stdin.readline()\nheld = b'1' * (64 << 20), open(sys.executable)\nprint(flush=True)\nsys.stdin.readline()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        memory, handles = usage(process.pid)
        print(file=process.stdin, flush=True)
        process.stdout.readline()
        more_memory, more_handles = usage(process.pid)
        print(file=process.stdin, flush=True)
    assert more_memory > memory + 50
    assert more_handles == handles + 1
