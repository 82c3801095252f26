"""Exact scores of many rows on a GPU: float64 products of float16 rows, a block at a time, as `scoring` does on the CPU.

The two round sums in another order, so a score may differ in the last digit of a float32.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mmretrieve.vectors import Float32


def scores(vectors_qd: Float32, blocks: Iterable[np.ndarray], count: int, device: str = "cuda") -> Float32:
    """(q, d) unit vectors, blocks of (m, d) float16 rows, `count` in all → (q, count) float32 inner products with their unit rows."""
    import torch

    queries = torch.from_numpy(vectors_qd).to(device, torch.float64)
    out, start = np.empty((len(vectors_qd), count), np.float32), 0
    for block in blocks:
        rows = torch.from_numpy(np.asarray(block)).to(device).to(torch.float64)
        rows /= rows.abs().amax(dim=1, keepdim=True)
        rows = (rows / rows.norm(dim=1, keepdim=True)).to(torch.float32).to(torch.float64)
        out[:, start : start + len(block)] = (queries @ rows.T).to(torch.float32).cpu().numpy()
        start += len(block)
    return out
