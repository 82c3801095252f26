"""Image files of every kind that is opened, and hostile ones, made on the spot; and the peak memory that opening one takes.

`python image_corpus.py WIDTH HEIGHT [NAME …]` prints a JSON object a file: its name, the pixels of its header, its bytes, the peak
growth of the memory of a child process that opens it and makes its thumbnail, and the error, if any.
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from mmretrieve import images

Maker = Callable[[int, int], bytes]
ORIENTATION = 274
# D50 primaries of color spaces, red, green and blue
DISPLAY_P3 = (0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)
ADOBE_RGB = (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)
SRGB = (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    """The file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


@cache
def gradient(width: int, height: int, mode: str) -> Image.Image:
    """An image of slow waves, which differ between channels."""
    across, down = np.linspace(0, 9, width)[None], np.linspace(0, 7, height)[:, None]
    if mode in ("I;16", "I", "F"):
        share = (across + down) / 16
        scale, dtype = {"I;16": (65535, np.uint16), "I": (100_000, np.int32), "F": (1, np.float32)}[mode]
        return Image.fromarray((share * scale).astype(dtype))
    if mode == "P":
        return gradient(width, height, "L").convert("P")
    channels = len(Image.new(mode, (1, 1)).getbands())
    planes = [(127 * (1 + np.sin(across + i + down))).astype(np.uint8) for i in range(channels)]
    return Image.frombytes(mode, (width, height), np.stack(planes, axis=-1).tobytes())


def profile(primaries: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    """An ICC profile: three primaries and a gamma; with no primaries one of gray images."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(65536 * value)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma))
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249), b"cprt": b"text\0\0\0\0none\0"}
    if primaries:
        tags |= {name + b"XYZ": b"XYZ \0\0\0\0" + fixed(*xyz) for name, xyz in zip((b"r", b"g", b"b"), primaries, strict=True)}
        tags |= {name + b"TRC": curve for name in (b"r", b"g", b"b")}
    else:
        tags[b"kTRC"] = curve
    return _icc(b"RGB " if primaries else b"GRAY", b"XYZ ", b"mntr", tags)


def cmyk_profile() -> bytes:
    """An ICC profile of a printer: full black ink is black, and cyan, magenta and yellow have these Lab colors, as bytes."""
    inks = {(1, 0, 0): (140, 91, 78), (0, 1, 0): (122, 202, 125), (0, 0, 1): (227, 123, 221)}
    table = bytearray()
    for index in range(16):
        cmyk = tuple(index >> shift & 1 for shift in (3, 2, 1, 0))
        count = sum(cmyk[:3])
        table += bytes(
            (0, 128, 128) if cmyk[3] else (255, 128, 128) if not count else inks.get(cmyk[:3], (100 // count, 128, 128))
        )
    linear = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    white = b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(65536 * value)) for value in (0.9642, 1, 0.8249))
    tags = {b"wtpt": white, b"cprt": b"text\0\0\0\0none\0", b"A2B0": lut + linear * 4 + bytes(table) + linear * 3}
    return _icc(b"CMYK", b"Lab ", b"prtr", tags)


def _icc(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"made\0" + bytes(78), **tags}
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    size = start + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02100000, kind, space, connection) + bytes(12) + b"acsp" + bytes(28)
    header += b"".join(struct.pack(">i", round(65536 * value)) for value in (0.9642, 1, 0.8249))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def of(mode: str, format_: str, **options: Any) -> Maker:
    """A file of a gradient."""
    return lambda width, height: saved(gradient(width, height, mode), format_, **options)


def turned(maker: Callable[..., Maker], mode: str, format_: str, **options: Any) -> Maker:
    """A file that has to be turned by its metadata."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return maker(mode, format_, exif=exif, **options)


def frames(format_: str, count: int = 40, **options: Any) -> Maker:
    """An animation, or a file of many pages."""

    def make(width: int, height: int) -> bytes:
        first = gradient(width, height, "RGB")
        small = [Image.new("RGB", (width, height), (i, i, i)) for i in range(count)]
        return saved(first, format_, save_all=True, append_images=small, **options)

    return make


def png_with(*chunks: tuple[bytes, bytes]) -> Maker:
    """A PNG with these chunks after its header."""

    def make(width: int, height: int) -> bytes:
        data = saved(gradient(width, height, "RGB"), "PNG", compress_level=1)
        extra = b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
        )
        return data[:33] + extra + data[33:]

    return make


@cache
def _bomb() -> bytes:
    return zlib.compress(bytes(100_000_000), 9)


def _tiff(entries: dict[int, tuple[int, list[int]]], data: bytes) -> bytes:
    """A TIFF file whose only strip or tile is `data`, at offset 8."""
    at = 8 + len(data) + len(data) % 2
    body, extra, after = b"", b"", at + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            body += struct.pack("<HHII", tag, kind, len(values), after + len(extra))
            extra += packed
        else:
            body += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", at)
    return head + data + bytes(len(data) % 2) + struct.pack("<H", len(entries)) + body + bytes(4) + extra


def mad_tiles(width: int, height: int) -> bytes:
    """A small TIFF with one tile of 8192 × 8192 pixels, compressed."""
    del width, height
    data = zlib.compress(bytes(8192 * 8192), 9)
    side, count = (4, [8192]), (4, [len(data)])
    tags = {256: (4, [64]), 257: (4, [64]), 258: (3, [8]), 259: (3, [8]), 262: (3, [1]), 277: (3, [1]), 322: side, 323: side}
    return _tiff(tags | {324: (4, [8]), 325: count}, data)


def mad_strip(width: int, height: int) -> bytes:
    """A small TIFF that says that its strip has a billion rows, compressed."""
    del width, height
    data = zlib.compress(bytes(100_000_000), 9)
    tags = {256: (4, [64]), 257: (4, [64]), 258: (3, [8]), 259: (3, [8]), 262: (3, [1]), 277: (3, [1]), 278: (4, [10**9])}
    return _tiff(tags | {273: (4, [8]), 279: (4, [len(data)])}, data)


def icon_of(width: int, height: int, size: tuple[int, int] = (16, 16)) -> bytes:
    """An icon that says that it has `size` pixels, but contains a large PNG."""
    png = saved(gradient(width, height, "RGB"), "PNG", compress_level=1)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, *size, 0, 0, 1, 32, len(png), 22) + png


def small_icon(width: int, height: int) -> bytes:
    """An ordinary icon."""
    del width, height
    return saved(gradient(64, 64, "RGBA"), "ICO")


def bitmap_icon(width: int, height: int) -> bytes:
    """An icon that contains a large bitmap in run-length coding."""
    dib = struct.pack("<IiiHHIIiiII", 40, width, 2 * height, 1, 8, 1, 0, 0, 0, 0, 0) + bytes(1024) + b"\xff\x01" * 1000
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 8, len(dib), 22) + dib


def plain_ppm(width: int, height: int) -> bytes:
    """A PPM whose numbers are text; of a fixed size, because each takes a microsecond."""
    del width, height
    return b"P3\n800 600\n255\n" + b"17 3 255\n" * (800 * 600)


def rle_bitmap(width: int, height: int) -> bytes:
    """A BMP in run-length coding: two bytes make 255 pixels."""
    row = b"\xff\x07" * (width // 255) + bytes((width % 255 or 1, 7)) + b"\0\0"
    data = row * height + b"\0\x01"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0) + bytes(range(256)) * 4
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head + data


def cut(maker: Maker) -> Maker:
    """The first half of a file."""

    def make(width: int, height: int) -> bytes:
        data = maker(width, height)
        return data[: len(data) // 2]

    return make


def _text_chunks() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for i in range(40):
        info.add_text(f"key{i}", "x" * 1_000_000, zip=True)
    return info


ORDINARY: dict[str, Maker] = {
    "gray.png": of("L", "PNG"),
    "one-bit.tif": lambda width, height: saved(gradient(width, height, "L").convert("1"), "TIFF", compression="group4"),
    "gray-16.png": of("I;16", "PNG", compress_level=1),
    "rgb.png": of("RGB", "PNG", compress_level=1),
    "rgba.png": of("RGBA", "PNG", compress_level=1),
    "gray-alpha.png": of("LA", "PNG", compress_level=1),
    "palette.png": of("P", "PNG"),
    "palette-transparent.png": of("P", "PNG", transparency=3),
    "float.tif": of("F", "TIFF"),
    "float-lzw.tif": of("F", "TIFF", compression="tiff_lzw"),
    "int.tif": of("I", "TIFF"),
    "gray-16.tif": of("I;16", "TIFF"),
    "one-strip.tif": lambda width, height: saved(
        gradient(width, height, "RGB"), "TIFF", compression="tiff_deflate", tiffinfo={278: height}
    ),
    "cmyk.tif": of("CMYK", "TIFF", compression="tiff_lzw"),
    "pages.tif": frames("TIFF", 8, compression="tiff_lzw"),
    "rgb.jpg": of("RGB", "JPEG"),
    "gray.jpg": of("L", "JPEG"),
    "progressive.jpg": of("RGB", "JPEG", progressive=True, subsampling=0),
    "cmyk.jpg": of("CMYK", "JPEG"),
    "cmyk-progressive.jpg": of("CMYK", "JPEG", progressive=True, subsampling=0),
    "profile.jpg": of("RGB", "JPEG", icc_profile=profile(DISPLAY_P3, 2.2)),
    "profile-gray.png": of("LA", "PNG", icc_profile=profile((), 1.8), compress_level=1),
    "profile-cmyk.tif": of("CMYK", "TIFF", icc_profile=cmyk_profile()),
    "lossy.webp": of("RGB", "WEBP", method=0),
    "alpha.webp": of("RGBA", "WEBP", method=0),
    "lossless.webp": of("RGBA", "WEBP", lossless=True, method=0, quality=0),
    "rgb.avif": of("RGB", "AVIF", speed=10),
    "rgb-444.avif": of("RGB", "AVIF", speed=10, subsampling="4:4:4"),
    "alpha.avif": of("RGBA", "AVIF", speed=10),
    "alpha-444.avif": of("RGBA", "AVIF", speed=10, subsampling="4:4:4"),
    "gray.gif": of("L", "GIF"),
    "animated.gif": frames("GIF", 10),
    "animated.webp": frames("WEBP", 3, method=0),
    "animated.png": frames("PNG", 3, compress_level=1),
    "rgb.bmp": of("RGB", "BMP"),
    "rle.bmp": rle_bitmap,
    "rgb.tga": of("RGB", "TGA", compression="tga_rle"),
    "rgb.ppm": of("RGB", "PPM"),
    "gray-16.pgm": of("I;16", "PPM"),
    "small.ico": small_icon,
    "turned.jpg": turned(of, "RGB", "JPEG"),
    "turned-rgba.png": turned(of, "RGBA", "PNG", compress_level=1),
    "turned-16.png": turned(of, "I;16", "PNG", compress_level=1),
    "turned.webp": turned(of, "RGBA", "WEBP", method=0),
    "turned.tif": turned(of, "F", "TIFF"),
    "whole.jp2": of("RGB", "JPEG2000"),
    "gray-16.jp2": of("I;16", "JPEG2000"),
}
"""Files that are opened."""

images._formats()  # those of plugins, to write them here
if "HEIF" in Image.SAVE:
    ORDINARY |= {
        "rgb.heic": of("RGB", "HEIF"),
        "rgb-444.heic": of("RGB", "HEIF", chroma="444"),
        "alpha.heic": of("RGBA", "HEIF"),
        "alpha-444.heic": of("RGBA", "HEIF", chroma="444"),
    }
if "JXL" in Image.SAVE:
    ORDINARY |= {
        "rgb.jxl": of("RGB", "JXL", effort=1),
        "gray-16.jxl": of("I;16", "JXL", effort=1),
        "alpha.jxl": of("RGBA", "JXL", effort=1, lossless=True),
        "alpha-lossy.jxl": of("RGBA", "JXL", effort=1),
    }

HOSTILE: dict[str, Maker] = {
    "mad-tiles.tif": mad_tiles,
    "mad-strip.tif": mad_strip,
    "huge-profile.png": png_with((b"iCCP", b"bomb\0\0" + _bomb())),
    "huge-text.png": png_with((b"zTXt", b"bomb\0\0" + _bomb())),
    "huge-itext.png": png_with((b"iTXt", b"bomb\0\1\0\0\0" + _bomb())),
    "many-texts.png": lambda width, height: saved(gradient(width, height, "RGB"), "PNG", pnginfo=_text_chunks()),
    "png-in-icon.ico": icon_of,
    "bitmap-in-icon.ico": bitmap_icon,
    "plain.ppm": plain_ppm,
    "picture.dds": of("RGBA", "DDS"),
    "program.eps": of("RGB", "EPS"),
    **{
        f"cut-{name}": cut(ORDINARY[name])
        for name in ORDINARY
        if name.endswith((".jpg", ".png", ".webp", ".avif", ".gif", ".jp2"))
    },
}
"""Files that may be refused, at the same price."""


CONSTANT_BYTES = 6_000_000  # the code of a decoder, tables, and one strip
TEXT_BYTES = {"many-texts.png": 64_000_000}  # which Pillow unpacks at most


def assert_decode_memory(width: int, height: int, names: Iterable[str] = ()) -> int:
    """Returns how many files were decoded. Fails for a file of those names, by default of all, whose decode takes too much memory, and for an unexpected outcome."""
    command = [sys.executable, __file__, str(width), str(height), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    too_large = {}
    for result in results:
        name, allowed = result["name"], 12 * result["pixels"] + result["bytes"] + CONSTANT_BYTES
        allowed += TEXT_BYTES.get(name, 0)
        if result["peak"] > allowed:
            too_large[name] = f"{result['peak'] / 1e6:.1f} MB of {allowed / 1e6:.1f} MB"
        assert "UNEXPECTED" not in result["error"], result
        assert not result["error"] or name in HOSTILE, result
    expected = set(names) or set(ORDINARY | HOSTILE)
    measured = {result["name"] for result in results}
    assert measured >= expected, expected - measured  # the program has the plugins of this machine, too
    assert not too_large, too_large
    return len(results)


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))


def peak_growth(work: Callable[[], object]) -> int:
    """The peak growth of the memory of this process while it works, in bytes; of its child processes too, if there are any by then."""
    if _children():
        return _sampled_growth(work)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _sampled_growth(work: Callable[[], object]) -> int:
    """The peak growth of the memory of this process and of its child processes together, sampled every millisecond."""
    processes = ["self", *_children()]
    sampled, is_done = [_resident(processes)], Event()

    def sample() -> None:
        while not is_done.wait(0.001):
            sampled.append(_resident(processes))

    sampler = Thread(target=sample)
    sampler.start()
    try:
        work()
    finally:
        is_done.set()
        sampler.join()
    return max(sampled) - sampled[0]


def _children() -> list[str]:
    return [process for task in Path("/proc/self/task").iterdir() for process in _words(task / "children")]


def _resident(processes: Iterable[str]) -> int:
    return sum(
        resource.getpagesize() * int(pages) for process in processes for pages in _words(Path(f"/proc/{process}/statm"))[1:2]
    )


def _words(path: Path) -> list[str]:
    """The words of a file of a thread or process; none if it has ended."""
    try:
        return path.read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a forked child returns, so that this process stays small: freed memory that a child reuses would not be measured."""
    receiving, sending = os.pipe()
    if not os.fork():
        try:
            os.write(sending, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as file:
        text = file.read()
    os.wait()
    return json.loads(text) if text else {"error": "UNEXPECTED end of the process", "peak": 0}


def _make(maker: Maker, width: int, height: int, path: Path) -> dict[str, Any]:
    data = maker(width, height)
    path.write_bytes(data)
    return {"pixels": _header_pixels(data), "bytes": len(data)}


def _measure(path: Path) -> dict[str, Any]:
    """The peak growth of the memory of this process while it opens the file, and the error."""
    from mmretrieve.decoders import DECODER_BYTES
    from mmretrieve.errors import ImageError
    from mmretrieve.images import open_image, thumbnail

    result: dict[str, Any] = {"error": "", "size": None}
    form = Image.registered_extensions().get(path.suffix, "")
    if form in DECODER_BYTES:
        open_image(of("RGB", form)(8, 8))  # starts the child process

    def decode() -> None:
        try:
            image = open_image(path)
            result["size"] = image.size
            thumbnail(image, 320)
        except ImageError as refused:
            result["error"] = str(refused)
        except BaseException as unexpected:
            result["error"] = f"UNEXPECTED {unexpected!r}"

    return {"peak": peak_growth(decode), **result}


def _header_pixels(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.width * image.height
    except Exception:
        return 0


def main(width: int, height: int, names: list[str]) -> None:
    makers = ORDINARY | HOSTILE
    with TemporaryDirectory() as folder:
        path = Path(folder) / "small.png"
        path.write_bytes(saved(Image.new("RGB", (8, 8)), "PNG"))
        _measure(path)  # imports
        for name in names or makers:
            path = Path(folder) / name
            made = _in_child(partial(_make, makers[name], width, height, path))
            sys.stdout.write(json.dumps({"name": name, **made, **_in_child(partial(_measure, path))}) + "\n")
            sys.stdout.flush()
            path.unlink()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
