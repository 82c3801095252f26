"""The bodies of requests: how large and how slow one may be, and how much memory all of them may take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from mmretrieve.server.limits import JSON_VALUES, Limits

SMALL_BODY = 65_536  # bytes of every body that are not counted: searches go on while large bodies fill the budget
PART_BYTES = 16_384  # that the application gets at once, so that other requests are answered between two parts
JSON_MARKS = (b",", b":", b"[", b"{")  # one precedes each value of a JSON document but the first


def count_values(text: bytes) -> int:
    """The number of values and names of a JSON document, or more: marks inside texts count, too.

    >>> count_values(b'{"prompt": ["in red", "striped"]}')
    4
    """
    return sum(map(text.count, JSON_MARKS))


def too_many_values() -> str:
    return f"more than {JSON_VALUES:,} values in one request; send a smaller one"


class BodyError(HTTPException):
    """A body that is too long or too slow. An HTTPException, so that the code that reads the body lets it through."""

    def __init__(self, status: int, line: str, **headers: str) -> None:
        super().__init__(status, line, {"Connection": "close"} | headers)


class Bodies:
    """The bodies that are being received and answered."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self.bytes = limits, 0

    def too_large(self) -> str:
        return f"more than {self._limits.body_bytes:,} bytes in one request; send a smaller one"

    @contextmanager
    def reading(self, receive: Receive, headers: Headers) -> Iterator[Receive]:
        """A body that is counted and timed, and is part of the budget while this lasts. Reading it raises BodyError."""
        body = _Body(self, self._limits, receive, is_json="json" in headers.get("content-type", "").lower())
        try:
            yield body.receive
        finally:
            self.bytes -= body.counted

    def reserve(self, size: int) -> None:
        """Raises BodyError if all bodies together would be too large."""
        if self.bytes + size > self._limits.all_bodies_bytes:
            raise BodyError(503, "too many large requests at once; try again in a moment", **{"Retry-After": "1"})
        self.bytes += size


class _Body:
    """One body. counted: its share of the budget."""

    def __init__(self, bodies: Bodies, limits: Limits, receive: Receive, *, is_json: bool) -> None:
        self._bodies, self._limits, self._receive, self._is_json = bodies, limits, receive, is_json
        self._deadline = monotonic() + limits.seconds
        self._size = self._values = self.counted = 0
        self._rest, self._is_complete = b"", False

    async def receive(self) -> Message:
        """The next part of the body; what the application waits for after the last one is not timed."""
        if not self._rest:
            message = await self._next()
            if message["type"] != "http.request":
                return message
            self._rest = message.get("body", b"")
        else:
            await asyncio.sleep(0)
        part, self._rest = self._rest[:PART_BYTES], self._rest[PART_BYTES:]
        return {"type": "http.request", "body": part, "more_body": bool(self._rest) or not self._is_complete}

    async def _next(self) -> Message:
        try:
            message = await asyncio.wait_for(self._receive(), None if self._is_complete else self._deadline - monotonic())
        except TimeoutError as error:
            raise BodyError(
                408, f"the request was not complete after {self._limits.seconds:g} seconds; send it again"
            ) from error
        self._is_complete = self._is_complete or not message.get("more_body", False)
        self._count(message.get("body", b""))
        return message

    def _count(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limits.body_bytes:
            raise BodyError(413, self._bodies.too_large())
        if self._is_json:
            self._values += count_values(part)
            if self._values > JSON_VALUES:
                raise BodyError(413, too_many_values())
        if (counted := max(0, self._size - SMALL_BODY)) > self.counted:
            self._bodies.reserve(counted - self.counted)
            self.counted = counted
