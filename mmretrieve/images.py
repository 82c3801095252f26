"""Opens images of the supported formats as upright RGB images, or raises an ImageError that names the file.

16-bit and float images are scaled to 8 bits, transparent images are composited on white, colors are converted to sRGB, of animations
the first frame is used, and a truncated file is an error. One image of 8 bits needs at most 12 bytes a pixel while it is decoded, besides
the bytes of its file and the texts in it. Decoders of the formats in DECODER_BYTES need more for some files, and have a limit of memory. All images
that are decoded at the same time share DECODE_MEMORY.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import struct
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mmretrieve import jpegxl
from mmretrieve.concurrency import MemoryBudget
from mmretrieve.decoders import DECODER_BYTES, decode
from mmretrieve.errors import ImageError
from mmretrieve.options import Colors, Decode, regular_status
from mmretrieve.pixels import to_rgb

logger = logging.getLogger(__name__)

ImageLike = str | Path | Image.Image | NDArray[Any] | bytes | BinaryIO
"""An image: a path, a PIL image, an array (see `from_array`), the bytes of a file, or an open file."""
Region = tuple[float, float, float, float]  # left, top, right, bottom, as fractions from 0 to 1

# What is opened. Other formats that Pillow can read are rare, run programs (EPS) or have decoders of little use to anybody else.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
PLUGINS = {"pillow_heif": ("HEIF", (".heic", ".heif", ".hif")), "pillow_jxl": (jpegxl.FORMAT, (".jxl",))}
"""Packages of the extra `formats` → the format and the suffixes that they add."""
INSTALLED_PLUGINS = tuple(name for name in PLUGINS if find_spec(name) is not None)
# fmt: off
SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pnm", ".avif", ".jp2", ".ico", ".tga", ".mpo",
    *(suffix for name in INSTALLED_PLUGINS for suffix in PLUGINS[name][1]),
))
# fmt: on
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # a Path keeps one slash of two
NOT_FETCHED = "URLs are not fetched; download the image and give its file"
MAX_PIXELS = 120_000_000
MAX_FILE_BYTES = 1 << 31  # of an image: 120 megapixels of 16 bytes
MAX_WHOLE_FILE_BYTES = 1 << 27  # of an image of WHOLE_FILES
WHOLE_FILE_COPIES = 3  # of its bytes: for Pillow, for the child process, and in it
WHOLE_FILES = re.compile(rb"....ftyp|RIFF....WEBP|" + b"|".join(map(re.escape, jpegxl.STARTS)), re.DOTALL)
"""How files start that are read into memory before their pixels are known: AVIF, HEIC, WebP and JPEG XL."""
HEAD_BYTES = 12
HASH_BLOCK_BYTES = 1 << 20
TARGET_RATIO = 1.25
MAX_PADDED_PIXELS = 4_000_000  # that `target_pad` makes of a smaller image
MAX_ASPECT = 100  # of a longer image, nothing is left of the short side after an encoder has resized it
DEFAULT_IMAGE_SIZE = 224  # the input size of most CLIP models
FAST_MARGIN = 2  # a fast decode keeps at least twice the input size of the encoder along each side
BYTES_PER_PIXEL = 12  # of the full size, at most, while an image is decoded
RGB_BYTES = 4  # a pixel of a Pillow image in RGB
MAX_DECODE_BYTES = BYTES_PER_PIXEL * MAX_PIXELS
DECODE_MEMORY = MemoryBudget(MAX_DECODE_BYTES)
"""The memory of all decodes of this process, of decoded images included: 1.44 GB, which is what the largest image needs.

One decode always proceeds, so decoded images that a program holds, and that one, can take more.
"""
WHOLE_JPEG2000_PIXELS = 1 << 20  # of one that is decoded whole, which takes 20 bytes a pixel; larger ones are halved
MAX_ICON_SIDE = 1024
MAX_TILE_PIXELS = 1 << 20  # of one tile of a TIFF file that is smaller than a tile
TILE_WIDTH, TILE_LENGTH, ORIENTATION = 322, 323, 274  # tags
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns about invalid metadata, and about sizes that are an error here. `catch_warnings` is not thread-safe: blocks that
# overlap in several threads can leave their filters behind, which would silence the whole process.
warnings.filterwarnings("ignore", module=r"PIL\b")


def open_image(
    source: ImageLike,
    *,
    decode: Decode = Decode.EXACT,
    size: int = DEFAULT_IMAGE_SIZE,
    colors: Colors = Colors.SRGB,
    max_pixels: int = MAX_PIXELS,
    copy: bool = True,
) -> Image.Image:
    """Loads an image as upright RGB. The source is not changed.

    It waits while other threads decode so many pixels that `DECODE_MEMORY` is used up.

    Parameters
    ----------
    source : str, Path, PIL image, array, bytes or binary file
        The image. An array has shape (height, width), (height, width, 3) or (height, width, 4) and dtype uint8.
    decode : Decode, default=Decode.EXACT
        "fast" reduces JPEG images while decoding.
    size : int, default=224
        The input size of the encoder, used by "fast".
    colors : Colors, default=Colors.SRGB
        "srgb" applies an embedded color profile, "raw" ignores it.
    max_pixels : int, default=120_000_000
        The largest width × height.
    copy : bool, default=True
        Whether the result of a PIL image has pixels of its own. Without a copy, it must not be changed.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, without metadata. A JPEG 2000 image of more than a million pixels has half its size.

    Raises
    ------
    ImageError
        The image is missing, unsupported, truncated, too narrow or too large. The message names the source.

    Examples
    --------
    >>> open_image(Image.new("L", (4, 2), 255)).getpixel((0, 0))
    (255, 255, 255)
    """
    try:
        with _open(source) as image:
            _check_size(image, source_name(source), max_pixels)
            if Decode(decode) is Decode.FAST:
                image.draft("RGB", (size * FAST_MARGIN, size * FAST_MARGIN))
            with DECODE_MEMORY.reserve(_decode_bytes(image)):
                decoded = image if image is source else _load(image)
                upright = _upright(decoded, Colors(colors), copy=copy and image is source)
                if upright.im is not decoded.im or image is not source:
                    DECODE_MEMORY.keep(upright, RGB_BYTES * upright.width * upright.height)
                return upright
    except UnidentifiedImageError as error:
        raise ImageError(f"{source_name(source)}: not an image that can be read") from error
    except FileNotFoundError as error:
        if isinstance(source, str | Path) and URL.match(str(source)):
            raise ImageError(f"{source}: {NOT_FETCHED}") from error
        raise ImageError(f"{source_name(source)}: no such image") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{source_name(source)}: more pixels than the limit of {max_pixels:,}; scale it down") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds of errors
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"{source_name(source)}: cannot be read ({reason})") from error


def from_array(array: NDArray[Any]) -> Image.Image:
    """A gray, RGB or RGBA image of an array of shape (height, width[, channels]) and dtype uint8. Raises ImageError for another.

    >>> from_array(np.zeros((2, 4, 3), np.uint8)).size
    (4, 2)
    """
    channels = (1, *array.shape[2:])[-1] if array.ndim in (2, 3) else 0
    if array.dtype != np.uint8 or channels not in (1, 3, 4):
        raise ImageError(
            f"an array of shape {array.shape} and dtype {array.dtype}: expected (height, width), (height, width, 3) or "
            "(height, width, 4) and uint8; multiply values from 0 to 1 by 255, and put the channels last"
        )
    return Image.fromarray(array[:, :, 0] if channels == 1 and array.ndim == 3 else array)


def target_pad(image: Image.Image, ratio: float = TARGET_RATIO) -> Image.Image:
    """Pads an image whose aspect ratio is above `ratio` with black to that ratio; other images are returned unchanged.

    An image that would become more than twice as large, and larger than 4 million pixels, is reduced first.

    Source: "TargetPad" of CLIP4Cir and SEARLE (arXiv 2303.15247), as in their published code.

    >>> target_pad(Image.new("RGB", (100, 50))).size
    (100, 80)
    """
    longest = max(image.size)
    if longest / min(image.size) < ratio:
        return image
    allowed = max(MAX_PADDED_PIXELS, 2 * image.width * image.height)
    if longest * longest / ratio > allowed:
        return target_pad(image.reduce(ceil((longest * longest / ratio / allowed) ** 0.5)), ratio)
    horizontal, vertical = (max(int((longest / ratio - side) / 2), 0) for side in image.size)
    return ImageOps.expand(image, (horizontal, vertical, horizontal, vertical), 0)


def crop(image: Image.Image, region: Region) -> Image.Image:
    """The part of an image inside `region`: left, top, right and bottom as fractions of its sides. At least 1 × 1 pixels.

    >>> crop(Image.new("RGB", (100, 50)), (0.5, 0, 1, 1)).size  # the right half
    (50, 50)
    """
    left, top, right, bottom = region
    x, y = min(int(left * image.width), image.width - 1), min(int(top * image.height), image.height - 1)
    return image.crop((x, y, max(x + 1, round(right * image.width)), max(y + 1, round(bottom * image.height))))


def thumbnail(image: Image.Image, side: int) -> bytes:
    """The image, reduced to at most `side` pixels in height and width, as JPEG bytes. Raises ImageError for another object."""
    if not isinstance(image, Image.Image):
        raise ImageError(f"expected a PIL image, got {image!r:.80}; open it with open_image")
    small = image.reduce(max(1, max(image.size) // side))  # always a copy
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def content_hash(source: Path | BinaryIO) -> str:
    """The BLAKE2b hash of a file's bytes as 32 hexadecimal digits (128 bits).

    Raises ImageError if it cannot be read, or has more than MAX_FILE_BYTES: a sparse file can be endless.

    >>> content_hash(io.BytesIO(b"abc"))
    'cf4ab791c62b8d2b2109c90275287816'
    """
    try:
        if not isinstance(source, Path):
            return _hash_of_open(source)
        _check_file(source)
        with source.open("rb") as file:
            return content_hash(file)
    except OSError as error:
        raise ImageError(f"{source_name(source)}: cannot be read ({error.strerror or error})") from error


def _hash_of_open(file: BinaryIO) -> str:
    digest, read = hashlib.blake2b(digest_size=16), 0
    _check_bytes(file, file.seek(0, io.SEEK_END))
    file.seek(0)
    while block := file.read(HASH_BLOCK_BYTES):
        read += len(block)
        _check_bytes(file, read)  # it may grow
        digest.update(block)
    return digest.hexdigest()


def source_name(source: ImageLike) -> str:
    """The name of an image in messages: its path, or its type."""
    if isinstance(source, str | Path):
        return str(source)
    return str(getattr(source, "filename", None) or getattr(source, "name", None) or f"<{type(source).__name__}>")


def _open(source: ImageLike) -> AbstractContextManager[Image.Image]:
    """The image as a context manager, which closes it if it was opened here."""
    match source:
        case Image.Image():
            if source.format == "EPS" and getattr(source, "tile", None):
                raise ImageError(f"{source_name(source)}: an EPS file is a program, which is not run; convert it to PNG")
            return nullcontext(source)
        case np.ndarray():
            return nullcontext(from_array(source))
        case bytes():
            return _open_file(io.BytesIO(source))
        case str() | Path():
            _check_file(Path(source))
        case _ if not hasattr(source, "read"):
            raise ImageError(f"expected a path, a PIL image, an array, bytes or an open file, got {source!r:.80}")
    return _open_file(source)


def _open_file(file: str | Path | BinaryIO) -> Image.Image:
    """The image of a file, not yet decoded."""
    head, size = _head(file)
    is_whole = WHOLE_FILES.match(head)
    if is_whole and size > MAX_WHOLE_FILE_BYTES:
        raise ImageError(f"{source_name(file)}: {size:,} bytes are above the limit of {MAX_WHOLE_FILE_BYTES:,} for this format")
    if jpegxl.FORMAT in _formats() and head.startswith(jpegxl.STARTS):
        image: Image.Image = jpegxl.JpegXLFile(file)
    else:  # the plugin for JPEG XL would decode at once
        image = Image.open(file, formats=[name for name in _formats() if name != jpegxl.FORMAT])
    if is_whole:
        DECODE_MEMORY.keep(image, WHOLE_FILE_COPIES * size)
    return image


def _head(file: str | Path | BinaryIO) -> tuple[bytes, int]:
    """The first bytes of a file, and how many there are in all."""
    if isinstance(file, str | Path):
        with open(file, "rb") as opened:
            return _head(opened)
    file.seek(0, io.SEEK_END)
    size = file.tell()
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return head, size


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    """Raises ImageError, with the name, for an image whose pixels should not be decoded."""
    width, height = _icon_size(image) if image.format == "ICO" and hasattr(image, "ico") else image.size
    if min(width, height) == 0 or max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{name}: {width}×{height} pixels is too narrow; crop it")
    if width * height > max_pixels:
        raise ImageError(f"{name}: {width}×{height} pixels is above the limit of {max_pixels:,} pixels; scale it down")
    if image.format == "ICO" and max(width, height) > MAX_ICON_SIDE:
        raise ImageError(f"{name}: {width}×{height} pixels is above the limit of {MAX_ICON_SIDE} for an icon; save it as PNG")
    if image.format == "PPM" and any(tile[0] == "ppm_plain" for tile in getattr(image, "tile", ())):
        raise ImageError(f"{name}: a PPM whose numbers are written as text is not read; save it as PNG")
    tags = getattr(image, "tag_v2", {})
    tile_width, tile_height = (int(tags.get(tag, 0)) for tag in (TILE_WIDTH, TILE_LENGTH))
    if tile_width * tile_height > max(MAX_TILE_PIXELS, width * height):
        raise ImageError(f"{name}: its tiles of {tile_width}×{tile_height} pixels are larger than the image; save it again")


def _icon_size(icon: Any) -> tuple[int, int]:
    """The size that the largest image of an icon states itself; the directory of the file may state another."""
    icon.ico.buf.seek(icon.ico.entry[0].offset)
    header = icon.ico.buf.read(24)
    is_png = header.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", header[16:24]) if is_png else struct.unpack("<II", header[4:12])
    return width, height if is_png else height // 2  # a bitmap has its mask below it


def _decode_bytes(image: Image.Image) -> int:
    """The memory that decoding an image may take. That of the formats in DECODER_BYTES is limited to it."""
    pixels = image.width * image.height
    if image.format in DECODER_BYTES:
        return min(pixels * DECODER_BYTES[image.format], MAX_DECODE_BYTES)
    return pixels * BYTES_PER_PIXEL


def _load(file: Any) -> Image.Image:
    """Decodes an opened file. WebP is decoded here, because Pillow would copy its pixels once or twice more."""
    if file.format in DECODER_BYTES:
        file.fp.seek(0)
        return decode(file.format, file.fp.read(), file.size, _decode_bytes(file))
    if file.format == "JPEG2000" and file.width * file.height > WHOLE_JPEG2000_PIXELS:
        file.reduce = 1  # a number of halvings
    if file.format != "WEBP":
        file.load()
        return file  # type: ignore[no-any-return]
    frame = file._decoder.get_next()
    file._decoder = None  # with its copies of the pixels
    if frame is None:
        raise ImageError(f"{source_name(file)}: cannot be read (truncated or damaged)")
    image = Image.frombuffer(file.mode, file.size, frame[0], "raw", file.rawmode, 0, 1)
    image.info = file.info
    return image


def _upright(image: Image.Image, colors: Colors, *, copy: bool) -> Image.Image:
    """The image in RGB, turned as its metadata says, and without metadata, which would have it turned again.

    If nothing else has to be changed, it has the same pixels, unless `copy` is set.
    """
    profile = image.info.get("icc_profile") if colors is Colors.SRGB else None
    turn = TRANSPOSITIONS.get(_orientation(image))
    rgb = to_rgb(image, profile if isinstance(profile, bytes) else None, turn)
    upright = rgb if rgb is not image else rgb.copy() if copy else rgb._new(rgb.im)
    upright.info.clear()
    return upright


def _orientation(image: Image.Image) -> int:
    """The orientation in the metadata; 1, which is upright, if there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises many kinds of errors
        return 1


def _check_file(path: Path) -> None:
    """Raises OSError for a folder, a device or a pipe, which would block, and ImageError for a file of no or too many bytes."""
    _check_bytes(path, regular_status(path).st_size)


def _check_bytes(file: Path | BinaryIO, size: int) -> None:
    """Raises ImageError unless a file of this size can be an image. Files of /proc have no bytes, but may never end."""
    if size == 0:
        raise ImageError(f"{source_name(file)}: the file is empty")
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{source_name(file)}: more than {MAX_FILE_BYTES:,} bytes are not an image")


@cache
def _formats() -> tuple[str, ...]:
    """The FORMATS that this build of Pillow can read, and those of the installed plugins."""
    Image.init()
    for plugin in INSTALLED_PLUGINS:
        try:
            getattr(import_module(plugin), "register_heif_opener", lambda: None)()  # the other registers itself
        except (ImportError, OSError) as error:  # a library that it needs is missing
            logger.warning("%s is installed, but cannot be used: %s", plugin, error)
    return tuple(name for name in (*FORMATS, *(PLUGINS[plugin][0] for plugin in INSTALLED_PLUGINS)) if name in Image.OPEN)
