"""On a machine with GPUs: that the GPU ranks as the CPU does, and what both cost.

    python -m benchmarks.gpu [--size 1000000] [--out results]

Synthetic vectors and composed queries as in `benchmarks.million`. Ends with status 1 where the rankings differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

import mmretrieve as mm
from benchmarks.million import BLOCK, DIM, pictures
from mmretrieve.composition import Composition
from mmretrieve.gallery.index.tuning import composed_queries
from mmretrieve.vectors import Float32

QUERIES, K = 200, 50
FACTORIES = (None, "IVF4096,SQ8")
NEARLY = 0.95  # of the rankings of an index that rounds its vectors: the devices round otherwise
WHERE = {"all": None, "one in ten": "n % 10 = 3", "one in a thousand": "n % 1000 = 3"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=1_000_000, help="vectors in the gallery")
    parser.add_argument("--out", type=Path, help="folder for gpu.json")
    options = parser.parse_args()
    if not faiss.get_num_gpus():
        sys.exit("FAISS sees no GPU on this machine")
    result = measured(options.size)
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "gpu.json").write_text(text + "\n")
    if not all(part["agree"] for part in result["rankings"].values()):
        sys.exit("the rankings differ")


def measured(size: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        gallery = filled(Path(place) / "g", size)
        queries = composed_queries(np.concatenate([pictures(start, 4096) for start in (0, BLOCK)]), QUERIES, seed=1)
        rankings = {}
        for factory in FACTORIES:
            gallery.build_index(factory or "SQfp16")
            rankings[factory or "SQfp16"] = compared(gallery.path, queries)
        return {"size": size, "gpus": faiss.get_num_gpus(), "rankings": rankings, "term scores": scored(gallery.path, queries)}


def filled(path: Path, size: int) -> mm.Gallery:
    """A gallery of synthetic vectors, numbered."""
    gallery = mm.Gallery.for_vectors(path, mm.EncoderIdentity("synthetic", "synthetic", "none"), DIM)
    for start in range(0, size, BLOCK):
        some = range(start, min(start + BLOCK, size))
        gallery.add_vectors([f"{i:08}" for i in some], pictures(start, len(some)), fields=[{"n": i} for i in some])
    return gallery


def compared(path: Path, queries: Float32) -> dict[str, Any]:
    """Rankings and milliseconds of a search, by device and filter."""
    found: dict[str, Any] = {}
    rankings: dict[str, dict[str, list[tuple[str, ...]]]] = {}
    for device in ("cpu", "cuda"):
        gallery = mm.Gallery.open(path, device=device)
        gallery.search(one_term(queries[0]), K)  # opens the index
        rankings[device] = {}
        for name, where in WHERE.items():
            spent, ranked = [], []
            for query in queries:
                started = time.perf_counter()
                ranked.append(gallery.search(one_term(query), K, where=where).ids)
                spent.append(1000 * (time.perf_counter() - started))
            rankings[device][name] = ranked
            found[f"{device}, {name}, ms"] = {"p50": float(np.percentile(spent, 50)), "p99": float(np.percentile(spent, 99))}
    same = [a == b for name in WHERE for a, b in zip(rankings["cpu"][name], rankings["cuda"][name], strict=True)]
    least = 1.0 if gallery.info()["index"]["factory"] == "SQfp16" else NEARLY
    return {"agree": float(np.mean(same)) >= least, "share of equal rankings": float(np.mean(same)), **found}


def scored(path: Path, queries: Float32) -> dict[str, Any]:
    """Term scores of three terms with every item."""
    galleries = {device: mm.Gallery.open(path, device=device) for device in ("cpu", "cuda")}
    scores = {device: timed(gallery.scores, queries[:3]) for device, gallery in galleries.items()}
    return {
        "largest difference": float(np.abs(scores["cpu"][1] - scores["cuda"][1]).max()),
        **{f"{device}, seconds": seconds for device, (seconds, _) in scores.items()},
    }


def timed(do: Callable[[Float32], Float32], queries: Float32) -> tuple[float, Float32]:
    do(queries)
    started = time.perf_counter()
    found = do(queries)
    return time.perf_counter() - started, found


def one_term(query_d: Float32) -> Composition:
    return Composition(("query",), query_d[None], (1.0,))


if __name__ == "__main__":
    main()
