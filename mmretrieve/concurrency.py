"""What threads share: an ordered parallel map, a stream that runs beside its caller, a budget of memory, a cache of recent values, and cached
properties of objects.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, islice
from queue import Empty, SimpleQueue
from threading import Condition, RLock
from typing import Any, Generic, TypeVar

from mmretrieve.forks import fork_safe_lock

MAX_WORKERS = max(2, os.cpu_count() or 1)
LARGE_SHARE = 1 / 16  # of a budget: the memory of smaller reservations is used again soon
TRIM_SHARE = 1 / 2  # of a budget: whenever large reservations have freed as much, memory is given back to the system
POLL_SECONDS = 0.02  # how often a thread that waits for memory looks for objects that are gone
T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    function: Callable[[T], R],
    items: Iterable[T],
    window: int,
    *,
    workers: int = MAX_WORKERS,
    initializer: Callable[[], None] | None = None,
) -> Iterator[R]:
    """Like `map`, but threads compute up to `window` results ahead, each after its `initializer`. Results are yielded in order.

    >>> list(map_ahead(str, [1, 2, 3], window=2))
    ['1', '2', '3']
    """
    pending: deque[Future[R]] = deque()
    remaining = iter(items)
    first = list(islice(remaining, 2))
    if len(first) < 2:  # threads would cost more than they save
        yield from map(function, first)
        return
    with ThreadPoolExecutor(workers, initializer=initializer) as pool:
        try:
            for item in chain(first, remaining):
                pending.append(pool.submit(function, item))
                if len(pending) >= window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def map_on_cores(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Like `map_ahead` for functions that compute with torch: each core has items of its own, and one thread of torch.

    Threads of torch that share an item wait for each other at each operation.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        yield from map_ahead(function, items, 2 * threads, workers=threads, initializer=partial(torch.set_num_threads, 1))
    finally:
        if threads > 1:  # otherwise another call may be waiting to restore the number
            torch.set_num_threads(threads)  # of threads that start later, too


def map_batches_ahead(function: Callable[[T], R], batches: Iterable[Iterable[T]], window: int) -> Iterator[Iterator[R]]:
    """Like `map_ahead` for the items of all batches, without a pause between two of them. Yields the results of each batch.

    All results of a batch have to be taken before those of the next one.

    >>> [list(batch) for batch in map_batches_ahead(str, [[1, 2], [], [3]], window=2)]
    [['1', '2'], [], ['3']]
    """
    ended = chain.from_iterable(chain(((item,) for item in batch), [()]) for batch in batches)  # by an empty tuple
    results = map_ahead(lambda given: tuple(map(function, given)), ended, window)
    for first in results:
        yield (result for (result,) in chain([first], iter(partial(next, results), ()))) if first else iter(())


class StreamWorker(Generic[T, R]):
    """Runs a function of an iterator in a thread of its own, beside the thread that gives it batches and takes its results.

    It never waits for a batch while it has results to give: where no batch is waiting, the iterator ends, and the next batch begins
    another one. Behind the `with` block it stops at the next item or result, without being waited for.

    Parameters
    ----------
    function : callable
        Gets iterators of the items of batches, and yields one result for each batch, in order.

    Examples
    --------
    >>> with StreamWorker[int, int](lambda batches: map(sum, batches)) as worker:
    ...     worker.put([1, 2])
    ...     worker.put([3])
    ...     worker.get(), worker.get()
    (3, 3)
    """

    def __init__(self, function: Callable[[Iterator[Iterator[T]]], Iterator[R]]) -> None:
        self._function, self._is_closed = function, False
        self._batches, self._results = SimpleQueue[Sequence[T] | None](), SimpleQueue[Future[R]]()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> StreamWorker[T, R]:
        self._pool.submit(self._run)
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_closed = True
        self._batches.put(None)
        self._pool.shutdown(wait=False)

    def put(self, batch: Sequence[T]) -> None:
        """Adds a batch to the stream."""
        self._batches.put(batch)

    def get(self) -> R:
        """Waits for the result of the next batch. Raises what the function raised, which has then ended."""
        return self._results.get().result()

    def _run(self) -> None:
        try:
            while (first := self._batches.get()) is not None:
                for result in self._function(map(self._items, self._waiting(first))):
                    self._answer().set_result(result)
        except _ClosedError:
            pass
        except BaseException as error:  # raised where results are taken
            self._answer().set_exception(error)

    def _waiting(self, first: Sequence[T]) -> Iterator[Sequence[T]]:
        """Yields the first batch, and others while some are waiting."""
        yield first
        with suppress(Empty):
            while (batch := self._batches.get_nowait()) is not None:
                yield batch
            raise _ClosedError

    def _items(self, batch: Sequence[T]) -> Iterator[T]:
        for item in batch:
            if self._is_closed:
                raise _ClosedError
            yield item

    def _answer(self) -> Future[R]:
        if self._is_closed:
            raise _ClosedError
        answer = Future[R]()
        self._results.put(answer)
        return answer


class _ClosedError(Exception):
    """Ends the function of a worker whose results nobody takes any more."""


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
        self._used, self._running, self._freed = 0, 0, 0
        self._collected = deque[int]()  # filled by finalizers, which may run at any moment and must not wait for a lock

    @property
    def used(self) -> int:
        """The bytes that are reserved or kept."""
        with self._changed:
            return self._count()

    @contextmanager
    def reserve(self, amount: int) -> Iterator[None]:
        """Reserves bytes within the block. Memory that was freed is given back to the system at its end, from time to time.

        All threads then have to get new memory for what they compute, which takes as long as decoding a photo or two.
        """
        self._enter(amount)
        try:
            yield
        finally:
            if amount >= LARGE_SHARE * self.total:
                self._freed += amount  # about: another thread may count at the same time
            if self._freed >= TRIM_SHARE * self.total:
                self._freed = 0
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


class LruCache(Generic[R]):
    """The values of the `size` keys that were used last.

    Parameters
    ----------
    size : int
        The number of values; the one that was not used for the longest time makes room for a new one.

    Attributes
    ----------
    hits, misses : int
        How many keys were found, and how many were not.

    Examples
    --------
    >>> cache = LruCache[int](size=2)
    >>> cache.get_all(["a", "bb", "a"], lambda texts: [len(text) for text in texts])
    [1, 2, 1]
    >>> cache.put("ccc", 3)
    >>> cache.get("a"), cache.get("ccc")
    (None, 3)
    >>> cache.hits, cache.misses
    (1, 3)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.hits = self.misses = 0
        self._values: OrderedDict[Hashable, R] = OrderedDict()
        self._lock = fork_safe_lock()

    def __reduce__(self) -> tuple[type[LruCache[R]], tuple[int]]:
        return type(self), (self.size,)  # a copy in another process begins empty

    def get(self, key: Hashable) -> R | None:
        """The value of a key; None if there is none."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                self.hits += 1
            else:
                self.misses += 1
            return self._values.get(key)

    def put(self, key: Hashable, value: R) -> None:
        """Sets the value of a key."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self.size:
                self._values.popitem(last=False)

    def get_all(self, keys: Sequence[T], compute: Callable[[list[T]], Iterable[R]]) -> list[R]:
        """The values of hashable keys. Those that are missing are computed in one call, each once."""
        values = {key: value for key in dict.fromkeys(keys) if (value := self.get(key)) is not None}
        missing = [key for key in dict.fromkeys(keys) if key not in values]
        for key, computed in zip(missing, compute(missing) if missing else (), strict=True):
            values[key] = computed
            self.put(key, computed)
        return [values[key] for key in keys]


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
