"""Reads strangers' Parquet files in child processes, so that a file that crashes pyarrow is one damaged file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmretrieve.errors import ImageError
from mmretrieve.isolation import CrashError, IsolatedReader, iterate_isolated, run_isolated
from mmretrieve.sources import parquet_files
from mmretrieve.sources.parquet_files import DamagedError, require_pyarrow
from mmretrieve.sources.values import Value


class ParquetRows:
    """The rows of a Parquet file. Raises GalleryError without pyarrow, DamagedError if the file is not a Parquet file."""

    def __init__(self, path: str) -> None:
        require_pyarrow()
        with _translate_crashes(path):
            self._schema = run_isolated(parquet_files.read_schema, path)
        self.path, self.types = path, self._schema.types
        self.names = tuple(self.types)

    def __len__(self) -> int:
        return self._schema.count

    def has(self, column: str, field: str) -> bool:
        """Whether a struct column has that field, with text values."""
        return f"{column}.{field}" in self._schema.text_fields

    def read(self, columns: Sequence[str], bytes_column: str | None = None) -> Iterator[tuple[Value, ...]]:
        """One tuple per row with the values of the columns; `image.path` reads only that field of a struct.

        With `bytes_column`, each tuple ends with whether that column is null. Raises DamagedError if the file is damaged.
        """
        with _translate_crashes(self.path):
            for rows in iterate_isolated(parquet_files.read_rows, self.path, tuple(columns), bytes_column):
                yield from rows


_cells = IsolatedReader()


def cell(path: str, row: int, column: str, fingerprint: str) -> bytes | None:
    """The bytes of one cell, or None for a null. `fingerprint` is the fingerprint of the file.

    Raises ImageError if the cell does not exist or cannot be read, GalleryError without pyarrow.
    """
    require_pyarrow()
    try:
        with _translate_crashes(path):
            return _cells.run(parquet_files.read_cell, path, row, column, fingerprint)
    except DamagedError as error:
        raise ImageError(str(error)) from error


@contextmanager
def _translate_crashes(path: str) -> Iterator[None]:
    try:
        yield
    except CrashError as error:
        raise DamagedError(f"{path}: cannot be read as Parquet ({error})") from error
