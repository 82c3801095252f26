"""Peak memory of decodes: of every file of the corpus, near the largest size that a server accepts, and of indexing many."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from image_corpus import assert_decode_memory, gradient

from mmretrieve.images import DECODE_MEMORY

SIDE = int(os.environ.get("MMRETRIEVE_DECODE_SIDE", 6_000))  # of a square: 36 million pixels


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_file_takes_more_than_12_bytes_a_pixel(record: Callable[..., None]) -> None:
    tried = assert_decode_memory(SIDE, SIDE)
    name = f"images of every kind and mode, ordinary and hostile, are decoded at {SIDE * SIDE / 1e6:.0f} megapixels"
    record(name, tried=tried, lost=0, note="at most 12 bytes a pixel")


INDEX = """
import sys
from pathlib import Path
import mmretrieve as mm
from image_corpus import peak_growth
encoder = mm.load_encoder("wardrobe")
gallery = mm.Gallery.create(sys.argv[2], encoder=encoder)
print(peak_growth(lambda: gallery.add(sys.argv[1])))
"""


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_indexing_large_images_stays_within_the_budget(tmp_path: Path, record: Callable[..., None]) -> None:
    (tmp_path / "images").mkdir()
    image = gradient(7_000, 5_200, "RGB").copy()
    for i in range(16):
        image.putpixel((i, 0), (1, 2, 3))
        image.save(tmp_path / "images" / f"{i}.jpg", quality=50)
    command = [sys.executable, "-c", INDEX, str(tmp_path / "images"), str(tmp_path / "gallery")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    grown = int(done.stdout)
    record("large images are indexed at once", tried=16, lost=0, note=f"{grown / 1e6:.0f} MB at most")
    assert grown < DECODE_MEMORY.total
