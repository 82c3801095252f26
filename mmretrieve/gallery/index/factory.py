"""FAISS from a plan: an index that is made and trained, its knobs for one search, and its complaints in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import OptionError
from mmretrieve.gallery.index.plan import MAX_GPU_K, SearchParams
from mmretrieve.vectors import Float32

TRAINING_ROWS_PER_CELL = 32  # training rows for each cell
MIN_TRAINING_ROWS = 65_536  # at least, where there are so many; 128 MB of 512 dimensions
MAX_TRAINING_ROWS = 1 << 19  # 1 GB of 512 dimensions
KMEANS_ITERATIONS = 8  # of k-means: cells need to be even, not perfect


def train_index(factory: str, vectors: NDArray[np.float16]) -> faiss.Index:
    """An empty inner-product index for vectors (n, d), trained on rows that lie evenly over them.

    OptionError for a factory string that FAISS does not know, that cannot do inner products or needs more rows.
    """
    with translate_errors(factory):
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise OptionError(f"index factory {factory!r}: it cannot do inner products")
        cells = cells_of(index)
        if cells is not None and not 1 <= cells <= len(vectors):
            raise OptionError(f"index factory {factory!r}: {cells} cells for {len(vectors)} vectors; name from 1 to as many")
        _configure_kmeans(index)
        if not index.is_trained:
            index.train(_sample(vectors, TRAINING_ROWS_PER_CELL * (cells or 0)))
    return index


def cells_of(index: faiss.Index) -> int | None:
    """How many cells an index looks into at most, or None where it has none."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexShards):
        return cells_of(index.at(0))
    if type(index).__name__.startswith("GpuIndexIVF"):
        return int(index.nlist)
    ivf = faiss.try_extract_index_ivf(index)
    return None if ivf is None else int(ivf.nlist)


def parameters(index: faiss.Index, params: SearchParams) -> Any:
    """The knobs of one search: handed to it, never set on the index, which other threads are searching."""
    index = faiss.downcast_index(index)
    name = type(index).__name__
    if isinstance(index, faiss.IndexShards):
        return parameters(index.at(0), params)
    if isinstance(index, faiss.IndexPreTransform):
        inner = parameters(index.index, params)
        return inner and faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = parameters(index.base_index, params)
        return inner and faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if name.startswith(("IndexIVF", "GpuIndexIVF")) and params.nprobe is not None:
        most = MAX_GPU_K if name.startswith("Gpu") else index.nlist
        return faiss.SearchParametersIVF(nprobe=min(params.nprobe, index.nlist, most))
    if name.startswith("IndexHNSW") and params.ef is not None:
        return faiss.SearchParametersHNSW(efSearch=params.ef)
    return None


@contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """So many of OpenMP's threads for what this thread of ours does within, and for no other.

    FAISS shares out queries, not rows: for one query its other threads only wait for each other, and where something else
    runs beside it that made a flat search of 5 ms one of 16.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(1, min(before, count)))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextmanager
def translate_errors(factory: str) -> Iterator[None]:
    """What FAISS throws as C++ with its source lines comes out as an OptionError of one line."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        raise OptionError(f"index factory {factory!r}: {_one_line(str(error))}") from error


def _one_line(message: str) -> str:
    needed = re.search(
        r"Number of training points \((\d+)\) should be at least as large as number of clusters \((\d+)\)", message
    )
    if needed:
        return f"it needs at least {needed[2]} vectors to train, there are {needed[1]}"
    if "METRIC_L2" in message or "inner prod" in message:
        return "it cannot do inner products"
    last = message.strip().splitlines()[0] if message.strip() else "FAISS refuses it"
    return re.sub(r"^Error in .* at \S+:\d+: ", "", last)


def _sample(vectors: NDArray[np.float16], wanted: int) -> Float32:
    count = min(len(vectors), MAX_TRAINING_ROWS, max(MIN_TRAINING_ROWS, wanted))
    rows = np.linspace(0, max(len(vectors) - 1, 0), count).astype(np.int64)
    return np.asarray(vectors[rows], dtype=np.float32)


def _configure_kmeans(index: faiss.Index) -> None:
    """Of the k-means that makes cells: fewer rounds, and no warning on the standard error about few training rows."""
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.cp.min_points_per_centroid, ivf.cp.niter = 1, KMEANS_ITERATIONS
