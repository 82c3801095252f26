"""Runs the server: where it listens, and who may reach it there."""

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
    """Where a server listens: a socket that is bound already, so that no other program takes the port."""

    host: str
    socket: socket.socket

    @property
    def port(self) -> int:
        port: int = self.socket.getsockname()[1]
        return port

    def url(self, token: str | None = None) -> str:
        """The URL for a browser, with the token if one is given."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}" + (f"/?{PARAMETER}={token}" if token else "")


def parse_auth(token: str | None, user: str | None) -> Auth:
    """From the shell's options: a token, "auto" for a new one, or "name:password". Raises OptionError for anything else."""
    if user is None:
        return Auth(secrets.token_urlsafe(24) if token == AUTO else token)
    name, colon, password = user.partition(":")
    if not name or not colon:
        raise OptionError("expected a user as NAME:PASSWORD, with a name and a colon")
    return Auth(token, (name, password))


def bind(host: str, port: int | None, auth: Auth) -> ListenAddress:
    """A bound socket at that port, or at the first free one from 7860. Raises OptionError for an open server that others can reach."""
    if auth.is_open and not is_loopback(host):
        raise OptionError(f"{host}: others can reach this address; give --token or --user, or leave out --host")
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


def run(app: ASGIApp, address: ListenAddress) -> None:
    """Serves until SIGINT or SIGTERM, completes the requests that have begun, and releases the port."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises it again once it has stopped
    with address.socket, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[address.socket])
    signal.signal(signal.SIGTERM, previous)
