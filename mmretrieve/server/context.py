"""What every route, tool and page of one server shares: the service, uploads, and bounds on everything that computes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from mmretrieve.errors import BusyError, SearchTimeoutError
from mmretrieve.ranking import Ranking
from mmretrieve.retriever import Retriever
from mmretrieve.server.limits import Limits
from mmretrieve.server.schemas import SearchBody, SearchResponse
from mmretrieve.server.uploads import Uploads
from mmretrieve.service import SearchService

T = TypeVar("T")


class BoundedExecutor:
    """Runs functions in threads, `workers` at once. At most `waiting` more may wait, each for at most `seconds`.

    A function that has begun cannot be stopped: it counts until it ends, even if its client has left.
    """

    def __init__(self, workers: int, waiting: int, seconds: float) -> None:
        self._workers, self._capacity, self._seconds = workers, workers + waiting, seconds
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="mmretrieve")
        self.active = 0  # running or waiting

    @property
    def running(self) -> int:
        return min(self.active, self._workers)

    @property
    def waiting(self) -> int:
        return self.active - self.running

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`. Raises BusyError at once if too many wait already, SearchTimeoutError if it takes too long."""
        if self.active >= self._capacity:
            raise BusyError(f"{self.active} requests are running or waiting; try again in a moment")
        self.active += 1
        future = self._threads.submit(work)
        future.add_done_callback(self._on_done(asyncio.get_running_loop()))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError as error:
            raise SearchTimeoutError(
                f"the request took longer than {self._seconds:g} seconds; try again later, or send fewer requests"
            ) from error

    def _on_done(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        """Counts a future that ends, in the thread of the event loop that counted it."""

        def release() -> None:
            self.active -= 1

        def on_done(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(release)

        return on_done

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class AppContext:
    """The service, the images that were uploaded, and the executors: what computes waits for one, what only reads for the other."""

    service: SearchService
    uploads: Uploads
    search_executor: BoundedExecutor
    read_executor: BoundedExecutor

    @classmethod
    def of(cls, retriever: Retriever, limits: Limits) -> AppContext:
        return cls(
            SearchService(retriever),
            Uploads(limits),
            BoundedExecutor(limits.workers, limits.waiting, limits.seconds),
            BoundedExecutor(limits.workers, limits.reading, limits.seconds),
        )

    def search(self, body: SearchBody) -> SearchResponse:
        """The ranking of `Retriever.search`, with the fields of each hit and the seconds that it took."""
        started = perf_counter()
        return self.response(self.service.search(body.to_request(self.uploads)), started)

    def response(self, ranking: Ranking, started: float) -> SearchResponse:
        fields = self.service.fields(ranking)
        titles = list(map(self.service.gallery.title, ranking.ids, fields))
        return SearchResponse.of(ranking, titles, fields, perf_counter() - started)

    def close(self) -> None:
        self.search_executor.close()
        self.read_executor.close()
