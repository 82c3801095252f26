"""The whole server as one application: API, tools for agents, metrics, perhaps a page, behind one guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from fastapi import FastAPI
from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import Route
from starlette.types import ASGIApp

from mmretrieve import __version__
from mmretrieve.retriever import Retriever
from mmretrieve.server import errors
from mmretrieve.server.api import api
from mmretrieve.server.auth import Auth
from mmretrieve.server.concurrency import BoundedExecutor
from mmretrieve.server.limits import Limits
from mmretrieve.server.mcp import agent_server, speak
from mmretrieve.server.metrics import Metrics, MetricsMiddleware
from mmretrieve.server.middleware import SecurityMiddleware
from mmretrieve.server.service import SearchService
from mmretrieve.server.uploads import Uploads


@dataclass(frozen=True)
class AppContext:
    """What a page is built of: the answers, and the gates that its work goes through."""

    answers: SearchService
    searching: BoundedExecutor
    reading: BoundedExecutor


Page = Callable[[FastAPI, AppContext], FastAPI]


def build(
    retriever: Retriever, *, guard: Auth | None = None, limits: Limits | None = None, page: Page | None = None
) -> ASGIApp:
    """An ASGI application over one gallery. `page` adds routes of its own, and may put a page at the root."""
    bounds = limits or Limits()
    answers = SearchService(retriever, Uploads(bounds))
    house = AppContext(
        answers,
        BoundedExecutor(bounds.workers, bounds.waiting, bounds.seconds),
        BoundedExecutor(bounds.workers, bounds.reading, bounds.seconds),
    )
    watch = Metrics(answers, {"searching": house.searching, "reading": house.reading})
    agents = agent_server(answers, house.searching)
    spoken = agents.streamable_http_app(
        stateless_http=True,
        json_response=True,
        max_request_body_size=bounds.body_bytes,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # the guard does it for everything
    )

    @asynccontextmanager
    async def alive(_: FastAPI) -> AsyncIterator[None]:
        async with agents.session_manager.run():
            yield
        house.searching.close()
        house.reading.close()

    app = FastAPI(
        title="mmretrieve", version=__version__, summary="Find images like a picture, but …",
        openapi_url="/api/openapi.json", docs_url=None, redoc_url=None, lifespan=alive,
    )  # fmt: skip
    errors.install(app, answers)
    app.include_router(api(answers, house.searching, house.reading))
    for route in spoken.routes:
        if isinstance(route, Route):  # nothing is told unasked, so there is no stream to GET
            app.router.routes.append(Route(route.path, route.endpoint, methods=["POST"]))
    app.add_api_route("/metrics", watch.metrics, include_in_schema=False)
    if page is None:
        app.add_api_route("/", _index, include_in_schema=False)
    else:
        app = page(app, house)
    return MetricsMiddleware(SecurityMiddleware(app, guard or Auth(), bounds), watch)


def speak_to_one(retriever: Retriever) -> None:
    """Serves one agent over stdin and stdout, until it leaves."""
    bounds = Limits()
    gate = BoundedExecutor(bounds.workers, bounds.waiting, bounds.seconds)
    anyio.run(speak, agent_server(SearchService(retriever, Uploads(bounds)), gate))
    gate.close()


def _index() -> dict[str, Any]:
    return {"api": "/api/openapi.json", "mcp": "/mcp", "metrics": "/metrics", "health": "/api/health"}
