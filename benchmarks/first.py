"""The first numbers: indexing against a plain open_clip loop, a search, a slider move, bytes and memory. One run, ratios in it.

    python benchmarks/first.py [--photos FOLDER --encoder E] [--out results]

Without arguments it uses the built-in drawings and encoder.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

import mmretrieve as mm
from mmretrieve.options import BUILT_IN_MODEL
from mmretrieve.sources import read_source
from mmretrieve.sources.base import SourceItem

PROMPTS = ("in red", "in black", "with long sleeves", "striped", "the same but blue")
KNOBS = [(alpha_image, beta) for alpha_image in (0.8, 1.4, 2.0) for beta in (0.0, 0.25, 0.5, 0.75, 1.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, help="folder of pictures (default: the built-in drawings)")
    parser.add_argument("--encoder", default="wardrobe", help="wardrobe, or a local open_clip folder")
    parser.add_argument("--out", type=Path, help="folder for first.json")
    options = parser.parse_args()
    photos = options.photos or mm.wardrobe.pictures_folder()
    folder = BUILT_IN_MODEL if options.encoder == "wardrobe" else Path(options.encoder)
    result = measure(photos, options.encoder, folder)
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "first.json").write_text(text + "\n")


def measure(photos: Path, spec: str, folder: Path) -> dict[str, Any]:
    """Everything, in one process and one run."""
    paths = [item.location.path for item in read_source(photos) if isinstance(item, SourceItem)]
    plain_seconds, plain = timed(plain_loop, paths, folder)
    encoders = {dtype: mm.load_encoder(spec, dtype=dtype) for dtype in ("float32", "bfloat16")}
    encoding = {dtype: timed(encoder.encode_images, paths) for dtype, encoder in encoders.items()}
    chosen = mm.load_encoder(spec)
    with tempfile.TemporaryDirectory() as place:
        gallery = mm.Gallery.create(Path(place, "g"), encoder=chosen)
        indexing, _ = timed(gallery.add, photos)
        opening, retriever = timed(mm.Retriever.open, Path(place, "g"), encoder=chosen)
        searching, sliding = interactions(retriever)
        files = retriever.gallery.info()["bytes"]
    count = len(paths)
    return {
        "photos": count,
        "encoder": str(chosen.identity.model),
        "dtype chosen": str(chosen.dtype),
        "images a second": {
            "plain open_clip loop, float32, batches of 64": count / plain_seconds,
            **{f"encode_images, {dtype}": count / seconds for dtype, (seconds, _) in encoding.items()},
            "index (decode, thumbnail, encode, commit)": count / indexing,
        },
        "ratio of index to the plain loop": plain_seconds / indexing,
        "ratio of encode_images float32 to the plain loop": plain_seconds / encoding["float32"][0],
        "smallest cosine to the plain loop": {
            dtype: float((rows * plain).sum(axis=1).min()) for dtype, (_, rows) in encoding.items()
        },
        "milliseconds": {"open": 1000 * opening, "search": searching, "slider move": sliding},
        "bytes an item": {name: size / count for name, size in files.items()},
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


def plain_loop(paths: list[Path], folder: Path) -> np.ndarray:
    """What one writes without a library: open, preprocess, batch, encode, normalise."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(paths), 64):
            batch = torch.stack([preprocess(Image.open(path).convert("RGB")) for path in paths[start : start + 64]])
            rows.append(model.encode_image(batch, normalize=True).numpy())
    return np.concatenate(rows)


def interactions(retriever: mm.Retriever) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds (median and p95) of whole searches from an id and a prompt, and of re-weighting one that is open."""
    ids = retriever.gallery.ids[:20]
    retriever.search(reference_id=ids[0], prompt=PROMPTS[0])
    searches = [timed(retriever.search, reference_id=id_, prompt=prompt, k=24)[0] for id_ in ids for prompt in PROMPTS]
    composition = retriever.compose(reference_id=ids[0], prompt=PROMPTS[0])
    scores = retriever.gallery.term_scores(composition)

    def slide(alpha_image: float, beta: float) -> mm.Ranking:
        weighed = retriever.weigh(composition, alpha_image=alpha_image, alpha_text=1.2, beta=beta)
        return retriever.gallery.rank(weighed, scores, 24)

    moves = [timed(slide, *knobs)[0] for knobs in KNOBS * 7]
    return _milliseconds(searches), _milliseconds(moves)


def timed(work: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    outcome = work(*args, **kwargs)
    return time.perf_counter() - started, outcome


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    return {"median": 1000 * statistics.median(seconds), "p95": 1000 * statistics.quantiles(seconds, n=20)[-1]}


if __name__ == "__main__":
    main()
