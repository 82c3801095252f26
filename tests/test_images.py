"""Decoding: every mode and format a folder may hold, and clear words for what is broken."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from time import sleep
from unittest.mock import Mock, patch

import numpy as np
import pytest
from image_corpus import ORDINARY, assert_decode_memory, gradient, peak_growth
from PIL import EpsImagePlugin, Image, ImageOps

from mmretrieve import concurrency, images
from mmretrieve.concurrency import MemoryBudget, map_ahead
from mmretrieve.decoders import DECODER_BYTES, decode
from mmretrieve.errors import ImageError
from mmretrieve.heif import split_alpha
from mmretrieve.images import content_hash, open_image, target_pad, thumbnail
from mmretrieve.pixels import to_rgb
from mmretrieve.sources.location import Location

RED = (200, 30, 40)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    clear = saved(tmp_path / "a.png", Image.new("RGBA", (4, 4), (10, 20, 30, 0)))
    assert open_image(clear).getpixel((0, 0)) == (255, 255, 255)
    half = Image.new("LA", (4, 4), (0, 128))
    assert to_rgb(half).getpixel((0, 0)) == (127, 127, 127)
    palette = Image.new("P", (4, 4), 0)
    assert open_image(saved(tmp_path / "p.gif", palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_16_bit_and_float_images_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16))
    assert np.asarray(open_image(saved(tmp_path / "a.png", ramp)))[0, :, 0].tolist() == [0, 128, 255]
    share = Image.fromarray(np.array([[0.0, 0.4, 1.0]], dtype=np.float32))
    assert np.asarray(open_image(saved(tmp_path / "a.tif", share)))[0, :, 0].tolist() == [0, 102, 255]


def test_cmyk_grey_and_one_bit_become_rgb(tmp_path: Path) -> None:
    for mode in ("CMYK", "L", "1"):
        picture = open_image(saved(tmp_path / f"{mode}.tif", Image.new(mode, (5, 3))))
        assert (picture.mode, picture.size) == ("RGB", (5, 3))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    lying = Image.new("RGB", (8, 4), RED)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(saved(tmp_path / "a.jpg", lying, exif=exif)).size == (4, 8)


def test_the_first_frame_of_an_animation_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert open_image(path).getpixel((0, 0)) == (255, 0, 0)


def test_fast_decode_shrinks_large_jpegs_and_nothing_else(tmp_path: Path) -> None:
    large = saved(tmp_path / "a.jpg", Image.new("RGB", (2000, 1000), RED))
    assert open_image(large).size == (2000, 1000)
    fast = open_image(large, decode="fast", size=224)
    assert 448 <= fast.height < 1000
    assert open_image(saved(tmp_path / "a.png", Image.new("RGB", (2000, 1000))), decode="fast").size == (2000, 1000)


def test_paths_files_and_pil_images_are_accepted(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (3, 3), RED))
    for source in (path, str(path), io.BytesIO(path.read_bytes()), Image.open(path)):
        assert open_image(source).getpixel((1, 1)) == RED


def test_arrays_and_bytes_are_images(tmp_path: Path) -> None:
    red = Image.new("RGB", (4, 2), RED)
    path = saved(tmp_path / "a.png", red)
    assert open_image(path.read_bytes()).getpixel((0, 0)) == RED
    assert open_image(np.asarray(red)).size == (4, 2)
    assert open_image(np.asarray(red)).getpixel((0, 0)) == RED
    assert open_image(np.full((2, 4), 7, np.uint8)).getpixel((0, 0)) == (7, 7, 7)
    assert open_image(np.full((2, 4, 1), 7, np.uint8)).getpixel((0, 0)) == (7, 7, 7)
    assert open_image(np.zeros((2, 4, 4), np.uint8)).getpixel((0, 0)) == (255, 255, 255), "clear is white"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 4, 3)), r"shape \(2, 4, 3\) and dtype float64: expected .* uint8; multiply values from 0 to 1 by 255"),
        (np.zeros((3, 9, 9), np.uint8), r"put the channels last"),
        (np.zeros(3, np.uint8), r"expected \(height, width\)"),
        (b"junk", "not an image that can be read"),
        (3, "expected a path, a PIL image, an array, bytes or an open file, got 3"),
        (["a.png"], r"got \['a.png'\]"),
        ("https://example.org/a.jpg", "URLs are not fetched; download the image"),
    ],
)
def test_what_is_no_image_is_one_line(source: object, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        open_image(source)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_damaged_files_raise_errors_that_name_them(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.jpg", Image.effect_noise((300, 300), 50)).read_bytes()
    broken = {
        "cut.jpg": whole[: len(whole) // 2],
        "text.jpg": b"not a picture",
        "empty.png": b"",
        "page.svg": b"<svg/>",
    }
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=name):
            open_image(tmp_path / name)
    with pytest.raises(ImageError, match="no such image"):
        open_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="above the limit"):
        open_image(tmp_path / "whole.jpg", max_pixels=100)


def test_thumbnail_and_hash(tmp_path: Path) -> None:
    small = Image.open(io.BytesIO(thumbnail(Image.new("RGB", (800, 400), RED), 320)))
    assert (small.format, small.size) == ("JPEG", (320, 160))
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    assert content_hash(a) != content_hash(b)
    assert len(content_hash(a)) == 32


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        ((100, 50), (100, 80)),  # 100 / 1.25
        ((50, 100), (80, 100)),
        ((100, 51), (100, 79)),  # (80 − 51) / 2, rounded down, on either side
        ((1000, 100), (1000, 800)),
        ((100, 80), (100, 80)),  # 1.25 : 1, so nothing is missing
        ((99, 80), (99, 80)),
        ((124, 100), (124, 100)),
        ((126, 100), (126, 100)),  # less than a pixel on either side
        ((128, 100), (128, 102)),
        ((64, 64), (64, 64)),
    ],
)
def test_target_pad_reduces_the_aspect_ratio_to_1_25(size: tuple[int, int], padded: tuple[int, int]) -> None:
    assert target_pad(Image.new("RGB", size, RED)).size == padded


def test_target_pad_centers_the_image_on_black() -> None:
    picture = Image.new("RGB", (100, 50), RED)
    values = np.asarray(target_pad(picture))
    assert (values[15:65] == RED).all()
    assert not values[:15].any()
    assert not values[65:].any()
    assert picture.size == (100, 50)
    square = Image.new("RGB", (9, 9), RED)
    assert target_pad(square) is square


@pytest.mark.parametrize("size", [(30000, 1), (1, 500), (0, 0)])
def test_too_narrow_images_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="too narrow"):
        open_image(Image.new("RGB", size))


def test_a_file_without_end_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "big.jpg").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(ImageError, match=r"big.jpg: more than 2,147,483,648 bytes are not an image"):
        content_hash(tmp_path / "big.jpg")
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1 << 22)
    growing = Mock(seek=Mock(return_value=1), read=bytes)
    with pytest.raises(ImageError, match=r"are not an image"):
        content_hash(growing)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    for read in (open_image, content_hash):
        with pytest.raises(ImageError, match=r"x.jpg: cannot be read \(is not a regular file\)"):
            read(tmp_path / "x.jpg")
        with pytest.raises(ImageError, match=r"cannot be read \(is a folder\)"):
            read(tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/proc/kmsg", "the file is empty"),  # reading it would wait for messages of the system
        ("/proc/self/pagemap", "the file is empty"),  # it has no end
        ("/dev/zero", "is not a regular file"),
    ],
)
def test_files_of_the_system_are_refused_before_they_are_opened(path: str, reason: str) -> None:
    with patch("builtins.open", side_effect=AssertionError), patch("io.open", side_effect=AssertionError):
        for read in (open_image, content_hash):
            with pytest.raises(ImageError, match=f"{path}: .*{reason}"):
                read(Path(path))


def test_a_thumbnail_of_no_image_is_one_line() -> None:
    with pytest.raises(ImageError, match="expected a PIL image, got None; open it with open_image"):
        thumbnail(None, 320)  # type: ignore[arg-type]


def test_files_of_proc_whose_size_is_0_are_not_read(tmp_path: Path) -> None:
    """Reading some of them never ends; for the others, it takes minutes to come to a limit."""
    for path in (Path("/proc/self/pagemap"), Path("/proc/kmsg"), tmp_path / "empty.jpg"):
        (tmp_path / "empty.jpg").touch()
        if path.exists():
            for read in (content_hash, open_image, lambda path: Location(str(path)).open()):
                with pytest.raises(ImageError, match="the file is empty"):
                    read(path)


@pytest.mark.parametrize(
    "member", ["tar:0:" + "9" * 5_000, f"tar:0:{1 << 41}", "tar:-1:5", "parquet:" + "9" * 5_000 + ":a", "zip:1"]
)
def test_a_member_that_no_source_writes_is_refused(tmp_path: Path, member: str) -> None:
    with (tmp_path / "a.tar").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(ImageError, match=r"a.tar: (invalid member|is shorter)"):
        Location(str(tmp_path / "a.tar"), member).open()


def test_opening_in_threads_does_not_change_warning_filters(tmp_path: Path) -> None:
    Image.new("RGB", (640, 480), "red").save(tmp_path / "red.jpg")
    before = list(warnings.filters)
    for _ in range(20):
        assert len(list(map_ahead(open_image, [tmp_path / "red.jpg"] * 8, 8))) == 8
    assert warnings.filters == before


def test_invalid_metadata_causes_no_warning(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "odd.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\0\0")
    script = f"from mmretrieve.images import open_image; open_image({str(tmp_path / 'odd.jpg')!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


MEASURED = (  # of each kind of memory one file; `make soak` measures all
    *("gray-16.png", "gray-alpha.png", "palette-transparent.png", "float-lzw.tif", "int.tif", "cmyk-progressive.jpg"),
    *("profile-cmyk.tif", "lossless.webp", "animated.webp", "rgb.avif", "alpha-444.avif", "turned-rgba.png", "turned-16.png"),
    *(name for name in ("alpha-444.heic", "rgb.jxl", "alpha.jxl", "alpha-lossy.jxl") if name in ORDINARY),
    *("whole.jp2", "rle.bmp", "mad-tiles.tif", "mad-strip.tif", "huge-profile.png", "huge-itext.png", "many-texts.png"),
    *("png-in-icon.ico", "bitmap-in-icon.ico", "plain.ppm", "picture.dds", "program.eps", "cut-alpha.webp", "cut-rgba.png"),
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
def test_a_decode_takes_at_most_12_bytes_a_pixel() -> None:
    assert_decode_memory(1200, 1000, MEASURED)


@pytest.mark.parametrize("name", ["alpha.avif", "alpha-444.avif", "alpha.heic", "alpha-444.heic"])
def test_transparency_that_is_decoded_by_itself_is_that_of_the_whole(name: str) -> None:
    if name not in ORDINARY:
        pytest.skip("needs mmretrieve[formats]")
    data = ORDINARY[name](300, 200)
    assert split_alpha(data) is not None
    in_turn = open_image(data)
    with Image.open(io.BytesIO(data)) as whole:
        assert in_turn.tobytes() == open_image(whole).tobytes()


def test_transparency_that_cannot_be_told_apart_is_decoded_with_the_colors() -> None:
    assert split_alpha(ORDINARY["rgb.avif"](64, 48)) is None, "there is none"
    data = ORDINARY["alpha.avif"](64, 48)
    for start in range(0, len(data), 7):
        assert split_alpha(data[:start]) is None or start > data.index(b"auxl")
    premultiplied = saved_bytes(gradient(64, 48, "RGBA"), "AVIF", alpha_premultiplied=True)
    assert split_alpha(premultiplied) is None
    assert open_image(premultiplied).size == (64, 48)


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_a_header_that_lies_cannot_take_more_memory_than_it_states(form: str) -> None:
    if form not in images._formats():
        pytest.skip("needs mmretrieve[formats]")
    data = saved_bytes(Image.new("RGB", (6000, 5000)), form)
    at = data.index(b"ispe") + 8
    assert struct.unpack_from(">II", data, at) == (6000, 5000)
    lying = data[:at] + struct.pack(">II", 16, 16) + data[at + 8 :]

    def refuse() -> None:
        with pytest.raises(ImageError, match=r"^<bytes>: cannot be read .*(it is damaged, or needs more than 33 MB|crashed)"):
            open_image(lying)

    open_image(saved_bytes(Image.new("RGB", (16, 16)), form))  # starts the child process
    assert peak_growth(refuse) < 45_000_000
    assert open_image(data).size == (6000, 5000), "the next decode has its memory"


def test_an_orientation_in_xmp_turns_an_image() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    data = saved_bytes(gradient(64, 48, "RGB"), "AVIF", xmp=xmp)
    with Image.open(io.BytesIO(data)) as image:
        assert open_image(data).size == open_image(image).size == (48, 64)


def test_a_size_that_is_not_that_of_the_pixels_is_refused() -> None:
    data = ORDINARY["rgb.avif"](64, 48)
    assert decode("AVIF", data, (48, 64), 1_000_000).size == (64, 48), "a decoder may turn it"
    with pytest.raises(ValueError, match="its header states 64×47 pixels, it has 64×48"):
        decode("AVIF", data, (64, 47), 1_000_000)


@pytest.mark.parametrize("head", [b"\0\0\0\x1cftypavif", b"RIFF\0\0\0\0WEBP", b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"])
def test_a_huge_file_is_not_read_into_memory(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "sparse.avif"
    path.write_bytes(head)
    os.truncate(path, (1 << 27) + 1)
    for source in (path, path.open("rb")):
        with pytest.raises(ImageError, match="134,217,729 bytes are above the limit of 134,217,728 for this format"):
            open_image(source)


BUDGET = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
from image_corpus import peak_growth
from mmretrieve import images
from mmretrieve.concurrency import MemoryBudget
files = sorted(Path(sys.argv[1]).iterdir())
images.open_image(Image.new("RGB", (8, 8)))
images.DECODE_MEMORY = MemoryBudget(int(sys.argv[2]))
with ThreadPoolExecutor(16) as pool:
    print(peak_growth(lambda: list(pool.map(lambda file: images.thumbnail(images.open_image(file), 320), files * 8))))
"""


def test_memory_is_given_back_once_large_decodes_freed_half_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    trims = list[int]()
    monkeypatch.setattr(concurrency, "_trim_memory", lambda: trims.append(1))
    budget = MemoryBudget(800)
    for amount, count in ((49, 0), (50, 0), (349, 0), (49, 0), (51, 1), (399, 1), (400, 2)):
        with budget.reserve(amount):
            pass
        assert len(trims) == count


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
def test_all_decodes_together_stay_within_the_budget_and_one_image(tmp_path: Path) -> None:
    names = ("gray-alpha.png", "lossless.webp", "cmyk-progressive.jpg", "rgb.avif", "alpha-444.avif")
    for name in names:
        (tmp_path / name).write_bytes(ORDINARY[name](1200, 1000))
    total, one = 60_000_000, DECODER_BYTES["AVIF"] * 1_200_000
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BUDGET, str(tmp_path), str(total)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) < total + one + 40_000_000, "190 MB and more without a budget, or if freed memory is kept"


def test_a_color_that_is_converted_in_strips_is_that_of_the_whole_image() -> None:
    for mode in ("L", "P", "RGBA", "LA", "CMYK", "1", "RGB"):
        image = gradient(700, 900, "L" if mode == "1" else mode).convert(mode)
        if "A" in mode:
            layer = image.convert("RGBA")
            expected = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        else:
            expected = image.convert("RGB")
        assert open_image(image).tobytes() == expected.tobytes(), mode
    values = np.asarray(gradient(700, 900, "I;16"), np.float64)
    assert (np.asarray(open_image(gradient(700, 900, "I;16")))[..., 0] == np.rint(values / 257)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    for mode in ("RGB", "RGBA", "I;16"):
        image = gradient(600, 900, mode)
        file = io.BytesIO()
        image.save(file, "PNG", exif=exif)
        turned = open_image(file.getvalue())
        expected = ImageOps.exif_transpose(Image.open(file)) if mode == "RGB" else None
        if expected is not None:
            assert turned.tobytes() == expected.tobytes()
        assert turned.size == ((900, 600) if orientation > 4 else (600, 900))
        assert open_image(turned).tobytes() == turned.tobytes(), "an opened image is not turned again"


def test_values_that_are_not_finite_keep_the_others() -> None:
    values = np.array([[0, 0.5, 1.0, np.nan, np.inf, -np.inf]], np.float32)
    assert np.asarray(open_image(Image.fromarray(values)))[0, :, 0].tolist() == [0, 128, 255, 0, 255, 0]


def test_eps_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.eps", Image.new("RGB", (8, 8)))
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("a program was run"))
    for source in (path, path.read_bytes(), Image.open(path)):
        with pytest.raises(ImageError, match=r"not an image that can be read|is a program, which is not run"):
            open_image(source)


def test_padding_a_narrow_image_is_bounded() -> None:
    assert target_pad(Image.new("L", (900, 90))).size == (900, 720), "4 million pixels are not too many"
    wide = target_pad(Image.new("L", (30_000, 600)))
    assert wide.width * wide.height <= 2.1 * 30_000 * 600
    assert wide.width / wide.height == pytest.approx(1.25, abs=0.02)


def test_decodes_share_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads decode images of which two fit at once; images that are kept count until they are gone."""
    budget, most, lock = MemoryBudget(2 * 12 * 10_000), [0], Lock()
    monkeypatch.setattr(images, "DECODE_MEMORY", budget)
    load = images._upright

    def observed(*args: object, **options: object) -> Image.Image:
        with lock:
            most[0] = max(most[0], budget.used)
        sleep(0.01)
        return load(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "_upright", observed)
    files = [saved_bytes(Image.new("RGB", (100, 100), (i, 0, 0))) for i in range(8)]
    results = []
    for image in map_ahead(open_image, files, 8):
        results.append(image.getpixel((0, 0))[0])
        del image
    assert results == list(range(8))
    assert 12 * 10_000 <= most[0] <= budget.total
    kept = [open_image(file) for file in files]  # more than the budget: each proceeds as the only one
    assert budget.used == 8 * 4 * 10_000
    kept.clear()
    assert budget.used == 0


def test_a_budget_grants_in_order_and_survives_a_fork() -> None:
    budget = MemoryBudget(10)
    with budget.reserve(100):
        assert budget.used == 100, "one always proceeds"
        if not (child := os.fork()):
            with budget.reserve(10):
                os._exit(0 if budget.used == 10 else 1)
        assert os.waitpid(child, 0)[1] == 0
    order: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        with budget.reserve(10):
            waiting = []
            for i, amount in enumerate((10, 1, 1)):
                waiting.append(pool.submit(_reserve, budget, amount, order, i))
                sleep(0.02)
            assert order == []
        for one in waiting:
            one.result()
    assert order == [0, 1, 2]


def _reserve(budget: MemoryBudget, amount: int, order: list[int], number: int) -> None:
    with budget.reserve(amount):
        order.append(number)


def saved_bytes(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()
