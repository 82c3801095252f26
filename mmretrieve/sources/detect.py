"""Detects what kind of source a path is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mmretrieve.errors import GalleryError, OptionError, checks_keywords
from mmretrieve.images import SUFFIXES, URL
from mmretrieve.options import check_path
from mmretrieve.sources import folder, frames, parquet, tar
from mmretrieve.sources.base import Columns, Source, suffix
from mmretrieve.sources.ignored import FileFilter, check_exclude
from mmretrieve.sources.items import FileList
from mmretrieve.sources.table_files import Delimited, JsonLines
from mmretrieve.sources.tables import TextTable

HUB_PREFIX = "hf://"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSONL_SUFFIXES = (".jsonl", ".ndjson")
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
SUPPORTED = (
    f"a folder, an image ({' '.join(sorted(SUFFIXES))}), an uncompressed {tar.SUFFIX}, a {parquet.SUFFIX} file, "
    f"a table of paths ({' '.join((*DELIMITERS, *JSONL_SUFFIXES))}), or a dataset of the Hub (hf://datasets/NAME:SPLIT)"
)


@checks_keywords
def read_source(
    source: Any,
    columns: Columns = Columns(),  # noqa: B008 - Columns is immutable
    *,
    exclude: Sequence[str] = (),
    save_to: str | Path | None = None,
) -> Source:
    """Opens a source of images. The kind of source is detected from the path.

    Parameters
    ----------
    source : str, Path, data frame, Arrow table or Dataset
        A folder (searched recursively, including tar archives in it), an uncompressed tar archive (WebDataset shards), a
        Parquet file, a table of image paths (`.csv`, `.tsv`, `.jsonl`), or a single image. A folder that contains Parquet
        files but neither images nor tar archives is read as a dataset of Parquet files. A table in memory: a data frame of pandas or
        polars, an Arrow table, or a dataset of Hugging Face, whose images are PIL images, bytes or paths; a dataset on the Hub is
        "hf://datasets/NAME" or "hf://datasets/NAME:SPLIT", by default the split "train".
    columns : Columns, optional
        The columns of images and ids in tables and Parquet files. By default they are chosen by name.
    exclude : sequence of str, optional
        Patterns with `*`, `?` and `[…]` of what is left out of a folder or tar archive: of the name of a file or folder, or of its path in
        the source. Hidden and system files (`.git`, `@eaDir`, `Thumbs.db` and others) are always left out.
    save_to : str or Path, optional
        For tables in memory: a folder in which their images are stored as files, so that the gallery can open them later. Without it, only
        vectors and thumbnails remain of images that are no files.

    Returns
    -------
    Source
        An object with a length and a fixed order. Iterating over it yields `SourceItem` (id, location, fields), and
        `UnreadableItem` (id, reason) for entries that cannot be read.

    Raises
    ------
    GalleryError
        The path does not exist, its format is not supported, or there is no image in it.
    OptionError
        `columns` is given for a source that has no columns, or `exclude` for one that is no folder or archive.

    Examples
    --------
    >>> from mmretrieve import read_source, wardrobe
    >>> source = read_source(wardrobe.pictures_folder())
    >>> len(source) == sum(1 for _ in source)
    True
    >>> next(iter(source)).id.endswith(".png")
    True
    """
    patterns = check_exclude(exclude)
    folder_to_save = None if save_to is None else check_path("save_to", save_to)
    if isinstance(source, str) and source.startswith(HUB_PREFIX):
        return frames.Frame(frames.load_dataset(source), columns, source, folder_to_save)
    if frames.is_table(source):
        return frames.Frame(source, columns, save_to=folder_to_save)
    if folder_to_save is not None:
        raise OptionError("save_to is for tables in memory; the images of other sources are files already")
    root = check_path("source", source)
    if root.is_dir():
        return _folder(root, columns, patterns)
    if not root.exists():
        if URL.match(str(source)):
            raise GalleryError(f"{source}: URLs are not fetched; download the images first")
        raise GalleryError(f"{root}: no such file or folder")
    if not root.is_file():
        raise GalleryError(f"{root}: not a regular file; expected {SUPPORTED}")
    ending = suffix(root.name)
    if ending == tar.SUFFIX:
        _refuse_columns(root, columns)
        return tar.Tar(root, patterns)
    if patterns:
        raise OptionError(f"{root}: exclude can be given only for folders and tar archives")
    if ending == parquet.SUFFIX:
        return parquet.Parquet(root, columns)
    if ending in DELIMITERS:
        return TextTable(root, columns, Delimited(root, DELIMITERS[ending]))
    if ending in JSONL_SUFFIXES:
        return TextTable(root, columns, JsonLines(root))
    return _image(root, columns)


def read_sources(sources: Sequence[str | Path | Source], exclude: Sequence[str] = ()) -> list[Source]:
    """Opens several sources. Images that are next to each other in the list are one source, so that they are encoded together.

    Raises as `read_source` does, before anything is read; OptionError for an entry that is no source.
    """
    opened: list[Source] = []
    for is_image, run in groupby(sources, _is_image_file):
        given = list(run)
        together = is_image and len(given) > 1
        opened += [FileList([Path(str(one)) for one in given])] if together else [as_source(one, exclude) for one in given]
    if not opened:
        raise GalleryError("the list of sources is empty; name a folder or a file")
    return opened


def as_source(source: object, exclude: Sequence[str] = ()) -> Source:
    """The source, opened if it is a path. Raises OptionError for anything else, otherwise as `read_source`."""
    if isinstance(source, Source) and not frames.is_table(source):  # a data frame with a column "name" has the members of one
        if exclude:
            raise OptionError("exclude applies to paths; give it to read_source")
        return source
    if not isinstance(source, str | Path) and not frames.is_table(source):
        raise OptionError(
            f"expected a source, which is a path or what read_source returns, got {source!r:.80}; "
            "add takes a list of sources, and add_items takes images from memory"
        )
    return read_source(source, exclude=exclude)


def _is_image_file(source: object) -> bool:
    return isinstance(source, str | Path) and suffix(str(source)) in SUFFIXES and not Path(source).is_dir()


def _folder(root: Path, columns: Columns, exclude: Sequence[str]) -> Source:
    if (root / "dataset_dict.json").is_file() or all((root / name).is_file() for name in ("dataset_info.json", "state.json")):
        raise GalleryError(
            f"{root}: a dataset written by save_to_disk, whose Arrow files are not read; write it as Parquet with "
            "datasets.load_from_disk(FOLDER).to_parquet(FILE), for each split, and give that file"
        )
    if not _contains(root, SUFFIXES | {tar.SUFFIX}, exclude) and _contains(root, {parquet.SUFFIX}, exclude):
        return parquet.ParquetFolder(root, columns, exclude)
    _refuse_columns(root, columns)
    return folder.Folder(root, exclude)


def _image(root: Path, columns: Columns) -> Source:
    if root.name.lower().endswith(COMPRESSED_TARS):
        raise GalleryError(f"{root}: a compressed tar {tar.UNPACK}")
    if suffix(root.name) not in SUFFIXES:
        raise GalleryError(f"{root}: unsupported file type {suffix(root.name)!r}; expected {SUPPORTED}")
    _refuse_columns(root, columns)
    return folder.OneFile(root)


def _contains(root: Path, suffixes: frozenset[str] | set[str], exclude: Sequence[str]) -> bool:
    entries = folder.walk(root.resolve(), FileFilter(suffixes, exclude), Counter())
    return any(isinstance(entry, folder.FolderEntry) for entry in entries)


def _refuse_columns(root: Path, columns: Columns) -> None:
    if columns:
        raise OptionError(f"{root}: columns can be chosen only for tables and Parquet files")
