"""What the server counts of itself, for Prometheus: requests, how long they took, who waits, what is kept."""

from __future__ import annotations

from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmretrieve.server.concurrency import BoundedExecutor
from mmretrieve.server.service import SearchService

OTHER = "other"  # a route that there is not, or a method that nobody means: clients must not make up names of series
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counts by route and status. Its registry is its own: several servers in one process do not mix."""

    def __init__(self, answers: SearchService, gates: dict[str, BoundedExecutor]) -> None:
        own = self._registry = CollectorRegistry()
        told = ("method", "route", "status")
        self._requests = Counter("mmretrieve_requests", "requests that were answered", told, registry=own)
        self._seconds = Histogram(
            "mmretrieve_request_seconds", "from request to answer", ("route",), buckets=SECONDS, registry=own
        )
        items = Gauge("mmretrieve_items", "items of the gallery", registry=own)
        items.set_function(lambda: len(answers.retriever.gallery))
        kept = Gauge("mmretrieve_upload_bytes", "uploaded pictures that are kept", registry=own)
        kept.set_function(lambda: answers.uploads.bytes)
        running = Gauge("mmretrieve_running", "requests that compute", ("gate",), registry=own)
        waiting = Gauge("mmretrieve_waiting", "requests that wait to", ("gate",), registry=own)
        for name, gate in gates.items():
            running.labels(name).set_function(lambda gate=gate: gate.running)  # type: ignore[misc]
            waiting.labels(name).set_function(lambda gate=gate: gate.waiting)  # type: ignore[misc]

    def metrics(self) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", OTHER)
        method = scope["method"] if scope["method"] in METHODS else OTHER
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class MetricsMiddleware:
    """An application whose requests are counted."""

    def __init__(self, app: ASGIApp, watch: Metrics) -> None:
        self._app, self._watch = app, watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            self._watch.count(scope, status, perf_counter() - started)
