"""Forks beside threads that search.

A forked process has a copy of all locks and only one thread. A lock that another thread held (of Python, an import, SQLite, OpenMP) is never
released in it. Forks therefore wait until no thread is in such a call, and the new process gets new locks and computes on one thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Condition, RLock, local
from typing import Any, Protocol
from weakref import WeakSet

FORK_SECONDS = 10.0  # that a fork waits at most, for example for a filter


class ForkGate:
    """Calls that take locks of their own run in `no_fork`. A fork waits for those of other threads, and new ones wait for the fork."""

    def __init__(self) -> None:
        self._changed, self._inside, self._forking, self._own = Condition(), 0, 0, local()

    @contextmanager
    def no_fork(self) -> Iterator[None]:
        """No other thread forks in the block. It takes no lock of this module, so that a fork never waits for ever."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def before_fork(self) -> None:
        """Waits for the calls of other threads, and keeps new ones out. Calls of this thread do not wait for its own fork."""
        self._changed.acquire()
        self._forking += 1
        own = bool(self._depth)
        self._own.depth = self._depth + 1
        self._changed.wait_for(lambda: self._inside == own, FORK_SECONDS)

    def after_fork_in_parent(self) -> None:
        self._own.depth -= 1
        self._forking -= 1
        self._changed.notify_all()
        self._changed.release()

    def after_fork_in_child(self) -> None:
        self._own.depth -= 1
        self._changed, self._inside, self._forking = Condition(), int(bool(self._depth)), 0

    @property
    def _depth(self) -> int:
        depth: int = getattr(self._own, "depth", 0)
        return depth

    def _enter(self) -> None:
        if self._depth == 0:
            with self._changed:
                if self._forking:
                    self._changed.wait_for(
                        lambda: not self._forking, FORK_SECONDS
                    )  # which would wait for ever among many threads
                self._inside += 1
        self._own.depth = self._depth + 1

    def _leave(self) -> None:
        self._own.depth -= 1
        if self._depth == 0:
            with self._changed:
                self._inside -= 1
                if self._forking:
                    self._changed.notify_all()


FORK_GATE = ForkGate()
_locks: WeakSet[Any] = WeakSet()
_closed_before_fork: WeakSet[Closable] = WeakSet()


def fork_safe_lock() -> RLock:
    """Returns a lock that is free in a forked process."""
    lock = RLock()
    _locks.add(lock)
    return lock


class Closable(Protocol):
    """What has connections that it can open again."""

    def close(self) -> None: ...


def close_before_fork(resource: Closable) -> None:
    """Closes it before each fork, when no other thread is in `FORK_GATE.no_fork`."""
    with FORK_GATE.no_fork():
        _closed_before_fork.add(resource)


def _before_fork() -> None:
    FORK_GATE.before_fork()
    for resource in list(_closed_before_fork):
        resource.close()


def _after_fork_in_child() -> None:
    FORK_GATE.after_fork_in_child()
    for lock in list(_locks):
        lock._at_fork_reinit()
    for name, limit in (("faiss", "omp_set_num_threads"), ("torch", "set_num_threads")):
        with suppress(Exception):  # OpenMP would wait for threads that this process does not have
            getattr(sys.modules[name], limit)(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=FORK_GATE.after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
