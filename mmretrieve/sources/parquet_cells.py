"""Random access to cells of Parquet files: reads the image of one row."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import deque
from functools import lru_cache
from itertools import accumulate
from typing import Any

from mmretrieve.errors import ImageError
from mmretrieve.sources.parquet_files import DamagedError, column_of, open_file, require_pyarrow, stream, translate_errors

MAX_OPEN_ROW_GROUPS = 4
MAX_CACHED_FILES = 256  # files whose row group offsets are cached


def cell(path: str, row: int, column: str, fingerprint: str) -> bytes | None:
    """The bytes of one cell, or None for a null. Only its row group is read; it stays open for the following rows.

    `fingerprint` is the fingerprint of the file: a file that changed is opened again. Raises ImageError if the cell does not
    exist or cannot be read, GalleryError without pyarrow.
    """
    require_pyarrow()
    try:
        with translate_errors(path):
            starts = _row_group_starts(path, fingerprint)
            if row >= starts[-1]:
                raise DamagedError(f"{path}: there is no row {row}; the file has {starts[-1]} rows")
            group = bisect_right(starts, row) - 1
            return _open_row_group(path, fingerprint, group, column).value(row - starts[group])
    except DamagedError as error:
        raise ImageError(str(error)) from error


class _RowGroupColumn:
    """One column of one row group, read forward in small batches, the last of which are kept. Thread-safe."""

    def __init__(self, path: str, group: int, column: str) -> None:
        self._path, self._group, self._column = path, group, column
        self._metadata = open_file(path).metadata
        self._ahead = 2 * (os.cpu_count() or 1)  # how far apart rows are that threads read at the same time
        self._lock = threading.Lock()
        self._restart()

    def value(self, row: int) -> bytes | None:
        """The value of a row, counted from the start of the row group."""
        with self._lock:
            try:
                return self._find(row)
            except BaseException:
                self._restart()  # a generator that raised looks exhausted
                raise

    def _find(self, row: int) -> bytes | None:
        if row < self._next - self._buffered():
            self._restart()
        while row >= self._next:
            batch = next(self._batches, None)
            if batch is None:
                raise DamagedError(f"{self._path}: row group {self._group} is truncated")
            self._cells.append(column_of(batch, self._column))
            self._next += batch.num_rows
            while len(self._cells) > 1 and self._buffered() - len(self._cells[0]) >= self._ahead:
                self._cells.popleft()
        first = self._next - self._buffered()
        for cells in self._cells:
            if row < first + len(cells):
                value = cells[row - first].as_py()
                if not isinstance(value, bytes | None):
                    raise DamagedError(f"{self._path}: column {self._column!r} does not contain bytes")
                return value
            first += len(cells)
        raise AssertionError("unreachable: the row is in one of the batches")

    def _buffered(self) -> int:
        return sum(map(len, self._cells))

    def _restart(self) -> None:
        self._cells: deque[Any] = deque()
        self._next = 0
        self._batches = stream(self._path, self._metadata, self._group, self._column)


@lru_cache(MAX_OPEN_ROW_GROUPS)
def _open_row_group(path: str, fingerprint: str, group: int, column: str) -> _RowGroupColumn:  # noqa: ARG001 - the fingerprint is part of the cache key
    return _RowGroupColumn(path, group, column)


@lru_cache(MAX_CACHED_FILES)
def _row_group_starts(path: str, fingerprint: str) -> tuple[int, ...]:  # noqa: ARG001 - the fingerprint is part of the cache key
    """The first row of every row group, followed by the number of rows."""
    metadata = open_file(path).metadata
    sizes = (metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
    return tuple(accumulate(sizes, initial=0))
