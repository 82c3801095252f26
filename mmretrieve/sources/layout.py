"""Which columns of a parquet file are what."""

from __future__ import annotations

from dataclasses import dataclass

from mmretrieve.errors import GalleryError
from mmretrieve.sources.base import Columns
from mmretrieve.sources.ids import PATHS, find, first_of
from mmretrieve.sources.parquet_files import ColumnType, ParquetRows
from mmretrieve.sources.values import field_names

PICTURES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
IDS = ("id", "key")


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """Columns by what they hold, "image.bytes" being a field of a struct. Without `id`, the row's number is the id."""

    bytes: str | None
    path: str | None
    id: str | None
    fields: tuple[str, ...]


def choose(rows: ParquetRows, columns: Columns) -> ColumnLayout:
    """The columns that are named, else those that look the part; GalleryError where one is missing or unfit.

    Pictures: a struct of bytes and paths, or bytes in a column that is called like pictures, or a column of paths, or the
    only column of bytes. Ids: "id" or "key"; else the paths, those in structs only where none is missing or repeated.
    The other columns are fields, save those with bytes in them.
    """
    field_names(rows.names, rows.path)
    image = _pictures(rows) if columns.image is None else find(columns.image, rows.names, rows.path)
    if image is None:
        raise GalleryError(f"{rows.path}: no column of pictures among {', '.join(rows.names)}; name it")
    bytes_, path = _inside(rows, image)
    id_ = first_of(IDS, rows.names) if columns.id is None else find(columns.id, rows.names, rows.path)
    if id_ is not None and rows.kinds[id_] not in (ColumnType.TEXT, ColumnType.WHOLE):
        raise GalleryError(f"{rows.path}: ids should be texts or whole numbers; {id_!r} holds {rows.kinds[id_]}")
    if id_ is None and path is not None and (bytes_ is None or _tells_apart(rows, path)):
        id_ = path
    light = [name for name in rows.names if rows.kinds[name] not in (ColumnType.STRUCT, ColumnType.BYTES, ColumnType.HEAVY)]
    return ColumnLayout(bytes_, path, id_, tuple(name for name in light if name not in (image, id_)))


def _pictures(rows: ParquetRows) -> str | None:
    structs, blobs, texts = (
        [name for name, kind in rows.kinds.items() if kind is wanted]
        for wanted in (ColumnType.STRUCT, ColumnType.BYTES, ColumnType.TEXT)
    )
    found = first_of(PICTURES, structs) or (structs[0] if structs else None)
    found = found or first_of(PICTURES, blobs) or first_of(PATHS, texts)
    return found or (blobs[0] if len(blobs) == 1 else None)


def _inside(rows: ParquetRows, image: str) -> tuple[str | None, str | None]:
    """The columns of bytes and of paths that a column of pictures has."""
    kind = rows.kinds[image]
    if kind is ColumnType.STRUCT:
        return f"{image}.bytes", f"{image}.path" if rows.has(image, "path") else None
    if kind in (ColumnType.BYTES, ColumnType.TEXT):
        return (image, None) if kind is ColumnType.BYTES else (None, image)
    raise GalleryError(f"{rows.path}: pictures should be bytes or paths; {image!r} holds {kind}")


def _tells_apart(rows: ParquetRows, column: str) -> bool:
    """Whether every row has a text of its own there."""
    seen: set[str] = set()
    for (value,) in rows.read((column,)):
        if not value or not value.strip() or value in seen:
            return False
        seen.add(value)
    return True
