"""Embedded color profiles: what a viewer shows is what is encoded, unless raw values are wanted."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from image_corpus import ADOBE_RGB, DISPLAY_P3, SRGB, cmyk_profile, gradient, profile, saved
from PIL import Image, ImageCms

import mmretrieve as mm
from eval.runs.features import _open_images
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.images import open_image

COLORS = [(255, 0, 0), (10, 200, 90), (40, 60, 220), (128, 128, 128), (0, 0, 0), (255, 255, 255)]


def to_srgb(color: tuple[int, ...], primaries: tuple[tuple[float, ...], ...], gamma: float) -> list[float]:
    """The formula: linear light, D50, linear sRGB, and the curve of sRGB."""
    linear = (np.array(color) / 255) ** gamma
    return encode(np.array(primaries).T @ linear)


def encode(xyz: np.ndarray) -> list[float]:
    """An sRGB color of a D50 one."""
    light = np.clip(np.linalg.inv(np.array(SRGB).T) @ xyz, 0, 1)
    return list(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB])
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG"])
def test_rgb_profiles_are_converted_to_srgb(format_: str, primaries: tuple[tuple[float, float, float], ...]) -> None:
    for color in COLORS:
        options = {"lossless": True} if format_ == "WEBP" else {"quality": 100} if format_ in ("AVIF", "JPEG") else {}
        file = saved(Image.new("RGB", (16, 16), color), format_, icc_profile=profile(primaries, 2.2), **options)
        tolerance = {"AVIF": 10, "JPEG": 3}.get(format_, 1.5)
        assert np.allclose(open_image(file).getpixel((8, 8)), to_srgb(color, primaries, 2.2), atol=tolerance), color
        assert np.allclose(open_image(file, colors="raw").getpixel((8, 8)), color, atol=tolerance)


def test_gray_alpha_and_deep_images_have_profiles_too() -> None:
    expected = to_srgb((100,) * 3, SRGB, 1.8)[0]
    gray = profile((), 1.8)
    for image in (Image.new("L", (8, 8), 100), Image.new("LA", (8, 8), (100, 255)), Image.new("I;16", (8, 8), 100 * 257)):
        opened = open_image(saved(image, "PNG", icc_profile=gray))
        assert np.allclose(opened.getpixel((4, 4)), expected, atol=1.5), image.mode
    clear = open_image(saved(Image.new("RGBA", (8, 8), (9, 9, 9, 0)), "PNG", icc_profile=profile(DISPLAY_P3, 2.2)))
    assert clear.getpixel((4, 4)) == (255, 255, 255)
    palette = Image.new("RGB", (8, 8), (10, 200, 90)).quantize(4)
    opened = open_image(saved(palette, "PNG", icc_profile=profile(DISPLAY_P3, 2.2)))
    assert np.allclose(opened.getpixel((4, 4)), to_srgb(palette.convert("RGB").getpixel((4, 4)), DISPLAY_P3, 2.2), atol=1.5)


def test_profiles_of_printers_are_converted() -> None:
    for ink, (lightness, a, b) in (
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 0, 0), (100, 0, 0)),
        ((255, 0, 0, 0), (54.9, -37, -50)),
    ):
        file = saved(Image.new("CMYK", (8, 8), ink), "TIFF", icc_profile=cmyk_profile())
        y = (lightness + 16) / 116
        cubes = [t**3 if t > 6 / 29 else (t - 4 / 29) * 3 * (6 / 29) ** 2 for t in (y + a / 500, y, y - b / 200)]
        expected = encode(np.array(cubes) * (0.9642, 1, 0.8249))
        assert np.allclose(open_image(file).getpixel((4, 4)), expected, atol=4), ink
        raw = Image.open(io.BytesIO(file)).convert("RGB").getpixel((4, 4))
        assert open_image(file, colors="raw").getpixel((4, 4)) == raw


def test_an_srgb_profile_changes_nothing() -> None:
    image = gradient(64, 64, "RGB")
    standard = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert open_image(saved(image, "PNG", icc_profile=standard)).tobytes() == image.tobytes()


def test_broken_and_foreign_profiles_are_ignored_silently(tmp_path: Path) -> None:
    whole, image = profile(DISPLAY_P3, 2.2), Image.new("RGB", (8, 8), (10, 200, 90))
    broken = [b"junk", whole[:200], whole[:128] + b"\xff" * 200, b"\0" * 5_000_000, profile((), 1.8), cmyk_profile()]
    for i, data in enumerate(broken):
        (tmp_path / f"{i}.tif").write_bytes(saved(image, "TIFF", icc_profile=data))
        assert open_image(tmp_path / f"{i}.tif").getpixel((4, 4)) == (10, 200, 90)
    script = f"from mmretrieve.images import open_image; [open_image({str(tmp_path)!r} + f'/{{i}}.tif') for i in range(6)]"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_opened_image_is_not_converted_again() -> None:
    file = saved(Image.new("RGB", (8, 8), (10, 200, 90)), "PNG", icc_profile=profile(DISPLAY_P3, 2.2))
    for colors in mm.Colors:
        opened = open_image(file, colors=colors)
        assert open_image(opened).tobytes() == opened.tobytes()


def test_a_gallery_keeps_its_choice(tmp_path: Path) -> None:
    encoder = mm.load_encoder("wardrobe")
    path, converted = tmp_path / "p3.png", tmp_path / "srgb.png"
    drawing = Image.open(next(mm.wardrobe.pictures_folder().glob("red*.png"))).convert("RGB")
    path.write_bytes(saved(drawing, "PNG", icc_profile=profile(DISPLAY_P3, 1.4)))
    open_image(path).save(converted)
    vectors = {}
    for colors in ("srgb", "raw"):
        gallery = mm.Gallery.create(tmp_path / colors, encoder=encoder, colors=colors)
        gallery.add(path)
        reopened = mm.Gallery.open(tmp_path / colors)
        assert (reopened.colors, reopened.info()["colors"]) == (colors, colors)
        vectors[colors] = reopened.vectors()[0]
        retriever = mm.Retriever.open(tmp_path / colors, encoder=encoder)
        (hit,) = retriever.search(image=path, weights="base")
        assert hit.score == pytest.approx(1, abs=1e-3), "references are read as the images of the gallery were"
        shown = np.asarray(Image.open(io.BytesIO(reopened.thumbnail("p3.png"))).convert("RGB"), float)
        assert np.abs(shown - np.asarray(open_image(path, colors=colors), float)).mean() < 3
    assert vectors["srgb"] @ vectors["raw"] < 0.999
    assert vectors["srgb"] @ encoder.encode_images([converted])[0] == pytest.approx(1, abs=1e-3)
    assert vectors["raw"] @ encoder.encode_images([drawing])[0] == pytest.approx(1, abs=1e-3)
    with pytest.raises(GalleryError, match=r"differ in colors srgb and raw; only vectors that were made in the same way"):
        mm.Gallery.open(tmp_path / "raw").merge(tmp_path / "srgb")
    with pytest.raises(OptionError, match="unknown colors 'rgb'"):
        mm.Gallery.create(tmp_path / "new", encoder=encoder, colors="rgb")


def test_evaluation_encodes_raw_values(tmp_path: Path) -> None:
    path = tmp_path / "p3.png"
    path.write_bytes(saved(Image.new("RGB", (8, 8), (10, 200, 90)), "PNG", icc_profile=profile(DISPLAY_P3, 2.2)))
    (image,) = _open_images(SimpleNamespace(load_image=lambda _: path), ["a"])  # type: ignore[arg-type]
    assert image.getpixel((4, 4)) == (10, 200, 90)


def test_galleries_from_before_the_choice_mean_raw(tmp_path: Path) -> None:
    old = shutil.copytree(Path(__file__).parent / "gallery" / "fixtures" / "format3.gallery", tmp_path / "old")
    assert mm.open_gallery(old).colors is mm.Colors.RAW
    assert mm.open_gallery(mm.wardrobe.gallery_folder()).colors is mm.Colors.SRGB
