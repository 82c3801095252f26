"""Parquet files as sources: pictures inside, as data sets of the Hugging Face hub keep them, or paths to pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import repeat
from pathlib import Path

from mmretrieve.errors import GalleryError
from mmretrieve.sources.base import Columns, SourceItem, UnreadableItem
from mmretrieve.sources.folder import FolderEntry, walk
from mmretrieve.sources.ids import IdRegistry
from mmretrieve.sources.layout import choose
from mmretrieve.sources.location import Location
from mmretrieve.sources.parquet_files import DamagedError, ParquetRows
from mmretrieve.sources.values import fields_of

SUFFIX = ".parquet"


class Parquet:
    """The rows of a parquet file, in its order, counted from 0; the bytes of pictures are not read. See `layout.choose`.

    GalleryError for columns that are missing or unfit and ids that are empty or come twice, DamagedError where the file
    cannot be read. Where it breaks off on the way, the last entry is Unreadable and says so.
    """

    def __init__(self, path: Path, columns: Columns, *, called: str | None = None, ids: IdRegistry | None = None) -> None:
        """`called` is the file's id in a folder, and starts ids that no column gives; `ids` are those of files before it."""
        self.name = str(path.resolve())
        self._folder = path.resolve().parent
        self._called, self._prefix = called or path.name, f"{called}/" if called else ""
        self._rows = ParquetRows(self.name)
        self._layout = choose(self._rows, columns)
        if self._layout.id in (None, self._layout.path):
            ids = None  # these ids start with the file's own
        else:
            self._prefix = ""
        if self._layout.id is not None:
            self._check(self._layout.id, ids or IdRegistry("row"))

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
            yield UnreadableItem(self._called, f"damaged after {row + 1} rows ({error})")

    def _entry(self, row: int, values: Mapping[str, object], no_bytes: bool) -> SourceItem | UnreadableItem:
        layout = self._layout
        id_ = f"{self._prefix}{row:08}" if layout.id is None else f"{self._prefix}{_text(values[layout.id])}"
        path = _text(values[layout.path]) if layout.path is not None else ""
        if not no_bytes:
            location = Location(self.name, f"parquet:{row}:{layout.bytes}")
        elif path.strip():
            location = Location(str(self._folder / path))
        else:
            return UnreadableItem(id_, f"{self.name}, row {row}: there is no picture in it")
        return SourceItem(id_, location, fields_of({name: values[name] for name in layout.fields}, f"{self.name}, row {row}"))

    def _check(self, column: str, ids: IdRegistry) -> None:
        for row, (value,) in enumerate(self._rows.read((column,))):
            ids.add(_text(value), self.name, row)


class ParquetFolder:
    """The rows of all parquet files below a folder, one after the other, sorted by their paths.

    A file that cannot be read is Unreadable, the others go on. GalleryError where that is so with all of them, where two
    files give the same id in a column of ids, and as `Parquet` raises it.
    """

    def __init__(self, root: Path, columns: Columns) -> None:
        self.name = str(root.resolve())
        ids = IdRegistry("row")
        self._parts = [_part(found, columns, ids) for found in walk(root.resolve(), {SUFFIX})]
        broken = [member for member in self._parts if isinstance(member, UnreadableItem)]
        if len(broken) == len(self._parts):
            raise GalleryError(broken[0].reason if broken else f"{root}: no parquet files in this folder")

    def __len__(self) -> int:
        return sum(1 if isinstance(member, UnreadableItem) else len(member) for member in self._parts)

    def __iter__(self) -> Iterator[SourceItem | UnreadableItem]:
        for member in self._parts:
            yield from (member,) if isinstance(member, UnreadableItem) else member


def _part(found: FolderEntry | UnreadableItem, columns: Columns, ids: IdRegistry) -> Parquet | UnreadableItem:
    if isinstance(found, UnreadableItem):
        return found
    try:
        return Parquet(Path(found.location()), columns, called=found.id, ids=ids)
    except DamagedError as error:
        return UnreadableItem(found.id, str(error))


def _text(value: object) -> str:
    return "" if value is None else str(value)
