"""Work in threads, results in order, never more than a window of them waiting; and what is worked out only once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import RLock
from typing import Any, Generic, TypeVar

WORKERS = max(2, os.cpu_count() or 1)  # more of them only wait for each other
T = TypeVar("T")
R = TypeVar("R")


def map_ahead(function: Callable[[T], R], items: Iterable[T], window: int) -> Iterator[R]:
    """`map`, with up to `window` results computed ahead of the one that is asked for."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= window:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class once(Generic[R]):  # noqa: N801 – a decorator, used like cached_property
    """`functools.cached_property` for objects that threads share: whoever comes first works it out, the others wait.

    The object needs an attribute `once_lock`, an RLock: one that is worked out may ask for another.
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
