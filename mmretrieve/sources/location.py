"""The location of an image's bytes: a file, or a part of an archive or Parquet file, which is read in place."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mmretrieve.errors import ImageError
from mmretrieve.images import MAX_FILE_BYTES, NOT_FETCHED, URL
from mmretrieve.options import regular_status
from mmretrieve.sources.parquet_rows import cell

MEMBER = re.compile(r"tar:(?P<offset>[0-9]{1,40}):(?P<size>[0-9]{1,40})|parquet:(?P<row>[0-9]{1,40}):(?P<column>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Location:
    """Where the bytes of an image are stored.

    Parameters
    ----------
    path : str
        The file; empty for an image that was added from memory.
    member : str, optional
        The bytes in it: `tar:OFFSET:SIZE` for a member of an uncompressed tar archive, `parquet:ROW:COLUMN` for a cell of a
        Parquet file (rows are counted from 0; `image.bytes` is a field of a struct). None is the whole file.
    """

    path: str
    member: str | None = None

    def open(self) -> BinaryIO:
        """Opens the bytes as a binary file, positioned at their start. The caller closes it.

        Raises ImageError, naming the file, if it is missing, not a regular file, or does not contain the member;
        GalleryError if a package for reading it is missing.
        """
        fingerprint = self.fingerprint()
        if self.member is None:
            return self._open_file()
        match = MEMBER.fullmatch(self.member)
        if match is None:
            raise self._error(f"invalid member {self.member!r:.200}; expected tar:OFFSET:SIZE or parquet:ROW:COLUMN")
        if match["offset"] is not None:
            return self._open_member(int(match["offset"]), int(match["size"]))
        return self._open_cell(int(match["row"]), match["column"], fingerprint)

    def fingerprint(self) -> str:
        """The fingerprint `SIZE-MTIME_NS` of the file, which changes when the file does. Raises ImageError as `open` does."""
        if not self.path:
            raise ImageError("there is no file, because this image was added from memory; only its thumbnail is stored")
        try:
            status = regular_status(self.path)
        except FileNotFoundError as error:
            if URL.search(self.path):  # a table of URLs
                raise self._error(NOT_FETCHED) from error
            raise self._error("no such image" if self.member is None else "no such file") from error
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            raise self._error(f"cannot be read ({_reason(error)})") from error
        if status.st_size == 0:  # also of files of /proc, of which some are endless
            raise self._error("the file is empty")
        return f"{status.st_size}-{status.st_mtime_ns}"

    def _open_member(self, offset: int, size: int) -> BinaryIO:
        with self._open_file() as file:
            try:
                content = b""
                if (
                    size <= MAX_FILE_BYTES and offset + size <= os.fstat(file.fileno()).st_size
                ):  # otherwise nothing is read at all
                    file.seek(offset)
                    content = file.read(size)
            except OSError as error:
                raise self._error(f"cannot be read ({_reason(error)})") from error
        if len(content) < size:
            raise self._error(f"is shorter than when it was indexed (no {size} bytes at {offset}); index it again")
        return _NamedBytes(content, f"{Path(self.path).name} at {offset}")

    def _open_cell(self, row: int, column: str, fingerprint: str) -> BinaryIO:
        content = cell(self.path, row, column, fingerprint)
        if content is None:
            raise self._error(f"no image in row {row}, column {column!r}")
        return _NamedBytes(content, f"{Path(self.path).name}, row {row}")

    def _open_file(self) -> BinaryIO:
        try:
            return open(self.path, "rb")  # the caller closes it
        except OSError as error:
            raise self._error(f"cannot be read ({_reason(error)})") from error

    def _error(self, message: str) -> ImageError:
        return ImageError(f"{self.path}: {message}")


class _NamedBytes(io.BytesIO):
    """Bytes with a `name` for error messages."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
