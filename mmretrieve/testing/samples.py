"""Small inputs of checks, which differ from each other and are the same in every run."""

from __future__ import annotations

import numpy as np
from PIL import Image

TEXTS = (
    "a photo of a red dress",
    "a blue shirt with long sleeves",
    "green",
    "two black shoes on a white floor beside an open door",
)


def sample_images() -> list[Image.Image]:
    """Four mosaics of random colors, two of them upright."""
    colors = np.random.default_rng(0).integers(256, size=(4, 4, 4, 3), dtype=np.uint8)
    sizes = ((96, 64), (64, 96), (64, 96), (80, 80))
    return [Image.fromarray(tiles).resize(size, Image.Resampling.NEAREST) for tiles, size in zip(colors, sizes, strict=True)]
