"""Indexing compared with a plain open_clip loop, a search, a slider move, bytes and memory.

    python -m benchmarks.first [--photos FOLDER --encoder E] [--out results]

Uses the built-in drawings and encoder by default.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

import mmretrieve as mm
from benchmarks.script import make_parser, summarize, time_call, write_result
from mmretrieve.gallery.view import SearchOptions
from mmretrieve.options import BUILT_IN_MODEL
from mmretrieve.sources import read_source
from mmretrieve.sources.base import SourceItem

PROMPTS = ("in red", "in black", "with long sleeves", "striped", "the same but blue")
PDV_SETTINGS = [(alpha_image, beta) for alpha_image in (0.8, 1.4, 2.0) for beta in (0.0, 0.25, 0.5, 0.75, 1.0)]


def main() -> None:
    parser = make_parser(__doc__, "first")
    parser.add_argument("--photos", type=Path, help="folder of images (default: the built-in drawings)")
    parser.add_argument("--encoder", default="wardrobe", help="wardrobe, or a local open_clip folder")
    options = parser.parse_args()
    photos = options.photos or mm.wardrobe.pictures_folder()
    folder = BUILT_IN_MODEL if options.encoder == "wardrobe" else Path(options.encoder)
    result = measure(photos, options.encoder, folder)
    write_result(result, options.out, "first")


def measure(photos: Path, spec: str, folder: Path) -> dict[str, Any]:
    """All measurements, in one process."""
    paths = [item.location.path for item in read_source(photos) if isinstance(item, SourceItem)]
    plain_seconds, plain = time_call(plain_loop, paths, *load_plain(folder))
    encoders = {dtype: mm.load_encoder(spec, dtype=dtype) for dtype in ("float32", "bfloat16")}
    encoding = {dtype: time_call(encoder.encode_images, paths) for dtype, encoder in encoders.items()}
    default_encoder = mm.load_encoder(spec)
    with tempfile.TemporaryDirectory() as folder_name:
        gallery = mm.Gallery.create(Path(folder_name, "g"), encoder=default_encoder)
        indexing, _ = time_call(gallery.add, photos)
        opening, retriever = time_call(mm.Retriever.open, Path(folder_name, "g"), encoder=default_encoder)
        searching, sliding = measure_interactions(retriever)
        files = retriever.gallery.info()["bytes"]
    count = len(paths)
    return {
        "photos": count,
        "encoder": str(default_encoder.identity.model),
        "dtype chosen": str(default_encoder.dtype),
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
    }


def load_plain(folder: Path) -> tuple[Any, Callable[[Image.Image], torch.Tensor]]:
    """The model of a local open_clip folder and its preprocessing."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), preprocess


def plain_loop(paths: list[Path], model: Any, preprocess: Callable[[Image.Image], torch.Tensor]) -> np.ndarray:
    """The loop without this library: open, preprocess, batch, encode, normalize."""
    rows = []
    with torch.inference_mode():
        for start in range(0, len(paths), 64):
            batch = torch.stack([preprocess(Image.open(path).convert("RGB")) for path in paths[start : start + 64]])
            rows.append(model.encode_image(batch, normalize=True).numpy())
    return np.concatenate(rows)


def measure_interactions(retriever: mm.Retriever) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds (median and spread) of searches with an id and a prompt, and of changing the weights of a scored query."""
    ids = retriever.gallery.ids[:20]
    retriever.search(reference_id=ids[0], prompt=PROMPTS[0])
    searches = [time_call(retriever.search, reference_id=id_, prompt=prompt, k=24)[0] for id_ in ids for prompt in PROMPTS]
    composition = retriever.compose(reference_id=ids[0], prompt=PROMPTS[0])
    scores = retriever.gallery.term_scores(composition)

    def slide(alpha_image: float, beta: float) -> mm.Ranking:
        weighed = retriever.weigh(composition, alpha_image=alpha_image, alpha_text=1.2, beta=beta)
        return retriever.gallery.rank(weighed, scores, SearchOptions(24))

    slider_moves = [time_call(slide, *setting)[0] for setting in PDV_SETTINGS * 7]
    return _milliseconds(searches), _milliseconds(slider_moves)


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    return summarize([1000 * each for each in seconds])


if __name__ == "__main__":
    main()
