"""Encoding photos on a CPU with ViT-B/32: a plain open_clip loop and each dtype that the CPU has, in turn; and what dtypes do to rankings.

    python -m benchmarks.dtypes [--photos 64 --rounds 3] [--data FOLDER] [--out results]

The weights are random, and the photos are JPEG files of 1600×1200 that are made on the spot. Models are loaded before the first round. Seconds
of processor time are those of all threads. Rankings are those of the wardrobe, and of the catalogue in the folder of --data.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

import mmretrieve as mm
from benchmarks.first import load_plain, plain_loop
from benchmarks.script import make_parser, summarize, time_call, write_result
from eval.benchmarks import load_benchmark
from eval.runs.compositions import MethodConfig, compose
from eval.runs.features import encode_gallery
from mmretrieve.encoders.dtypes import available_dtypes, compare_int8
from mmretrieve.encoders.openclip import require_open_clip
from mmretrieve.options import Dtype

MODEL, PHOTO_SIZE, PLAIN = "ViT-B-32", (1600, 1200), "plain open_clip loop"
DTYPES = available_dtypes(torch.device("cpu"))


def main() -> None:
    parser = make_parser(__doc__, "dtypes")
    parser.add_argument("--photos", type=int, default=64, help="photos to make")
    parser.add_argument("--rounds", type=int, default=3, help="times that each way encodes all photos; 0 for rankings alone")
    data = os.environ.get("MMRETRIEVE_DATA")
    parser.add_argument("--data", type=Path, default=data, help="folder that contains the catalogue (default: %(default)s)")
    options = parser.parse_args()
    result = measure(options.photos, options.rounds) if options.rounds else {}
    write_result(result | {"rankings": measure_rankings(options.data)}, options.out, "dtypes")


def measure(count: int, rounds: int) -> dict[str, Any]:
    """Images a second by wall clock and by processor time, and the cosines to the vectors of float32."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, paths = random_model(folder / "model"), make_photos(folder / "photos", count)
        encoders = {dtype: mm.load_encoder(model, device="cpu", dtype=dtype) for dtype in DTYPES}
        ways: dict[str, Callable[[], np.ndarray]] = {PLAIN: partial(plain_loop, paths, *load_plain(model))}
        for dtype, encoder in encoders.items():
            ways[dtype] = partial(encoder.encode_images, paths)
            for decode in ("exact", "fast"):
                ways[f"index, {dtype}, {decode} decoding"] = partial(index, encoder, folder / "photos", decode)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        processor: dict[str, list[float]] = {way: [] for way in ways}
        rows: dict[str, np.ndarray] = {}
        for _ in range(rounds):
            for way, encode in ways.items():
                started = time.process_time()
                wall, rows[way] = time_call(encode)
                processor[way].append(time.process_time() - started)
                seconds[way].append(wall)
        tower = require_open_clip(encoders[Dtype.FLOAT32], "this benchmark")
        compared = compare_int8(tower._model.visual, tower.image_size)
    return {
        "photos": count,
        "images a second": {way: summarize([count / one for one in each]) for way, each in seconds.items()},
        "images a second of processor time": {way: summarize([count / one for one in each]) for way, each in processor.items()},
        "times as fast as the plain loop": _ratios(seconds),
        "times as fast as the plain loop in processor time": _ratios(processor),
        "mean cosine to the plain loop": {way: float((rows[PLAIN] * each).sum(axis=1).mean()) for way, each in rows.items()},
        "check of int8 at load time": {"mean cosine": compared.cosine, "speedup of the tower": compared.speedup},
    }


def measure_rankings(data: Path | None) -> dict[str, Any]:
    """The cosines of each dtype to float32 vectors, and recall@10 of image + prompt with each."""
    sets: dict[str, tuple[Path | None, str | Path]] = {"wardrobe": (None, "wardrobe")}
    if data is not None and (data / "catalogue").is_dir():
        sets["catalogue"] = (data / "catalogue", data / "catalogue" / "model")
    return {name: _measure_ranking(name, *source) for name, source in sets.items()}


def _measure_ranking(name: str, root: Path | None, spec: str | Path) -> dict[str, Any]:
    benchmark, vectors, recall = load_benchmark(name, root), dict[str, np.ndarray](), dict[str, float]()
    for dtype in DTYPES:
        encoder = mm.load_encoder(spec, device="cpu", dtype=dtype)
        with tempfile.TemporaryDirectory() as folder:
            _, vectors[dtype] = encode_gallery(benchmark, encoder, Path(folder))
        composed = compose(benchmark, vectors[dtype], encoder, MethodConfig("sum"), mm.Parts())
        recall[dtype] = benchmark.mean_metrics(composed.measure(lambda composition: composition))["recall@10"]
    return {"images": len(vectors["float32"]), "recall@10": recall} | {
        dtype: {
            "mean cosine": float((cosines := (vectors["float32"] * rows).sum(axis=1)).mean()),
            "smallest cosine": float(cosines.min()),
            "points of recall@10 that it adds": recall[dtype] - recall["float32"],
        }
        for dtype, rows in vectors.items()
        if dtype != "float32"
    }


def random_model(folder: Path) -> Path:
    """A local open_clip folder of the model with random weights."""
    torch.manual_seed(0)
    folder.mkdir()
    config = {"model_cfg": open_clip.get_model_config(MODEL), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(open_clip.create_model(MODEL).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def make_photos(folder: Path, count: int) -> list[Path]:
    """JPEG files of smooth random colors with noise, as large as photos of that size."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = [folder / f"{number:04}.jpg" for number in range(count)]
    for path in paths:
        patches = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
            PHOTO_SIZE, Image.Resampling.BICUBIC
        )
        noise = random.normal(0, 6, (PHOTO_SIZE[1], PHOTO_SIZE[0], 1))
        Image.fromarray((np.asarray(patches) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


def index(encoder: mm.Encoder, photos: Path, decode: str) -> np.ndarray:
    """The vectors of a gallery into which the photos were indexed."""
    with tempfile.TemporaryDirectory() as folder:
        gallery = mm.Gallery.create(Path(folder) / "g", encoder=encoder, decode=decode)
        gallery.add(photos)
        return gallery.vectors()


def _ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """The median ratio to the plain loop of the same round."""
    return {
        way: statistics.median(plain / own for plain, own in zip(seconds[PLAIN], each, strict=True))
        for way, each in seconds.items()
    }


if __name__ == "__main__":
    main()
