"""What the server counts, for Prometheus: requests, their duration, how many wait, batches, stages, caches, bytes that are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmretrieve.concurrency import LruCache
from mmretrieve.server.context import AppContext

OTHER = "other"  # an unknown route or method: clients must not create series
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BATCH_SIZES = (1, 2, 4, 8, 16)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counts by route and status, in a registry of its own: several servers in one process do not mix."""

    def __init__(self, context: AppContext) -> None:
        own = self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("mmretrieve_requests", "requests that were answered", labels, registry=own)
        self._seconds = Histogram(
            "mmretrieve_request_seconds", "from request to response", ("route",), buckets=SECONDS, registry=own
        )
        items = Gauge("mmretrieve_items", "items of the gallery", registry=own)
        items.set_function(lambda: len(context.service.retriever.gallery))
        stored = Gauge("mmretrieve_upload_bytes", "uploaded images that are stored", registry=own)
        stored.set_function(lambda: context.uploads.bytes)
        running = Gauge("mmretrieve_running", "requests that compute", ("gate",), registry=own)
        waiting = Gauge("mmretrieve_waiting", "requests that wait to", ("gate",), registry=own)
        given_up = Gauge("mmretrieve_given_up", "requests that compute for nobody", ("gate",), registry=own)
        for name, executor in context.executors.items():
            running.labels(name).set_function(partial(getattr, executor, "running"))
            waiting.labels(name).set_function(partial(getattr, executor, "waiting"))
            given_up.labels(name).set_function(partial(getattr, executor, "given_up"))
        batches = Histogram("mmretrieve_batch_requests", "requests computed together", buckets=BATCH_SIZES, registry=own)
        context.search_executor.on_batch = batches.observe
        stages = Histogram("mmretrieve_stage_seconds", "stages of batches", ("stage",), buckets=SECONDS, registry=own)
        context.service.on_stage = lambda stage, seconds: stages.labels(stage).observe(seconds)
        own.register(_CacheCollector(context.service.caches))

    def response(self) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """The application, with its requests counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            started, status = perf_counter(), 500

            async def send_and_note(message: Message) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            try:
                await app(scope, receive, send_and_note)
            finally:
                self._count(scope, status, perf_counter() - started)

        return counted

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", OTHER)
        method = scope["method"] if scope["method"] in METHODS else OTHER
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class _CacheCollector(Collector):
    """Look-ups of caches, which count them themselves."""

    def __init__(self, caches: Mapping[str, LruCache[Any]]) -> None:
        self._caches = caches

    def collect(self) -> Iterator[CounterMetricFamily]:
        lookups = CounterMetricFamily("mmretrieve_cache_lookups", "look-ups of what is remembered", labels=("cache", "result"))
        for name, cache in self._caches.items():
            lookups.add_metric((name, "hit"), cache.hits)
            lookups.add_metric((name, "miss"), cache.misses)
        yield lookups
