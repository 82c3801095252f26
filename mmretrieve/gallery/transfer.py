"""Exports and imports the layout of clip-retrieval: `img_emb/img_emb_{k}.npy` and `metadata/metadata_{k}.parquet`, row by row.

What the layout does not have (ids, archive members, hashes, field types, the encoder) is stored in one additional column, `mmretrieve`, and one
additional file, `mmretrieve.json`, which other tools ignore. An export can therefore be imported without loss.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.copying import (
    COPY_BATCH_SIZE,
    EncodedBatch,
    StoreTarget,
    copy_missing,
    to_checked_rows,
    vector_item,
)
from mmretrieve.gallery.ingest import AddReport, batches
from mmretrieve.gallery.local_view import LocalView
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import FieldType, Item, fit_fields
from mmretrieve.gallery.store.store import Float16Rows, Store
from mmretrieve.images import URL
from mmretrieve.options import check_count, check_regular, load_json
from mmretrieve.sources.location import Location
from mmretrieve.sources.parquet_files import write_records
from mmretrieve.sources.parquet_rows import ParquetRows
from mmretrieve.sources.values import Value, fields_of, is_text, read_object, value_of

VECTORS, METADATA, MANIFEST, OWN_COLUMN = "img_emb", "metadata", "mmretrieve.json", "mmretrieve"
PARTIAL_MANIFEST = f"{MANIFEST}.part"  # of an export that is not complete
SHARD_SIZE = 100_000  # items in a pair of files
MAX_MANIFEST_BYTES = 1 << 26
MAX_SIDE = 1 << 31  # of an image, in pixels
PATH_COLUMNS = ("image_path", "key", "url")  # columns that may contain the path of an image, in order of preference


def export(view: LocalView, folder: Path, progress: Progress | None = None, *, with_paths: bool = True) -> int:
    """Writes all items into an empty folder, or one whose export was interrupted, with the stored float16 unit rows. Returns their number.

    Without paths, the items are those of images from memory, and nothing names a folder of this machine.

    Raises GalleryError if the folder is not empty, the disk is full, or a field has the name of a column of the layout.
    """
    if taken := {"image_path", OWN_COLUMN} & set(view.store.ledger.field_types()):
        raise GalleryError(
            f"field {taken.pop()!r}: the layout of clip-retrieval has a column of this name; export a gallery without this field"
        )
    partial = folder / PARTIAL_MANIFEST
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not partial.is_file())):
        raise GalleryError(f"{folder}: the folder is not empty; choose an empty one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        manifest = view.manifest if with_paths else view.manifest.without_folder()
        partial.write_text(json.dumps(manifest.to_dict(), indent=1), encoding="utf-8")
        for name in (VECTORS, METADATA):
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir()
        for k, start in enumerate(range(0, max(1, len(view)), SHARD_SIZE)):
            rows = view.rows[start : start + SHARD_SIZE]
            checksums = [(record.row, record.stored.vector) for record in view.records_of(rows)]
            view.store.check_vectors(checksums, view.float16_rows)
            np.save(folder / VECTORS / f"{VECTORS}_{k}.npy", view.float16_rows[rows])
            write_records(
                folder / METADATA / f"{METADATA}_{k}.parquet",
                [_columns(item if with_paths else _without_path(item)) for item in view.items_of(rows)],
            )
            if progress is not None:
                progress(len(rows))
        partial.replace(folder / MANIFEST)
    except (OSError, UnicodeEncodeError) as error:
        raise GalleryError(f"{folder}: could not write ({error})") from error
    return len(view)


def read_manifest(folder: Path) -> Manifest | None:
    """Reads the manifest of an export; None if another tool made the folder. Raises GalleryError if it is damaged."""
    path = folder / MANIFEST
    if (folder / PARTIAL_MANIFEST).exists():
        raise GalleryError(f"{folder}: this export was interrupted; run it again")
    if not os.path.lexists(path):
        return None
    try:
        data = load_json(check_regular(path, MAX_MANIFEST_BYTES).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GalleryError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return Manifest.from_dict(data, path)


def import_(store: Store, folder: Path, progress: Progress | None = None) -> AddReport:
    """Adds the items of the folder, in the numeric order of its files. Call within `writing`. It can be repeated.

    Float16 unit rows are stored bit for bit, other vectors are normalized. Without an id, the path of the image is the id; it is
    relative to the file that contains it. Raises GalleryError,
    with the name of the file, for files that do not fit together, another dimension, or a path with two vectors.
    """
    report = AddReport()
    for vectors, metadata in _file_pairs(folder):
        float16_rows, problems = to_checked_rows(_load_array(vectors), str(vectors), store.dim)
        rows, failed = ParquetRows(str(metadata)), dict[str, str]()
        if len(rows) != len(float16_rows):
            raise GalleryError(f"{metadata}: {len(rows)} rows, but {vectors.name} has {len(float16_rows)}")
        report += copy_missing(
            StoreTarget(store),
            _batches(store, rows, float16_rows, str(metadata), problems, failed),
            str(metadata),
            progress=progress,
        )
        report += AddReport(failed=failed)
    return report


def count(folder: Path) -> int:
    """Returns the number of vectors. Raises GalleryError if the folder has another layout."""
    return sum(len(_load_array(vectors)) for vectors, _ in _file_pairs(folder))


def _without_path(item: Item) -> Item:
    return replace(item, location=Location(""), source="", fingerprint=f"memory-{item.hash}")


def _columns(item: Item) -> dict[str, Any]:
    own = {name: value for name, value in item.columns.items() if name != "path"} | {"fields": dict(item.fields)}
    return {"image_path": item.path, **item.fields, OWN_COLUMN: json.dumps(own)}


def _batches(
    store: Store, rows: ParquetRows, float16_rows: Float16Rows, where: str, problems: Mapping[int, str], failed: dict[str, str]
) -> Iterator[EncodedBatch]:
    """Yields the items. The ids of rows with a problem are added to `failed`, with the problem."""
    start = 0
    for records in batches(_records(rows), COPY_BATCH_SIZE):
        vectors, types = float16_rows[start : start + len(records)], store.ledger.field_types()
        items = [_item(record, vector, where, types) for record, vector in zip(records, vectors, strict=True)]
        good = [i for i in range(len(items)) if start + i not in problems]
        failed |= {items[i].id: problems[start + i] for i in range(len(items)) if start + i in problems}
        yield EncodedBatch.of([items[i] for i in good], vectors[good])
        start += len(records)


def _item(record: dict[str, Any], vector: NDArray[np.float16], where: str, types: dict[str, FieldType]) -> Item:
    if own := record.pop(OWN_COLUMN, None):
        return _own_item(own, record.get("image_path"), where, types)
    name = next((name for name in PATH_COLUMNS if record.get(name)), None)
    if name is None:
        raise GalleryError(
            f"{where}: a row has no value in {', '.join(PATH_COLUMNS)}, one of which must name the image; the columns are {', '.join(record)}"
        )
    id_ = str(record.pop(name))
    path = str(Path(where).resolve().parent / id_) if name == PATH_COLUMNS[0] and not URL.match(id_) else id_
    return vector_item(id_, path, vector, fit_fields(fields_of(record, where), types), where)


def _own_item(own: Value, path: Value, where: str, types: dict[str, FieldType]) -> Item:
    """Returns the item of a row that `export` wrote. Raises GalleryError if another program has changed the row into something else."""
    try:
        entry = read_object(str(own))
        texts, sizes = [path, *(entry[name] for name in ("id", "hash", "source", "stamp"))], (entry["width"], entry["height"])
        is_valid = (
            all(isinstance(text, str) and is_text(text) and "\0" not in text for text in (*texts, entry["part"] or ""))
            and bool(entry["id"] and entry["hash"])
            and all(size is None or check_count("width and height", size) < MAX_SIDE for size in sizes)
            and isinstance(entry["fields"], Mapping)
        )
    except (GalleryError, OptionError, KeyError) as error:
        raise _not_own(where, own) from error
    if not is_valid:
        raise _not_own(where, own)
    item: Any = entry
    fields = fit_fields({name: value_of(value) for name, value in item["fields"].items()}, types)
    return Item(item["id"], Location(str(path), item["part"]), item["hash"], *sizes, fields, item["source"], item["stamp"])  # type: ignore[arg-type]


def _not_own(where: str, own: Value) -> GalleryError:
    return GalleryError(
        f"{where}: a row has {str(own)!r:.200} in the column {OWN_COLUMN!r}, which is not what `mmretrieve export` writes; "
        "export the gallery again, or remove the column"
    )


def _records(rows: ParquetRows) -> Iterator[dict[str, Any]]:
    for values in rows.read(rows.names):
        yield dict(zip(rows.names, values, strict=True))


def _load_array(path: Path) -> Float16Rows:
    try:
        stored: Float16Rows = np.load(check_regular(path), mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError) as error:
        raise GalleryError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except Exception as error:  # of NumPy's parser, and Python's tokenizer in it; the messages are about pickles
        raise GalleryError(f"{path}: is not a numeric array in NumPy's format") from error
    if stored.ndim != 2 or stored.dtype.kind not in "fiu":
        raise GalleryError(f"{path}: expected numbers of shape (n, d), got {stored.dtype} of shape {stored.shape}")
    return stored


def _file_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Returns pairs of vector and metadata files in numeric order: `img_emb_10` comes after `img_emb_9`."""
    files = {kind: _files_by_number(folder / kind, kind, suffix) for kind, suffix in ((VECTORS, "npy"), (METADATA, "parquet"))}
    if not files[VECTORS]:
        raise GalleryError(f"{folder}: no {VECTORS}/{VECTORS}_0.npy; expected the layout of clip-retrieval")
    if alone := set(files[VECTORS]) ^ set(files[METADATA]):
        raise GalleryError(f"{folder}: file number {min(alone)} exists for vectors or for metadata, but not for both")
    return [(files[VECTORS][k], files[METADATA][k]) for k in sorted(files[VECTORS])]


def _files_by_number(folder: Path, stem: str, suffix: str) -> dict[int, Path]:
    names = re.compile(rf"{stem}_(\d+)\.{suffix}")
    matches = ((names.fullmatch(path.name), path) for path in sorted(folder.glob(f"{stem}_*.{suffix}")))
    return {int(match[1]): path for match, path in matches if match}
