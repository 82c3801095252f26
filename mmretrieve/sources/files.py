"""From a path to the source that it is."""

from __future__ import annotations

from pathlib import Path

from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.images import SUFFIXES
from mmretrieve.sources import folder, parquet, tar
from mmretrieve.sources.base import Columns, Source
from mmretrieve.sources.delimited import Delimited, Delimiter
from mmretrieve.sources.jsonl import JsonLines
from mmretrieve.sources.table import TextTable
from mmretrieve.sources.tar_headers import UNPACK

DELIMITERS = {".csv": Delimiter.COMMA, ".tsv": Delimiter.TAB}
OBJECTS = (".jsonl", ".ndjson")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
CAN_BE_READ = (
    f"a folder, a picture ({' '.join(sorted(SUFFIXES))}), a plain {tar.SUFFIX}, a {parquet.SUFFIX} file, "
    f"or a table of paths ({' '.join((*DELIMITERS, *OBJECTS))})"
)


def read_source(source: str | Path, columns: Columns = Columns()) -> Source:  # noqa: B008 - it cannot be changed
    """Every picture of a folder tree, a tar, a parquet file, a table of paths (CSV, TSV, JSONL), or the one file named.

    A folder without pictures and tars is read by its parquet files. Raises GalleryError where there is nothing, nothing
    that can be read, or no picture in it; OptionError for columns of what has none.
    """
    root = Path(source)
    if root.is_dir():
        return _folder(root, columns)
    if not root.exists():
        raise GalleryError(f"{root}: no such file or folder")
    if not root.is_file():
        raise GalleryError(f"{root}: not a regular file; what can be read is {CAN_BE_READ}")
    ending = folder.suffix(root.name)
    if ending == parquet.SUFFIX:
        return parquet.Parquet(root, columns)
    if ending in DELIMITERS:
        return TextTable(root, columns, Delimited(root, DELIMITERS[ending]))
    if ending in OBJECTS:
        return TextTable(root, columns, JsonLines(root))
    return _without_columns(root, ending, columns)


def _folder(root: Path, columns: Columns) -> Source:
    if not _holds(root, SUFFIXES | {tar.SUFFIX}) and _holds(root, {parquet.SUFFIX}):
        return parquet.ParquetFolder(root, columns)
    _refuse(root, columns)
    return folder.Folder(root)


def _without_columns(root: Path, ending: str, columns: Columns) -> Source:
    if root.name.lower().endswith(PACKED):
        raise GalleryError(f"{root}: a compressed tar {UNPACK}")
    if ending not in SUFFIXES and ending != tar.SUFFIX:
        raise GalleryError(f"{root}: not known by its name; what can be read is {CAN_BE_READ}")
    _refuse(root, columns)
    return tar.Tar(root) if ending == tar.SUFFIX else folder.OneFile(root)


def _holds(root: Path, suffixes: frozenset[str] | set[str]) -> bool:
    return any(isinstance(found, folder.FolderEntry) for found in folder.walk(root.resolve(), suffixes))


def _refuse(root: Path, columns: Columns) -> None:
    if columns:
        raise OptionError(f"{root}: only tables and parquet files have columns to choose from")
