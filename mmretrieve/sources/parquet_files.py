"""Parquet files: what their columns are, and what is in them, a few rows at a time. The only module that knows `pyarrow`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmretrieve.errors import GalleryError

LISTED_ROWS = 1024  # read at a time while listing
WINDOW_BYTES = 8 << 20  # roughly what one batch of pictures holds
STREAM_BYTES = 1 << 20


class ColumnType(StrEnum):
    """What a column can be used for."""

    STRUCT = "a struct of bytes and path"
    BYTES = "bytes"
    TEXT = "texts"
    WHOLE = "whole numbers"
    OTHER = "other values"
    HEAVY = "values with bytes inside"


class DamagedError(GalleryError):
    """A parquet file, or a part of it, that cannot be read."""


def need_pyarrow() -> None:
    """Raises GalleryError where the package is missing, before any work is done in vain."""
    if find_spec("pyarrow") is None:
        raise GalleryError("reading parquet files needs the package pyarrow: pip install 'mmretrieve[parquet]'")


class ParquetRows:
    """A parquet file gone through row by row. GalleryError without pyarrow, DamagedError where it is no parquet file."""

    def __init__(self, path: str) -> None:
        need_pyarrow()
        with readable(path), open_file(path) as file:
            schema, self._count = file.schema_arrow, int(file.metadata.num_rows)
        self.path = path
        self.names: tuple[str, ...] = tuple(schema.names)
        self.kinds = {name: _kind(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
        self._structs = {name: kind for name, kind in zip(schema.names, schema.types, strict=True) if _is_struct(kind)}

    def __len__(self) -> int:
        return self._count

    def has(self, column: str, field: str) -> bool:
        """Whether a struct column has that field, as texts."""
        kind = self._structs.get(column)
        return kind is not None and kind.get_field_index(field) >= 0 and _kind(kind.field(field).type) is ColumnType.TEXT

    def read(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The values of those columns, a tuple a row; "image.path" is a field of a struct, and nothing else of it is read.

        Values are Python's own; times keep microseconds. DamagedError where the file breaks off.
        """
        with readable(self.path), open_file(self.path) as file:
            for batch in file.iter_batches(LISTED_ROWS, columns=list(columns)):
                values = [_python(column_of(batch, name)) for name in columns]
                yield from zip(*values, strict=True) if values else (() for _ in range(batch.num_rows))

    def missing(self, column: str) -> Iterator[bool]:
        """Row by row, whether the value is null. Row groups that say they have none are not read for it."""
        with readable(self.path), open_file(self.path) as file:
            leaf = _leaf(file.metadata, column)
            for number in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                counts = group.column(leaf).statistics
                if counts is not None and counts.has_null_count and counts.null_count == 0:
                    yield from (False for _ in range(group.num_rows))
                    continue
                for batch in stream(self.path, file.metadata, number, column):
                    yield from column_of(batch, column).is_null().to_pylist()


def stream(path: str, metadata: Any, group: int, column: str) -> Iterator[Any]:
    """One column of one row group in batches of some megabytes, never the whole of it at once."""
    leaf = metadata.row_group(group).column(_leaf(metadata, column))
    size = max(1, leaf.total_uncompressed_size // max(1, leaf.num_values))
    rows = min(max(1, WINDOW_BYTES // size), LISTED_ROWS)
    with open_file(path, metadata=metadata, buffer_size=STREAM_BYTES) as file:
        yield from file.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False)


def open_file(path: str, **options: Any) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(path, pre_buffer=False, **options)


def _leaf(metadata: Any, column: str) -> int:
    """The number of the stored column of that name."""
    for number in range(metadata.num_columns):
        if metadata.schema.column(number).path == column:
            return number
    raise DamagedError(f"there is no column {column!r} of single values")


def column_of(batch: Any, name: str) -> Any:
    """A column of a batch, or a field of a struct, null where the struct is."""
    if name in batch.schema.names:
        return batch.column(name)
    parent, _, field = name.rpartition(".")
    column = batch.column(parent)
    return column.flatten()[column.type.get_field_index(field)]


def _python(values: Any) -> list[Any]:
    """Arrow's values as Python's. Nanoseconds become microseconds: Python's own times know no finer ones."""
    import pyarrow as pa

    if pa.types.is_timestamp(values.type) and values.type.unit == "ns":
        values = values.cast(pa.timestamp("us", values.type.tz), safe=False)
    found: list[Any] = values.to_pylist()
    return found


def _kind(kind: Any) -> ColumnType:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if _is_struct(kind) and kind.get_field_index("bytes") >= 0 and _kind(kind.field("bytes").type) is ColumnType.BYTES:
        return ColumnType.STRUCT
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
        return ColumnType.BYTES
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return ColumnType.TEXT
    if any(
        _kind(kind.field(i).type) in (ColumnType.BYTES, ColumnType.STRUCT, ColumnType.HEAVY) for i in range(kind.num_fields)
    ):
        return ColumnType.HEAVY
    return ColumnType.WHOLE if types.is_integer(kind) else ColumnType.OTHER


def _is_struct(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind))


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turns what pyarrow raises about a file into one line that names it."""
    from pyarrow import ArrowException

    try:
        yield
    except DamagedError as error:
        message = str(error)
        raise error if message.startswith(path) else DamagedError(f"{path}: {message}") from None
    except (OSError, ArrowException, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedError(f"{path}: cannot be read as parquet ({reason.removeprefix(f'{Path(path)}: ')})") from error


def write(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """A file of those records; what one does not name is null in it, and whole numbers among others become such."""
    need_pyarrow()
    import pyarrow as pa
    from pyarrow import parquet

    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    parquet.write_table(pa.table({name: pa.array(_alike(values)) for name, values in columns.items()}), path)


def _alike(values: list[Any]) -> list[Any]:
    return (
        [float(value) if isinstance(value, int) else value for value in values]
        if any(isinstance(value, float) for value in values)
        else values
    )
