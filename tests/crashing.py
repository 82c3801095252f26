"""Functions that end the child process that calls them. The child imports this module by its name."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time
from collections.abc import Iterator

from mmretrieve.sources import parquet_files
from mmretrieve.sources.parquet_files import ParquetSchema


def abort() -> None:
    os.abort()


def segfault() -> None:
    ctypes.string_at(0)


def reserve(size: int) -> int:
    with mmap.mmap(-1, size) as memory:
        return len(memory)


def hang() -> None:
    time.sleep(60)


def fail(message: str) -> None:
    raise parquet_files.DamagedError(message)


def count_then_abort(n: int) -> Iterator[int]:
    yield from range(n)
    os.abort()


def shout() -> str:
    sys.stdout.write("text that is no answer")
    sys.stdout.flush()
    return "an answer"


def schema_of_all_but_one(path: str) -> ParquetSchema:
    """What `read_schema` does, except that a file called "b.parquet" crashes it."""
    if path.endswith("b.parquet"):
        os.abort()
    return parquet_files.read_schema(path)


def cell_of_all_but_one(path: str, row: int, column: str, fingerprint: str) -> bytes | None:
    """What `read_cell` does, except that the file "b.parquet" crashes it."""
    if path.endswith("b.parquet"):
        segfault()
    return parquet_files.read_cell(path, row, column, fingerprint)
