"""Images in uncompressed tar archives, read in place: WebDataset and img2dataset shards, or any packed folder.

Members with the same name up to the first dot belong together: x.jpg is an image; x.json, x.txt and x.cls describe it.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from mmretrieve.errors import GalleryError, ImageError
from mmretrieve.filters.expression import fold_case
from mmretrieve.images import SUFFIXES
from mmretrieve.sources.base import SourceItem, SourceReport, UnreadableItem, Value
from mmretrieve.sources.ignored import FileFilter, describe_ignored
from mmretrieve.sources.location import Location
from mmretrieve.sources.values import fields_of, number_of, read_object

SUFFIX = ".tar"
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}
UNPACK = "cannot be read in place; unpack or repack it as a plain .tar"
MAX_SIDECAR_BYTES = 16 << 20


class Sidecar(StrEnum):
    """The suffixes of members that describe an image, in order of precedence: a field of an earlier one is kept."""

    JSON = "json"
    CAPTION = "txt"
    CLASS = "cls"


SIDECAR_KINDS = {str(kind): kind for kind in Sidecar}


class Tar:
    """Every image of a tar archive, sorted by id, which is the name of the member. Hidden and system files are left out and counted.

    Raises GalleryError if the file is compressed, is not a tar archive, or contains no image.
    """

    def __init__(self, path: Path, exclude: Iterable[str] = ()) -> None:
        self._path = path.resolve()
        self.name = str(self._path)
        self._filter = FileFilter(SUFFIXES, exclude)
        self._ignored: Counter[str] = Counter()
        first = next(image_headers(read_headers(self.name), "", self._filter, self._ignored), None)
        if isinstance(first, TarDamage) and not first.after:
            raise GalleryError(f"{path}: {first.reason}")
        if first is None:
            ignored = describe_ignored(self._ignored)
            raise GalleryError(
                f"{path}: no images in this tar; looked for {' '.join(sorted(SUFFIXES))}"
                + (f"; it contains {ignored}" if ignored else "")
            )

    def __len__(self) -> int:
        return sum(1 for _ in image_headers(read_headers(self.name), "", self._filter, Counter()))

    def __iter__(self) -> Iterator[SourceItem | UnreadableItem]:
        ignored: Counter[str] = Counter()
        yield from entries(self.name, self._path.name, "", self._filter, ignored)
        self._ignored = ignored

    def report(self) -> SourceReport:
        """The counts of what is left out, of the last complete iteration."""
        return SourceReport(dict(self._ignored))


def image_headers(
    headers: Iterable[TarMember | TarDamage], prefix: str, files: FileFilter, ignored: Counter[str]
) -> Iterator[TarMember | TarDamage]:
    """The headers that become entries, in their order: those of images, and the damage that ends the archive.

    Other members, except for sidecars, are counted in `ignored`.
    """
    for header in headers:
        if isinstance(header, TarDamage):
            yield header
        elif (kind := files.ignores_path(prefix + header.name)) is not None:
            ignored[str(kind)] += 1
        elif (kind := files.ignores_file(header.name)) is None:
            yield header
        elif _sidecar_kind(header) is None:
            ignored[str(kind)] += 1


def entries(
    path: str, name: str, prefix: str, files: FileFilter, ignored: Counter[str]
) -> Iterator[SourceItem | UnreadableItem]:
    """The images of an archive sorted by id (`prefix` + member name), then its damage, under the id `name`.

    Headers are held in memory, image bytes are not. Of two members with the same name the last is used, as on extraction.
    An image whose sidecar cannot be read is an UnreadableItem. What is left out is counted in `ignored`.
    """
    headers = list(read_headers(path))
    images = [header for header in image_headers(headers, prefix, files, ignored) if isinstance(header, TarMember)]
    members = [header for header in headers if isinstance(header, TarMember) and not files.ignores_path(prefix + header.name)]
    last_of_name, sidecars = {member.name: member for member in members}, _sidecars_by_group(members)
    if images:
        with Location(path).open() as file:
            for image in sorted(images, key=lambda image: image.name):
                try:
                    content = _content_of(image, last_of_name)
                    fields = _sidecar_fields(sidecars.get(_group(image.name), {}), file)
                except GalleryError as error:
                    yield UnreadableItem(prefix + image.name, str(error))
                else:
                    location = Location(path, f"tar:{content.offset}:{content.size}")
                    yield SourceItem(prefix + image.name, location, fields)
    yield from (UnreadableItem(name, header.reason) for header in headers if isinstance(header, TarDamage))


def _content_of(image: TarMember, last_of_name: Mapping[str, TarMember]) -> TarMember:
    """The member with the bytes of an image: itself, or the one that it links to. Raises GalleryError if there is none."""
    if last_of_name[image.name] is not image:
        raise GalleryError("a later member has the same name and replaces it")
    content = image if image.link is None else last_of_name.get(image.link)
    if content is None or content.link is not None:
        raise GalleryError(f"a link to {image.link}, which is not a file in this tar")
    if content.problem is not None:
        raise GalleryError(content.problem)
    return content


def _sidecars_by_group(members: list[TarMember]) -> dict[str, dict[Sidecar, TarMember]]:
    """The sidecars of each group. The members of a group need not be adjacent."""
    groups: dict[str, dict[Sidecar, TarMember]] = {}
    for member in members:
        if (kind := _sidecar_kind(member)) is not None:
            groups.setdefault(_group(member.name), {})[kind] = member
    return groups


def _sidecar_kind(member: TarMember) -> Sidecar | None:
    return SIDECAR_KINDS.get(os.path.basename(member.name).partition(".")[2].lower())


def _sidecar_fields(sidecars: Mapping[Sidecar, TarMember], file: BinaryIO) -> dict[str, Value]:
    """The fields that the sidecars of an image give. Raises GalleryError, naming the sidecar, if one cannot be read.

    img2dataset writes the caption twice, as text and in the JSON; the JSON takes precedence.
    """
    fields: dict[str, Value] = {}
    for kind in Sidecar:
        if kind in sidecars:
            existing = {fold_case(name) for name in fields}
            new = _read_sidecar(kind, sidecars[kind], file)
            fields |= {name: value for name, value in new.items() if fold_case(name) not in existing}
    return fields


def _read_sidecar(kind: Sidecar, member: TarMember, file: BinaryIO) -> dict[str, Value]:
    text = _text(member, file)
    if kind is Sidecar.CAPTION:
        return {"caption": text.strip()}
    if kind is Sidecar.CLASS:
        number = number_of(text.strip())
        return {"cls": text.strip() if number is None else number}
    try:
        record = read_object(text)
    except GalleryError as error:
        raise GalleryError(f"{member.name}: {error}") from error
    return fields_of(record, member.name)


def _text(member: TarMember, file: BinaryIO) -> str:
    if member.link or member.problem:
        raise GalleryError(f"{member.name}: {member.problem or 'a link, which cannot be read in place'}")
    if member.size > MAX_SIDECAR_BYTES:
        raise GalleryError(f"{member.name}: {member.size:,} bytes exceed the limit of {MAX_SIDECAR_BYTES:,}")
    file.seek(member.offset)
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GalleryError(f"{member.name}: not UTF-8 text, at byte {error.start}") from error


def _group(name: str) -> str:
    """The part of a member's name that its group shares: "a/x.left.jpg" → "a/x"."""
    folder, file = os.path.split(name)
    return f"{folder}/{file.partition('.')[0]}"


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
    """Every complete file in the order of the archive; if the archive is damaged, a final TarDamage.

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
                raise tarfile.ReadError("two members overlap")
            if info.isreg() and not info.issparse() and info.offset_data + info.size > length:
                raise tarfile.ReadError(f"{info.name!r} is truncated")
            count, end = count + 1, info.offset + tarfile.BLOCKSIZE
            name = normalize_name(info.name)
            if not info.isdir():
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
