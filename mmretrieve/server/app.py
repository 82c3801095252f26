"""The whole server as one application: API, MCP, metrics and, if given, a page, behind one authentication."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import Route
from starlette.types import ASGIApp

from mmretrieve import __version__
from mmretrieve.retriever import Retriever
from mmretrieve.server.api import api_routes
from mmretrieve.server.auth import Auth
from mmretrieve.server.context import AppContext
from mmretrieve.server.docs import add_docs, add_security
from mmretrieve.server.errors import add_error_handlers
from mmretrieve.server.limits import Limits
from mmretrieve.server.mcp import make_mcp_server
from mmretrieve.server.metrics import Metrics
from mmretrieve.server.middleware import SecurityMiddleware
from mmretrieve.server.paths import PathMiddleware, parse_root_path

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


def _index() -> dict[str, Any]:
    return {"docs": "/docs", "api": "/api/openapi.json", "mcp": "/mcp", "metrics": "/metrics", "health": "/api/health"}
