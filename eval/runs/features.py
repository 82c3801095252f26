"""Encodes the images of a benchmark once for each encoder and caches their vectors; an interrupted run resumes.

A folder holds `about.json`, which describes the vectors, and `rows.f32`: float32 rows in the order of the gallery's ids. Rows are
written in batches of fixed size, so an interrupted run encodes the same batches and ends with the same bytes. A missing or damaged
image is an error that names it; where missing images are allowed, their rows are NaN.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from eval.benchmarks.base import Benchmark
from eval.files import digest, file_checksum, write_atomic
from mmretrieve import Encoder, MMRetrieveError
from mmretrieve.concurrency import map_ahead
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import ImageError
from mmretrieve.images import open_image
from mmretrieve.options import Colors, load_json
from mmretrieve.vectors import Float32
from mmretrieve.wardrobe import cache_folder

ABOUT, ROWS, LOCK = "about.json", "rows.f32", "lock"
WRITE_BATCH_SIZE = 256  # images between two writes
OPEN_IMAGES = 16  # opened ahead of the encoder
MAX_LISTED_PATHS = 20  # of missing images, in an error; a file beside the rows lists all


def encode_gallery(
    benchmark: Benchmark,
    encoder: Encoder,
    folder: Path | None = None,
    *,
    allow_missing: bool = False,
    progress: Progress | None = None,
) -> tuple[Benchmark, Float32]:
    """Encodes the images of a benchmark, or reads their vectors from the cache.

    Parameters
    ----------
    benchmark : its gallery is encoded.
    encoder : encodes the images.
    folder : where the vectors are stored; by default a folder of the cache that depends on encoder, annotations and file sizes.
    allow_missing : whether images that cannot be read leave the gallery, with every query that mentions one, and a remark.
    progress : called with the number of images that were encoded or resumed.

    Returns
    -------
    The benchmark, without missing images, and the (items, d) float32 unit vectors of its gallery.

    Raises
    ------
    MMRetrieveError : images are missing (the message names them), or `folder` holds other vectors.
    """
    missing = [id_ for id_ in benchmark.gallery_ids if not benchmark.image_path(id_).is_file()]
    about = _describe_vectors(benchmark, encoder)
    if folder is None:
        folder = cache_folder() / "features" / f"{benchmark.name.replace(':', '-')}-{digest([_to_line(about)])[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        if missing and not allow_missing:
            raise _missing_error(benchmark, missing, folder)
        stored = _open_folder(folder, about)
        vectors = _complete_rows(benchmark, encoder, folder / ROWS, stored.get("digest"), allow_missing, progress)
        if "digest" not in stored:  # marks the rows as complete
            write_atomic(folder / ABOUT, _to_line(about | {"digest": file_checksum(folder / ROWS)}))
    unreadable = [id_ for id_, row in zip(benchmark.gallery_ids, vectors, strict=True) if np.isnan(row[0])]
    if not unreadable:
        return benchmark, vectors
    if not allow_missing:
        raise _missing_error(benchmark, unreadable, folder)
    return benchmark.drop_images(unreadable), vectors[~np.isnan(vectors[:, 0])]


def _describe_vectors(benchmark: Benchmark, encoder: Encoder) -> dict[str, Any]:
    paths = ((id_, benchmark.image_path(id_)) for id_ in benchmark.gallery_ids)
    sizes = (f"{id_} {path.stat().st_size if path.is_file() else -1}\n".encode() for id_, path in paths)
    return {
        "benchmark": benchmark.name,
        "annotations": benchmark.checksum,
        "pictures": digest(sizes),
        "weights": encoder.identity.weights,
        "preprocessing": encoder.identity.preprocessing,
        "dtype": str(getattr(encoder, "dtype", "")),
        "rows": len(benchmark.gallery_ids),
        "dim": encoder.dim,
    }


def _open_folder(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The stored description of a folder, with a digest where its rows are complete; an empty folder gets the description given.

    MMRetrieveError where the folder holds other vectors.
    """
    path = folder / ABOUT
    if not path.exists():
        if (folder / ROWS).exists():
            raise MMRetrieveError(f"{folder / ROWS}: {ABOUT}, which describes it, is missing; delete the file and run again")
        write_atomic(path, _to_line(about))
        return about
    try:
        stored: dict[str, Any] = load_json(path.read_text(encoding="utf-8"))
        different = [name for name in about if stored[name] != about[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise MMRetrieveError(f"{path}: not the description of stored vectors; delete the folder") from error
    if different:
        name = different[0]
        raise MMRetrieveError(
            f"{folder} holds other vectors: {name} {stored[name]} there, {about[name]} here; "
            "choose another folder, or delete this one"
        )
    return stored


def _complete_rows(
    benchmark: Benchmark,
    encoder: Encoder,
    path: Path,
    stored_digest: str | None,
    allow_missing: bool,
    progress: Progress | None,
) -> Float32:
    """The rows of the file, after the missing batches are encoded. stored_digest: of a complete file."""
    if stored_digest is not None and (not path.is_file() or file_checksum(path) != stored_digest):
        raise MMRetrieveError(f"{path}: the stored vectors are damaged; delete {path.parent} and run again")
    ids, row_bytes = benchmark.gallery_ids, 4 * encoder.dim
    rows = path.stat().st_size // row_bytes if path.is_file() else 0
    done = len(ids) if rows >= len(ids) else rows // WRITE_BATCH_SIZE * WRITE_BATCH_SIZE
    with path.open("r+b" if rows else "wb") as file:
        file.truncate(done * row_bytes)
        file.seek(done * row_bytes)
        if progress is not None and done:
            progress(done)
        for start in range(done, len(ids), WRITE_BATCH_SIZE):
            batch = ids[start : start + WRITE_BATCH_SIZE]
            file.write(_encode_batch(benchmark, encoder, batch, allow_missing, progress).tobytes())
            file.flush()
    return np.fromfile(path, dtype=np.float32).reshape(len(ids), encoder.dim)


def _encode_batch(
    benchmark: Benchmark, encoder: Encoder, ids: Sequence[str], allow_missing: bool, progress: Progress | None
) -> Float32:
    if not allow_missing:
        return encoder.encode_images(_open_images(benchmark, ids), progress)
    try:
        vectors = encoder.encode_images(_open_images(benchmark, ids))
    except ImageError:  # encode one by one, so that only damaged images are lost
        vectors = np.concatenate([_encode_or_nan(benchmark, encoder, id_) for id_ in ids])
    if progress is not None:
        progress(len(ids))
    return vectors


def _open_images(benchmark: Benchmark, ids: Sequence[str]) -> Iterator[Image.Image]:
    """The images with their raw colors, as papers encode them, decoded ahead of the encoder."""
    return map_ahead(lambda id_: open_image(benchmark.load_image(id_), colors=Colors.RAW), ids, OPEN_IMAGES)


def _encode_or_nan(benchmark: Benchmark, encoder: Encoder, id_: str) -> Float32:
    """(1, d), NaN where the image cannot be read."""
    try:
        return encoder.encode_images(_open_images(benchmark, [id_]))
    except ImageError:
        return np.full((1, encoder.dim), np.nan, dtype=np.float32)


def _missing_error(benchmark: Benchmark, ids: Sequence[str], folder: Path) -> MMRetrieveError:
    paths = [str(benchmark.image_path(id_)) for id_ in ids]
    write_atomic(folder / "missing.txt", "\n".join(paths) + "\n")
    more = f" and others (all in {folder / 'missing.txt'})" if len(paths) > MAX_LISTED_PATHS else ""
    return MMRetrieveError(
        f"{benchmark.name}: {len(ids)} of {len(benchmark.gallery_ids)} images are missing or unreadable: "
        f"{', '.join(paths[:MAX_LISTED_PATHS])}{more}; with --allow-missing they leave the gallery, and the result says so"
    )


def _to_line(about: dict[str, Any]) -> bytes:
    return (json.dumps(about, sort_keys=True) + "\n").encode()
