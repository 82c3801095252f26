"""What makes encoding images fast changes no vector: resizing in torch, one token in the last block, groups that are halved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, Resize, image_transform_v2
from PIL import Image
from torch import nn

import mmretrieve as mm
from mmretrieve import concurrency
from mmretrieve.encoders.dtypes import available_dtypes
from mmretrieve.encoders.image_tower import PlainAttention, SharedLinear, make_resize
from mmretrieve.encoders.openclip import is_out_of_memory
from mmretrieve.errors import EncoderError
from mmretrieve.images import open_image

SIZES = [(1600, 1200), (640, 481), (481, 640), (1000, 30), (40, 30), (96, 96), (96, 97), (3, 2)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_open_clip(
    size: tuple[int, int], mode: str, interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    config = PreprocessCfg(size=96, resize_mode=mode, interpolation=interpolation)
    transforms = image_transform_v2(config, is_train=False).transforms[:-2]
    expected = np.array(reduce(lambda picture, transform: transform(picture), transforms, image)).astype(int)
    monkeypatch.setattr(Resize, "forward", None)  # Pillow is not used
    pixels = make_resize(transforms)(image)
    assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (96, 96, 3))
    difference = np.abs(pixels.numpy().astype(int) - expected)
    assert difference.max() <= 2  # of noise; of 255
    assert difference.mean() < 0.02
    assert np.array_equal(np.array(image), noise)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("queries", [3, 65])
def test_plain_attention_is_that_of_torch(bias: bool, queries: int) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(32, 4, bias=bias, batch_first=True).eval().requires_grad_(False)
    plain = PlainAttention(attention, SharedLinear, of_few_queries=queries < 65)
    rows = torch.randn(5, 65, 32)
    expected = attention(rows[:, :queries], rows, rows, need_weights=False)[0]
    torch.testing.assert_close(plain(rows[:, :queries], rows, rows, attn_mask=None)[0], expected)


@pytest.mark.skipif("bfloat16" not in available_dtypes(torch.device("cpu")), reason="this CPU has no bfloat16")
@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_has_the_same_bfloat16_vector_in_every_batch(photos: Path, threads: int) -> None:
    half, before = mm.load_encoder("wardrobe", device="cpu", dtype="bfloat16"), torch.get_num_threads()
    paths = sorted(photos.rglob("*.png"))[:20]
    together = half.encode_images(paths)
    torch.set_num_threads(threads)
    try:
        for size in (1, 2, 3, 7):
            parts = [half.encode_images(paths[start : start + size]) for start in range(0, len(paths), size)]
            np.testing.assert_array_equal(np.concatenate(parts), together)
    finally:
        torch.set_num_threads(before)


class Hungry(nn.Module):
    """A tower that has memory for so many images."""

    def __init__(self, tower: Any, most: int, error: Exception) -> None:
        super().__init__()
        self.tower, self.most, self.error, self.sizes = tower, most, error, list[int]()
        self.image_size = tower.image_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise self.error
        return self.tower(images)  # type: ignore[no-any-return]


CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
)
ERRORS = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory"), CPU_ERROR, MemoryError()]


@pytest.fixture
def small_encoder() -> Iterator[Any]:
    encoder = mm.load_encoder("wardrobe", device="cpu", dtype="float32")
    tower = encoder._model.visual
    yield encoder
    encoder._model.visual = tower


@pytest.mark.parametrize("error", ERRORS)
def test_groups_are_halved_where_memory_runs_out(small_encoder: Any, photos: Path, error: Exception) -> None:
    paths = sorted(photos.rglob("*.png"))[:40]
    expected = small_encoder.encode_images(paths)
    small_encoder._model.visual = tower = Hungry(small_encoder._model.visual, 5, error)
    done = list[int]()
    vectors = small_encoder.encode_images(paths, done.append)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert sum(done) == len(paths)
    assert sum(size for size in tower.sizes if size <= 5) == len(paths), "each image was encoded once"
    tower.sizes.clear()
    small_encoder.encode_images(paths)
    assert max(tower.sizes) <= 5, "later groups are small from the start"


def test_memory_that_runs_out_for_one_image_is_named(small_encoder: Any, photos: Path) -> None:
    small_encoder._model.visual = Hungry(small_encoder._model.visual, 0, ERRORS[0])
    with pytest.raises(EncoderError, match=r"^wardrobe: memory ran out while one image was encoded on 'cpu'; end"):
        small_encoder.encode_images(sorted(photos.rglob("*.png"))[:4])


def test_other_errors_are_not_taken_for_memory(small_encoder: Any, photos: Path) -> None:
    small_encoder._model.visual = tower = Hungry(small_encoder._model.visual, 0, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        small_encoder.encode_images(sorted(photos.rglob("*.png"))[:4])
    assert tower.sizes == [4]
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_batches_are_groups_of_their_own(small_encoder: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_encoder, "_group_size", 4)
    paths = sorted(photos.rglob("*.png"))[:11]
    tower = small_encoder._model.visual = Hungry(small_encoder._model.visual, 99, ERRORS[0])
    batches = [paths[:6], [], paths[6:7], paths[7:]]
    features = list(small_encoder.feature_batches(iter(map(iter, batches))))
    assert [len(rows) for rows in features] == [6, 0, 1, 4]
    assert max(tower.sizes) == 4
    np.testing.assert_allclose(np.concatenate(features), small_encoder.image_features(paths), atol=1e-5)


@pytest.mark.parametrize(
    ("count", "cores", "sizes"),
    [
        (0, 2, [0]),
        (7, 2, [7]),  # one group of all cores
        (8, 2, [4, 4]),
        (32, 2, [16, 16]),
        (48, 2, [12, 12, 12, 12]),  # 16 three times would leave one core without work
        (80, 2, [16, 16, 12, 12, 12, 12]),
        (256, 2, [16] * 16),
        (256, 1, [16] * 16),
    ],
)
def test_no_core_is_left_without_work(small_encoder: Any, count: int, cores: int, sizes: list[int]) -> None:
    groups = list(small_encoder._groups(iter(range(count)), cores))
    assert [len(images) for images, _ in groups] == sizes
    assert [image for images, _ in groups for image in images] == list(range(count))
    assert [is_last for _, is_last in groups] == [*[False] * (len(groups) - 1), True]


def test_what_is_encoded_is_not_copied() -> None:
    """A decoded image is resized as it is; its copy would take as long as resizing it."""
    image = Image.new("RGB", (400, 300), (9, 9, 200))
    image.info["exif"] = b"anything"
    opened = open_image(image, copy=False)
    assert (opened is image, opened.im is image.im, opened.info, bool(image.info)) == (False, True, {}, True)
    assert open_image(image).im is not image.im


def test_the_pixels_of_a_file_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 30), (9, 9, 200)).save(tmp_path / "blue.jpg", comment="a text")
    monkeypatch.setattr(Image.Image, "copy", None)
    opened = open_image(tmp_path / "blue.jpg")
    assert (type(opened), opened.mode, opened.size, opened.info) == (Image.Image, "RGB", (40, 30), {})
    assert opened.getpixel((3, 3)) == pytest.approx((9, 9, 200), abs=3)


def test_a_single_image_is_encoded_without_threads(small_encoder: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(photos.rglob("*.png"))[:2]
    expected = small_encoder.encode_images(paths)
    monkeypatch.setattr(concurrency, "ThreadPoolExecutor", None)
    vectors = [small_encoder.encode_images(iter([path]))[0] for path in paths]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert small_encoder.encode_images([]).shape == (0, small_encoder.dim)
