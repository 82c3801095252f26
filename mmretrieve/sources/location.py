"""Where the bytes of a picture lie: in a file of their own, or inside one that holds many. Read in place, nothing is unpacked."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mmretrieve.errors import ImageError
from mmretrieve.sources.parquet_cells import cell


@dataclass(frozen=True, slots=True)
class Location:
    """`path` is the file; `member` says which bytes of it, and is None for all of them.

    "tar:OFFSET:SIZE" are the bytes of a member of an uncompressed tar, "parquet:ROW:COLUMN" the value of a cell, rows
    counted from 0, COLUMN being "image.bytes" for a field of a struct.
    """

    path: str
    member: str | None = None

    def open(self) -> BinaryIO:
        """The bytes, from their start, as a file whose `name` a message can use; close it after use.

        Raises ImageError, naming the file, where it is missing, not a regular file, or does not hold that member;
        GalleryError where reading it needs a package that is missing.
        """
        fingerprint = self.fingerprint()
        if self.member is None:
            return self._file()
        kind, _, rest = self.member.partition(":")
        first, _, second = rest.partition(":")
        if kind == "tar" and first.isdecimal() and second.isdecimal():
            return self._member(int(first), int(second))
        if kind == "parquet" and first.isdecimal() and second:
            return self._cell(int(first), second, fingerprint)
        raise self._error(f"no such member: {self.member!r}")

    def fingerprint(self) -> str:
        """ "SIZE-MTIME_NS" of the file: another one means that its content may have changed. ImageError as in `open`."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError as error:
            raise self._error("no such image" if self.member is None else "no such file") from error
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise self._error(f"cannot be read ({_reason(error)})") from error
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise self._error("not a regular file")
        return f"{status.st_size}-{status.st_mtime_ns}"

    def _member(self, offset: int, size: int) -> BinaryIO:
        with self._file() as file:
            try:
                content = b""
                if offset + size <= os.fstat(file.fileno()).st_size:  # else not even a part of it is wanted
                    file.seek(offset)
                    content = file.read(size)
            except OSError as error:
                raise self._error(f"cannot be read ({_reason(error)})") from error
        if len(content) < size:
            raise self._error(f"ends before the {size} bytes at {offset}: has it changed since it was read?")
        return _NamedBytes(content, f"{Path(self.path).name} at {offset}")

    def _cell(self, row: int, column: str, fingerprint: str) -> BinaryIO:
        content = cell(self.path, row, column, fingerprint)
        if content is None:
            raise self._error(f"no picture in row {row}, column {column!r}")
        return _NamedBytes(content, f"{Path(self.path).name}, row {row}")

    def _file(self) -> BinaryIO:
        try:
            return open(self.path, "rb")  # the caller closes it
        except OSError as error:
            raise self._error(f"cannot be read ({_reason(error)})") from error

    def _error(self, message: str) -> ImageError:
        return ImageError(f"{self.path}: {message}")


class _NamedBytes(io.BytesIO):
    """Bytes that know where they come from."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
