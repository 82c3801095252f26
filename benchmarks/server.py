"""The server under load: `python -m benchmarks.server [--clients 50] [--seconds 60] [--out results]`.

A separate process serves the built-in gallery. Each client sends one request after the other, with one of 200 items and one of 100
prompts, for 24 hits. Clients and server share the cores of the machine.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

import mmretrieve as mm
from benchmarks.script import make_parser, write_result

COLORS = ("red", "black", "blue", "green", "white", "yellow", "pink", "gray", "brown", "orange")
CHANGES = (
    "in {}", "the same but {}", "in {} with stripes", "in {} without stripes", "in {} with dots", "checked and {}", "plain {}",
    "with long sleeves, in {}", "shorter, in {}", "more elegant, in {}",
)  # fmt: skip
PROMPTS = tuple(change.format(color) for change in CHANGES for color in COLORS)
N_REFERENCES = 200
N_HITS = 24
N_WARM_UP = 20  # requests before the measurement


@dataclass
class ClientLog:
    """The requests of one client."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = make_parser(__doc__, "server")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    write_result(measure(options.clients, options.seconds), options.out, "server")


def measure(clients: int, seconds: float) -> dict[str, Any]:
    """Measures a single client, then many clients at the same time."""
    all_ids = mm.Gallery.open(mm.wardrobe.gallery_folder()).ids
    ids = all_ids[:: len(all_ids) // N_REFERENCES]
    with start_server() as (process, address):
        run_client(address, ids, ClientLog(), count=N_WARM_UP)
        single_client = ClientLog()
        run_client(address, ids, single_client, count=10 * N_WARM_UP)
        before = memory_mb(process)
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            logs = [ClientLog() for _ in range(clients)]
            list(pool.map(lambda log: run_client(address, ids, log, until=started + seconds), logs))
        elapsed = time.perf_counter() - started
        after = memory_mb(process)
    durations = [duration for log in logs for duration in log.seconds]
    return {
        "gallery": f"{len(all_ids)} drawings",
        "request": f"one of {len(ids)} items and one of {len(PROMPTS)} prompts, {N_HITS} hits",
        "clients": clients,
        "seconds": round(elapsed, 1),
        "requests": len(durations),
        "requests a second": len(durations) / elapsed,
        "milliseconds": milliseconds(durations),
        "milliseconds of one client alone": milliseconds(single_client.seconds),
        "errors": dict(sum((log.errors for log in logs), Counter())),
        "memory of the server, MB": {"before": before, "after": after},
    }


@contextmanager
def start_server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Starts the server with the command line, and yields its process and its address."""
    command = [sys.executable, "-m", "mmretrieve.cli.main", "serve", "wardrobe"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"http://\S+", line)
            if match is None:
                raise SystemExit(f"the server did not start: {line}")
            yield process, match[0]
        finally:
            process.terminate()


def run_client(
    address: str, ids: tuple[str, ...], log: ClientLog, *, count: int = sys.maxsize, until: float = float("inf")
) -> None:
    """One client: sends `count` requests, or requests until the time `until`, over one connection."""
    url, rng = urlsplit(address), random.Random()
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
    for _ in range(count):
        started = time.perf_counter()
        if started > until:
            break
        body = {"reference_id": rng.choice(ids), "prompt": rng.choice(PROMPTS), "beta": rng.random(), "k": N_HITS}
        try:
            connection.request("POST", "/api/search", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            payload = json.loads(response.read())
            log.seconds.append(time.perf_counter() - started)
            if response.status != 200 or len(payload["hits"]) != N_HITS:
                log.errors[str(response.status)] += 1
        except (OSError, http.client.HTTPException) as error:
            log.errors[type(error).__name__] += 1
            connection.close()
    connection.close()


def memory_mb(process: subprocess.Popen[str]) -> float:
    """The resident memory of a process in MB."""
    output = subprocess.run(["ps", "-o", "rss=", "-p", str(process.pid)], capture_output=True, text=True, check=True).stdout
    return int(output) / 1024


def milliseconds(durations: list[float]) -> dict[str, float]:
    return {name: 1000 * float(np.quantile(durations, share)) for name, share in (("p50", 0.5), ("p99", 0.99))}


if __name__ == "__main__":
    main()
