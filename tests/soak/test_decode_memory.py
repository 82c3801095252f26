"""Peak memory of decodes over the whole corpus, at the largest size that a server accepts."""

from __future__ import annotations

import os

import pytest
from image_corpus import check_decode_memory

SIDE = int(os.environ.get("MMRETRIEVE_DECODE_SIDE", 6_000))  # of a square: 36 million pixels


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_file_takes_more_than_12_bytes_a_pixel() -> None:
    check_decode_memory(SIDE, SIDE)
