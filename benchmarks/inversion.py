"""Optimization-based inversion: the cosine of "a photo of $" with the image of its pseudo token, on drawings and photos.

    python -m benchmarks.inversion [--photos FOLDER --encoder E] [--count 50] [--out results]

Uses the built-in drawings and encoder, and with both options also the images of that folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import mmretrieve as mm
from benchmarks.script import make_parser, time_call, write_result
from mmretrieve.encoders.openclip import OpenClipEncoder, require_open_clip
from mmretrieve.inversion.oti import OTI
from mmretrieve.sources import read_source
from mmretrieve.sources.base import SourceItem


def main() -> None:
    parser = make_parser(__doc__, "inversion")
    parser.add_argument("--photos", type=Path, help="a folder of images, in addition to the built-in drawings")
    parser.add_argument("--encoder", help="the encoder for that folder, a local open_clip folder")
    parser.add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    sets = {"drawings": (mm.wardrobe.pictures_folder(), "wardrobe")}
    if options.photos and options.encoder:
        sets["photos"] = (options.photos, options.encoder)
    result = {name: measure(folder, spec, options.count) for name, (folder, spec) in sets.items()}
    write_result(result, options.out, "inversion")


def measure(folder: Path, spec: str, count: int) -> dict[str, Any]:
    """The cosines of "a photo of $" with the image, before and after optimization."""
    encoder = require_open_clip(mm.load_encoder(spec, dtype="float32"), "this benchmark")
    available = [item.location.path for item in read_source(folder) if isinstance(item, SourceItem)]
    paths = [available[i] for i in np.linspace(0, len(available) - 1, count).astype(int)]
    features, oti = encoder.image_features(paths), OTI()
    seconds, tokens = time_call(oti.tokens, features, encoder)
    return {
        "pictures": count,
        "steps": oti.steps,
        "before": _summary(_cosines(encoder, oti.start(count, tokens.shape[1]), features)),
        "after": _summary(_cosines(encoder, tokens, features)),
        "seconds": round(seconds, 1),
    }


def _cosines(encoder: OpenClipEncoder, tokens: torch.Tensor, features: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        sentence_features = encoder.pseudo_tokens.features([("a photo of", "")] * len(tokens), tokens)
    return F.cosine_similarity(sentence_features, torch.from_numpy(features)).numpy()


def _summary(cosines: np.ndarray) -> dict[str, float]:
    return {name: float(getattr(np, name)(cosines)) for name in ("min", "median", "max")}


if __name__ == "__main__":
    main()
