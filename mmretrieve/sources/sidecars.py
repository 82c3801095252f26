"""What lies beside a picture in a tar: .json with fields, .txt with a caption, .cls with a class."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import BinaryIO

from mmretrieve.errors import GalleryError
from mmretrieve.sources.base import Value
from mmretrieve.sources.memory import read_object
from mmretrieve.sources.tar_headers import TarMember
from mmretrieve.sources.values import fields_of, folded, number_of

LARGEST = 16 << 20  # bytes; beyond it is no description of a picture


class Sidecar(StrEnum):
    """The endings that are read, in this order: what an earlier one names stays."""

    JSON = "json"
    CAPTION = "txt"
    CLASS = "cls"


def fields_beside(members: Mapping[Sidecar, TarMember], file: BinaryIO) -> dict[str, Value]:
    """The fields that a picture's neighbours give. GalleryError, naming the one at fault, where one cannot be read.

    img2dataset writes the caption twice, as a text and in the JSON: the JSON's is taken.
    """
    fields: dict[str, Value] = {}
    for kind in Sidecar:
        if kind in members:
            known = {folded(name) for name in fields}
            more = _read(kind, members[kind], file)
            fields |= {name: value for name, value in more.items() if folded(name) not in known}
    return fields


def _read(kind: Sidecar, member: TarMember, file: BinaryIO) -> dict[str, Value]:
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
    if member.link or member.trouble:
        raise GalleryError(f"{member.name}: {member.trouble or 'a link, which cannot be read in location'}")
    if member.size > LARGEST:
        raise GalleryError(f"{member.name}: {member.size:,} bytes are more than the limit of {LARGEST:,}")
    file.seek(member.offset)
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GalleryError(f"{member.name}: not UTF-8 text, at byte {error.start}") from error
