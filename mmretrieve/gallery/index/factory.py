"""Creates and trains FAISS indexes, sets the parameters of a search, and shortens FAISS's error messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import OptionError
from mmretrieve.gallery.index.plan import FLAT, MAX_GPU_K, SearchParams
from mmretrieve.vectors import Float32

TRAINING_ROWS_PER_CELL = 32  # training rows for each cell
MIN_TRAINING_ROWS = 65_536  # 128 MB of 512 dimensions
MAX_TRAINING_ROWS = 1 << 19  # 1 GB of 512 dimensions
KMEANS_ITERATIONS = 8  # cells need to be even, not perfect
FLOAT_BYTES, ID_BYTES, LINK_BYTES = 4, 8, 4  # of a float32, of a row number in a cell, of a link in a graph
NODE_BYTES = 16  # of a vector in a graph: its level, where its links begin, and on average one link in the levels above


def train_index(factory: str, vectors: NDArray[np.float16]) -> faiss.Index:
    """Creates an empty inner-product index for (n, d) vectors and trains it on evenly spaced rows.

    Raises OptionError for a factory string that FAISS does not know, that has no inner products or that needs more rows.
    """
    with translate_errors(factory):
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise OptionError(f"index factory {factory!r}: it cannot do inner products")
        cells = cells_of(index)
        if cells is not None and not 1 <= cells <= len(vectors):
            raise OptionError(
                f"index factory {factory!r}: {cells} cells; expected from 1 to {len(vectors)}, the number of vectors"
            )
        _configure_kmeans(index)
        if not index.is_trained:
            sample = _sample(vectors, TRAINING_ROWS_PER_CELL * (cells or 0))
            _train_projection(index, sample)
            index.train(sample)
    return index


def index_bytes(factory: str, items: int, dim: int) -> int:
    """Returns the bytes that the index of so many vectors takes, in memory and as a file, without building it.

    Codebooks are not counted. Raises OptionError for a factory string that FAISS does not know.
    """
    with translate_errors(factory):
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        return _bytes(index, items)


def cells_of(index: faiss.Index) -> int | None:
    """Returns the number of cells (IVF lists) of an index, None if it has none."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):  # what is behind a projection may be on a GPU
        return cells_of(index.index)
    if isinstance(index, faiss.IndexShards):
        return cells_of(index.at(0))
    if type(index).__name__.startswith("GpuIndexIVF"):
        return int(index.nlist)
    ivf = faiss.try_extract_index_ivf(index)
    return None if ivf is None else int(ivf.nlist)


def parameters(index: faiss.Index, params: SearchParams, selector: faiss.IDSelector | None = None) -> Any:
    """Returns the FAISS parameters of one search. They are passed to the search and never set on the index, which threads share.

    A selector names the rows that are found; an index on a GPU would ignore it.
    """
    index = faiss.downcast_index(index)
    name = type(index).__name__
    if isinstance(index, faiss.IndexShards):
        return parameters(index.at(0), params)
    if isinstance(index, faiss.IndexPreTransform):
        inner = parameters(index.index, params, selector)
        return inner and faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = parameters(index.base_index, params, selector)
        return inner and faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    selected = {} if selector is None else {"sel": selector}
    if name.startswith(("IndexIVF", "GpuIndexIVF")) and params.nprobe is not None:
        max_nprobe = MAX_GPU_K if name.startswith("Gpu") else index.nlist
        return faiss.SearchParametersIVF(nprobe=min(params.nprobe, index.nlist, max_nprobe), **selected)
    if name.startswith("IndexHNSW") and params.ef is not None:
        return faiss.SearchParametersHNSW(efSearch=params.ef, **selected)
    return faiss.SearchParameters(**selected) if selected else None


def float16_rows(index: faiss.Index, factory: str) -> NDArray[np.float16] | None:
    """Returns the (n, d) rows of a flat float16 index on the CPU, without a copy; None for any other index."""
    if factory != FLAT or not isinstance(index, faiss.IndexScalarQuantizer):
        return None
    codes: NDArray[np.uint8] = faiss.rev_swig_ptr(index.codes.data(), index.codes.size())
    return codes.view(np.float16).reshape(-1, index.d)


@contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Limits the OpenMP threads that this thread uses within the block.

    FAISS distributes queries over threads, not rows. For one query, other threads only wait, and on a busy machine they slowed a flat
    search from 5 ms to 16 ms.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(1, min(before, count)))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextmanager
def translate_errors(factory: str) -> Iterator[None]:
    """Turns C++ exceptions of FAISS into OptionErrors of one line."""
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
    line = message.strip().splitlines()[0] if message.strip() else "FAISS refuses it"
    line = re.sub(r"^Error in .* at \S+:\d+: (Error: '.*' failed: )?", "", line)
    if "could not parse index string" in line:
        return f"{line}; expected a FAISS factory string such as IVF4096,SQ8"
    return line


def _sample(vectors: NDArray[np.float16], min_count: int) -> Float32:
    count = min(len(vectors), MAX_TRAINING_ROWS, max(MIN_TRAINING_ROWS, min_count))
    rows = np.linspace(0, max(len(vectors) - 1, 0), count).astype(np.int64)
    return np.asarray(vectors[rows], dtype=np.float32)


def _train_projection(index: faiss.Index, sample: Float32) -> None:
    """Trains the PCA at the start of a factory string so that it keeps inner products.

    FAISS subtracts the mean of the rows, which adds another number to the score of each row. The mean of a sample and its negative is 0.
    """
    first = next(iter(_transforms(index)), None)
    if isinstance(first, faiss.PCAMatrix):
        rows = sample[:: -(-len(sample) // MIN_TRAINING_ROWS)]
        first.max_points_per_d = 2 * len(rows)  # all of them: a part would have another mean
        first.train(np.concatenate([rows, -rows]))


def _transforms(index: faiss.Index) -> list[faiss.VectorTransform]:
    """Returns what is done to vectors before they come to the index, as in "PCA64,SQ8"."""
    index = faiss.downcast_index(index)
    if not isinstance(index, faiss.IndexPreTransform):
        return []
    return [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]


def _projection_bytes(transform: faiss.VectorTransform) -> int:
    columns = transform.d_out + (transform.d_in if isinstance(transform, faiss.PCAMatrix) else 0)  # it keeps all its axes
    return FLOAT_BYTES * int(transform.d_in * columns)


def _bytes(index: faiss.Index, items: int) -> int:
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return sum(map(_projection_bytes, _transforms(index))) + _bytes(index.index, items)
    if isinstance(index, faiss.IndexRefine):
        return _bytes(index.base_index, items) + _bytes(index.refine_index, items)
    if isinstance(index, faiss.IndexIVF):
        cells = _bytes(index.quantizer, index.nlist) + ID_BYTES * int(index.nlist)
        return cells + items * (ID_BYTES + int(index.code_size))
    if isinstance(index, faiss.IndexHNSW):
        return _bytes(index.storage, items) + items * (NODE_BYTES + LINK_BYTES * int(index.hnsw.nb_neighbors(0)))
    return items * int(index.sa_code_size())


def _configure_kmeans(index: faiss.Index) -> None:
    """Sets fewer k-means iterations, and disables the warning about few training rows on standard error."""
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.cp.min_points_per_centroid, ivf.cp.niter = 1, KMEANS_ITERATIONS
