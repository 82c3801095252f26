"""The connections of a server: how many, how long each may keep the server waiting, and how much a client may leave unread."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from time import monotonic
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mmretrieve.server.limits import Limits

HEADER_BYTES = 65_536  # of the headers of one request; its URL may hold an id of 4,096 characters, each escaped
EVICTED_PART = 16  # a sixteenth of the connections is closed at once, as looking for them takes time
MIN_CHUNK_BYTES = 64  # of the chunks of a body on average: one that is made of smaller ones costs more time than it is worth
MAX_SMALL_CHUNKS = 1_000  # of one body that may be smaller


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP protocol on a connection that ends if its client keeps the server waiting too long."""

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Parser(h11.SERVER, HEADER_BYTES)
        self._limits, self._waits_since, self._unread, self._is_new = limits, monotonic(), 0, True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._settle)  # after what its client has sent already was read

    def _settle(self) -> None:
        self._is_new = False
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """Parses a part at a time, so that complete headers are not much longer than incomplete ones may be."""
        previous = self.cycle
        for start in range(0, len(data), HEADER_BYTES):
            if not self.transport.is_closing():
                super().data_received(data[start : start + HEADER_BYTES])
        if self.cycle is not previous:
            self._waits_since = monotonic()

    def on_response_complete(self) -> None:
        self._waits_since = monotonic()
        super().on_response_complete()

    @property
    def unread(self) -> int:
        """Bytes of responses that the client has not read."""
        return int(self.transport.get_write_buffer_size())

    @property
    def is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_waiting(self) -> bool:
        """Whether it is the client's turn: to send a request or the rest of it, or to read the response. Of a new connection, that is not known."""
        return not self._is_new and (not self.is_answering or self.cycle.more_body or self.unread > 0)

    @property
    def eviction_order(self) -> tuple[bool, float]:
        """The least goes first if there are too many: connections without a request, then those that wait longest."""
        return self.is_answering or self.unread > 0, self._waits_since

    def is_overdue(self, now: float) -> bool:
        """Whether the client has read nothing for too long, or has not completed a request in time. Bodies are timed as they are read."""
        unread = self.unread
        if unread != self._unread:
            self._waits_since = now
        self._unread = unread
        if unread:
            return now - self._waits_since > self._limits.seconds
        return not self.is_answering and now - self._waits_since > self._limits.header_seconds

    def send_400_response(self, msg: str) -> None:
        """The answer to bytes that are not HTTP; none if another one has begun."""
        if self.is_answering:
            self.end()
        else:
            super().send_400_response(msg)

    def end(self) -> None:
        """Ends the connection at once, and forgets what its client has not read."""
        self.transport.abort()

    def _make_room(self) -> None:
        """Ends some connections if there are too many, of this address or of all: this one if none waits for its client."""
        connections: Collection[Any] = self.connections
        if len(connections) <= self._limits.connections_of_address:
            return
        everybody = [other for other in connections if not other.transport.is_closing()]
        address = [other for other in everybody if _address(other) == _address(self)]
        for group, most in ((address, self._limits.connections_of_address), (everybody, self._limits.connections)):
            if len(group) > most:
                waiting = sorted((other for other in group if other.is_waiting), key=lambda other: other.eviction_order)
                for other in waiting[: 1 + most // EVICTED_PART] or [self]:
                    other.end()


def _address(connection: H11Protocol) -> str:
    return connection.client[0] if connection.client else ""


class _Parser(h11.Connection):
    """h11's parser, which refuses a body that is made of tiny chunks."""

    _chunks = _bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks, self._bytes = self._chunks + event.chunk_start, self._bytes + len(event.data)
            if self._chunks > MAX_SMALL_CHUNKS and self._bytes < MIN_CHUNK_BYTES * (self._chunks - 1):
                raise h11.RemoteProtocolError(f"a body of chunks that are smaller than {MIN_CHUNK_BYTES} bytes")
        return event


def end_overdue(connections: Iterable[Any], limits: Limits) -> None:
    """Ends connections that are overdue, and while clients leave too many bytes unread those that leave most. Called every second."""
    now, by_unread = monotonic(), sorted(connections, key=lambda connection: connection.unread)
    for connection in by_unread:
        if connection.is_overdue(now):
            connection.end()
    total = sum(connection.unread for connection in by_unread)
    while total > limits.unread_bytes:
        connection = by_unread.pop()
        total -= connection.unread
        connection.end()
