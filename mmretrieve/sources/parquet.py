"""Parquet files as sources: images inside, as in datasets of the Hugging Face hub, or paths of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from mmretrieve.errors import GalleryError
from mmretrieve.sources.base import PATH_COLUMNS, Columns, IdRegistry, SourceItem, UnreadableItem, find_column, first_column
from mmretrieve.sources.folder import FolderEntry, walk
from mmretrieve.sources.location import Location
from mmretrieve.sources.parquet_files import ColumnType, DamagedError, ParquetRows
from mmretrieve.sources.values import field_names, fields_of

SUFFIX = ".parquet"
IMAGE_COLUMNS = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
ID_COLUMNS = ("id", "key")
IMAGE_TYPES = (ColumnType.STRUCT, ColumnType.BYTES)


class Parquet:
    """The rows of a Parquet file, in order, counted from 0. Image bytes are not read. See `choose_columns`.

    Raises GalleryError if a column is missing or has an unsuitable type or an id is empty or repeated, DamagedError if the
    file cannot be read. If it is damaged further on, the last entry is an UnreadableItem that says so.

    Parameters
    ----------
    path : Path
        The file.
    columns : Columns
        The columns to use.
    name_in_folder : str, optional
        The id of the file in a folder. It becomes the prefix of ids that no column gives.
    ids : IdRegistry, optional
        The ids of the files read before.
    """

    def __init__(
        self, path: Path, columns: Columns, *, name_in_folder: str | None = None, ids: IdRegistry | None = None
    ) -> None:
        self.name = str(path.resolve())
        self._folder = path.resolve().parent
        self._file_id, self._prefix = name_in_folder or path.name, f"{name_in_folder}/" if name_in_folder else ""
        self._rows = ParquetRows(self.name)
        self._layout = choose_columns(self._rows, columns)
        if self._layout.id in (None, self._layout.path):
            ids = None  # these ids have the prefix of their file
        else:
            self._prefix = ""
        if self._layout.id is not None:
            self._check_ids(self._layout.id, ids or IdRegistry("row"))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[SourceItem | UnreadableItem]:
        layout, row = self._layout, -1
        columns = tuple(dict.fromkeys((*filter(None, (layout.id, layout.path)), *layout.fields)))
        missing = repeat(True) if layout.bytes is None else self._rows.missing(layout.bytes)
        try:
            for row, (values, no_bytes) in enumerate(zip(self._rows.read(columns), missing, strict=False)):
                yield self._entry(row, dict(zip(columns, values, strict=True)), no_bytes)
        except DamagedError as error:
            yield UnreadableItem(self._file_id, f"damaged after {row + 1} rows ({error})")

    def _entry(self, row: int, values: Mapping[str, object], no_bytes: bool) -> SourceItem | UnreadableItem:
        layout = self._layout
        id_ = f"{self._prefix}{row:08}" if layout.id is None else f"{self._prefix}{_text(values[layout.id])}"
        path = _text(values[layout.path]) if layout.path is not None else ""
        if not no_bytes:
            location = Location(self.name, f"parquet:{row}:{layout.bytes}")
        elif path.strip():
            location = Location(str(self._folder / path))
        else:
            return UnreadableItem(id_, f"{self.name}, row {row}: there is no image in this row")
        return SourceItem(id_, location, fields_of({name: values[name] for name in layout.fields}, f"{self.name}, row {row}"))

    def _check_ids(self, column: str, ids: IdRegistry) -> None:
        for row, (value,) in enumerate(self._rows.read((column,))):
            ids.add(_text(value), self.name, row)


class ParquetFolder:
    """The rows of all Parquet files below a folder, file after file, sorted by path.

    A file that cannot be read is an UnreadableItem. Raises GalleryError if no file can be read, if two files give the same
    id in a column of ids, and as `Parquet` does.
    """

    def __init__(self, root: Path, columns: Columns) -> None:
        self.name = str(root.resolve())
        ids = IdRegistry("row")
        self._files = [_open(entry, columns, ids) for entry in walk(root.resolve(), {SUFFIX})]
        unreadable = [file for file in self._files if isinstance(file, UnreadableItem)]
        if len(unreadable) == len(self._files):
            raise GalleryError(unreadable[0].reason if unreadable else f"{root}: no Parquet files in this folder")

    def __len__(self) -> int:
        return sum(1 if isinstance(file, UnreadableItem) else len(file) for file in self._files)

    def __iter__(self) -> Iterator[SourceItem | UnreadableItem]:
        for file in self._files:
            yield from (file,) if isinstance(file, UnreadableItem) else file


def _open(entry: FolderEntry | UnreadableItem, columns: Columns, ids: IdRegistry) -> Parquet | UnreadableItem:
    if isinstance(entry, UnreadableItem):
        return entry
    try:
        return Parquet(Path(entry.real_path()), columns, name_in_folder=entry.id, ids=ids)
    except DamagedError as error:
        return UnreadableItem(entry.id, str(error))


def _text(value: object) -> str:
    return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """Which columns hold what; `image.bytes` is a field of a struct. Without `id`, the number of the row is the id."""

    bytes: str | None
    path: str | None
    id: str | None
    fields: tuple[str, ...]


def choose_columns(rows: ParquetRows, columns: Columns) -> ColumnLayout:
    """The named columns, or those chosen by name and type. Raises GalleryError if one is missing or unsuitable.

    Images: a struct of bytes and path, bytes in a column with a usual name of images, a column of paths, or the only column
    of bytes. Ids: `id` or `key`, otherwise the paths; paths inside structs only if all are present and distinct. All other
    columns without bytes are metadata.
    """
    field_names(rows.names, rows.path)
    image = _image_column(rows) if columns.image is None else find_column(columns.image, rows.names, rows.path)
    if image is None:
        raise GalleryError(f"{rows.path}: no column of images among {', '.join(rows.names)}; name the column of images")
    bytes_, path = _bytes_and_path(rows, image)
    id_ = first_column(ID_COLUMNS, rows.names) if columns.id is None else find_column(columns.id, rows.names, rows.path)
    if id_ is not None and rows.types[id_] not in (ColumnType.TEXT, ColumnType.INTEGER):
        raise GalleryError(f"{rows.path}: ids must be text or whole numbers; {id_!r} contains {rows.types[id_]}")
    if id_ is None and path is not None and (bytes_ is None or _is_unique(rows, path)):
        id_ = path
    metadata = [name for name in rows.names if rows.types[name] not in (*IMAGE_TYPES, ColumnType.NESTED_BYTES)]
    return ColumnLayout(bytes_, path, id_, tuple(name for name in metadata if name not in (image, id_)))


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
        if not value or not value.strip() or value in seen:
            return False
        seen.add(value)
    return True
