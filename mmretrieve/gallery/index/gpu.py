"""Indexes on the GPUs of this machine. Written for FAISS 1.15.

FAISS has no float16 scalar quantizer on GPUs, but a flat index that stores float16. IVF with flat or 8-bit vectors can be copied to GPUs;
RaBitQ and HNSW cannot. k and the number of searched cells are limited to 2048.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.index.plan import Device

ROW_BATCH_SIZE = 65_536  # rows that are copied to a GPU at once
IndexFactory = Callable[[int], faiss.Index]  # dimension → an empty flat index


def resolve_device(device: Device | str) -> Device:
    """Returns CPU or CUDA for a device. Raises GalleryError for "cuda" without a GPU, OptionError for an unknown device."""
    device, count = Device(device), faiss.get_num_gpus()
    if device is Device.CUDA and not count:
        import torch

        if not torch.cuda.is_available():
            raise GalleryError("device cuda: there is no CUDA device on this machine; use auto or cpu")
        raise GalleryError("device cuda: FAISS is installed without GPU support; use auto or cpu, or install faiss-gpu")
    if device is Device.AUTO:
        return Device.CUDA if count else Device.CPU
    return device


def flat_index(vectors: NDArray[np.float16], factories: Sequence[IndexFactory] | None = None) -> faiss.Index:
    """Puts (n, d) rows into flat float16 indexes, one for each GPU (or each of `factories`), each with a contiguous part of the rows."""
    factories = factories or [_on(device) for device in range(faiss.get_num_gpus())]
    ends = [len(vectors) * i // len(factories) for i in range(len(factories) + 1)]
    shards = faiss.IndexShards(vectors.shape[1], True, True)  # in threads; row numbers continue from one shard to the next
    for create, start, end in zip(factories, ends[:-1], ends[1:], strict=True):
        shard = create(vectors.shape[1])
        for first in range(start, end, ROW_BATCH_SIZE):
            shard.add(np.asarray(vectors[first : min(first + ROW_BATCH_SIZE, end)], dtype=np.float32))
        shards.add_shard(shard)
    return shards


def clone_to_gpus(index: faiss.Index, factory: str) -> faiss.Index:
    """Copies an index to all GPUs. Raises OptionError for a type that GPUs do not support."""
    options = faiss.GpuMultipleClonerOptions()
    options.shard, options.useFloat16 = True, True
    try:
        return faiss.index_cpu_to_all_gpus(index, options)
    except RuntimeError as error:
        raise OptionError(
            f"index factory {factory!r} is not supported on a GPU; use SQfp16, Flat, IVF<n>,Flat or IVF<n>,SQ8"
        ) from error


def _on(device: int) -> IndexFactory:
    """Returns a factory of flat float16 indexes on a GPU."""

    def create(dim: int) -> faiss.Index:
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = device, True
        return faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), dim, config)

    return create
