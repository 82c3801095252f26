"""Ordered parallel map, memory that threads share, and cached properties of objects that threads share."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from threading import Condition, RLock
from typing import Any, Generic, TypeVar

MAX_WORKERS = max(2, os.cpu_count() or 1)
MIN_TRIM_BYTES = 16_000_000  # of a reservation; for fewer it would take longer than it is worth
POLL_SECONDS = 0.02  # how often a thread that waits for memory looks for objects that are gone
T = TypeVar("T")
R = TypeVar("R")


def map_ahead(function: Callable[[T], R], items: Iterable[T], window: int) -> Iterator[R]:
    """Like `map`, but threads compute up to `window` results ahead. Results are yielded in order.

    >>> list(map_ahead(str, [1, 2, 3], window=2))
    ['1', '2', '3']
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(MAX_WORKERS) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def map_in_chunks(function: Callable[[T], R], items: Iterable[T], size: int) -> Iterator[R]:
    """Like `map`, but threads compute `size` results, then the consumer works alone: for one that uses all processors itself.

    >>> list(map_in_chunks(str, [1, 2, 3], size=2))
    ['1', '2', '3']
    """
    remaining = iter(items)
    with ThreadPoolExecutor(MAX_WORKERS) as pool:
        while pending := [pool.submit(function, item) for item in islice(remaining, size)]:
            yield from [future.result() for future in pending]


class MemoryBudget:
    """Bytes that the threads of a process share.

    A reservation waits until it fits, or until no other one is in use: one always proceeds, however large it is, so threads that hold
    results cannot stop each other. Reservations are granted in the order in which they were asked for.

    Parameters
    ----------
    total : int
        The number of bytes.

    Examples
    --------
    >>> budget = MemoryBudget(100)
    >>> with budget.reserve(60):
    ...     budget.used
    60
    >>> budget.used
    0
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._start()
        if hasattr(os, "register_at_fork"):  # a child has none of the threads that would give bytes back
            os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        self._changed, self._queue = Condition(), deque[object]()
        self._used, self._running = 0, 0
        self._collected = deque[int]()  # filled by finalizers, which may run at any moment and must not wait for a lock

    @property
    def used(self) -> int:
        """The bytes that are reserved or kept."""
        with self._changed:
            return self._count()

    @contextmanager
    def reserve(self, amount: int) -> Iterator[None]:
        """Reserves bytes within the block. If they are many, memory that was freed in it is given back to the system at its end."""
        self._enter(amount)
        try:
            yield
        finally:
            if amount >= MIN_TRIM_BYTES:
                _trim_memory()
            with self._changed:
                self._running, self._used = self._running - 1, self._used - amount
                self._changed.notify_all()

    def keep(self, owner: object, amount: int) -> None:
        """Counts bytes as used until `owner` is no longer referenced. It never waits."""
        with self._changed:
            self._used += amount
        weakref.finalize(owner, self._collected.append, amount).atexit = False

    def _enter(self, amount: int) -> None:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or (self._running and self._count() + amount > self.total):
                    self._changed.wait(POLL_SECONDS)
                self._running, self._used = self._running + 1, self._used + amount
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _count(self) -> int:
        while self._collected:
            self._used -= self._collected.popleft()
        return self._used


def _trim_memory() -> None:
    """Gives freed memory back to the system. glibc keeps it for each thread, which adds up to several times what is in use."""
    with suppress(AttributeError, OSError, TypeError):  # where there is no glibc
        ctypes.CDLL(None).malloc_trim(0)


class once(Generic[R]):  # noqa: N801 – a decorator, used like cached_property
    """A thread-safe `functools.cached_property`: the first thread computes the value, the others wait for it.

    The object needs an attribute `once_lock`, an RLock, because one such property may read another.
    """

    def __init__(self, function: Callable[[Any], R]) -> None:
        self._function, self.__doc__ = function, function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> R:
        lock: RLock = instance.once_lock
        with lock:
            if self._name not in instance.__dict__:
                instance.__dict__[self._name] = self._function(instance)
        value: R = instance.__dict__[self._name]
        return value
