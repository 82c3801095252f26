"""Reads and writes Parquet files: rows in small batches, and single cells at random. The only module that imports `pyarrow`."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import lru_cache
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

from mmretrieve.errors import GalleryError, ImageError

ROW_BATCH_SIZE = 1024
BATCH_BYTES = 8 << 20  # approximate size of one batch of images
READ_BUFFER_BYTES = 1 << 20
MAX_OPEN_ROW_GROUPS = 4
MAX_CACHED_FILES = 256  # files whose row group offsets are cached


class ColumnType(StrEnum):
    """The content of a column, as far as its use depends on it."""

    STRUCT = "a struct of bytes and path"
    BYTES = "bytes"
    TEXT = "text"
    INTEGER = "whole numbers"
    OTHER = "other values"
    NESTED_BYTES = "nested values with bytes"


class DamagedError(GalleryError):
    """A Parquet file, or a part of it, cannot be read."""


def require_pyarrow() -> None:
    """Raises GalleryError if pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise GalleryError("reading Parquet files needs the package pyarrow: pip install 'mmretrieve[parquet]'")


class ParquetRows:
    """The rows of a Parquet file. Raises GalleryError without pyarrow, DamagedError if the file is not a Parquet file."""

    def __init__(self, path: str) -> None:
        require_pyarrow()
        with translate_errors(path), open_file(path) as file:
            schema, self._count = file.schema_arrow, int(file.metadata.num_rows)
        self.path = path
        self.names: tuple[str, ...] = tuple(schema.names)
        self.types = {name: _column_type(type_) for name, type_ in zip(schema.names, schema.types, strict=True)}
        self._structs = {
            name: arrow_type for name, arrow_type in zip(schema.names, schema.types, strict=True) if _is_struct(arrow_type)
        }

    def __len__(self) -> int:
        return self._count

    def has(self, column: str, field: str) -> bool:
        """Whether a struct column has that field, with text values."""
        arrow_type = self._structs.get(column)
        return (
            arrow_type is not None
            and arrow_type.get_field_index(field) >= 0
            and _column_type(arrow_type.field(field).type) is ColumnType.TEXT
        )

    def read(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """One tuple per row with the values of the columns; `image.path` reads only that field of a struct.

        Values are Python objects; times have microseconds. Raises DamagedError if the file is damaged.
        """
        with translate_errors(self.path), open_file(self.path) as file:
            for batch in file.iter_batches(ROW_BATCH_SIZE, columns=list(columns)):
                values = [_python(column_of(batch, name)) for name in columns]
                yield from zip(*values, strict=True) if values else (() for _ in range(batch.num_rows))

    def missing(self, column: str) -> Iterator[bool]:
        """For each row, whether the value is null. Row groups whose statistics report no nulls are not read."""
        with translate_errors(self.path), open_file(self.path) as file:
            leaf = _leaf(file.metadata, column)
            for number in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                statistics = group.column(leaf).statistics
                if statistics is not None and statistics.has_null_count and statistics.null_count == 0:
                    yield from (False for _ in range(group.num_rows))
                    continue
                for batch in stream(self.path, file.metadata, number, column):
                    yield from column_of(batch, column).is_null().to_pylist()


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


def stream(path: str, metadata: Any, group: int, column: str) -> Iterator[Any]:
    """One column of one row group in batches of about `BATCH_BYTES`."""
    leaf = metadata.row_group(group).column(_leaf(metadata, column))
    size = max(1, leaf.total_uncompressed_size // max(1, leaf.num_values))
    rows = min(max(1, BATCH_BYTES // size), ROW_BATCH_SIZE)
    with open_file(path, metadata=metadata, buffer_size=READ_BUFFER_BYTES) as file:
        yield from file.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False)


def open_file(path: str, **options: Any) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(path, pre_buffer=False, **options)


def _leaf(metadata: Any, column: str) -> int:
    """The position of the stored column with that name."""
    for number in range(metadata.num_columns):
        if metadata.schema.column(number).path == column:
            return number
    raise DamagedError(f"there is no column {column!r} of plain values")


def column_of(batch: Any, name: str) -> Any:
    """A column of a batch, or a field of a struct column, null where the struct is null."""
    if name in batch.schema.names:
        return batch.column(name)
    parent, _, field = name.rpartition(".")
    column = batch.column(parent)
    return column.flatten()[column.type.get_field_index(field)]


def _python(values: Any) -> list[Any]:
    """Converts Arrow values to Python. Nanoseconds become microseconds, the resolution of Python."""
    import pyarrow as pa

    if pa.types.is_timestamp(values.type) and values.type.unit == "ns":
        values = values.cast(pa.timestamp("us", values.type.tz), safe=False)
    objects: list[Any] = values.to_pylist()
    return objects


def _column_type(arrow_type: Any) -> ColumnType:
    from pyarrow import types

    if types.is_dictionary(arrow_type):
        return _column_type(arrow_type.value_type)
    if (
        _is_struct(arrow_type)
        and arrow_type.get_field_index("bytes") >= 0
        and _column_type(arrow_type.field("bytes").type) is ColumnType.BYTES
    ):
        return ColumnType.STRUCT
    if (
        types.is_binary(arrow_type)
        or types.is_large_binary(arrow_type)
        or types.is_binary_view(arrow_type)
        or types.is_fixed_size_binary(arrow_type)
    ):
        return ColumnType.BYTES
    if types.is_string(arrow_type) or types.is_large_string(arrow_type) or types.is_string_view(arrow_type):
        return ColumnType.TEXT
    if any(
        _column_type(arrow_type.field(i).type) in (ColumnType.BYTES, ColumnType.STRUCT, ColumnType.NESTED_BYTES)
        for i in range(arrow_type.num_fields)
    ):
        return ColumnType.NESTED_BYTES
    return ColumnType.INTEGER if types.is_integer(arrow_type) else ColumnType.OTHER


def _is_struct(arrow_type: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(arrow_type))


@contextmanager
def translate_errors(path: str) -> Iterator[None]:
    """Converts the errors of pyarrow to DamagedError with one line that names the file."""
    from pyarrow import ArrowException

    try:
        yield
    except DamagedError as error:
        message = str(error)
        raise error if message.startswith(path) else DamagedError(f"{path}: {message}") from None
    except (OSError, ArrowException, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedError(f"{path}: cannot be read as Parquet ({reason.removeprefix(f'{Path(path)}: ')})") from error


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes records to a file. Missing values become null; integers become floats in columns that also contain floats."""
    require_pyarrow()
    import pyarrow as pa
    from pyarrow import parquet

    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    parquet.write_table(pa.table({name: pa.array(_same_type(values)) for name, values in columns.items()}), path)


def _same_type(values: list[Any]) -> list[Any]:
    return (
        [float(value) if isinstance(value, int) else value for value in values]
        if any(isinstance(value, float) for value in values)
        else values
    )
