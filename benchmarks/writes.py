"""What a write of one item costs: milliseconds to delete one and to add one, in galleries of growing size.

    python -m benchmarks.writes [--sizes 1000 100000 1000000] [--out results]

The vectors are random, of 64 dimensions. A gallery is filled, opened again, and then written to item by item; each write is
committed and flushed to the disk before it counts.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mmretrieve as mm
from benchmarks.script import make_parser, time_call, write_result

DIM = 64
FILL_BATCH_SIZE = 65_536
REPEATS = 20


def main() -> None:
    parser = make_parser(__doc__, "writes")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000], help="items of each gallery")
    parser.add_argument("--folder", type=Path, help="where the galleries are made (default: a temporary folder)")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "data": f"random vectors of {DIM} dimensions; {REPEATS} writes of one item each, in milliseconds",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "sizes": {str(size): measure(size, options.folder) for size in options.sizes},
    }
    write_result(result, options.out, "writes")


def measure(size: int, folder: Path | None) -> dict[str, Any]:
    """Minimum, median and maximum of each write in a gallery of that many items."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "g"
        fill(path, size)
        return measure_gallery(path, size)


def measure_gallery(path: Path, size: int) -> dict[str, Any]:
    """The same for a gallery that `fill` made."""
    gallery = mm.Gallery.open(path, device="cpu")
    new = np.random.default_rng(1).normal(size=(REPEATS, 1, DIM)).astype(np.float32)
    return {
        "delete one": timed(lambda i: gallery.delete([f"{i * size // REPEATS:08}"])),
        "add one": timed(lambda i: gallery.add_vectors([f"new {i}"], new[i])),
        "open": timed(lambda _: mm.Gallery.open(path, device="cpu")),
    }


def fill(path: Path, size: int) -> None:
    gallery = mm.Gallery.for_vectors(path, mm.EncoderIdentity("random", "random", "none"), DIM)
    rng = np.random.default_rng(0)
    for start in range(0, size, FILL_BATCH_SIZE):
        ids = [f"{i:08}" for i in range(start, min(start + FILL_BATCH_SIZE, size))]
        gallery.add_vectors(ids, rng.normal(size=(len(ids), DIM)).astype(np.float32))


def timed(write: Callable[[int], object]) -> dict[str, float]:
    spent = [1000 * time_call(write, i)[0] for i in range(REPEATS)]
    return {"minimum": round(min(spent), 2), "median": round(float(np.median(spent)), 2), "maximum": round(max(spent), 2)}


if __name__ == "__main__":
    main()
