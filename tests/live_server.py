"""Real servers for tests: uvicorn on 127.0.0.1, in a thread of this process or as the command that a person types."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from starlette.types import ASGIApp

import mmretrieve as mm
from mmretrieve.request import SearchRequest
from mmretrieve.server.auth import Auth
from mmretrieve.server.limits import Limits
from mmretrieve.server.run import bind, make_server

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0
LINK = re.compile(r"http://\S+")


class SlowRetriever(mm.Retriever):
    """A retriever whose searches, or those with a filter, end when `let` is set."""

    def __init__(self, retriever: mm.Retriever, *, filtered_only: bool = False) -> None:
        super().__init__(retriever.gallery, retriever.encoder)
        self.filtered_only = filtered_only
        self.let = threading.Event()
        self.sizes: list[int] = []  # of the batches

    @property
    def begun(self) -> int:
        return len(self.sizes)

    def compose_requests(self, requests: Sequence[SearchRequest]) -> list[mm.Composition]:
        self.sizes.append(len(requests))
        if not self.filtered_only or any(request.where is not None for request in requests):
            assert self.let.wait(PATIENCE)
        return super().compose_requests(requests)


@contextmanager
def served(app: ASGIApp, limits: Limits | None = None) -> Iterator[str]:
    """The address of an application that is served by a thread, as long as this lasts."""
    bound = bind("127.0.0.1", 0, Auth())
    server = make_server(app, limits or Limits(), log_level="critical")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        bound.close()


@contextmanager
def command(*words: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m …`, which prints its address: the process, and that address."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("MMRETRIEVE_") or name.endswith("CACHE")}
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=known | environment,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        link = LINK.search(line)
        assert link, f"{words} printed {line!r} and {process.stderr.read() if not line else ''!r}"
        yield process, link[0]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.stdout.close()
            process.stderr.close()


def free_port() -> int:
    """A port that no program listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: object, seconds: float = PATIENCE) -> None:
    """Waits for what will be so in a moment."""
    assert callable(holds)
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.01)
