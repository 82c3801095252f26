"""Encoding and searching on a GPU, against what the device can do.

    python -m benchmarks.gpu [--size 1000000 --photos 512] [--out results]

Images a second are compared with those of the tower alone on images in the memory of the device, and searches a second with the bandwidth of that
memory. Encoding needs no FAISS; without it, or where it finds no GPU, only encoding is measured. `--device cpu` measures encoding on a CPU.
Exits with status 1 if rankings on GPU and CPU differ.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.dtypes import make_photos, random_model
from benchmarks.first import load_plain, plain_loop
from benchmarks.script import make_parser, time_call, write_result
from mmretrieve import load_encoder
from mmretrieve.encoders.dtypes import input_dtype
from mmretrieve.encoders.openclip import OpenClipEncoder, require_open_clip
from mmretrieve.gallery.encoding import EncodedImage, ItemEncoder
from mmretrieve.gallery.store.records import Item
from mmretrieve.images import content_hash
from mmretrieve.options import BUILT_IN, BUILT_IN_MODEL, Colors, Decode
from mmretrieve.sources.location import Location

BATCH_SIZE = 256  # photos, as `index` commits them
TOWER_RUNS, COPIES = 8, 8
BANDWIDTH_BYTES = 1 << 28  # that are copied: more than any cache holds


def main() -> None:
    parser = make_parser(__doc__, "gpu")
    parser.add_argument("--size", type=int, default=1_000_000, help="vectors in the gallery that is searched")
    parser.add_argument("--photos", type=int, default=512, help="photos to make and encode")
    parser.add_argument("--encoder", help="wardrobe, or a local open_clip folder (default: ViT-B/32 with random weights)")
    parser.add_argument("--device", default="cuda", help="where images are encoded (default: %(default)s)")
    options = parser.parse_args()
    device = torch.device(options.device)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "CPU cores": os.cpu_count(),
        "torch": torch.__version__,
        "encoding": measure_encoding(options.device, options.encoder, options.photos),
        "memory bandwidth, GB/s": (bandwidth := measure_bandwidth(device)) / 1e9,
    }
    if has_faiss_gpus():
        from benchmarks import gpu_search

        result["search"] = gpu_search.measure(options.size, bandwidth)
    write_result(result, options.out, "gpu")
    if not all(part["agree"] for part in result.get("search", {"rankings": {}})["rankings"].values()):
        sys.exit("the rankings differ")


def has_faiss_gpus() -> bool:
    """Whether FAISS is installed and finds a GPU."""
    if find_spec("faiss") is None:
        return False
    import faiss

    return bool(faiss.get_num_gpus())


def measure_encoding(device: str, spec: str | None, count: int) -> dict[str, Any]:
    """Images a second of each way to encode photos."""
    with tempfile.TemporaryDirectory() as name:
        paths = make_photos(Path(name) / "photos", count)
        model = spec if spec is not None else str(random_model(Path(name) / "model"))
        encoder = require_open_clip(load_encoder(model, device=device), "this benchmark")
        encode_items(encoder, paths[:1])  # the first run of a tower is slower
        plain = load_plain(BUILT_IN_MODEL if model == BUILT_IN else Path(model))
        rates = {
            "tower alone, images in the memory of the device": tower_rate(encoder),
            "encode_images": count / time_call(encoder.encode_images, paths)[0],
            "index without commits (decode, thumbnail, encode)": count / time_call(encode_items, encoder, paths)[0],
            "plain open_clip loop on the CPU": count / time_call(plain_loop, paths, *plain)[0],
        }
    tower = rates["tower alone, images in the memory of the device"]
    return {
        "encoder": encoder.identity.model if spec else "ViT-B-32, random weights",
        "dtype": str(encoder.dtype),
        "photos": count,
        "images a second": rates,
        "share of the tower alone": rates["index without commits (decode, thumbnail, encode)"] / tower,
    }


def encode_items(encoder: OpenClipEncoder, paths: list[Path]) -> None:
    """Does with files what `index` does before it commits them. Raises RuntimeError if one cannot be encoded."""
    items = [
        Item(path.name, location := Location(str(path)), content_hash(path), fingerprint=location.fingerprint())
        for path in paths
    ]
    batches = (iter(items[start : start + BATCH_SIZE]) for start in range(0, len(items), BATCH_SIZE))
    indexing = ItemEncoder(encoder, Decode.EXACT, Colors.SRGB, progress=lambda _count: None)
    encoded = [image for batch in indexing.encode_batches(batches) for image in batch]
    if failed := [image for image in encoded if not isinstance(image, EncodedImage)]:
        raise RuntimeError(f"{len(failed)} photos were not encoded: {failed[0].reason}")


@torch.inference_mode()
def tower_rate(encoder: OpenClipEncoder) -> float:
    """Images a second of the image tower, in groups of the size in which `encode_images` gives them to it."""
    size = encoder.image_size
    images = torch.rand(encoder._group_size, 3, size, size, device=encoder.device, dtype=input_dtype(encoder.dtype))

    def run() -> None:
        for _ in range(TOWER_RUNS):
            encoder._model.encode_image(images)
        synchronize(encoder.device)

    run()
    return TOWER_RUNS * len(images) / time_call(run)[0]


def measure_bandwidth(device: torch.device, size: int = BANDWIDTH_BYTES) -> float:
    """Bytes a second that copies within the memory of a device read and write."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        for _ in range(COPIES):
            target.copy_(source)
        synchronize(device)

    copy()
    return 2 * COPIES * size / time_call(copy)[0]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
