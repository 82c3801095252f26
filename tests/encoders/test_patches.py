"""Vectors of patches, against the tokens that open_clip itself returns."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor

from mmretrieve import Encoder, Retriever, load_encoder
from mmretrieve.encoders import int8
from mmretrieve.encoders.base import PatchEncoder, supports
from mmretrieve.encoders.image_tower import has_patches, patch_features, with_plain_attention, with_short_last_block
from mmretrieve.errors import ImageError, OptionError
from mmretrieve.options import BUILT_IN_MODEL, Modality
from mmretrieve.vectors import unit


def tower_of(**options: object) -> VisionTransformer:
    torch.manual_seed(0)
    defaults = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "heads": 4, "mlp_ratio": 4.0, "output_dim": 32}
    return VisionTransformer(**(defaults | options)).eval().requires_grad_(False)


def images_of(tower: VisionTransformer, count: int = 3) -> Tensor:
    return torch.randn(count, 3, *tower.image_size, generator=torch.Generator().manual_seed(1))


def tokens_of(tower: VisionTransformer, images: Tensor) -> Tensor:
    """(b, l, dim): what open_clip returns as tokens, projected as the class token is."""
    whole = copy.deepcopy(tower)
    whole.output_tokens = True
    _, tokens = whole(images)
    return (whole.ln_post(tokens) if whole.final_ln_after_pool else tokens) @ whole.proj


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 1},
        {"ls_init_value": 0.3},
        {"act_layer": open_clip.transformer.QuickGELU},
        {"final_ln_after_pool": True},
        {"no_ln_pre": True},
        {"image_size": (32, 48)},
    ],
    ids=["plain", "one layer", "layer scale", "QuickGELU", "norm after pooling", "no first norm", "not square"],
)
@pytest.mark.parametrize("count", [1, 3])
def test_patches_are_the_tokens_of_open_clip(options: dict[str, object], count: int) -> None:
    tower = tower_of(**options)
    images = images_of(tower, count)
    expected, pooled = tokens_of(tower, images), tower(images)
    short = with_short_last_block(tower)
    assert torch.allclose(patch_features(short, images), expected, atol=1e-5)
    assert torch.allclose(short(images), pooled, atol=1e-5)  # the class token stays as it is


@pytest.mark.parametrize("size", [(64, 64), (64, 32), (32, 64), (48, 128)])
def test_a_finer_grid_is_averaged(size: tuple[int, int]) -> None:
    tower = tower_of(image_size=size, patch_size=4)
    images = images_of(tower)
    rows, columns = (side // 4 for side in size)
    grid = tokens_of(tower, images).numpy().reshape(3, rows, columns, -1)
    windows = [
        [
            grid[:, top * rows // 8 : -(-(top + 1) * rows // 8), left * columns // 8 : -(-(left + 1) * columns // 8)]
            for left in range(8)
        ]
        for top in range(8)
    ]
    expected = np.stack([window.mean(axis=(1, 2)) for row in windows for window in row], axis=1)
    np.testing.assert_allclose(patch_features(with_short_last_block(tower), images).numpy(), expected, atol=1e-5)


def test_other_dtypes_agree() -> None:
    tower = with_short_last_block(tower_of())
    images = images_of(tower)
    exact = patch_features(tower, images)
    rounded = patch_features(int8.quantized(tower), images)
    half = patch_features(with_plain_attention(tower.to(torch.bfloat16)), images.bfloat16()).float()
    for other in (rounded, half):
        assert torch.cosine_similarity(other, exact, dim=-1).min() > 0.99


@pytest.mark.parametrize(
    "options", [{"pool_type": "avg"}, {"pool_type": "none"}, {"attentional_pool": True}, {"output_tokens": True}]
)
def test_towers_that_read_no_class_token_have_no_patches(options: dict[str, object]) -> None:
    assert not has_patches(with_short_last_block(tower_of(**options)))
    assert has_patches(with_short_last_block(tower_of()))
    assert not has_patches(torch.nn.Linear(2, 2))


# The encoder


def test_an_encoder_gives_unit_rows_of_the_model(encoder: Encoder, photos: Path) -> None:
    assert isinstance(encoder, PatchEncoder)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{BUILT_IN_MODEL}")
    paths = sorted(photos.rglob("*.png"))[:5]
    with torch.no_grad():
        tokens = tokens_of(model.visual.eval(), torch.stack([preprocess(Image.open(path)) for path in paths])).numpy()
    patches = encoder.encode_patches(paths)
    assert (patches.shape, patches.dtype, patches.flags.c_contiguous) == ((5, 64, encoder.dim), np.float32, True)
    np.testing.assert_allclose(patches, unit(tokens.reshape(-1, encoder.dim)).reshape(tokens.shape), atol=1e-3)


def test_a_batch_of_patches_equals_single_images(encoder: Encoder, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))[:37]  # more than two groups
    alone = np.concatenate([encoder.encode_patches([Image.open(path)]) for path in paths])
    np.testing.assert_allclose(encoder.encode_patches(iter(paths)), alone, atol=1e-5)
    assert encoder.encode_patches([]).shape == (0, 64, encoder.dim)


def test_patches_are_computed_where_memory_is_short(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, paths = load_encoder("wardrobe", device="cpu", dtype="float32"), sorted(photos.rglob("*.png"))[:20]
    expected, encode = encoder.encode_patches(paths), encoder._encode_patches

    def fail_above_four(images: Tensor) -> Tensor:
        if len(images) > 4:
            raise MemoryError
        return encode(images)

    monkeypatch.setattr(encoder, "_encode_patches", fail_above_four)
    np.testing.assert_allclose(encoder.encode_patches(paths), expected, atol=1e-5)


def test_an_unreadable_image_is_named(encoder: Encoder, photos: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    with pytest.raises(ImageError, match=r"broken\.png"):
        encoder.encode_patches([next(photos.rglob("*.png")), broken])
    with pytest.raises(OptionError, match="expects a list of images, got one"):
        encoder.encode_patches(broken)


@pytest.fixture
def pooled_encoder(tmp_path: Path) -> Encoder:
    """An encoder whose image vector is the mean of its tokens."""
    folder = shutil.copytree(BUILT_IN_MODEL, tmp_path / "pooled")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["pool_type"] = "avg"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return load_encoder(folder, dtype="float32")


def test_an_encoder_without_patches_is_refused(pooled_encoder: Encoder, photos: Path) -> None:
    message = "needs an encoder of patches of images, and .*pooled does not encode them; use another encoder"
    with pytest.raises(OptionError, match=f"encode_patches {message}"):
        pooled_encoder.encode_patches(photos.rglob("*.png"))
    assert [supports(pooled_encoder, modality) for modality in Modality] == [True, True, False, False]


def test_who_does_not_tell_has_no_patches(encoder: Encoder, retriever: Retriever) -> None:
    assert not supports(object(), Modality.PATCHES)
    assert supports(encoder, Modality.PATCHES)
    lazy = Retriever.open(retriever.gallery.path, lazy=True)
    assert supports(lazy.encoder, Modality.PATCHES)
