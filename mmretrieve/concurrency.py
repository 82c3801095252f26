"""Ordered parallel map, memory that threads share, cached properties of objects that threads share, and forks beside such threads.

A forked process has a copy of all locks and only one thread. A lock that another thread held (of Python, an import, SQLite, OpenMP) is never
released in it. Forks therefore wait until no thread is in such a call, and the new process gets new locks and computes on one thread.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Condition, RLock, local
from typing import Any, Generic, TypeVar
from weakref import WeakSet

MAX_WORKERS = max(2, os.cpu_count() or 1)
POLL_SECONDS = 0.02  # how often a thread that waits for memory looks for objects that are gone
FORK_SECONDS = 10.0  # that a fork waits at most, for example for a filter
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
        """Reserves bytes within the block."""
        self._enter(amount)
        try:
            yield
        finally:
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


class ForkGate:
    """Calls that take locks of their own run in `no_fork`. A fork waits for those of other threads, and new ones wait for the fork."""

    def __init__(self) -> None:
        self._changed, self._inside, self._own = Condition(), 0, local()

    @contextmanager
    def no_fork(self) -> Iterator[None]:
        """No other thread forks in the block. It takes no lock of this module, so that a fork never waits for ever."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def before_fork(self) -> None:
        """Waits for the calls of other threads, and keeps new ones out."""
        self._changed.acquire()
        self._changed.wait_for(lambda: self._inside == bool(self._depth), FORK_SECONDS)

    def after_fork_in_parent(self) -> None:
        self._changed.release()

    def after_fork_in_child(self) -> None:
        self._changed, self._inside = Condition(), int(bool(self._depth))

    @property
    def _depth(self) -> int:
        depth: int = getattr(self._own, "depth", 0)
        return depth

    def _enter(self) -> None:
        if self._depth == 0:
            with self._changed:
                self._inside += 1
        self._own.depth = self._depth + 1

    def _leave(self) -> None:
        self._own.depth -= 1
        if self._depth == 0:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()


FORK_GATE = ForkGate()
_once_locks: WeakSet[Any] = WeakSet()


def once_lock() -> RLock:
    """Returns a lock for `once`, which is free in a forked process."""
    lock = RLock()
    _once_locks.add(lock)
    return lock


def _after_fork_in_child() -> None:
    FORK_GATE.after_fork_in_child()
    for lock in list(_once_locks):
        lock._at_fork_reinit()
    for name, limit in (("faiss", "omp_set_num_threads"), ("torch", "set_num_threads")):
        with suppress(Exception):  # OpenMP would wait for threads that this process does not have
            getattr(sys.modules[name], limit)(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=FORK_GATE.before_fork,
        after_in_parent=FORK_GATE.after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
