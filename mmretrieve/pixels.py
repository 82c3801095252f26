"""Converts decoded images of any mode to RGB: 16-bit and float values are scaled to 8 bits, transparent images are composited
on white, and embedded color profiles are converted to sRGB.

Images are converted in strips, so a conversion needs the memory of the image, of its result (4 bytes a pixel) and of one strip.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms

STRIP_PIXELS = 1 << 16
MAX_PROFILE_BYTES = 4_000_000  # of a color profile; those of printers have up to 2 MB
CACHED_PROFILES = 8
MAX_SAME_DIFFERENCE = 1  # of 8-bit values: a profile that changes no color by more is sRGB
SWAP_SIDES = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
)
REVERSE_ROWS = (
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
)
COLOR_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # mode → the color space of a profile that describes it


def to_rgb(image: Image.Image, profile: bytes | None = None, turn: Image.Transpose | None = None) -> Image.Image:
    """Converts any Pillow mode to RGB, with the scaling and compositing that `convert("RGB")` omits.

    Parameters
    ----------
    image : PIL.Image.Image
        The image. It is not changed.
    profile : bytes, optional
        The ICC profile of its values, which are converted to sRGB (perceptual). A profile that is broken, or of another color space
        than the image, is ignored. By default values are taken as they are.
    turn : PIL.Image.Transpose, optional
        How the image is turned.

    Returns
    -------
    PIL.Image.Image
        Mode RGB; the image itself if nothing has to be converted.

    Examples
    --------
    >>> to_rgb(Image.new("LA", (4, 4), (0, 128))).getpixel((0, 0))
    (127, 127, 127)
    """
    to_srgb = None if profile is None else _transform(profile, _base_mode(image.mode))
    if image.mode == "RGB" and to_srgb is None and turn is None:
        return image
    to_8_bits = _scaling(image) if _is_deep(image.mode) else None
    result = Image.new("RGB", image.size[::-1] if turn in SWAP_SIDES else image.size)
    for top, strip in _strips(image):
        rgb = _convert(strip if to_8_bits is None else to_8_bits(strip), to_srgb)
        start = image.height - top - strip.height if turn in REVERSE_ROWS else top
        result.paste(rgb if turn is None else rgb.transpose(turn), (start, 0) if turn in SWAP_SIDES else (0, start))
    return result


def _convert(strip: Image.Image, to_srgb: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """An 8-bit strip as RGB."""
    layer = strip.convert("RGBA") if _is_transparent(strip) else None
    if to_srgb is not None:
        strip = to_srgb.apply(strip.convert(_base_mode(strip.mode)))
        if layer is not None:
            strip.putalpha(layer.getchannel("A"))
            layer = strip
    if layer is None:
        return strip.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yields the first row of each strip, and the strip."""
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _is_deep(mode: str) -> bool:
    """Whether values have more than 8 bits."""
    return mode.startswith("I;16") or mode in ("I", "F")


def _is_transparent(image: Image.Image) -> bool:
    """Whether an image has an alpha channel, or a color that is transparent; that of an RGB image is taken as a color."""
    return "A" in image.getbands() or "a" in image.getbands() or (image.mode != "RGB" and "transparency" in image.info)


def _base_mode(mode: str) -> str:
    """The mode, of those in COLOR_SPACES, that an image is converted to before a profile is applied."""
    if mode in ("L", "LA", "La", "1") or _is_deep(mode):
        return "L"
    return "CMYK" if mode == "CMYK" else "RGB"


@lru_cache(maxsize=CACHED_PROFILES)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion of an image of this mode to sRGB. None if the profile is broken, of another color space, or sRGB itself."""
    if len(profile) > MAX_PROFILE_BYTES:
        return None
    probe = _probe(mode)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != COLOR_SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", renderingIntent=ImageCms.Intent.PERCEPTUAL
        )
        converted = transform.apply(probe)
    except Exception:  # ImageCms raises many kinds of errors
        return None
    extremes: Any = ImageChops.difference(converted, probe.convert("RGB")).getextrema()
    return None if max(high for _, high in extremes) <= MAX_SAME_DIFFERENCE else transform


def _probe(mode: str) -> Image.Image:
    """Colors on a grid, which show whether a profile changes any."""
    steps = np.linspace(0, 255, 9 if mode == "RGB" else 5 if mode == "CMYK" else 256).astype(np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * len(mode)), axis=-1).reshape(-1, len(mode))
    return Image.frombytes(mode, (len(grid), 1), grid.tobytes())


def _scaling(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Scales strips of a 16-bit, 32-bit or float image to 0–255, depending on the mode and the range of all its values."""
    low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else _extremes(image)

    def scale(strip: Image.Image) -> Image.Image:
        values = np.clip(_values(strip), low, high)
        if low >= 0 and 255 < high <= 65535:
            values = values / 257
        elif image.mode == "F" and low >= 0 and high <= 1:
            values = values * 255
        elif low < 0 or high > 255:
            values = (values - low) * (255 / (high - low))
        return Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))

    return scale


def _extremes(image: Image.Image) -> tuple[float, float]:
    """The lowest and the highest finite value; 0 if there is none."""
    low, high = np.inf, -np.inf
    for _, strip in _strips(image):
        values = _values(strip)
        finite = values[np.isfinite(values)]
        low, high = min(low, finite.min(initial=np.inf)), max(high, finite.max(initial=-np.inf))
    return (float(low), float(high)) if low <= high else (0.0, 0.0)


def _values(strip: Image.Image) -> NDArray[np.float64]:
    """Values in float64; NaN becomes 0."""
    return np.nan_to_num(np.asarray(strip, dtype=np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
