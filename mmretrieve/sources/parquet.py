"""Parquet files as sources: images inside, as in datasets of the Hugging Face hub, or paths of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from mmretrieve.errors import GalleryError
from mmretrieve.sources.base import (
    PATH_COLUMNS,
    Columns,
    Entry,
    IdRegistry,
    SourceItem,
    SourceReport,
    UnreadableItem,
    find_column,
    first_column,
    list_names,
)
from mmretrieve.sources.folder import FolderEntry, walk
from mmretrieve.sources.ignored import FileFilter
from mmretrieve.sources.location import Location
from mmretrieve.sources.parquet_files import ColumnType, DamagedError
from mmretrieve.sources.parquet_rows import ParquetRows
from mmretrieve.sources.partitions import Partitions
from mmretrieve.sources.values import Value, field_names, fields_of, is_text

SUFFIX = ".parquet"
IMAGE_COLUMNS = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
ID_COLUMNS = ("id", "key")
IMAGE_TYPES = (ColumnType.STRUCT, ColumnType.BYTES)


class Parquet:
    """The rows of a Parquet file, in order, counted from 0. Image bytes are not read. See `choose_columns`.

    A row without an image, with a value that cannot be stored, or with an empty or repeated id is an UnreadableItem. If the file is damaged
    further on, the last entry says so. Raises GalleryError if a column is missing or has an unsuitable type, DamagedError if the file cannot
    be read.

    Parameters
    ----------
    path : Path
        The file.
    columns : Columns
        The columns to use.
    name_in_folder : str, optional
        The id of the file in a folder. It becomes the prefix of ids that no column gives.
    """

    def __init__(self, path: Path, columns: Columns, *, name_in_folder: str | None = None) -> None:
        self.name = str(path.resolve())
        self._folder = path.resolve().parent
        self.file_id, self._prefix = name_in_folder or path.name, f"{name_in_folder}/" if name_in_folder else ""
        self._rows = ParquetRows(self.name)
        self._layout = choose_columns(self._rows, columns)
        self._has_prefix = self._layout.id in (None, self._layout.path)  # then ids need not be unique in a folder
        if not self._has_prefix:
            self._prefix = ""

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Entry]:
        return self.entries(IdRegistry())

    def entries(self, ids: IdRegistry, fields: Mapping[str, Value] = MappingProxyType({})) -> Iterator[Entry]:
        """The entries; `ids` are those of the files read before, `fields` are additional ones of every item."""
        layout, row = self._layout, -1
        columns = tuple(dict.fromkeys((*filter(None, (layout.id, layout.path)), *layout.fields)))
        ids = IdRegistry() if self._has_prefix else ids
        try:
            for row, values in enumerate(self._rows.read(columns, layout.bytes)):
                no_bytes = layout.bytes is None or bool(values[-1])
                entry = self._entry(row, dict(zip(columns, values, strict=False)), no_bytes, ids)
                yield replace(entry, fields={**fields, **entry.fields}) if isinstance(entry, SourceItem) else entry
        except DamagedError as error:
            yield UnreadableItem(self.file_id, f"damaged after {row + 1} rows ({error})")

    def report(self) -> SourceReport:
        """The columns that are left out."""
        return SourceReport(notes=tuple(f"{self.file_id}: {note}" for note in self._layout.notes))

    def _entry(self, row: int, values: Mapping[str, Value], no_bytes: bool, ids: IdRegistry) -> Entry:
        layout, where = self._layout, f"row {row}"
        id_ = f"{self._prefix}{row:08}" if layout.id is None else f"{self._prefix}{_text(values[layout.id])}"
        path = _text(values[layout.path]) if layout.path is not None else ""
        try:
            if layout.id is not None:
                ids.add(id_.removeprefix(self._prefix), self.name, where)
        except GalleryError as error:
            return UnreadableItem(f"{self.file_id}, {where}", str(error))
        if no_bytes and not path.strip():
            return UnreadableItem(id_, f"{self.name}, {where}: there is no image in this row")
        location = Location(str(self._folder / path)) if no_bytes else Location(self.name, f"parquet:{row}:{layout.bytes}")
        try:
            return SourceItem(id_, location, fields_of({name: values[name] for name in layout.fields}, f"{self.name}, {where}"))
        except GalleryError as error:
            return UnreadableItem(id_, str(error))


class ParquetFolder:
    """The rows of all Parquet files below a folder, file after file, sorted by path. Folders named `key=value` become fields.

    A file that cannot be read or has other columns is an UnreadableItem. Raises GalleryError if no file can be read.
    """

    def __init__(self, root: Path, columns: Columns, exclude: Iterable[str] = ()) -> None:
        self.name = str(root.resolve())
        self._ignored: Counter[str] = Counter()
        entries = walk(root.resolve(), FileFilter({SUFFIX}, exclude), self._ignored)
        self._files = [_open(entry, columns) for entry in entries]
        unreadable = [file for file in self._files if isinstance(file, UnreadableItem)]
        if len(unreadable) == len(self._files):
            raise GalleryError(unreadable[0].reason if unreadable else f"{root}: no Parquet files in this folder")
        self._partitions = Partitions(file.file_id for file in self._files if isinstance(file, Parquet))

    def __len__(self) -> int:
        return sum(1 if isinstance(file, UnreadableItem) else len(file) for file in self._files)

    def __iter__(self) -> Iterator[Entry]:
        ids = IdRegistry()
        for file in self._files:
            if isinstance(file, UnreadableItem):
                yield file
            else:
                yield from file.entries(ids, self._partitions.fields(file.file_id))

    def report(self) -> SourceReport:
        """The files and columns that are left out."""
        notes = [note for file in self._files if isinstance(file, Parquet) for note in file.report().notes]
        return SourceReport(dict(self._ignored), tuple(notes))


def _open(entry: FolderEntry | UnreadableItem, columns: Columns) -> Parquet | UnreadableItem:
    if isinstance(entry, UnreadableItem):
        return entry
    try:
        return Parquet(Path(entry.real_path()), columns, name_in_folder=entry.id)
    except GalleryError as error:
        return UnreadableItem(entry.id, str(error))


def _text(value: Value) -> str:
    return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """Which columns hold what; `image.bytes` is a field of a struct. Without `id`, the number of the row is the id."""

    bytes: str | None
    path: str | None
    id: str | None
    fields: tuple[str, ...]
    notes: tuple[str, ...] = ()


def choose_columns(rows: ParquetRows, columns: Columns) -> ColumnLayout:
    """The named columns, or those chosen by name and type. Raises GalleryError if one is missing or unsuitable.

    Images: a struct of bytes and path, bytes in a column with a usual name of images, a column of paths, or the only column
    of bytes. Ids: `id` or `key`, otherwise the paths; paths inside structs only if all are present and distinct. All other
    columns without bytes are metadata.
    """
    named = tuple(name for name in rows.names if name.strip() and is_text(name))
    field_names(named, rows.path)
    image = _image_column(rows) if columns.image is None else find_column(columns.image, rows.names, rows.path)
    if image is None:
        raise GalleryError(f"{rows.path}: no column of images among {list_names(rows.names)}; name the column of images")
    bytes_, path = _bytes_and_path(rows, image)
    id_ = first_column(ID_COLUMNS, rows.names) if columns.id is None else find_column(columns.id, rows.names, rows.path)
    if id_ is not None and rows.types[id_] not in (ColumnType.TEXT, ColumnType.INTEGER):
        raise GalleryError(f"{rows.path}: ids must be text or whole numbers; {id_!r} contains {rows.types[id_]}")
    if id_ is None and path is not None and (bytes_ is None or _is_unique(rows, path)):
        id_ = path
    others = [name for name in named if name not in (image, id_)]
    with_bytes = [name for name in others if rows.types[name] in (*IMAGE_TYPES, ColumnType.NESTED_BYTES)]
    notes = []
    if with_bytes:
        notes.append(f"{', '.join(map(repr, with_bytes))}: left out, because no field contains bytes")
    if len(named) < len(rows.names):
        notes.append(f"columns without a name are left out ({len(rows.names) - len(named)})")
    return ColumnLayout(bytes_, path, id_, tuple(name for name in others if name not in with_bytes), tuple(notes))


def _image_column(rows: ParquetRows) -> str | None:
    structs, blobs, texts = (
        [name for name, type_ in rows.types.items() if type_ is wanted]
        for wanted in (ColumnType.STRUCT, ColumnType.BYTES, ColumnType.TEXT)
    )
    column = first_column(IMAGE_COLUMNS, structs) or (structs[0] if structs else None)
    column = column or first_column(IMAGE_COLUMNS, blobs) or first_column(PATH_COLUMNS, texts)
    return column or (blobs[0] if len(blobs) == 1 else None)


def _bytes_and_path(rows: ParquetRows, image: str) -> tuple[str | None, str | None]:
    """The columns of bytes and of paths in a column of images."""
    type_ = rows.types[image]
    if type_ is ColumnType.STRUCT:
        return f"{image}.bytes", f"{image}.path" if rows.has(image, "path") else None
    if type_ in (ColumnType.BYTES, ColumnType.TEXT):
        return (image, None) if type_ is ColumnType.BYTES else (None, image)
    raise GalleryError(f"{rows.path}: images must be bytes or paths; {image!r} contains {type_}")


def _is_unique(rows: ParquetRows, column: str) -> bool:
    """Whether every row has a value in that column, and no two rows the same."""
    seen: set[str] = set()
    for (value,) in rows.read((column,)):
        if not _text(value).strip() or _text(value) in seen:
            return False
        seen.add(_text(value))
    return True
