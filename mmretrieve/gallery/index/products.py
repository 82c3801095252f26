"""Products of queries with the stored float16 rows of a gallery, at the speed of its memory. torch computes them.

`best_products` finds candidates for many queries of a flat index. `row_lengths` and `exact_scores` give what
`scoring.term_scores` of the normalized rows gives, without a copy of all rows in float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmretrieve.gallery.index.plan import Device
from mmretrieve.vectors import Float32

Float16Rows = NDArray[np.float16]
MIN_QUERIES = 64  # of `best_products`; with fewer, or on a busy machine, a scan for each query is as fast
ROW_BATCH_SIZE = 16_384  # rows multiplied at once: their float32 copies and scores stay in the caches of a processor
QUERY_BATCH_SIZE = 1_024  # queries multiplied at once: bounds the memory of their scores to 64 MiB
EXACT_BATCH_SIZES = {Device.CPU: 1_024, Device.CUDA: 65_536}  # rows scored at once in float64


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


def row_lengths(rows_nd: Float16Rows) -> NDArray[np.float64]:
    """Returns the (n,) lengths of stored rows, which are 1 up to the rounding of float16."""
    import torch

    lengths = np.empty(len(rows_nd))
    for start in range(0, len(rows_nd), EXACT_BATCH_SIZES[Device.CPU]):
        batch = slice(start, start + EXACT_BATCH_SIZES[Device.CPU])
        lengths[batch] = torch.from_numpy(_writable(rows_nd[batch])).double().norm(dim=1).numpy()
    return lengths


def exact_scores(
    queries_qd: Float32,
    rows_nd: Float16Rows,
    lengths_n: NDArray[np.float64],
    rows: NDArray[np.int64] | None = None,
    device: Device = Device.CPU,
) -> Float32:
    """Returns (q, m) float32 inner products of (q, d) queries with m normalized rows, all n by default.

    Rows are divided by their length and rounded to float32, as `unit` does, and multiplied in float64, as `scoring.term_scores`
    does. torch may add in another order, so a score may differ in the last digit of a float32.
    """
    import torch

    queries, count = (
        torch.from_numpy(np.ascontiguousarray(queries_qd)).to(device.value, torch.float64),
        len(rows_nd if rows is None else rows),
    )
    scores, size = np.empty((len(queries_qd), count), np.float32), EXACT_BATCH_SIZES[device]
    for start in range(0, count, size):
        batch = slice(start, start + size) if rows is None else rows[start : start + size]
        stored = torch.from_numpy(_writable(rows_nd[batch])).to(device.value)
        lengths = torch.from_numpy(lengths_n[batch]).to(device.value)
        normalized = (stored.double() / lengths[:, None]).float().double()
        scores[:, start : start + size] = (queries @ normalized.T).float().cpu().numpy()
    return scores


def _writable(rows_md: Float16Rows) -> Float16Rows:
    """Returns the rows as torch wants them: copied if they are mapped from a file that is only read."""
    return np.require(rows_md, requirements=["C", "W"])
