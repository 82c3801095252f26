"""Opens images: whatever a folder of pictures holds becomes an RGB picture, or an ImageError that names it.

Order: draft → turn upright (EXIF) → mode. 16-bit and float pictures are scaled before they become 8-bit,
transparency is laid on white, of animated files the first frame counts, nothing broken is filled with grey.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmretrieve.errors import ImageError
from mmretrieve.options import Decode

ImageLike = str | Path | Image.Image | BinaryIO
Region = tuple[float, float, float, float]  # left, top, right, bottom, each from 0 to 1

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
# fmt: off
SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff",
    ".ppm", ".pgm", ".pnm", ".avif", ".jp2", ".ico", ".tga", ".mpo",
))
# fmt: on
MAX_PIXELS = 120_000_000
TARGET_RATIO = 1.25
MAX_ASPECT = 100  # beyond it the short side vanishes when an encoder shrinks the long one
DEFAULT_IMAGE_SIZE = 224  # what most CLIP models see
FAST_MARGIN = 2  # a fast decode keeps at least twice the pixels that the encoder wants along each side

# Pillow warns of odd metadata, and of sizes that are an error here. `catch_warnings` would not do: pictures are opened in
# several threads, and blocks that overlap leave the filters of one in force, which silences the whole process.
warnings.filterwarnings("ignore", module=r"PIL\b")


def open_image(
    source: ImageLike, *, decode: Decode = Decode.EXACT, size: int = DEFAULT_IMAGE_SIZE, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """A path, an open file or a PIL image → a loaded, upright RGB picture. The source is not changed.

    `size` is the side the encoder wants; only `decode="fast"` uses it. Raises ImageError, naming the source, when it is
    missing, not an image, truncated, or larger than `max_pixels`.
    """
    try:
        with _opened(source) as picture:
            if min(picture.size) == 0 or max(picture.size) > MAX_ASPECT * min(picture.size):
                raise ImageError(f"{name_of(source)}: {picture.width}×{picture.height} pixels is too narrow to show anything")
            if picture.width * picture.height > max_pixels:
                raise ImageError(
                    f"{name_of(source)}: {picture.width}×{picture.height} pixels is above the limit of {max_pixels:,}"
                )
            if Decode(decode) is Decode.FAST:
                picture.draft("RGB", (size * FAST_MARGIN, size * FAST_MARGIN))
            picture.load()
            return to_rgb(ImageOps.exif_transpose(picture))
    except UnidentifiedImageError as error:
        raise ImageError(f"{name_of(source)}: not an image that can be read") from error
    except FileNotFoundError as error:
        raise ImageError(f"{name_of(source)}: no such image") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name_of(source)}: more pixels than the limit of {max_pixels:,}") from error
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parsers stumble on
        raise ImageError(f"{name_of(source)}: cannot be read ({error or type(error).__name__})") from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow mode → RGB, with the scaling and compositing that `convert("RGB")` leaves out."""
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return Image.fromarray(_to_bytes(picture)).convert("RGB")
    if "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def target_pad(picture: Image.Image, ratio: float = TARGET_RATIO) -> Image.Image:
    """A picture whose long side is `ratio` times the short one, or more, padded with black to that ratio; others as they are.

    100 × 50 becomes 100 × 80. Source: "TargetPad" of CLIP4Cir and SEARLE (arXiv 2303.15247), as in their own code.
    """
    longest = max(picture.size)
    if longest / min(picture.size) < ratio:
        return picture
    across, down = (max(int((longest / ratio - side) / 2), 0) for side in picture.size)
    return ImageOps.expand(picture, (across, down, across, down), 0)


def cropped(picture: Image.Image, region: Region) -> Image.Image:
    """The part of a picture inside `region` (left, top, right, bottom) in shares of its sides; at least one pixel each way.

    A 100 × 50 picture at (0.5, 0, 1, 1) gives 50 × 50, its right half.
    """
    left, top, right, bottom = region
    x, y = min(int(left * picture.width), picture.width - 1), min(int(top * picture.height), picture.height - 1)
    return picture.crop((x, y, max(x + 1, round(right * picture.width)), max(y + 1, round(bottom * picture.height))))


def thumbnail(picture: Image.Image, side: int) -> bytes:
    """The picture at most `side` pixels high and wide, as JPEG bytes."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def content_hash(source: Path | BinaryIO) -> str:
    """32 hexadecimal digits (BLAKE2b, 128 bit) of the bytes of a file. Raises ImageError where it cannot be read."""
    try:
        if not isinstance(source, Path):
            return hashlib.file_digest(source, lambda: hashlib.blake2b(digest_size=16)).hexdigest()  # type: ignore[arg-type]
        _check_regular(source)
        with source.open("rb") as file:
            return content_hash(file)
    except OSError as error:
        raise ImageError(f"{name_of(source)}: cannot be read ({error.strerror or error})") from error


def name_of(source: ImageLike) -> str:
    """How a message names an image: its path, or what it is."""
    if isinstance(source, str | Path):
        return str(source)
    return str(getattr(source, "filename", None) or getattr(source, "name", None) or f"<{type(source).__name__}>")


def _opened(source: ImageLike) -> AbstractContextManager[Image.Image]:
    """The picture, closed afterwards if it was opened here."""
    if isinstance(source, Image.Image):
        return nullcontext(source)
    if isinstance(source, str | Path):
        _check_regular(Path(source))
    return Image.open(source, formats=_formats())


def _check_regular(path: Path) -> None:
    """ImageError for a folder, a device, or a pipe, which would be waited at for ever."""
    if not path.is_file() and path.exists():
        raise ImageError(f"{path}: not a regular file")


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _to_bytes(picture: Image.Image) -> np.ndarray:
    """16-bit, 32-bit and float pictures to 0…255, by mode and by the range the values are in."""
    values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
    low, high = float(values.min()), float(values.max())
    if picture.mode.startswith("I;16") or (low >= 0 and 255 < high <= 65535):
        values = values / 257
    elif picture.mode == "F" and low >= 0 and high <= 1:
        values = values * 255
    elif low < 0 or high > 255:
        values = (values - low) * (255 / (high - low))
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
