"""Ordered parallel map, and cached properties of objects that threads share."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import RLock
from typing import Any, Generic, TypeVar

MAX_WORKERS = max(2, os.cpu_count() or 1)
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
