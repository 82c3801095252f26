"""Runs the server: at which address, and who may reach it there."""

from __future__ import annotations

import secrets
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import ASGIApp

from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.server.auth import PARAMETER, Auth, is_loopback

FIRST_PORT, PORTS_TRIED = 7860, 20
AUTO = "auto"


@dataclass(frozen=True)
class ListenAddress:
    """Where a server listens: a socket that is bound already, so that nobody takes the port meanwhile."""

    host: str
    socket: socket.socket

    @property
    def port(self) -> int:
        port: int = self.socket.getsockname()[1]
        return port

    def link(self, guard: Auth) -> str:
        """The address for a browser, with the token where there is one."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}" + (f"/?{PARAMETER}={guard.token}" if guard.token else "")


def guard_from(token: str | None, user: str | None) -> Auth:
    """From the shell's words: a token, "auto" for a new one, or "name:password". OptionError for what is neither."""
    if user is None:
        return Auth(secrets.token_urlsafe(24) if token == AUTO else token)
    name, colon, password = user.partition(":")
    if not name or not colon:
        raise OptionError("a user is given as NAME:PASSWORD")
    return Auth(token, (name, password))


def address(host: str, port: int | None, guard: Auth) -> ListenAddress:
    """A bound socket: at that port, or at the first free one from 7860. OptionError for an open server that others could reach."""
    if guard.is_open and not is_loopback(host):
        raise OptionError(f"{host}: others can reach this address; give --token or --user, or leave the host out")
    ports = [port] if port is not None else range(FIRST_PORT, FIRST_PORT + PORTS_TRIED)
    for tried in ports:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            bound = socket.create_server((host, tried), family=family, backlog=512)
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms for an acknowledgement
            return ListenAddress(host, bound)
        except OSError as error:
            reason = error.strerror or str(error)
    what = f"port {port}" if port is not None else f"ports {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1}"
    raise MMRetrieveError(f"cannot listen at {host}, {what}: {reason}; name another with --port or --host")


def run(app: ASGIApp, at: ListenAddress) -> None:
    """Serves until SIGINT or SIGTERM, answers what has begun, and lets go of the port."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises it again once it has stopped
    with at.socket, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[at.socket])
    signal.signal(signal.SIGTERM, before)
