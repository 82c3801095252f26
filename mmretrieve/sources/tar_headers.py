"""Reads the headers of uncompressed tar archives: which members there are and where their bytes start."""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mmretrieve.errors import ImageError
from mmretrieve.sources.location import Location

MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}
UNPACK = "cannot be read in place; unpack or repack it as a plain .tar"


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in a tar archive. `link` names the member with its bytes; `problem` says why they cannot be read in place."""

    name: str
    offset: int
    size: int
    link: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class TarDamage:
    """Why reading an archive stopped, and `after` how many members."""

    reason: str
    after: int


def read_headers(path: str) -> Iterator[TarMember | TarDamage]:
    """Every complete, visible file in the order of the archive; if the archive is damaged, a final TarDamage.

    Only headers are read. An archive without an end marker counts as damaged, because writing it may have been interrupted.
    """
    try:
        with Location(path).open() as file:
            start = file.read(max(map(len, MAGIC)))
            compression = next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)
            file.seek(0)
            if compression is None:
                yield from _headers(file)
            else:
                yield TarDamage(f"compressed with {compression}: {UNPACK}", 0)
    except (ImageError, OSError) as error:
        yield TarDamage(str(error), 0)


def normalize_name(name: str) -> str:
    """The name of a member without a leading "./"."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _headers(file: BinaryIO) -> Iterator[TarMember | TarDamage]:
    length, count, end = os.fstat(file.fileno()).st_size, 0, 0
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - owns nothing but the file
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them in memory
            if info.offset < end or info.size < 0:
                raise tarfile.ReadError("a header points backwards")
            if info.isreg() and not info.issparse() and info.offset_data + info.size > length:
                raise tarfile.ReadError(f"{info.name!r} is truncated")
            count, end = count + 1, info.offset + tarfile.BLOCKSIZE
            name = normalize_name(info.name)
            if not info.isdir() and not _is_hidden(name):
                yield _member(name, info)
        _check_end(file, archive.offset)
    except Exception as error:  # tarfile raises many kinds of errors
        reason = str(error) or type(error).__name__
        yield TarDamage(
            f"damaged after {count} members ({reason})" if count else f"not a readable tar archive ({reason})", count
        )


def _member(name: str, info: tarfile.TarInfo) -> TarMember:
    if info.islnk():
        return TarMember(name, 0, 0, link=normalize_name(info.linkname))
    if info.issym():
        return TarMember(name, 0, 0, link=posixpath.normpath(posixpath.join(posixpath.dirname(name), info.linkname)))
    if info.issparse():
        return TarMember(name, 0, 0, problem=f"stored as a sparse file, which {UNPACK}")
    if not info.isreg():
        return TarMember(name, 0, 0, problem="not a regular file")
    return TarMember(name, info.offset_data, info.size)


def _check_end(file: BinaryIO, offset: int) -> None:
    """Raises ReadError if the last member is not followed by an end marker, which tarfile does not check."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the end marker is missing; the archive may be truncated")
    if any(block):
        raise tarfile.ReadError(f"no header at byte {offset}")


def _is_hidden(name: str) -> bool:
    return any(member.startswith(".") and member not in (".", "..") for member in name.split("/"))
