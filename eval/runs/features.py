"""The vectors of a benchmark's pictures, encoded once for each encoder and kept on disk; an interrupted run goes on.

A folder holds `about.json` (what they are the vectors of) and `rows.f32` (float32, in the order of the gallery's ids).
Rows are written in fixed chunks, so a run that was stopped encodes the same batches and ends with the same bytes. A
picture that is missing or broken is an error that names it; where that is allowed, its row is NaN.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from eval.benchmarks.base import Benchmark
from eval.benchmarks.json_files import checksum, digest
from eval.files import write_whole
from mmretrieve import Encoder, MMRetrieveError
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import ImageError
from mmretrieve.vectors import Float32
from mmretrieve.wardrobe import cache_folder

ABOUT, ROWS, LOCK = "about.json", "rows.f32", "lock"
CHUNK = 256  # pictures between two writes
NAMED = 20  # missing pictures that an error names; all of them stand in a file beside the rows


def features(
    benchmark: Benchmark,
    encoder: Encoder,
    folder: Path | None = None,
    *,
    allow_missing: bool = False,
    progress: Progress | None = None,
) -> tuple[Benchmark, Float32]:
    """(items, d) unit float32 vectors of a benchmark's pictures, and the benchmark that has them all.

    folder: by default one of the cache, by encoder, preprocessing, annotations and sizes of the files. With allow_missing,
    pictures that cannot be read leave the gallery, with every query that names one, and the benchmark's remark says so.
    Raises MMRetrieveError naming the pictures that are missing, or where `folder` holds the vectors of something else.
    """
    missing = [id_ for id_ in benchmark.gallery_ids if not benchmark.image_path(id_).is_file()]
    about = _about(benchmark, encoder)
    if folder is None:
        folder = cache_folder() / "features" / f"{benchmark.name.replace(':', '-')}-{digest([_line(about)])[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        if missing and not allow_missing:
            raise _missing(benchmark, missing, folder)
        _check_about(folder / ABOUT, about)
        rows = _encoded(benchmark, encoder, folder / ROWS, allow_missing, progress)
        _seal(folder, about)
    lost = [id_ for id_, row in zip(benchmark.gallery_ids, rows, strict=True) if np.isnan(row[0])]
    if not lost:
        return benchmark, rows
    if not allow_missing:
        raise _missing(benchmark, lost, folder)
    return benchmark.without(lost), rows[~np.isnan(rows[:, 0])]


def _about(benchmark: Benchmark, encoder: Encoder) -> dict[str, Any]:
    sizes = (f"{id_} {_size(benchmark.image_path(id_))}\n".encode() for id_ in benchmark.gallery_ids)
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


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _check_about(path: Path, about: dict[str, Any]) -> None:
    """MMRetrieveError where the folder holds other vectors; an empty folder is marked as holding these."""
    if not path.exists():
        if path.with_name(ROWS).exists():
            raise MMRetrieveError(f"{path.with_name(ROWS)}: there is no {ABOUT} that says what of; delete it and run again")
        write_whole(path, _line(about).decode())
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        different = [name for name in about if found[name] != about[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise MMRetrieveError(f"{path}: not the description of kept vectors ({error!r}); delete the folder") from error
    if different:
        name = different[0]
        raise MMRetrieveError(
            f"{path.parent}: holds the vectors of something else: {name} {found[name]} there, {about[name]} here; "
            "name another folder, or delete this one"
        )


def _encoded(benchmark: Benchmark, encoder: Encoder, path: Path, allow_missing: bool, progress: Progress | None) -> Float32:
    """The rows of the file, completed where chunks are missing."""
    sealed = json.loads((path.parent / ABOUT).read_text(encoding="utf-8")).get("digest")
    if sealed is not None and (not path.is_file() or checksum(path) != sealed):
        raise MMRetrieveError(f"{path}: the kept vectors are damaged; delete {path.parent} and run again")
    ids, row = benchmark.gallery_ids, 4 * encoder.dim
    have = path.stat().st_size // row if path.is_file() else 0
    done = len(ids) if have >= len(ids) else have // CHUNK * CHUNK
    with path.open("r+b" if have else "wb") as file:
        file.truncate(done * row)
        file.seek(done * row)
        if progress is not None and done:
            progress(done)
        for start in range(done, len(ids), CHUNK):
            file.write(_vectors(benchmark, encoder, ids[start : start + CHUNK], allow_missing, progress).tobytes())
            file.flush()
    return np.fromfile(path, dtype=np.float32).reshape(len(ids), encoder.dim)


def _vectors(
    benchmark: Benchmark, encoder: Encoder, ids: Sequence[str], allow_missing: bool, progress: Progress | None
) -> Float32:
    if not allow_missing:
        return encoder.encode_images((benchmark.picture(id_) for id_ in ids), progress)
    try:
        rows = encoder.encode_images(benchmark.picture(id_) for id_ in ids)
    except ImageError:  # one by one, to lose no more than what is broken
        rows = np.concatenate([_vector(benchmark, encoder, id_) for id_ in ids])
    if progress is not None:
        progress(len(ids))
    return rows


def _vector(benchmark: Benchmark, encoder: Encoder, id_: str) -> Float32:
    """(1, d), NaN where the picture cannot be read."""
    try:
        return encoder.encode_images([benchmark.picture(id_)])
    except ImageError:
        return np.full((1, encoder.dim), np.nan, dtype=np.float32)


def _seal(folder: Path, about: dict[str, Any]) -> None:
    """Writes down that the rows are all there, and their digest."""
    if "digest" not in json.loads((folder / ABOUT).read_text(encoding="utf-8")):
        write_whole(folder / ABOUT, _line(about | {"digest": checksum(folder / ROWS)}).decode())


def _missing(benchmark: Benchmark, ids: Sequence[str], folder: Path) -> MMRetrieveError:
    paths = [str(benchmark.image_path(id_)) for id_ in ids]
    write_whole(folder / "missing.txt", "\n".join(paths) + "\n")
    shown = ", ".join(paths[:NAMED]) + (f", … (all in {folder / 'missing.txt'})" if len(paths) > NAMED else "")
    return MMRetrieveError(
        f"{benchmark.name}: {len(ids)} of {len(benchmark.gallery_ids)} pictures missing or unreadable: {shown}; "
        "with --allow-missing they leave the gallery, and the result says so"
    )


def _line(about: dict[str, Any]) -> bytes:
    return (json.dumps(about, sort_keys=True) + "\n").encode()
