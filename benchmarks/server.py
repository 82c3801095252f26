"""How a server does under load: `python -m benchmarks.server [--clients 50] [--seconds 60] [--out results]`.

A real process serves the built-in gallery; clients ask one question after the other, each an item and a prompt, for 24 hits.
Clients and server share the machine's cores.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
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
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

import mmretrieve as mm

PROMPTS = ("in red", "in black", "with long sleeves", "striped", "the same but blue")
HITS = 24
WARM_UP = 20  # questions before anything is measured


@dataclass
class Told:
    """What one client saw."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, help="folder for server.json")
    options = parser.parse_args()
    text = json.dumps(measure(options.clients, options.seconds), indent=1)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "server.json").write_text(text + "\n")


def measure(clients: int, seconds: float) -> dict[str, Any]:
    """Many clients for a while, and one alone before them."""
    ids = mm.Gallery.open(mm.wardrobe.gallery_folder()).ids
    with serving() as (process, address):
        ask(address, ids, Told(), count=WARM_UP)
        alone = Told()
        ask(address, ids, alone, count=10 * WARM_UP)
        before = memory(process)
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as people:
            all_told = [Told() for _ in range(clients)]
            list(people.map(lambda told: ask(address, ids, told, until=started + seconds), all_told))
        spent = time.perf_counter() - started
        after = memory(process)
    times = [one for told in all_told for one in told.seconds]
    return {
        "gallery": f"{len(ids)} drawings",
        "question": f"an item and a prompt, {HITS} hits",
        "clients": clients,
        "seconds": round(spent, 1),
        "requests": len(times),
        "requests a second": len(times) / spent,
        "milliseconds": milliseconds(times),
        "milliseconds of one client alone": milliseconds(alone.seconds),
        "errors": dict(sum((told.errors for told in all_told), Counter())),
        "memory of the server, MB": {"before": before, "after": after},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }


@contextmanager
def serving() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server as a person starts it: its process, and its address."""
    command = [sys.executable, "-m", "mmretrieve.cli.main", "serve", "wardrobe"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            if found is None:
                raise SystemExit(f"the server did not start: {line}")
            yield process, found[0]
        finally:
            process.terminate()


def ask(address: str, ids: tuple[str, ...], told: Told, *, count: int = sys.maxsize, until: float = float("inf")) -> None:
    """One client: so many questions, or for so long, over one connection."""
    place, draw = urlsplit(address), random.Random()
    line = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    for _ in range(count):
        started = time.perf_counter()
        if started > until:
            break
        question = {"reference_id": draw.choice(ids), "prompt": draw.choice(PROMPTS), "beta": draw.random(), "k": HITS}
        try:
            line.request("POST", "/api/search", json.dumps(question), {"Content-Type": "application/json"})
            answer = line.getresponse()
            found = json.loads(answer.read())
            told.seconds.append(time.perf_counter() - started)
            if answer.status != 200 or len(found["hits"]) != HITS:
                told.errors[str(answer.status)] += 1
        except (OSError, http.client.HTTPException) as error:
            told.errors[type(error).__name__] += 1
            line.close()
    line.close()


def memory(process: subprocess.Popen[str]) -> float:
    """What a process holds of the machine's memory, in MB."""
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(process.pid)], capture_output=True, text=True, check=True).stdout
    return int(said) / 1024


def milliseconds(times: list[float]) -> dict[str, float]:
    return {name: 1000 * float(np.quantile(times, share)) for name, share in (("p50", 0.5), ("p99", 0.99))}


if __name__ == "__main__":
    main()
