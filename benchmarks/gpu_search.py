"""Compares rankings and speed of searches on GPU and CPU, for `benchmarks.gpu`. Needs FAISS with GPUs.

Uses the synthetic vectors and composed queries of `benchmarks.million`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np

import mmretrieve as mm
from benchmarks.million import DIM, ROW_BATCH_SIZE, synthetic_vectors
from benchmarks.script import time_call
from mmretrieve.composition import Composition
from mmretrieve.gallery.index.tuning import composed_queries
from mmretrieve.vectors import Float32

N_QUERIES, K = 200, 50
BYTES_PER_VALUE = 2  # of float16
FACTORIES = (None, "IVF4096,SQ8")
MIN_AGREEMENT = 0.95  # share of equal rankings of a quantized index, which the devices round differently
WHERE = {"all": None, "one in ten": "n % 10 = 3", "one in a thousand": "n % 1000 = 3"}


def measure(size: int, bandwidth: float) -> dict[str, Any]:
    """Rankings of every index and term scores of a gallery of that size. `bandwidth`: bytes that the GPU's memory reads a second."""
    with tempfile.TemporaryDirectory() as folder:
        gallery = fill_gallery(Path(folder) / "g", size)
        queries = composed_queries(
            np.concatenate([synthetic_vectors(start, 4096) for start in (0, ROW_BATCH_SIZE)]), N_QUERIES, seed=1
        )
        rankings = {}
        for factory in FACTORIES:
            gallery.build_index(factory or "SQfp16")
            rankings[factory or "SQfp16"] = compare_rankings(gallery.path, queries)
        searches = 1000 / rankings["SQfp16"]["cuda, all, ms"]["p50"]
        return {
            "size": size,
            "gpus": faiss.get_num_gpus(),
            "rankings": rankings,
            "searches a second of all vectors": searches,
            "share of the memory bandwidth": searches * size * DIM * BYTES_PER_VALUE / bandwidth,
            "term scores": compare_scores(gallery.path, queries),
        }


def fill_gallery(path: Path, size: int) -> mm.Gallery:
    """A gallery of synthetic vectors with a field `n` that numbers them."""
    gallery = mm.Gallery.for_vectors(path, mm.EncoderIdentity("synthetic", "synthetic", "none"), DIM)
    for start in range(0, size, ROW_BATCH_SIZE):
        rows = range(start, min(start + ROW_BATCH_SIZE, size))
        gallery.add_vectors([f"{i:08}" for i in rows], synthetic_vectors(start, len(rows)), fields=[{"n": i} for i in rows])
    return gallery


def compare_rankings(path: Path, queries: Float32) -> dict[str, Any]:
    """Whether the devices agree, and the milliseconds of a search by device and filter."""
    milliseconds: dict[str, Any] = {}
    rankings: dict[str, dict[str, list[tuple[str, ...]]]] = {}
    for device in ("cpu", "cuda"):
        gallery = mm.Gallery.open(path, device=device)
        gallery.search(one_term(queries[0]), K)  # opens the index
        rankings[device] = {}
        for name, where in WHERE.items():
            times, ids = [], []
            for query in queries:
                seconds, ranking = time_call(gallery.search, one_term(query), K, where=where)
                ids.append(ranking.ids)
                times.append(1000 * seconds)
            rankings[device][name] = ids
            milliseconds[f"{device}, {name}, ms"] = {
                "p50": float(np.percentile(times, 50)),
                "p99": float(np.percentile(times, 99)),
            }
    equal = [a == b for name in WHERE for a, b in zip(rankings["cpu"][name], rankings["cuda"][name], strict=True)]
    min_agreement = 1.0 if gallery.info()["index"]["factory"] == "SQfp16" else MIN_AGREEMENT
    return {"agree": float(np.mean(equal)) >= min_agreement, "share of equal rankings": float(np.mean(equal)), **milliseconds}


def compare_scores(path: Path, queries: Float32) -> dict[str, Any]:
    """The difference and the seconds of the term scores of three terms and every item."""
    scores = {}
    for device in ("cpu", "cuda"):
        gallery = mm.Gallery.open(path, device=device)
        gallery.scores(queries[:3])  # loads the vectors
        scores[device] = time_call(gallery.scores, queries[:3])
    return {
        "largest difference": float(np.abs(scores["cpu"][1] - scores["cuda"][1]).max()),
        **{f"{device}, seconds": seconds for device, (seconds, _) in scores.items()},
    }


def one_term(query_d: Float32) -> Composition:
    return Composition(("query",), query_d[None], (1.0,))
