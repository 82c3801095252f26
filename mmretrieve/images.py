"""Opens images of any supported format as upright RGB images, or raises an ImageError that names the file.

16-bit and float images are scaled to 8 bits, transparent images are composited on white, of animations the first frame is
used, and a truncated file is an error.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mmretrieve.errors import ImageError
from mmretrieve.options import Decode

ImageLike = str | Path | Image.Image | NDArray[Any] | bytes | BinaryIO
"""An image: a path, a PIL image, an array (see `from_array`), the bytes of a file, or an open file."""
Region = tuple[float, float, float, float]  # left, top, right, bottom, as fractions from 0 to 1

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
# fmt: off
SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pnm", ".avif", ".jp2", ".ico", ".tga", ".mpo",
))
# fmt: on
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # a Path keeps one slash of two
NOT_FETCHED = "URLs are not fetched; download the image and give its file"
MAX_PIXELS = 120_000_000
TARGET_RATIO = 1.25
MAX_ASPECT = 100  # of a longer image, nothing is left of the short side after an encoder has resized it
DEFAULT_IMAGE_SIZE = 224  # the input size of most CLIP models
FAST_MARGIN = 2  # a fast decode keeps at least twice the input size of the encoder along each side

# Pillow warns about invalid metadata, and about sizes that are an error here. `catch_warnings` is not thread-safe: blocks that
# overlap in several threads can leave their filters behind, which would silence the whole process.
warnings.filterwarnings("ignore", module=r"PIL\b")


def open_image(
    source: ImageLike, *, decode: Decode = Decode.EXACT, size: int = DEFAULT_IMAGE_SIZE, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Loads an image as upright RGB. The source is not changed.

    Parameters
    ----------
    source : str, Path, PIL image, array, bytes or binary file
        The image. An array has shape (height, width), (height, width, 3) or (height, width, 4) and dtype uint8.
    decode : Decode, default=Decode.EXACT
        "fast" reduces JPEG images while decoding.
    size : int, default=224
        The input size of the encoder, used by "fast".
    max_pixels : int, default=120_000_000
        The largest width × height.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

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
            if min(image.size) == 0 or max(image.size) > MAX_ASPECT * min(image.size):
                raise ImageError(f"{source_name(source)}: {image.width}×{image.height} pixels is too narrow; crop it")
            if image.width * image.height > max_pixels:
                raise ImageError(
                    f"{source_name(source)}: {image.width}×{image.height} pixels is above the limit of {max_pixels:,} pixels; scale it down"
                )
            if Decode(decode) is Decode.FAST:
                image.draft("RGB", (size * FAST_MARGIN, size * FAST_MARGIN))
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
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
        raise ImageError(f"{source_name(source)}: cannot be read ({str(error) or type(error).__name__})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts any Pillow mode to RGB, with the scaling and compositing that `convert("RGB")` omits."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(_to_bytes(image)).convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


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

    Source: "TargetPad" of CLIP4Cir and SEARLE (arXiv 2303.15247), as in their published code.

    >>> target_pad(Image.new("RGB", (100, 50))).size
    (100, 80)
    """
    longest = max(image.size)
    if longest / min(image.size) < ratio:
        return image
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
    """The image, reduced to at most `side` pixels in height and width, as JPEG bytes."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def content_hash(source: Path | BinaryIO) -> str:
    """The BLAKE2b hash of a file's bytes as 32 hexadecimal digits (128 bits). Raises ImageError if it cannot be read.

    >>> content_hash(io.BytesIO(b"abc"))
    'cf4ab791c62b8d2b2109c90275287816'
    """
    try:
        if not isinstance(source, Path):
            return hashlib.file_digest(source, lambda: hashlib.blake2b(digest_size=16)).hexdigest()  # type: ignore[arg-type]
        _check_regular(source)
        with source.open("rb") as file:
            return content_hash(file)
    except OSError as error:
        raise ImageError(f"{source_name(source)}: cannot be read ({error.strerror or error})") from error


def source_name(source: ImageLike) -> str:
    """The name of an image in messages: its path, or its type."""
    if isinstance(source, str | Path):
        return str(source)
    return str(getattr(source, "filename", None) or getattr(source, "name", None) or f"<{type(source).__name__}>")


def _open(source: ImageLike) -> AbstractContextManager[Image.Image]:
    """The image as a context manager, which closes it if it was opened here."""
    match source:
        case Image.Image():
            return nullcontext(source)
        case np.ndarray():
            return nullcontext(from_array(source))
        case bytes():
            return Image.open(io.BytesIO(source), formats=_formats())
        case str() | Path():
            _check_regular(Path(source))
        case _ if not hasattr(source, "read"):
            raise ImageError(f"expected a path, a PIL image, an array, bytes or an open file, got {source!r:.80}")
    return Image.open(source, formats=_formats())


def _check_regular(path: Path) -> None:
    """Raises ImageError for a folder, a device or a pipe; opening a pipe would block."""
    if not path.is_file() and path.exists():
        raise ImageError(f"{path}: not a regular file")


@cache
def _formats() -> tuple[str, ...]:
    """The FORMATS that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _to_bytes(image: Image.Image) -> np.ndarray:
    """Scales 16-bit, 32-bit and float images to 0–255, depending on the mode and the range of their values."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16") or (low >= 0 and 255 < high <= 65535):
        values = values / 257
    elif image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        values = (values - low) * (255 / (high - low))
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
