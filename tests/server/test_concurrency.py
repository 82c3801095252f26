"""Requests that are computed together: each has its own result, its own error and its own end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from threading import Semaphore

import pytest

from mmretrieve.errors import BusyError, OptionError
from mmretrieve.server.concurrency import BoundedExecutor

PATIENCE = 30.0


class Squares:
    """Computes squares of a batch for each release of `let`, and records the batches. Raises OptionError for a negative number."""

    def __init__(self) -> None:
        self.let, self.batches = Semaphore(0), list[list[int]]()

    def __call__(self, values: list[int]) -> list[int]:
        self.batches.append(values)
        assert self.let.acquire(timeout=PATIENCE)
        if wrong := [value for value in values if value < 0]:
            raise OptionError(f"{wrong[0]} is negative")
        return [value * value for value in values]


def run(test: Callable[[BoundedExecutor, Squares], Awaitable[None]], *, waiting: int = 64, batch: int = 8) -> Squares:
    """Runs a test with an executor of one thread."""
    squares = Squares()

    async def main() -> None:
        executor = BoundedExecutor(1, waiting, PATIENCE, 0, batch=batch)
        await test(executor, squares)
        assert (executor.running, executor.waiting) == (0, 0)
        executor.close()

    asyncio.run(main())
    return squares


def send(executor: BoundedExecutor, squares: Squares, *values: int, kind: str = "a") -> list[asyncio.Task[int]]:
    return [asyncio.create_task(executor.run_together(squares, value, kind)) for value in values]


async def begin(executor: BoundedExecutor, squares: Squares) -> asyncio.Task[int]:
    """A request that the thread computes while others wait."""
    (first,) = send(executor, squares, 0)
    await asyncio.sleep(0)
    assert (executor.running, executor.waiting) == (1, 0)
    return first


async def ended(executor: BoundedExecutor) -> None:
    while executor.running:
        await asyncio.sleep(0.001)


def test_a_request_that_finds_a_free_thread_is_computed_at_once_and_alone() -> None:
    async def test(executor: BoundedExecutor, squares: Squares) -> None:
        squares.let.release(99)
        for value in (2, 3):
            assert await asyncio.gather(*send(executor, squares, value)) == [value * value]
            await ended(executor)

    assert run(test).batches == [[2], [3]]


def test_what_waits_is_computed_in_batches_in_order() -> None:
    async def test(executor: BoundedExecutor, squares: Squares) -> None:
        tasks = [await begin(executor, squares), *send(executor, squares, *range(1, 7)), *send(executor, squares, 7, kind="b")]
        await asyncio.sleep(0)
        tasks += [*send(executor, squares, 8), asyncio.create_task(executor.run(lambda: 81))]
        await asyncio.sleep(0)
        assert executor.waiting == 9
        squares.let.release(99)
        assert await asyncio.gather(*tasks) == [value * value for value in range(10)]
        await ended(executor)

    assert run(test, batch=4).batches == [[0], [1, 2, 3, 4], [5, 6, 8], [7]]


def test_an_error_belongs_to_one_request() -> None:
    async def test(executor: BoundedExecutor, squares: Squares) -> None:
        tasks = [await begin(executor, squares), *send(executor, squares, 1, 2, -3, 4, 5, -6, 7)]
        await asyncio.sleep(0)
        squares.let.release(99)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result) for result in results] == ["0", "1", "4", "-3 is negative", "16", "25", "-6 is negative", "49"]
        await ended(executor)

    assert run(test).batches[:2] == [[0], [1, 2, -3, 4, 5, -6, 7]]


def test_a_request_whose_client_has_left_leaves_the_queue_and_its_batch() -> None:
    async def test(executor: BoundedExecutor, squares: Squares) -> None:
        first, second, third, fourth = await begin(executor, squares), *send(executor, squares, 1, -2, 3)
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        assert executor.waiting == 2
        squares.let.release()
        await first
        while len(squares.batches) < 2:  # the thread computes the third and the fourth
            await asyncio.sleep(0.001)
        fourth.cancel()
        await asyncio.wait([fourth])
        squares.let.release(99)
        with pytest.raises(OptionError, match="-2 is negative"):
            await third
        await ended(executor)

    assert run(test).batches == [[0], [-2, 3], [-2]]


def test_the_queue_counts_requests_not_batches() -> None:
    async def test(executor: BoundedExecutor, squares: Squares) -> None:
        tasks = [await begin(executor, squares), *send(executor, squares, 1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="3 requests are running or waiting; try again in a moment"):
            await executor.run_together(squares, 3, "a")
        squares.let.release(99)
        assert await asyncio.gather(*tasks) == [0, 1, 4]
        await ended(executor)

    run(test, waiting=2)


def test_a_result_for_each_value_is_required() -> None:
    async def test(executor: BoundedExecutor, _: Squares) -> None:
        with pytest.raises(ValueError, match="zip"):
            await executor.run_together(lambda _: [], 1)
        await ended(executor)

    run(test)


def test_results_are_not_described() -> None:
    class Result:
        def __repr__(self) -> str:
            raise AssertionError("a response of hundreds of hits takes milliseconds to describe")

    async def test(executor: BoundedExecutor, _: Squares) -> None:
        assert isinstance(await executor.run(Result), Result)
        await ended(executor)

    run(test)
