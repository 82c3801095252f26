"""Tables in memory as sources: data frames of pandas and polars, Arrow tables, and datasets of Hugging Face, also by their names on the Hub.

None of these packages is imported unless one of its objects is given. An object is recognized by the package of its class.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

from mmretrieve.errors import GalleryError, ImageError
from mmretrieve.images import content_hash, open_image
from mmretrieve.sources.base import (
    PATH_COLUMNS,
    Columns,
    Entry,
    IdRegistry,
    SourceReport,
    UnreadableItem,
    find_column,
    first_column,
    list_names,
)
from mmretrieve.sources.items import item_entry
from mmretrieve.sources.parquet import ID_COLUMNS, IMAGE_COLUMNS
from mmretrieve.sources.values import field_names

PACKAGES = ("pandas", "polars", "pyarrow", "datasets")
ARROW = "__arrow_c_stream__"  # the method of tables of other packages
HUB = re.compile(r"hf://datasets/(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<split>[^/\s]+))?")
DEFAULT_SPLIT = "train"
SAMPLE_ROWS = 100  # by whose values a column of images is found


class Frame:
    """The rows of a table in memory, in order. See `Gallery.add` for what its columns hold.

    A row without an image, with a value that is none, or with an empty or repeated id is an UnreadableItem. Raises GalleryError, listing
    the columns, if none holds images, and for a column without a name or with the name of another.

    Parameters
    ----------
    table : data frame of pandas or polars, Arrow table, or Dataset
        The table. A named index of pandas is a column.
    columns : Columns
        The columns to use.
    name : str, optional
        Where the table comes from, if it can be read again.
    save_to : Path, optional
        A folder in which images from memory are stored as files.
    """

    def __init__(self, table: Any, columns: Columns, name: str = "", save_to: Path | None = None) -> None:
        self._save_to, self._left_out = save_to, dict[str, None]()
        self.name, self._rows = name, _rows_of(table)
        where = name or f"this {type(table).__name__}"
        field_names(self._rows.names, where)
        self._image = (
            _image_column(self._rows, where) if columns.image is None else find_column(columns.image, self._rows.names, where)
        )
        id_ = (
            first_column(ID_COLUMNS, self._rows.names)
            if columns.id is None
            else find_column(columns.id, self._rows.names, where)
        )
        self._id = None if id_ == self._image else id_

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Entry]:
        ids = IdRegistry()
        for number, row in enumerate(self._rows):
            picture, path = _picture(row[self._image])
            id_ = (path or f"{number:08}") if self._id is None else _id_text(row[self._id])
            fields = {
                name: value
                for name, value in row.items()
                if name not in (self._image, self._id) and self._is_field(name, value)
            }
            try:
                ids.add(id_, "the table", f"row {number}")
            except GalleryError as error:
                yield UnreadableItem(f"row {number}", str(error))
                continue
            if picture is None:
                given = row[self._image]
                reason = "there is no image" if given is None else f"expected an image, bytes or a path, got {given!r:.60}"
                yield UnreadableItem(id_, f"row {number}: {reason}")
            else:
                yield item_entry((id_, self._saved(picture), fields))

    def report(self) -> SourceReport:
        """The columns that are left out."""
        names = ", ".join(map(repr, self._left_out))
        return SourceReport(notes=(f"{names}: left out, because no field contains bytes or images",) if names else ())

    def _is_field(self, name: str, value: Any) -> bool:
        """Whether a value can be a field; the columns of those that cannot are remembered."""
        if isinstance(value, bytes | bytearray | Image.Image):
            self._left_out[name] = None
            return False
        return True

    def _saved(self, picture: Any) -> Any:
        """The file of an image, if images are stored; the image itself if it is a path, or cannot be read."""
        if self._save_to is None or isinstance(picture, str | Path):
            return picture
        try:
            return _save(picture, self._save_to)
        except ImageError:
            return picture  # the report says what is wrong with it


def is_table(value: object) -> bool:
    """Whether a value is a table in memory.

    >>> is_table([1, 2]), is_table("a.csv")
    (False, False)
    """
    return type(value).__module__.partition(".")[0] in PACKAGES or hasattr(value, ARROW)


def load_dataset(address: str) -> Any:
    """The dataset that an address such as "hf://datasets/org/name:train" names. Raises GalleryError, in one line, if it cannot be loaded."""
    match = HUB.fullmatch(address)
    if match is None:
        raise GalleryError(f"{address}: expected hf://datasets/NAME or hf://datasets/NAME:SPLIT")
    from mmretrieve.hub import offline_if_unreachable  # only here, as it imports the client of the Hub

    try:
        datasets = import_module("datasets")
        with offline_if_unreachable(needed=True):
            return datasets.load_dataset(match["name"], split=match["split"] or DEFAULT_SPLIT)
    except ImportError as error:
        raise GalleryError(
            f"{address}: datasets of the Hub need the package datasets; install it with: pip install datasets"
        ) from error
    except Exception as error:  # of the Hub, the network or the files
        raise GalleryError(f"{address}: could not be loaded ({' '.join(str(error).split())[:200]})") from error


class _Rows:
    """The rows of a table as mappings of text to values; None stands for a value that is missing."""

    def __init__(self, names: Sequence[object], count: int, read: Any) -> None:
        if wrong := [name for name in names if not isinstance(name, str)]:
            raise GalleryError(f"the names of columns must be text, got {wrong[0]!r:.60}; rename the column")
        self.names, self._count, self._read = [str(name) for name in names], count, read

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._read())


def _rows_of(table: Any) -> _Rows:
    package = type(table).__module__.partition(".")[0]
    if package == "datasets":
        return _dataset_rows(table)
    if package in ("pandas", "polars"):
        frame = table.collect() if type(table).__name__ == "LazyFrame" else table
        if not hasattr(frame, "columns"):
            raise GalleryError(f"expected a data frame, got a {type(table).__name__} of {package}")
        return (
            _pandas_rows(frame)
            if package == "pandas"
            else _Rows(frame.columns, len(frame), lambda: frame.iter_rows(named=True))
        )
    pa = import_module("pyarrow")
    try:
        arrow = pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:  # one column, or what is no table at all
        raise GalleryError(f"expected a table, got a {type(table).__name__} of {package}") from error
    batches = arrow.to_batches(max_chunksize=256)
    return _Rows(arrow.column_names, arrow.num_rows, lambda: (row for batch in batches for row in batch.to_pylist()))


def _pandas_rows(frame: Any) -> _Rows:
    is_missing = import_module("pandas").isna
    levels = [name for name in frame.index.names if name is not None and name not in frame.columns]
    columns = frame.reset_index(levels) if levels else frame
    names = list(columns.columns)

    def read() -> Iterator[Mapping[str, Any]]:
        for values in zip(*(columns.iloc[:, i] for i in range(len(names))), strict=True):
            yield {name: None if is_missing(value) is True else value for name, value in zip(names, values, strict=True)}

    return _Rows(names, len(columns), read)


def _dataset_rows(dataset: Any) -> _Rows:
    """Images are not decoded by datasets, so that a damaged one is one damaged row."""
    datasets = import_module("datasets")
    if not isinstance(dataset, datasets.Dataset):
        kinds = ", ".join(dataset) if isinstance(dataset, Mapping) else type(dataset).__name__
        raise GalleryError(f"expected one split of a dataset, got {kinds}; choose a split, such as dataset['train']")
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return _Rows(dataset.column_names, len(dataset), lambda: iter(dataset))


def _image_column(rows: _Rows, where: str) -> str:
    """The column with a usual name of images or paths, else the first that holds images or bytes."""
    if (named := first_column((*IMAGE_COLUMNS, *PATH_COLUMNS), rows.names)) is not None:
        return named
    for row, _ in zip(rows, range(SAMPLE_ROWS), strict=False):
        for name, value in row.items():
            if _picture(value)[0] is not None and not isinstance(value, str):
                return name
    raise GalleryError(f"{where}: no column of images among {list_names(rows.names)}; name the column of images")


def _id_text(value: object) -> str:
    """An id; empty where it is missing. A column of whole numbers with a missing value has floats in pandas: 7.0 is the id 7."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _save(picture: Any, folder: Path) -> Path:
    """The file of an image, named by its content: its own bytes, or a PNG of its pixels. Raises ImageError if it cannot be read."""
    pixels = open_image(picture)
    if isinstance(picture, bytes):
        content, form = picture, (Image.open(io.BytesIO(picture)).format or "png").lower()
    else:
        buffer = io.BytesIO()
        pixels.save(buffer, "PNG")
        content, form = buffer.getvalue(), "png"
    path = folder / f"{content_hash(io.BytesIO(content))}.{form}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_bytes(content)
        partial.replace(path)
    return path.resolve()


def _picture(value: Any) -> tuple[Any, str | None]:
    """What can be opened as an image, and its path; None if it is neither an image nor bytes nor a path."""
    if isinstance(value, Mapping) and {"bytes", "path"} >= value.keys() > set():
        path = value.get("path") or None
        return (path if value.get("bytes") is None else value["bytes"]), path
    if isinstance(value, str | Path):
        return value, str(value)
    is_image = isinstance(value, Image.Image | bytes | io.IOBase) or getattr(value, "ndim", 0) in (2, 3)
    return (value if is_image else None), None
