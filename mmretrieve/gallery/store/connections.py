"""Connections to a ledger that are kept between transactions, as each new one opens the file and reads the schema again.

A connection serves one transaction at a time. SQLite must not have a connection in two processes: idle ones are closed before a fork, and one
that another process opened is neither used nor closed.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from weakref import finalize

from mmretrieve.forks import FORK_GATE, close_before_fork
from mmretrieve.gallery.store.files import LEDGER_FILES, check_files
from mmretrieve.gallery.store.statements import connect

CLOCK_NANOSECONDS = 1_000_000_000  # changes within that time may have one time stamp
MAX_IDLE_CONNECTIONS = 8  # of a ledger; each has a page cache of up to 2 MB


class _Owner(NamedTuple):
    """The process that opened a connection, and the file: another may since have been put in its place."""

    process: int
    device: int
    inode: int


class _Connection(NamedTuple):
    """A connection, and the size of its file when it was last used: what is mapped must not end before it does."""

    db: sqlite3.Connection
    owner: _Owner
    size: int


class ConnectionPool:
    """The connections to one file. Threads may use it concurrently, each within `FORK_GATE.no_fork`."""

    def __init__(self, path: Path) -> None:
        self._path, self._folder, self._idle = str(path), str(path.parent), deque[_Connection]()
        self._checked = 0  # when the folder had last changed before its files were checked
        close_before_fork(self)
        finalize(self, _close_all, self._idle)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection to the file that is now at the path. It is kept for later transactions unless the block raises."""
        self._check_files()
        connection = self._take()
        try:
            yield connection.db
        except BaseException:
            _close(connection)
            raise
        if len(self._idle) < MAX_IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            _close(connection)

    def close(self) -> None:
        """Closes idle connections and forgets the pages that they have read."""
        _close_all(self._idle)

    def _check_files(self) -> None:
        """Checks what SQLite will open, unless no file was made, renamed or removed since that was checked."""
        folder = _status(self._folder)
        changed = 0 if folder is None else folder.st_mtime_ns
        if changed != self._checked or time.time_ns() - changed < CLOCK_NANOSECONDS:
            check_files(Path(self._folder), LEDGER_FILES)
            self._checked = changed

    def _take(self) -> _Connection:
        owner, size = self._current()
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.owner == owner and connection.size <= size:
                    return connection._replace(size=size)
                _close(connection)
        return _Connection(connect(Path(self._path)), owner, size)

    def _current(self) -> tuple[_Owner, int]:
        """Returns the owner of a new connection, and the size of its file."""
        file = _status(self._path)
        if file is None:  # SQLite will tell
            return _Owner(os.getpid(), 0, 0), 0
        return _Owner(os.getpid(), file.st_dev, file.st_ino), file.st_size


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


_inherited: list[_Connection] = []


def _close_all(connections: deque[_Connection]) -> None:
    """Closes connections, also where a gallery is no longer referenced: SQLite takes a lock of the process."""
    with suppress(IndexError), FORK_GATE.no_fork():
        while True:
            _close(connections.pop())


def _close(connection: _Connection) -> None:
    if connection.owner.process == os.getpid():
        connection.db.close()
    else:
        _inherited.append(connection)  # even the end of the object would close it
