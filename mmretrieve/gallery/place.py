"""stub until the sources are done"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mmretrieve.errors import ImageError


@dataclass(frozen=True, slots=True)
class Place:
    """`path` is the file; `part` says which bytes of it, and is None for all of them."""

    path: str
    part: str | None = None

    def open(self) -> BinaryIO:
        try:
            if Path(self.path).exists() and not Path(self.path).is_file():
                raise ImageError(f"{self.path}: not a regular file")
            return Path(self.path).open("rb")
        except OSError as error:
            raise ImageError(f"{self.path}: cannot be read ({error.strerror or error})") from error

    def stamp(self) -> str:
        try:
            found = Path(self.path).stat()
        except OSError as error:
            raise ImageError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        return f"{found.st_size}-{found.st_mtime_ns}"
