"""Threads that compute for requests: a bounded number at once, with a bounded queue, and without waiting for one that never ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread, get_native_id
from threading import enumerate as enumerate_threads
from time import monotonic
from typing import Any, TypeVar

from mmretrieve.errors import BusyError, SearchTimeoutError

T = TypeVar("T")
THREAD_NAME = "mmretrieve executor"


class BoundedExecutor:
    """Runs functions in threads, `workers` at once. At most `waiting` more may wait, each for at most `seconds`.

    A function that has begun cannot be stopped: it counts until it ends, even if its client has left. But after it has run for
    `seconds`, its thread is given up: another one takes its place. Up to `given_up` threads at once are replaced. The threads are
    daemons, so that they do not keep the process from ending. `niceness` lowers their priority.

    All but `_work` runs in the thread of the event loop.
    """

    def __init__(self, workers: int, waiting: int, seconds: float, given_up: int, niceness: int = 0) -> None:
        self._workers, self._capacity, self._seconds, self._most_given_up = workers, workers + waiting, seconds, given_up
        self._niceness = niceness
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = 0  # that take jobs
        self.active = 0  # running or waiting
        self.given_up = 0  # running, but replaced

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
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._jobs.put(job)
        if self._threads < min(self.active, self._workers):
            self._start_thread()
        try:
            result: T = await asyncio.wait_for(job.result, self._seconds)
        except TimeoutError as error:
            raise SearchTimeoutError(
                f"the request took longer than {self._seconds:g} seconds; try again later, or send fewer requests"
            ) from error
        return result

    def close(self) -> None:
        """Ends the threads that wait for work."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _start_thread(self) -> None:
        self._threads += 1
        Thread(target=self._work, name=THREAD_NAME, daemon=True).start()

    def _work(self) -> None:
        if self._niceness and sys.platform == "linux":  # where priority belongs to a thread
            os.setpriority(os.PRIO_PROCESS, get_native_id(), self._niceness)
        while (job := self._jobs.get()) is not None:
            if job.result.done():  # its client was answered, or has left, before it began
                job.call(self._on_end, job)
                continue
            job.call(self._on_start, job)
            job.run()
            job.call(self._on_end, job)
            if job.is_given_up:
                return

    def _on_start(self, job: _Job) -> None:
        job.timer = job.loop.call_later(self._seconds, self._give_up, job)

    def _give_up(self, job: _Job) -> None:
        """Replaces the thread of a job, unless it ends now; later if too many others were replaced."""
        if self.given_up >= self._most_given_up:
            self._on_start(job)
        elif job.give_up():
            self.given_up += 1
            self.active -= 1
            self._threads -= 1
            self._start_thread()

    def _on_end(self, job: _Job) -> None:
        if job.timer is not None:
            job.timer.cancel()
        if job.is_given_up:
            self.given_up -= 1
        else:
            self.active -= 1
        job.settle()


def threads_end_within(seconds: float) -> bool:
    """Whether all threads of executors, which were closed, end within that time: one that computes may not."""
    ends = monotonic() + seconds
    threads = [thread for thread in enumerate_threads() if thread.name == THREAD_NAME]
    for thread in threads:
        thread.join(max(0.0, ends - monotonic()))
    return not any(thread.is_alive() for thread in threads)


@dataclass(eq=False)
class _Job:
    """A function, and the future of its result."""

    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[Any]
    timer: asyncio.TimerHandle | None = None
    value: Any = None
    error: BaseException | None = None
    is_given_up: bool = False
    has_ended: bool = False

    def __post_init__(self) -> None:
        self._lock = Lock()

    def run(self) -> None:
        try:
            self.value = self.work()
        except BaseException as error:
            self.error = error
        with self._lock:
            self.has_ended = True

    def give_up(self) -> bool:
        """Whether the thread that runs this job will end with it; False if the job has ended."""
        with self._lock:
            self.is_given_up = not self.has_ended
        return self.is_given_up

    def settle(self) -> None:
        """Hands the result to whoever still waits for it."""
        if self.result.done():
            return
        if self.error is None:
            self.result.set_result(self.value)
        else:
            self.result.set_exception(self.error)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Calls a function in the thread of the event loop, unless the server has ended."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(function, *arguments)
