"""The door before everything that computes: so many at once, so many waiting, and nobody for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mmretrieve.errors import BusyError, SearchTimeoutError

T = TypeVar("T")


class BoundedExecutor:
    """Runs functions in threads. What has begun cannot be stopped: it keeps its place until it ends, whoever has left."""

    def __init__(self, workers: int, waiting: int, seconds: float) -> None:
        self._workers, self._room, self._seconds = workers, workers + waiting, seconds
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="mmretrieve")
        self.inside = 0  # computing or waiting

    @property
    def running(self) -> int:
        return min(self.inside, self._workers)

    @property
    def waiting(self) -> int:
        return self.inside - self.running

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives. BusyError at once where too many wait already, SlowError where it takes too long."""
        if self.inside >= self._room:
            raise BusyError(f"{self.inside} requests are under way or waiting; try again in a moment")
        self.inside += 1
        future = self._threads.submit(work)
        future.add_done_callback(self._left(asyncio.get_running_loop()))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError as error:
            raise SearchTimeoutError(f"this took longer than {self._seconds:g} seconds and was given up") from error

    def _left(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        """One less inside; counted where the counting began, as futures end in threads of their own."""

        def leave() -> None:
            self.inside -= 1

        def told(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(leave)

        return told

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
