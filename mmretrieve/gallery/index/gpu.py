"""The same index served by the GPUs of this machine, which share its rows. Written for FAISS 1.15.

FAISS on a GPU has no float16 scalar quantizer of its own but a flat index that stores float16; IVF with flat or 8-bit
vectors is cloned; RaBitQ and HNSW have no form there. Both k and the number of cells looked into end at 2048.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.index.plan import Device
from mmretrieve.vectors import Float32

ROW_BATCH_SIZE = 65_536  # rows sent at once
IndexFactory = Callable[[int], faiss.Index]  # from a dimension to an empty flat index


def resolve_device(device: Device | str) -> Device:
    """CPU or CUDA. GalleryError where a GPU is asked for and FAISS sees none, OptionError for an unknown device."""
    asked, count = Device(device), faiss.get_num_gpus()
    if asked is Device.CUDA and not count:
        raise GalleryError("device cuda: FAISS sees no GPU here; take auto or cpu, or install faiss-gpu where there is one")
    if asked is Device.AUTO:
        return Device.CUDA if count else Device.CPU
    return asked


def flat_index(vectors: NDArray[np.float16], factories: Sequence[IndexFactory] | None = None) -> faiss.Index:
    """(n, d) rows in flat float16 indexes, one for each GPU (or each of `factories`), each with its stretch of the rows."""
    factories = factories or [_on(device) for device in range(faiss.get_num_gpus())]
    ends = [len(vectors) * i // len(factories) for i in range(len(factories) + 1)]
    shards = faiss.IndexShards(vectors.shape[1], True, True)  # in threads; rows go on from one to the next
    for create, start, end in zip(factories, ends[:-1], ends[1:], strict=True):
        shard = create(vectors.shape[1])
        for first in range(start, end, ROW_BATCH_SIZE):
            shard.add(np.asarray(vectors[first : min(first + ROW_BATCH_SIZE, end)], dtype=np.float32))
        shards.add_shard(shard)
    return shards


def clone_to_gpus(index: faiss.Index, factory: str) -> faiss.Index:
    """A copy spread over all GPUs. OptionError for a kind that has no form there."""
    options = faiss.GpuMultipleClonerOptions()
    options.shard, options.useFloat16 = True, True
    try:
        return faiss.index_cpu_to_all_gpus(index, options)
    except RuntimeError as error:
        raise OptionError(
            f"index factory {factory!r} has no form on a GPU; SQfp16, Flat, IVF…,Flat and IVF…,SQ8 have one"
        ) from error


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


def _on(device: int) -> IndexFactory:
    """Makes a flat float16 index on that GPU."""

    def create(dim: int) -> faiss.Index:
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = device, True
        return faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), dim, config)

    return create
