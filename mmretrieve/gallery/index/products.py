"""Products of queries with the stored float16 rows of a gallery, at the speed of its memory. torch computes them.

`best_products` finds candidates for many queries of a flat index. `exact_scores` gives what `scoring.term_scores` of the normalized rows
gives, without a copy of all rows in float32; `approximate_scores` is three times as fast.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmretrieve.concurrency import map_on_cores
from mmretrieve.gallery.index.plan import Device
from mmretrieve.vectors import Float32

if TYPE_CHECKING:
    import torch

Float16Rows = NDArray[np.float16]
MIN_QUERIES = 64  # of `best_products`; with fewer, or on a busy machine, a scan for each query is as fast
MIN_PAIRS = 1 << 24  # of queries and rows; with fewer, FAISS is done before torch is imported
ROW_BATCH_SIZE = 16_384  # rows multiplied at once: their float32 copies and scores stay in the caches of a processor
QUERY_BATCH_SIZE = 1_024  # queries multiplied at once: bounds the memory of their scores to 64 MiB
EXACT_BATCH_SIZES = {Device.CPU: 256, Device.CUDA: 65_536}  # rows scored at once in float64; more would leave the caches
APPROXIMATE_BATCH_SIZES = {Device.CPU: 2_048, Device.CUDA: 65_536}  # the same in float32


def pays(n_queries: int, n_rows: int) -> bool:
    """Returns whether `best_products` is faster than a search of FAISS."""
    return n_queries >= MIN_QUERIES and ("torch" in sys.modules or n_queries * n_rows >= MIN_PAIRS)


def best_products(rows_nd: Float16Rows, queries_qd: Float32, k: int) -> tuple[Float32, NDArray[np.int64]]:
    """Returns (q, k) inner products in descending order and their rows, as a FAISS search does, for k ≤ n."""
    batches = [
        _best_of_batch(rows_nd, queries_qd[start : start + QUERY_BATCH_SIZE], k)
        for start in range(0, len(queries_qd), QUERY_BATCH_SIZE)
    ]
    return np.concatenate([scores for scores, _ in batches]), np.concatenate([rows for _, rows in batches])


def _best_of_batch(rows_nd: Float16Rows, queries_qd: Float32, k: int) -> tuple[Float32, NDArray[np.int64]]:
    import torch

    queries, stored = torch.from_numpy(np.ascontiguousarray(queries_qd)), torch.from_numpy(rows_nd)
    scores, rows = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(stored), ROW_BATCH_SIZE):
        products = queries @ stored[start : start + ROW_BATCH_SIZE].float().T
        best, places = products.topk(min(k, products.shape[1]), sorted=False)
        scores, rows = torch.cat([scores, best], 1), torch.cat([rows, places + start], 1)
        scores, order = scores.topk(min(k, scores.shape[1]))
        rows = rows.gather(1, order)
    return scores.numpy(), rows.numpy()


def exact_scores(
    queries_qd: Float32, rows_nd: Float16Rows, rows: NDArray[np.int64] | None = None, device: Device = Device.CPU
) -> Float32:
    """Returns (q, m) float32 inner products of (q, d) queries with m normalized rows, all n by default.

    Rows are divided by their length and rounded to float32, as `unit` does, and multiplied in float64, as `scoring.term_scores`
    does. torch may add in another order, so a score may differ in the last digit of a float32.
    """
    import torch

    queries = _tensor(queries_qd, device).double()

    def score(stored: torch.Tensor) -> torch.Tensor:
        return torch.mm(queries, stored.div_(stored.norm(dim=1, keepdim=True)).float().double().T)

    return _scored(score, torch.float64, EXACT_BATCH_SIZES[device], len(queries), rows_nd, rows, device)


def approximate_scores(
    queries_qd: Float32, rows_nd: Float16Rows, rows: NDArray[np.int64] | None = None, device: Device = Device.CPU
) -> Float32:
    """Returns what `exact_scores` does, computed in float32: with errors of about 1e-7, in a third of the time."""
    import torch

    queries = _tensor(queries_qd, device)

    def score(stored: torch.Tensor) -> torch.Tensor:
        return torch.mm(queries, stored.T).div_(stored.norm(dim=1))

    return _scored(score, torch.float32, APPROXIMATE_BATCH_SIZES[device], len(queries), rows_nd, rows, device)


def _scored(
    score: Callable[[torch.Tensor], torch.Tensor],
    dtype: torch.dtype,
    size: int,
    count: int,
    rows_nd: Float16Rows,
    rows: NDArray[np.int64] | None,
    device: Device,
) -> Float32:
    """Returns the (count, m) scores of m rows, which a function computes of up to `size` stored rows at once, converted to a dtype.

    On a CPU, each core computes batches of its own: threads that share one wait for each other at each operation.
    """
    import torch

    total = len(rows_nd if rows is None else rows)
    scores = np.empty((count, total), np.float32)
    threads = torch.get_num_threads() if device is Device.CPU else 1

    def score_batches(first: int) -> None:
        converted = torch.empty(
            size, rows_nd.shape[1], dtype=dtype, device=device.value
        )  # memory that is new costs as much as reading
        for start in range(first, total, threads * size):
            batch = slice(start, start + size) if rows is None else rows[start : start + size]
            stored = _tensor(rows_nd[batch], device)
            scores[:, start : start + size] = score(converted[: len(stored)].copy_(stored)).float().cpu().numpy()

    deque(map_on_cores(score_batches, range(0, min(total, threads * size), size)), maxlen=0)
    return scores


def _tensor(array: NDArray[Any], device: Device) -> torch.Tensor:
    """Returns a tensor of the memory of an array. torch has none that is only read, as of a mapped file; no caller writes to it."""
    import torch

    return torch.from_numpy(np.asarray(_Writable(np.ascontiguousarray(array)))).to(device.value)


class _Writable:
    """An array as its own memory, for what refuses one that is only read."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array, interface = array, array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}
