"""Runs the application: where the server listens, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from threading import Timer
from types import FrameType
from typing import Any

import anyio
import uvicorn
from starlette.types import ASGIApp

from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.retriever import Retriever
from mmretrieve.server.auth import PARAMETER, Auth, is_loopback
from mmretrieve.server.concurrency import threads_end_within
from mmretrieve.server.connections import BoundedProtocol, end_overdue
from mmretrieve.server.context import AppContext
from mmretrieve.server.limits import Limits
from mmretrieve.server.mcp import make_mcp_server, serve_stdio

FIRST_PORT, PORTS_TRIED = 7860, 20
GRACEFUL_SECONDS = 3  # for requests that have begun when the server is told to end
EXIT_SECONDS = 6.0  # then the process ends, whatever its threads do


def bind(host: str, port: int | None, auth: Auth) -> socket.socket:
    """A socket bound to that port, or to the first free one from 7860, so that no other program takes it.

    Raises OptionError for an open server that others can reach, MMRetrieveError if no port is free.
    """
    if auth.is_open and not is_loopback(host):
        raise OptionError(f"{host}: others can reach this address; give --token or --user, or leave out --host")
    ports = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS_TRIED)
    for tried in ports:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            bound = socket.create_server((host, tried), family=family, backlog=512)
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms for an acknowledgement
            return bound
        except OSError as error:
            reason = error.strerror or str(error)
    what = f"port {port}" if port is not None else f"ports {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1}"
    raise MMRetrieveError(f"cannot listen at {host}, {what}: {reason}; name another with --port or --host")


def url_of(bound: socket.socket, host: str, token: str | None = None) -> str:
    """The URL for a browser, with the token if one is given."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{bound.getsockname()[1]}" + (f"/?{PARAMETER}={token}" if token else "")


def make_server(app: ASGIApp, limits: Limits, **options: Any) -> uvicorn.Server:
    """uvicorn's server for an application, with bounded connections and without websockets. options: of `uvicorn.Config`."""
    protocol: Any = partial(BoundedProtocol, limits=limits)
    options |= {"ws": "none", "server_header": False, "access_log": False, "timeout_notify": 0}
    server = _Server(uvicorn.Config(app, http=protocol, timeout_graceful_shutdown=GRACEFUL_SECONDS, **options))

    async def check() -> None:
        end_overdue(server.server_state.connections, limits)

    server.config.callback_notify = check  # about once a second
    return server


def run(app: ASGIApp, bound: socket.socket, limits: Limits | None = None) -> None:
    """Serves until SIGINT or SIGTERM, completes the requests that have begun, and releases the port.

    The process ends EXIT_SECONDS after the signal, and before that if only threads remain that compute for nobody: Python would wait
    for them. limits: those of the application.
    """
    server = make_server(app, limits or Limits(), log_level="error")
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises it again once it has stopped
    with bound, suppress(KeyboardInterrupt):
        server.run(sockets=[bound])
    signal.signal(signal.SIGTERM, previous)
    if not threads_end_within(1.0):
        sys.stdout.flush()
        os._exit(0)


def run_stdio(retriever: Retriever) -> None:
    """Serves one agent over stdin and stdout, until it disconnects."""
    context = AppContext.of(retriever, Limits(), reads_files=True)
    anyio.run(serve_stdio, make_mcp_server(context))
    context.close()


class _Server(uvicorn.Server):
    """uvicorn's server, whose process ends some time after a signal even if a thread does not."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        timer = Timer(EXIT_SECONDS, os._exit, (0,))
        timer.daemon = True
        timer.start()
