"""Reads and writes Parquet files: rows in small batches, and single cells at random. The only module that imports `pyarrow`.

A damaged file can crash pyarrow. `parquet_rows` therefore calls the functions that read in a child process.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.util import find_spec
from itertools import accumulate, islice, repeat
from pathlib import Path
from typing import Any

from mmretrieve.errors import GalleryError
from mmretrieve.options import check_regular
from mmretrieve.sources.values import Value, value_of

ROW_BATCH_SIZE = 1024
BATCH_BYTES = 8 << 20  # approximate size of one batch of images
READ_BUFFER_BYTES = 1 << 20
MAX_OPEN_ROW_GROUPS = 4
UUID = "arrow.uuid"
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


@dataclass(frozen=True, slots=True)
class ParquetSchema:
    """The columns of a Parquet file in their order, those text fields of structs, as `image.path`, and the number of rows."""

    types: Mapping[str, ColumnType]
    text_fields: frozenset[str]
    count: int


def read_schema(path: str) -> ParquetSchema:
    """The schema of a file. Raises DamagedError if it is not a Parquet file."""
    with translate_errors(path), open_file(path) as file:
        schema, count = file.schema_arrow, int(file.metadata.num_rows)
        columns = list(zip(schema.names, schema.types, strict=True))
        fields = [
            f"{name}.{field.name}"
            for name, arrow_type in columns
            if _is_struct(arrow_type)
            for field in arrow_type
            if _column_type(field.type) is ColumnType.TEXT
        ]
        return ParquetSchema({name: _column_type(arrow_type) for name, arrow_type in columns}, frozenset(fields), count)


def read_rows(path: str, columns: Sequence[str], bytes_column: str | None = None) -> Iterator[list[tuple[Value, ...]]]:
    """Lists of rows: the values of the columns; `image.path` reads only that field of a struct.

    With `bytes_column`, each row ends with whether that column is null there. Raises DamagedError if the file is damaged.
    """
    with translate_errors(path), open_file(path) as file:
        is_null = None if bytes_column is None else _nulls(path, file.metadata, bytes_column)
        for batch in file.iter_batches(ROW_BATCH_SIZE, columns=list(columns)):
            values = [values_of(column_of(batch, name)) for name in columns]
            if is_null is not None:
                values.append(list(islice(is_null, batch.num_rows)))
            yield list(zip(*values, strict=True)) if values else [()] * batch.num_rows


def _nulls(path: str, metadata: Any, column: str) -> Iterator[bool]:
    """For each row, whether the value is null. Row groups whose statistics report no nulls are not read."""
    leaf = _leaf(metadata, column)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        statistics = group.column(leaf).statistics
        if statistics is not None and statistics.has_null_count and statistics.null_count == 0:
            yield from repeat(False, group.num_rows)
            continue
        for batch in stream(path, metadata, number, column):
            yield from column_of(batch, column).is_null().to_pylist()


def read_cell(path: str, row: int, column: str, fingerprint: str) -> bytes | None:
    """The bytes of one cell, or None for a null. Only its row group is read; it stays open for the following rows.

    `fingerprint` is the fingerprint of the file: a file that changed is opened again. Raises DamagedError if the cell does not
    exist or cannot be read.
    """
    with translate_errors(path):
        starts = _row_group_starts(path, fingerprint)
        if row >= starts[-1]:
            raise DamagedError(f"{path}: there is no row {row}; the file has {starts[-1]} rows")
        group = bisect_right(starts, row) - 1
        return _open_row_group(path, fingerprint, group, column).value(row - starts[group])


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

    return parquet.ParquetFile(check_regular(path), pre_buffer=False, **options)


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


def values_of(column: Any) -> list[Value]:
    """Converts an Arrow column to values of metadata fields. Nanoseconds become microseconds, the resolution of Python."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    try:
        return list(map(value_of, column.to_pylist()))
    except (ValueError, OverflowError, LookupError, pa.ArrowException):  # a date beyond the year 9999, an unknown time zone, …
        return _texts(column)


def _texts(column: Any) -> list[Value]:
    """The values as Arrow prints them. Text that is not UTF-8 keeps its bytes as lone surrogates, which no field accepts."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _column_type(column.type) is ColumnType.TEXT:
        blobs = column.cast(pa.large_binary()).to_pylist()
        return [None if blob is None else blob.decode(errors="surrogateescape") for blob in blobs]
    if types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC")).cast(pa.timestamp(column.type.unit))
    texts: list[Value] = column.cast(pa.string()).to_pylist()
    return texts


def _column_type(arrow_type: Any) -> ColumnType:
    import pyarrow as pa
    from pyarrow import types

    if isinstance(arrow_type, pa.BaseExtensionType):
        return ColumnType.TEXT if arrow_type.extension_name == UUID else _column_type(arrow_type.storage_type)
    if types.is_dictionary(arrow_type):
        return _column_type(arrow_type.value_type)
    if _is_struct(arrow_type) and _has_bytes(arrow_type):
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
    children = [_column_type(arrow_type.field(i).type) for i in range(arrow_type.num_fields)]
    if {ColumnType.BYTES, ColumnType.STRUCT, ColumnType.NESTED_BYTES}.intersection(children):
        return ColumnType.NESTED_BYTES
    return ColumnType.INTEGER if types.is_integer(arrow_type) else ColumnType.OTHER


def _has_bytes(struct: Any) -> bool:
    position = struct.get_field_index("bytes")
    return position >= 0 and _column_type(struct.field(position).type) is ColumnType.BYTES


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
    except (OSError, ArrowException, ValueError, LookupError, OverflowError, RecursionError, MemoryError) as error:
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
