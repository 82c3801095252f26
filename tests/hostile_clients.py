"""Clients that want a server to stall, and what honest clients see of it.

`python tests/hostile_clients.py ADDRESS HALF_OPEN BODIES` attacks until it is killed: half-open connections, the two most expensive
filters, and large bodies. It has a process of its own, so that what it computes does not slow down those who measure.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

LARGE = 24_000_000  # bytes, a little below the limit of a request
FILTER = " OR ".join(f"text LIKE '%{'a' * 490}b'" for _ in range(4))  # the longest patterns that a filter may have


def connect(link: str) -> socket.socket:
    place = urlsplit(link)
    return socket.create_connection((place.hostname or "", place.port or 80), timeout=10)


def request(path: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """The bytes of a request; with `length`, the body is announced to be that long."""
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer_to(link: str, sent: bytes, seconds: float = 60) -> bytes:
    """All that the server sends after these bytes until it hangs up; the request should say Connection: close."""
    parts = []
    with connect(link) as client:
        client.settimeout(seconds)
        with suppress(OSError):
            client.sendall(sent)
        with suppress(OSError):
            while part := client.recv(65_536):
                parts.append(part)
    return b"".join(parts)


def status_of(link: str, sent: bytes, seconds: float = 60) -> int:
    """The status of the answer to these bytes; 0 if there is none."""
    words = answer_to(link, sent, seconds).partition(b"\r\n")[0].split()
    return int(words[1]) if len(words) > 1 else 0


def peak_memory(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


@dataclass
class Observed:
    """What honest clients saw: the seconds of each request, and each that was not answered with status 200."""

    health: list[float] = field(default_factory=list)
    searches: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def health_p99(self) -> float:
        return sorted(self.health)[int(0.99 * (len(self.health) - 1))]


def observe(link: str, seconds: float) -> Observed:
    """Health and searches of honest clients, one request after another, for that long."""
    observed, ends = Observed(), time.monotonic() + seconds

    def repeat(path: str, body: bytes, into: list[float]) -> None:
        while (started := time.monotonic()) < ends:
            status = 0
            with suppress(OSError):
                status = status_of(link, request(path, body, "Connection: close"))
            into.append(time.monotonic() - started)
            if status != 200:
                observed.failures.append(f"{path}: {status} after {into[-1]:.2f} s")
            time.sleep(0.05)

    threads = [
        threading.Thread(target=repeat, args=("/api/health", b"", observed.health)),
        threading.Thread(target=repeat, args=("/api/search", b'{"prompt": "in red"}', observed.searches)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return observed


@contextmanager
def attacked(link: str, *, half_open: int, bodies: int = 10) -> Iterator[None]:
    """A server under attack, as long as this lasts."""
    attacker = subprocess.Popen([sys.executable, __file__, link, str(half_open), str(bodies)], stdout=subprocess.PIPE)
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == b"all attacks have begun\n"
        yield
    finally:
        attacker.kill()
        attacker.communicate()


def attack(link: str, half_open: int, bodies: int) -> None:
    """Attacks until the process is killed."""
    lists = request("/api/search", b'{"prompt": [' + b"[]," * 7_000_000 + b"[]]}", "Connection: close")
    names = b"{" + b",".join(b'"n%d":0' % i for i in range(900_000)) + b"}"
    unfinished = request("/api/search", LARGE * b" ", length=LARGE + 1)
    filtered = request("/api/search", b'{"prompt": "in red", "where": "' + FILTER.encode() + b'"}', "Connection: close")
    large = (lists, request("/api/batch", names, "Connection: close"), unfinished)
    sent = [filtered, request(f"/api/items?where={quote(FILTER)}", b"", "Connection: close"), *(large * bodies)[:bodies]]

    def repeat(part: bytes) -> None:
        while True:
            with suppress(OSError):
                answer_to(link, part)
            time.sleep(0.1)

    for part in sent:
        threading.Thread(target=repeat, args=(part,), daemon=True).start()
    hold_half_open(link, half_open, lambda: sys.stdout.write("all attacks have begun\n"))


def hold_half_open(link: str, count: int, on_begin: Callable[[], None]) -> None:
    """Keeps connections whose headers never end, and opens a new one for each that the server closes."""
    clients: list[socket.socket] = []
    while True:
        for client in clients[:]:
            try:
                client.send(b"a")
            except OSError:
                clients.remove(client)
                client.close()
        for _ in range(count - len(clients)):
            with suppress(OSError):
                client = connect(link)
                clients.append(client)
                client.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        on_begin()
        sys.stdout.flush()
        time.sleep(1)


if __name__ == "__main__":
    attack(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
