"""Single cells of parquet files, by row: what a picture in a parquet file is read with."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import deque
from functools import lru_cache
from itertools import accumulate
from typing import Any

from mmretrieve.errors import ImageError
from mmretrieve.sources.parquet_files import DamagedError, column_of, need_pyarrow, open_file, readable, stream

WINDOWS = 4  # row groups that are kept open at a time
KNOWN = 256  # files whose row groups are remembered


def cell(path: str, row: int, column: str, fingerprint: str) -> bytes | None:
    """The bytes of one cell, or None for a null. Only its row group is read, and stays open for the rows that follow.

    fingerprint: that of the file now, so that one that was changed is read again. Raises ImageError where there is no such
    cell or it cannot be read, GalleryError without pyarrow.
    """
    need_pyarrow()
    try:
        with readable(path):
            starts = _starts(path, fingerprint)
            if row >= starts[-1]:
                raise DamagedError(f"{path}: there is no row {row}, only {starts[-1]}: has it changed since it was read?")
            group = bisect_right(starts, row) - 1
            return _window(path, fingerprint, group, column).value(row - starts[group])
    except DamagedError as error:
        raise ImageError(str(error)) from error


class _Window:
    """One column of one row group, read forwards in small batches, the last of which are kept. Threads may share it."""

    def __init__(self, path: str, group: int, column: str) -> None:
        self._path, self._group, self._column = path, group, column
        self._metadata = open_file(path).metadata
        self._ahead = 2 * (os.cpu_count() or 1)  # how far apart the rows lie that threads ask for at one time
        self._lock = threading.Lock()
        self._restart()

    def value(self, row: int) -> bytes | None:
        """The value of a row, counted from the start of the row group."""
        with self._lock:
            try:
                return self._find(row)
            except BaseException:
                self._restart()  # a broken stream would seem to be at its end
                raise

    def _find(self, row: int) -> bytes | None:
        if row < self._next - self._kept():
            self._restart()
        while row >= self._next:
            batch = next(self._batches, None)
            if batch is None:
                raise DamagedError(f"{self._path}: row group {self._group} ends too early")
            self._cells.append(column_of(batch, self._column))
            self._next += batch.num_rows
            while len(self._cells) > 1 and self._kept() - len(self._cells[0]) >= self._ahead:
                self._cells.popleft()
        first = self._next - self._kept()
        for cells in self._cells:
            if row < first + len(cells):
                value = cells[row - first].as_py()
                if not isinstance(value, bytes | None):
                    raise DamagedError(f"{self._path}: column {self._column!r} does not hold bytes")
                return value
            first += len(cells)
        raise AssertionError("a row between the first and the last is in one of the batches")

    def _kept(self) -> int:
        return sum(map(len, self._cells))

    def _restart(self) -> None:
        self._cells: deque[Any] = deque()
        self._next = 0
        self._batches = stream(self._path, self._metadata, self._group, self._column)


@lru_cache(WINDOWS)
def _window(path: str, fingerprint: str, group: int, column: str) -> _Window:  # noqa: ARG001 - the fingerprint is a part of the key
    return _Window(path, group, column)


@lru_cache(KNOWN)
def _starts(path: str, fingerprint: str) -> tuple[int, ...]:  # noqa: ARG001 - the fingerprint is a part of the key
    """The first row of every row group, and the number of rows."""
    metadata = open_file(path).metadata
    sizes = (metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
    return tuple(accumulate(sizes, initial=0))
