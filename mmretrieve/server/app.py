"""The whole server as one application: API, MCP, metrics and, if given, a page, behind one authentication; and where it listens."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from fastapi import FastAPI
from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import Route
from starlette.types import ASGIApp

from mmretrieve import __version__
from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.retriever import Retriever
from mmretrieve.server.api import api_routes
from mmretrieve.server.auth import PARAMETER, Auth, is_loopback
from mmretrieve.server.context import AppContext
from mmretrieve.server.docs import add_docs, add_security
from mmretrieve.server.errors import add_error_handlers
from mmretrieve.server.limits import Limits
from mmretrieve.server.mcp import make_mcp_server, serve_stdio
from mmretrieve.server.metrics import Metrics
from mmretrieve.server.middleware import SecurityMiddleware
from mmretrieve.server.paths import PathMiddleware, parse_root_path

FIRST_PORT, PORTS_TRIED = 7860, 20
Page = Callable[[FastAPI, AppContext], FastAPI]


def create_app(
    retriever: Retriever,
    *,
    auth: Auth | None = None,
    limits: Limits | None = None,
    page: Page | None = None,
    root_path: str = "",
) -> ASGIApp:
    """An ASGI application over one gallery.

    Parameters
    ----------
    retriever : the gallery with its encoder.
    auth : what a client must send; by default nothing, and then only requests to loopback names are answered.
    limits : bounds that depend on the machine.
    page : adds routes of its own, and may put a page at the root.
    root_path : the path under which a proxy offers the server, such as /shop; the proxy may pass it on or remove it.
    """
    auth, bounds, root_path = auth or Auth(), limits or Limits(), parse_root_path(root_path)
    context = AppContext.of(retriever, bounds)
    metrics = Metrics(context)
    mcp_server = make_mcp_server(context)
    mcp_app = mcp_server.streamable_http_app(
        stateless_http=True,
        json_response=True,
        max_request_body_size=bounds.body_bytes,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # SecurityMiddleware does it
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with mcp_server.session_manager.run():
            yield
        context.close()

    app = FastAPI(
        title="mmretrieve", version=__version__, summary="Search images with reference images and prompts.",
        openapi_url="/api/openapi.json", docs_url=None, redoc_url=None, redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their functions
        lifespan=lifespan,
    )  # fmt: skip
    add_error_handlers(app, context.service)
    app.include_router(api_routes(context))
    for route in mcp_app.routes:
        if isinstance(route, Route):  # the server sends no messages of its own, so there is no stream to GET
            app.router.routes.append(Route(route.path, route.endpoint, methods=["POST"]))
    add_security(app, auth)
    add_docs(app)
    app.add_api_route("/metrics", metrics.response, include_in_schema=False)
    if page is None:
        app.add_api_route("/", _index, include_in_schema=False)
    else:
        app = page(app, context)
    return PathMiddleware(metrics.middleware(SecurityMiddleware(app, auth, bounds)), root_path)


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


def run(app: ASGIApp, bound: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM, completes the requests that have begun, and releases the port."""
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises it again once it has stopped
    with bound, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[bound])
    signal.signal(signal.SIGTERM, previous)


def run_stdio(retriever: Retriever) -> None:
    """Serves one agent over stdin and stdout, until it disconnects."""
    context = AppContext.of(retriever, Limits(), reads_files=True)
    anyio.run(serve_stdio, make_mcp_server(context))
    context.close()


def _index() -> dict[str, Any]:
    return {"docs": "/docs", "api": "/api/openapi.json", "mcp": "/mcp", "metrics": "/metrics", "health": "/api/health"}
