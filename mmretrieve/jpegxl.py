"""The size of JPEG XL images. Their decoder would decode a file before it tells its size."""

from __future__ import annotations

from PIL import ImageFile

from mmretrieve.heif import boxes

FORMAT = "JXL"
CODESTREAM = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
STARTS = (CODESTREAM, CONTAINER)  # of files
HEADER_BYTES = 16  # which contain the size
PARTS = {b"jxlc": 0, b"jxlp": 4}  # boxes of the coded image → bytes before its own: their number
SIDE_BITS = (9, 13, 18, 30)
RATIOS = (None, (1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of width and height


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
    """A file of which only the size is known."""

    format = FORMAT

    def _open(self) -> None:
        assert self.fp is not None
        self._size, self._mode, self.tile = image_size(self.fp.read()), "RGB", []


def _codestream(data: bytes) -> bytes:
    """The first bytes of the coded image, which may lie in several boxes. Raises ValueError if there is none."""
    if data.startswith(CODESTREAM):
        return data[:HEADER_BYTES]
    head = b""
    for kind, start, end in boxes(data):
        if kind in PARTS:
            start += PARTS[kind]
            head += data[start : min(end, start + HEADER_BYTES)]
        if len(head) >= HEADER_BYTES:
            break
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
