"""JPEG XL: the size in a header, and decodes that are bounded whatever a file needs."""

from __future__ import annotations

import io
import random
import struct
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from image_corpus import gradient, saved
from PIL import Image

from mmretrieve import jpegxl
from mmretrieve.decoders import decode
from mmretrieve.errors import ImageError
from mmretrieve.images import _formats, open_image

pytestmark = pytest.mark.skipif(jpegxl.FORMAT not in _formats(), reason="needs mmretrieve[formats]")


def header(width: int, height: int) -> bytes:
    """The start of a file of such an image; 30 bits a side."""
    bits = 0 | 3 << 1 | (height - 1) << 3 | 0 << 33 | 3 << 36 | (width - 1) << 38
    return jpegxl.CODESTREAM + bits.to_bytes(12, "little")


@pytest.mark.parametrize(
    "size",
    [(8, 8), (256, 256), (256, 8), (300, 200), (1200, 1000), (640, 480), (1920, 1080), (500, 400), (64, 32), (1, 1), (9, 700)],
)
@pytest.mark.parametrize("use_container", [False, True])
def test_the_size_of_a_header_is_that_of_the_image(size: tuple[int, int], use_container: bool) -> None:
    data = saved(Image.new("RGB", size), "JXL", effort=1, use_container=use_container)
    assert data.startswith(jpegxl.CONTAINER if use_container else jpegxl.CODESTREAM)
    assert jpegxl.image_size(data) == size


def test_an_image_is_the_same_as_that_of_the_plugin() -> None:
    exif = Image.Exif()
    exif[274] = 6
    for mode in ("RGB", "L", "RGBA", "LA", "I;16", "F"):
        data = saved(
            gradient(300, 200, mode if mode != "LA" else "L").convert(mode), "JXL", effort=1, lossless=True, exif=exif.tobytes()
        )
        with Image.open(io.BytesIO(data)) as plain:
            plain.load()
            assert open_image(data).tobytes() == open_image(plain).tobytes(), mode
        assert open_image(data).size == (200, 300)


@pytest.mark.parametrize("size", [(30_000, 30_000), (1 << 30, 1 << 30)])
def test_a_file_of_a_huge_image_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    start = time.perf_counter()
    with pytest.raises(ImageError, match=r"is above the limit of 120,000,000 pixels"):
        open_image(header(*size) + bytes(100))
    assert time.perf_counter() - start < 1


def test_a_decode_that_needs_more_memory_is_one_line() -> None:
    data, size = saved(gradient(3000, 2500, "RGBA"), "JXL", effort=1), (3000, 2500)
    assert decode("JXL", data, size, 16 * 3000 * 2500).size == size
    with pytest.raises(Exception, match=r"needs more than 4\d MB|crashed") as caught:
        decode("JXL", data, size, 6 * 3000 * 2500)
    assert "\n" not in str(caught.value)
    assert decode("JXL", data, size, 16 * 3000 * 2500).size == size, "the next decode has its memory"


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize("cuts", [(0,), (1,), (2,), (3, 4), (7,), (15, 16), (0, 0, 5)])
def test_a_header_may_lie_in_several_boxes(cuts: tuple[int, ...]) -> None:
    image = gradient(300, 200, "RGB")
    stream = saved(image, "JXL", lossless=True, use_container=False)
    parts = [stream[start:end] for start, end in pairwise((0, *cuts, len(stream)))]
    numbers = [number | (number == len(parts) - 1) << 31 for number in range(len(parts))]
    boxes = [box(b"jxlp", struct.pack(">I", number) + part) for number, part in zip(numbers, parts, strict=True)]
    data = jpegxl.CONTAINER + box(b"ftyp", b"jxl \0\0\0\0jxl ") + b"".join(boxes)
    assert jpegxl.image_size(data) == (300, 200)
    assert open_image(data).tobytes() == image.tobytes()
    with pytest.raises(ImageError, match="300×200 pixels is above the limit of 59,999"):
        open_image(data, max_pixels=59_999)


def test_a_file_of_a_million_empty_boxes_is_refused_at_once() -> None:
    data = jpegxl.CONTAINER + 5_000_000 * box(b"free", b"") + box(b"jxlc", header(300, 200))
    start = time.perf_counter()
    with pytest.raises(ImageError, match="no image in it"):
        open_image(data)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "data",
    [
        jpegxl.CODESTREAM,
        jpegxl.CONTAINER,
        jpegxl.CONTAINER + struct.pack(">I4s", 8, b"jxlc"),
        jpegxl.CONTAINER + struct.pack(">I4s", 1, b"jxlc"),
        header(100, 100) + random.Random(0).randbytes(100),
    ],
)
def test_a_damaged_file_is_one_line(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"^<bytes>: .*(cannot be read|too narrow|no image)") as caught:
        open_image(data)
    assert "\n" not in str(caught.value)


def test_a_file_is_read_from_a_path_too(tmp_path: Path) -> None:
    image = gradient(300, 200, "RGB")
    (tmp_path / "a.jxl").write_bytes(saved(image, "JXL", lossless=True))
    for source in (tmp_path / "a.jxl", str(tmp_path / "a.jxl"), io.BytesIO((tmp_path / "a.jxl").read_bytes())):
        assert (np.asarray(open_image(source)) == np.asarray(image)).all()
