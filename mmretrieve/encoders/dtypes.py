"""The dtype in which an image tower computes: which ones a device has, and whether int8 agrees with float32 and is faster than the others.

A comparison takes a fraction of a second for most towers, and is remembered for each encoder, CPU and version of torch.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmretrieve.encoders import int8
from mmretrieve.encoders.base import EncoderIdentity
from mmretrieve.encoders.image_tower import with_plain_attention
from mmretrieve.errors import EncoderError, GalleryError, OptionError, unknown
from mmretrieve.options import AUTO, Dtype, cache_folder, load_json

MIN_COSINE = 0.9995  # mean, of int8 to float32 vectors
MIN_SPEEDUPS = {Dtype.FLOAT32: 2.0, Dtype.BFLOAT16: 1.2}  # of processor time of the tower, for "auto"; decoding is not faster
MIN_WIDTH = 256  # inputs of a layer; below, rounding and scaling cost what 8-bit products save
PROBE_SECONDS, MAX_PROBES = 0.25, 32  # images that float32 encodes in that time are compared, at least 2


def resolve_dtype(name: str, device: torch.device) -> Dtype:
    """The dtype of that name; "auto" is bfloat16 if the hardware supports it, otherwise float32. Raises OptionError if it is unknown or absent."""
    if name == AUTO:
        return Dtype.BFLOAT16 if _has_bfloat16(device) else Dtype.FLOAT32
    if name not in list(Dtype):
        raise unknown("dtype", name, [AUTO, *Dtype])
    if name == Dtype.INT8 and (device.type != "cpu" or not int8.is_supported()):
        where = "this CPU" if device.type == "cpu" else f"device {str(device)!r}"
        raise OptionError(f"dtype 'int8' is not available on {where}: it needs an x86 CPU with AVX2; use 'float32'")
    return Dtype(name)


def available_dtypes(device: torch.device) -> tuple[Dtype, ...]:
    """float32, and the other dtypes in which the device is faster."""
    bfloat16 = (Dtype.BFLOAT16,) if _has_bfloat16(device) else ()
    return Dtype.FLOAT32, *bfloat16, *((Dtype.INT8,) if device.type == "cpu" and int8.is_supported() else ())


def dtype_of_gallery(name: str, device: torch.device, stored: Dtype | None, location: object) -> Dtype:
    """The dtype for a gallery: "auto" is the stored one, or, in a gallery without one, that of `resolve_dtype`, which is never int8.

    Where bfloat16 is stored and slow, it is float32. Raises GalleryError, with the location, if the stored one is not available.
    """
    if name != AUTO or stored is None:
        return resolve_dtype(name, device)
    if stored is Dtype.BFLOAT16 and not _has_bfloat16(device):
        return Dtype.FLOAT32
    try:
        return resolve_dtype(stored, device)
    except OptionError as error:
        raise GalleryError(
            f"{location}: its vectors were computed in {stored}, but {error}, which gives slightly different vectors"
        ) from error


def choose_dtype(name: str, device: torch.device, tower: nn.Module, size: int, identity: EncoderIdentity) -> Dtype:
    """The dtype for the float32 image tower of an encoder, with its input size in pixels.

    "auto" is int8 where the tower agrees and is faster in it than in what `resolve_dtype` has. Raises EncoderError if "int8" does not agree.
    """
    dtype = resolve_dtype(name, device)
    is_candidate = name == AUTO and device.type == "cpu" and int8.is_supported()
    if is_candidate and int8.largest_input(tower) >= MIN_WIDTH:
        compared = remembered_comparison(tower, size, identity.weights, dtype)
        return Dtype.INT8 if compared.cosine >= MIN_COSINE and compared.speedup >= MIN_SPEEDUPS[dtype] else dtype
    if dtype is Dtype.INT8 and not (cosine := remembered_comparison(tower, size, identity.weights).cosine) >= MIN_COSINE:
        raise EncoderError(
            f"{identity.model}: int8 is not close enough: its vectors have a mean cosine of {cosine:.4f} to those of float32, expected "
            f"{MIN_COSINE}; use dtype 'float32'"
        )
    return dtype


def cast_tower(tower: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The tower, computing in that dtype. On a CPU, bfloat16 and int8 give an image the same vector in every batch."""
    if dtype is torch.int8:
        return int8.quantized(tower)
    is_on_cpu = all(weights.device.type == "cpu" for weights in tower.parameters())
    return with_plain_attention(tower.to(dtype)) if is_on_cpu and dtype is torch.bfloat16 else tower.to(dtype)


def input_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the inputs of a tower; layers of int8 round float32 inputs themselves."""
    return torch.float32 if dtype is torch.int8 else dtype


@dataclass(frozen=True)
class Int8Comparison:
    """The mean cosine of int8 vectors to those of float32, and how many times as fast int8 was, in processor time."""

    cosine: float
    speedup: float


def remembered_comparison(tower: nn.Module, size: int, weights: str, other: Dtype = Dtype.FLOAT32) -> Int8Comparison:
    """As `compare_int8`, computed once for each hash of weights, dtype, CPU and version of torch. A cache that cannot be used is ignored."""
    capabilities = getattr(
        torch.cpu, "get_capabilities", torch.backends.cpu.get_cpu_capability
    )()  # torch 2.7 has only the latter
    machine = f"{capabilities} {platform.machine()} {torch.__version__}"
    key = sha256(f"{weights} {size} {other} {machine} {int8.INPUT_LEVELS} {int8.WEIGHT_LEVELS}".encode()).hexdigest()[:32]
    path = cache_folder() / "int8" / f"{key}.json"
    with suppress(OSError, ValueError, TypeError):
        return Int8Comparison(**load_json(path.read_text("utf-8")))
    compared = compare_int8(tower, size, other)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(asdict(compared)), "utf-8")
        partial.replace(path)
    return compared


@torch.inference_mode()
def compare_int8(tower: nn.Module, size: int, other: Dtype = Dtype.FLOAT32) -> Int8Comparison:
    """Encodes synthetic images with the float32 tower, in int8 and in another dtype, whose speed is compared."""
    towers = {
        dtype: tower if dtype is Dtype.FLOAT32 else _cast_copy(tower, dtype) for dtype in (Dtype.FLOAT32, other, Dtype.INT8)
    }
    for dtype, each in towers.items():
        _timed(each, _synthetic_images(1, size), dtype)  # the first run of a tower is slower
    seconds, _ = _timed(tower, _synthetic_images(1, size), Dtype.FLOAT32)
    images = _synthetic_images(min(max(int(PROBE_SECONDS / max(seconds, 1e-9)), 2), MAX_PROBES), size)
    times = {dtype: _timed(each, images, dtype) for dtype, each in towers.items()}
    (_, exact), (int8_seconds, rounded) = times[Dtype.FLOAT32], times[Dtype.INT8]
    return Int8Comparison(float(F.cosine_similarity(exact, rounded).mean()), times[other][0] / max(int8_seconds, 1e-9))


def _cast_copy(tower: nn.Module, dtype: Dtype) -> nn.Module:
    return cast_tower(tower if dtype is Dtype.INT8 else copy.deepcopy(tower), getattr(torch, dtype))  # int8 copies it


def _timed(tower: nn.Module, images: Tensor, dtype: Dtype) -> tuple[float, Tensor]:
    images = images.to(input_dtype(getattr(torch, dtype)))
    started = time.process_time()
    features = tower(images)
    seconds = time.process_time() - started
    return seconds, features[0] if isinstance(features, tuple) else features  # CoCa's tower gives tokens beside them


def _synthetic_images(count: int, size: int) -> Tensor:
    """(count, 3, size, size) patches of random colors with noise, with about the mean and the spread of normalized photos."""
    generator = torch.Generator().manual_seed(0)
    patches = F.interpolate(torch.randn(count, 3, 8, 8, generator=generator), size=(size, size), mode="bilinear")
    return patches + 0.2 * torch.randn(count, 3, size, size, generator=generator)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
