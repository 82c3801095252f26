"""Threads that compute for requests: a bounded number at once, with a bounded queue, and without waiting for one that never ends.

Requests that wait for the same kind of work are computed together: no request waits for others while a thread is free, and the
longer the queue, the larger the batches.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread, get_native_id
from threading import enumerate as enumerate_threads
from time import monotonic
from typing import Any, TypeVar

from mmretrieve.errors import BusyError, SearchTimeoutError

T = TypeVar("T")
R = TypeVar("R")
THREAD_NAME = "mmretrieve executor"


class BoundedExecutor:
    """Runs functions in threads, `workers` at once. At most `waiting` more requests may wait, each for at most `seconds`.

    A function that has begun cannot be stopped: it counts until it ends, even if its client has left. But after it has run for
    `seconds`, its thread is given up: another one takes its place. Up to `given_up` threads at once are replaced. The threads are
    daemons, so that they do not keep the process from ending. A thread computes up to `batch` requests of one kind together.
    `niceness` lowers the priority of the threads. `on_batch` is called with the size of each batch.

    All but `_work` runs in the thread of the event loop.
    """

    def __init__(self, workers: int, waiting: int, seconds: float, given_up: int, *, batch: int = 1, niceness: int = 0) -> None:
        self._workers, self._most_waiting, self._seconds, self._most_given_up = workers, waiting, seconds, given_up
        self._batch, self._niceness = batch, niceness
        self._queue = deque[_Job]()
        self._batches = SimpleQueue[_Batch | None]()
        self._threads = 0  # that take batches
        self._computing = 0  # of them
        self.running = 0  # requests that are computed
        self.given_up = 0  # threads that compute, but are replaced
        self.on_batch: Callable[[int], object] = lambda _: None

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`. Raises BusyError at once if too many wait already, SearchTimeoutError if it takes too long."""
        return await self.run_together(lambda _: [work()], None)

    async def run_together(self, compute: Callable[[list[T]], Sequence[R]], value: T, kind: Hashable = None) -> R:
        """The result of `compute` for this value, which it may get together with others. Raises as `run`, and what `compute` raises.

        kind: values of an equal kind that wait are computed in one call, by the function of the first; None: each alone.
        """
        if self._computing >= self._workers and self.waiting >= self._most_waiting:
            raise BusyError(f"{self.running + self.waiting} requests are running or waiting; try again in a moment")
        job = _Job(compute, value, kind, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._start_batches()
        try:
            result: R = await asyncio.wait_for(job.result, self._seconds)
        except TimeoutError as error:
            raise SearchTimeoutError(
                f"the request took longer than {self._seconds:g} seconds; try again later, or send fewer requests"
            ) from error
        finally:
            if job in self._queue:  # the error of `remove` would describe it, its result too, in milliseconds
                self._queue.remove(job)
        return result

    def close(self) -> None:
        """Ends the threads that wait for work."""
        for _ in range(self._threads):
            self._batches.put(None)

    def _start_batches(self) -> None:
        """Hands what waits to the threads that are free."""
        while self._queue and self._computing < self._workers:
            batch = _Batch(self._next_jobs(), asyncio.get_running_loop())
            batch.timer = batch.loop.call_later(self._seconds, self._give_up, batch)
            self._computing += 1
            self.running += len(batch.jobs)
            self.on_batch(len(batch.jobs))
            if self._threads < self._computing:
                self._threads += 1
                Thread(target=self._work, name=THREAD_NAME, daemon=True).start()
            self._batches.put(batch)

    def _next_jobs(self) -> list[_Job]:
        """The job that has waited longest, and others of its kind, which leave the queue."""
        first = self._queue[0]
        others = [] if first.kind is None else [job for job in self._queue if job is not first and job.kind == first.kind]
        jobs = [first, *others[: self._batch - 1]]
        for job in jobs:
            self._queue.remove(job)
        return jobs

    def _work(self) -> None:
        if self._niceness and sys.platform == "linux":  # where priority belongs to a thread
            os.setpriority(os.PRIO_PROCESS, get_native_id(), self._niceness)
        while (batch := self._batches.get()) is not None:
            batch.run()
            with suppress(RuntimeError):  # the server has ended
                batch.loop.call_soon_threadsafe(self._on_end, batch)
            if batch.is_given_up:
                return

    def _give_up(self, batch: _Batch) -> None:
        """Replaces the thread of a batch, unless it ends now; later if too many others were replaced."""
        if self.given_up >= self._most_given_up:
            batch.timer = batch.loop.call_later(self._seconds, self._give_up, batch)
        elif batch.give_up():
            self.given_up += 1
            self._threads -= 1
            self._release(batch)

    def _on_end(self, batch: _Batch) -> None:
        batch.timer.cancel()
        if batch.is_given_up:
            self.given_up -= 1
        else:
            self._release(batch)
        batch.settle()

    def _release(self, batch: _Batch) -> None:
        """Makes room for the next batch."""
        self._computing -= 1
        self.running -= len(batch.jobs)
        self._start_batches()


def threads_end_within(seconds: float) -> bool:
    """Whether all threads of executors, which were closed, end within that time: one that computes may not."""
    ends = monotonic() + seconds
    threads = [thread for thread in enumerate_threads() if thread.name == THREAD_NAME]
    for thread in threads:
        thread.join(max(0.0, ends - monotonic()))
    return not any(thread.is_alive() for thread in threads)


@dataclass(frozen=True, eq=False)
class _Job:
    """A value, the function that computes it and others of its kind, and the future of its result."""

    compute: Callable[[list[Any]], Sequence[Any]]
    value: Any
    kind: Hashable
    result: asyncio.Future[Any]


class _Batch:
    """Jobs that one thread computes together, with the function of the first."""

    timer: asyncio.TimerHandle

    def __init__(self, jobs: Sequence[_Job], loop: asyncio.AbstractEventLoop) -> None:
        self.jobs, self.loop = jobs, loop
        self._results: list[Any] = []
        self._lock, self._has_ended, self.is_given_up = Lock(), False, False

    def run(self) -> None:
        self._results = _compute_each(self.jobs)
        with self._lock:
            self._has_ended = True

    def give_up(self) -> bool:
        """Whether the thread that runs this batch will end with it; False if the batch has ended."""
        with self._lock:
            self.is_given_up = not self._has_ended
        return self.is_given_up

    def settle(self) -> None:
        """Hands the results to whoever still waits for them."""
        for job, result in zip(self.jobs, self._results, strict=True):
            if job.result.done():
                continue
            if isinstance(result, BaseException):
                job.result.set_exception(result)
            else:
                job.result.set_result(result)


def _compute_each(jobs: Sequence[_Job]) -> list[Any]:
    """The result or the error of each job; None for those that nobody waits for.

    If one of them fails, halves are computed again, until the error is that of a single job.
    """
    awaited = [job for job in jobs if not job.result.done()]
    try:
        results = awaited[0].compute([job.value for job in awaited]) if awaited else ()
        result_of = dict(zip(awaited, results, strict=True))
    except BaseException as error:
        if len(awaited) > 1:
            middle = len(jobs) // 2
            return _compute_each(jobs[:middle]) + _compute_each(jobs[middle:])
        result_of = dict.fromkeys(awaited, error)
    return [result_of.get(job) for job in jobs]
