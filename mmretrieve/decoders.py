"""Decodes AVIF, HEIC and JPEG XL images in child processes with a limit of memory.

The memory that their decoders need depends on the file, not only on the size in its header, which may not even be that of its pixels.
What would exhaust the memory of this process, or crash it, costs only that file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from PIL import AvifImagePlugin, Image

from mmretrieve import jpegxl
from mmretrieve.heif import split_alpha
from mmretrieve.isolation import iterate_isolated, limited_memory

Strip = tuple[int, bytes]  # a number of rows, and their pixels
DECODER_BYTES = {"AVIF": 24, "HEIF": 24, jpegxl.FORMAT: 64}
"""Bytes a pixel that the decoder of each format may take: with 10 bits, film grain, tiles and transparency. Most images take 6 to 12."""
RGBA_BYTES = 4  # a pixel of the image here
CONSTANT_BYTES = 1 << 25  # tables and code of a decoder
STRIP_BYTES = 1 << 20
METADATA = ("exif", "icc_profile", "xmp")  # which orientation and colors come from


def decode(form: str, data: bytes, size: tuple[int, int], memory: int) -> Image.Image:
    """The image of a file of this format, whose header states this size. `memory` limits what decoding may take in all, in bytes.

    Raises an error if it needs more, is damaged, or has another size.
    """
    strips = iterate_isolated(_decode, form, data, memory - RGBA_BYTES * size[0] * size[1] + CONSTANT_BYTES)
    mode, decoded, info = next(strips)
    if sorted(decoded) != sorted(size):  # a decoder may turn it
        raise ValueError("its header states {}×{} pixels, it has {}×{}".format(*size, *decoded))
    image, top = Image.new(mode, decoded), 0
    for rows, pixels in strips:
        image.paste(Image.frombytes(mode, (image.width, rows), pixels), (0, top))
        top += rows
    image.info = info
    return image


def _decode(form: str, data: bytes, memory: int) -> Iterator[Any]:
    """Yields mode, size and metadata, then strips. Call it in a child process."""
    with limited_memory(memory):
        try:
            image = _decode_jpegxl(data) if form == jpegxl.FORMAT else _decode_heif(form, data)
        except Exception as error:  # which may have many lines, and tells no more
            raise ValueError(f"it is damaged, or needs more than {memory // 1_000_000:,} MB") from error
    yield image.mode, image.size, {key: image.info[key] for key in METADATA if key in image.info}
    count = max(1, STRIP_BYTES // len(image.crop((0, 0, image.width, 1)).tobytes()))
    for top in range(0, image.height, count):
        rows = min(count, image.height - top)
        yield rows, image.crop((0, top, image.width, top + rows)).tobytes()


def _decode_jpegxl(data: bytes) -> Image.Image:
    from pillow_jxl import JpegXLImagePlugin

    JpegXLImagePlugin.DECODE_THREADS = 0  # each would need memory of its own
    file: Any = JpegXLImagePlugin.JXLImageFile(io.BytesIO(data))
    pixels, file._data = file._data, b""
    image = Image.frombytes(file.mode, file.size, pixels)
    image.info = file.info
    return image


def _decode_heif(form: str, data: bytes) -> Image.Image:
    """Decodes an AVIF or HEIC file; one with transparency in two parts, which takes less memory."""
    if form == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each would need memory of its own
    whole = Image.open(io.BytesIO(data), formats=[form])
    if whole.mode == "RGBA" and (parts := split_alpha(data)) is not None:
        color, alpha = (Image.open(io.BytesIO(part), formats=[form]) for part in parts)
        if (color.mode, alpha.mode, color.size) == ("RGB", "L", alpha.size):
            image = _pixels(color)
            image.putalpha(_pixels(alpha))
            image.info = whole.info
            return image
    return _pixels(whole)


def _pixels(file: Any) -> Image.Image:
    """The first frame of an opened file. Pillow itself would copy it once or twice more."""
    if file.format == "HEIF":
        frame = file._heif_file[file.tell()]
        mode, size, pixels, stride = frame.mode, frame.size, frame.data, frame.stride
        file._heif_file = None
    else:
        mode, size, pixels, stride = file.mode, file.size, file._decoder.get_frame(0)[0], 0
        file._decoder = None  # with its copy of the pixels
    image = Image.frombuffer(file.mode, size, pixels, "raw", mode, stride, 1)
    image.info = file.info
    return image
