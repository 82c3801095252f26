"""Reads JPEG XL images in a child process with a limit of memory.

Their decoder needs 7 to 65 bytes a pixel, depending on how a file was made, and decodes it before it tells its size.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageFile

from mmretrieve.heif import boxes
from mmretrieve.isolation import iterate_isolated, limited_memory

FORMAT = "JXL"
CODESTREAM = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
HEADER_BYTES = 16  # which contain the size
SIDE_BITS = (9, 13, 18, 30)
RATIOS = (None, (1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of width and height
STRIP_BYTES = 1 << 20
CONSTANT_BYTES = 1 << 25  # tables and code of the decoder


def is_jpegxl(head: bytes) -> bool:
    """Whether a file starts as JPEG XL files do."""
    return head.startswith((CODESTREAM, CONTAINER))


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a file. Raises ValueError if there is none.

    Source: ISO/IEC 18181-1, SizeHeader.

    >>> image_size(bytes.fromhex("ff0a7f")+ bytes(8))
    (256, 256)
    """
    bits = _Bits(int.from_bytes(_codestream(data)[2:], "little"))
    is_small = bits.take(1)

    def side() -> int:
        return 8 * (bits.take(5) + 1) if is_small else 1 + bits.take(SIDE_BITS[bits.take(2)])

    height = side()
    ratio = RATIOS[bits.take(3)]
    return (side() if ratio is None else height * ratio[0] // ratio[1]), height


class JpegXLFile(ImageFile.ImageFile):
    """A file of which only the size is known. `decode` gives its pixels."""

    format = FORMAT

    def _open(self) -> None:
        assert self.fp is not None
        self.data = self.fp.read()
        self._size, self._mode, self.tile = image_size(self.data), "RGB", []

    def decode(self, memory: int) -> Image.Image:
        """The decoded image. Raises an error if it needs more memory, in bytes."""
        strips = iterate_isolated(_decode, self.data, memory + CONSTANT_BYTES)
        mode, size, info = next(strips)
        image, top = Image.new(mode, size), 0
        for rows, strip in strips:
            image.paste(Image.frombytes(mode, (image.width, rows), strip), (0, top))
            top += rows
        image.info = info
        return image


def _decode(data: bytes, memory: int) -> Iterator[Any]:
    """Yields mode, size and metadata, then strips of rows. Call it in a child process."""
    from pillow_jxl import JpegXLImagePlugin

    JpegXLImagePlugin.DECODE_THREADS = 0  # each would need memory of its own
    with limited_memory(memory):
        try:
            file = JpegXLImagePlugin.JXLImageFile(io.BytesIO(data))
        except Exception as error:  # which has many lines, and tells no more
            raise ValueError(f"it is damaged, or needs more than {memory // 1_000_000:,} MB") from error
    pixels, height = file._data, file.height
    row = len(pixels) // height
    yield file.mode, file.size, {key: file.info[key] for key in ("exif", "icc_profile") if key in file.info}
    del file
    count = max(1, STRIP_BYTES // row)
    for top in range(0, height, count):
        rows = min(count, height - top)
        yield rows, pixels[top * row : (top + rows) * row]


def _codestream(data: bytes) -> bytes:
    """The first bytes of the coded image. Raises ValueError if there is none."""
    start = 0
    if data.startswith(CONTAINER):
        start = next((at + 4 * (kind == b"jxlp") for kind, at, _ in boxes(data) if kind in (b"jxlc", b"jxlp")), len(data))
    head = data[start : start + HEADER_BYTES]
    if not head.startswith(CODESTREAM):
        raise ValueError("no image in it")
    return head


class _Bits:
    """The bits of a number, the lowest first."""

    def __init__(self, number: int) -> None:
        self._number = number

    def take(self, count: int) -> int:
        value = self._number & ((1 << count) - 1)
        self._number >>= count
        return value
