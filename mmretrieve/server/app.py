"""The whole server as one application: API, MCP, metrics and, if given, a page, behind one authentication."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import FastAPI
from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import Route
from starlette.types import ASGIApp

from mmretrieve import __version__
from mmretrieve.retriever import Retriever
from mmretrieve.server.api import api_routes
from mmretrieve.server.auth import Auth
from mmretrieve.server.context import AppContext
from mmretrieve.server.errors import add_error_handlers
from mmretrieve.server.limits import Limits
from mmretrieve.server.mcp import make_mcp_server, serve_stdio
from mmretrieve.server.metrics import Metrics, MetricsMiddleware
from mmretrieve.server.middleware import SecurityMiddleware

Page = Callable[[FastAPI, AppContext], FastAPI]


def create_app(
    retriever: Retriever, *, auth: Auth | None = None, limits: Limits | None = None, page: Page | None = None
) -> ASGIApp:
    """An ASGI application over one gallery.

    Parameters
    ----------
    retriever : the gallery with its encoder.
    auth : what a client must know; by default nothing, and then only names of this machine are answered.
    limits : bounds that depend on the machine.
    page : adds routes of its own, and may put a page at the root.
    """
    bounds = limits or Limits()
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
        openapi_url="/api/openapi.json", docs_url=None, redoc_url=None, lifespan=lifespan,
    )  # fmt: skip
    add_error_handlers(app, context.service)
    app.include_router(api_routes(context))
    for route in mcp_app.routes:
        if isinstance(route, Route):  # the server sends nothing unasked, so there is no stream to GET
            app.router.routes.append(Route(route.path, route.endpoint, methods=["POST"]))
    app.add_api_route("/metrics", metrics.response, include_in_schema=False)
    if page is None:
        app.add_api_route("/", _index, include_in_schema=False)
    else:
        app = page(app, context)
    return MetricsMiddleware(SecurityMiddleware(app, auth or Auth(), bounds), metrics)


def run_stdio(retriever: Retriever) -> None:
    """Serves one agent over stdin and stdout, until it disconnects."""
    context = AppContext.of(retriever, Limits())
    anyio.run(serve_stdio, make_mcp_server(context))
    context.close()


def _index() -> dict[str, Any]:
    return {"api": "/api/openapi.json", "mcp": "/mcp", "metrics": "/metrics", "health": "/api/health"}
