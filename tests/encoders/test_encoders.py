"""The encoder: unit rows, exact cropping, identity, refusals. Real weights of the wardrobe, random ones elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image
from safetensors.torch import load_file, save_file

import mmretrieve as mm
from mmretrieve.encoders.base import Encoder, PromptCutWarning
from mmretrieve.encoders.dtypes import resolve_dtype
from mmretrieve.encoders.loading import load_encoder
from mmretrieve.encoders.names import model_with_activation
from mmretrieve.encoders.openclip import preprocessing_of, resolve_device
from mmretrieve.encoders.text_tower import encode_tokens, is_croppable
from mmretrieve.errors import EncoderError, ImageError, OptionError
from mmretrieve.images import target_pad
from mmretrieve.options import BUILT_IN_MODEL, Preprocessing

VISION = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


def test_rows_are_unit_float32_whatever_comes_in(encoder: Encoder, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))[:5]
    seen = []
    by_path = encoder.encode_images(paths, progress=seen.append)
    assert by_path.shape == (5, encoder.dim)
    assert by_path.dtype == np.float32
    assert sum(seen) == 5
    np.testing.assert_allclose(np.linalg.norm(by_path, axis=1), 1, atol=1e-5)
    with paths[0].open("rb") as file:
        np.testing.assert_allclose(encoder.encode_images([Image.open(paths[0]), file]), by_path[[0, 0]], atol=1e-6)
    assert encoder.encode_images([]).shape == (0, encoder.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.dim)


def test_one_value_in_the_place_of_a_list_is_refused(encoder: Encoder, photos: Path) -> None:
    path = next(photos.rglob("*.png"))
    for one in (path, str(path), path.read_bytes(), Image.open(path), np.zeros((9, 9, 3), np.uint8)):
        with pytest.raises(OptionError, match="encode_images expects a list of images, got one"):
            encoder.encode_images(one)  # type: ignore[arg-type]
    for texts, message in (("in red", "'in red'"), (None, "None"), ([1], "expects texts, got 1")):
        with pytest.raises(OptionError, match=message):
            encoder.encode_texts(texts)  # type: ignore[arg-type]
    assert encoder.encode_images(np.zeros((2, 9, 9, 3), np.uint8)).shape == (2, encoder.dim)


def test_a_batch_equals_single_images(encoder: Encoder, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))[:9]
    np.testing.assert_allclose(
        encoder.encode_images(paths), np.concatenate([encoder.encode_images([p]) for p in paths]), atol=1e-5
    )


def test_a_text_has_the_same_vector_in_every_batch() -> None:
    colors, details = (
        ("red", "navy", "light blue"),
        ("", "with long sleeves", "with long sleeves, a round neck and dots on white", "x " * 9),
    )
    texts = [
        f"a photo of a {color} {garment} {detail}" for color in colors for garment in ("dress", "coat") for detail in details
    ]
    together = load_encoder("wardrobe").encode_texts(texts)
    for size in (1, 2, 3, 5, 8):
        fresh = load_encoder("wardrobe")
        parts = [fresh.encode_texts(texts[start : start + size]) for start in range(0, len(texts), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together)


def test_texts_are_encoded_once_and_told_each_time_that_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, calls = load_encoder("wardrobe"), []
    monkeypatch.setattr(
        encoder, "_text_features", lambda tokens: calls.append(len(tokens)) or np.ones((len(tokens), encoder.dim))
    )
    long = "red " * 300
    for _ in range(2):
        with pytest.warns(PromptCutWarning):
            encoder.encode_texts(["in red", long, "in red"])
    encoder.encode_texts(["in red", "striped"])[0][:] = 0  # the caller's own
    assert sum(calls) == 3
    assert encoder.encode_texts(["in red"]).any()


def test_the_cores_of_a_cpu_encode_batches_of_their_own(photos: Path) -> None:
    encoder, paths = load_encoder("wardrobe", device="cpu", dtype="float32"), sorted(photos.rglob("*.png"))[:50]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = encoder.encode_images(paths)
        torch.set_num_threads(3)
        seen: list[int] = []
        found = encoder.encode_images(paths, seen.append)
        assert (torch.get_num_threads(), seen) == (3, [9, 9, 9, 9, 9, 5])
        np.testing.assert_allclose(found, expected, atol=1e-6)
        with pytest.raises(ImageError, match="none"):
            encoder.encode_images([*paths, Path("none")])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_image_vectors_equal_those_of_open_clip(encoder: Encoder, photos: Path) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{BUILT_IN_MODEL}")
    path = next(photos.rglob("*.png"))
    with torch.no_grad():
        expected = model.eval().encode_image(preprocess(Image.open(path))[None], normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_images([path]), expected, atol=1e-4)  # torch resizes, and not Pillow


def test_bfloat16_images_stay_close_and_texts_exact(encoder: Encoder, photos: Path) -> None:
    half = load_encoder("wardrobe", device="cpu", dtype="bfloat16")
    paths = sorted(photos.rglob("*.png"))[:20]
    assert (half.encode_images(paths) * encoder.encode_images(paths)).sum(axis=1).min() > 0.999
    np.testing.assert_array_equal(half.encode_texts(["in red"]), encoder.encode_texts(["in red"]))


@pytest.mark.parametrize("model_class", [CLIP, CustomTextCLIP])
def test_cropped_text_equals_the_full_context(model_class: type) -> None:
    torch.manual_seed(0)
    model = model_class(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT).eval()
    tokens = open_clip.SimpleTokenizer()(["a", "a red dress with long sleeves", "$5 " * 20])
    assert is_croppable(model)
    with torch.no_grad():
        np.testing.assert_allclose(encode_tokens(model, tokens[:2]), model.encode_text(tokens[:2]), atol=1e-5)
        np.testing.assert_allclose(encode_tokens(model, tokens), model.encode_text(tokens), atol=1e-5)


@pytest.mark.parametrize("text", [{"no_causal_mask": True, "pool_type": "last"}, {"embed_cls": True}])
def test_bidirectional_towers_are_not_cropped(text: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = CustomTextCLIP(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT | text).eval()
    tokens = open_clip.SimpleTokenizer()(["a red dress"])
    assert not is_croppable(model)
    with torch.no_grad():
        torch.testing.assert_close(encode_tokens(model, tokens), model.encode_text(tokens))


def test_a_long_prompt_is_cut_with_a_warning(encoder: Encoder) -> None:
    with pytest.warns(PromptCutWarning, match="1 of 2 texts were cut to the 40 tokens"):
        rows = encoder.encode_texts(["in red", "red " * 300])
    assert np.isfinite(rows).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_texts(["red " * 38])  # start and end token make 40


def test_identity_follows_weights_not_names(encoder: Encoder, tmp_path: Path) -> None:
    copy = shutil.copytree(BUILT_IN_MODEL, tmp_path / "copy")
    assert load_encoder(copy, dtype="float32").identity == encoder.identity
    weights = load_file(copy / "open_clip_model.safetensors")
    weights["logit_scale"] += 0.5
    save_file(weights, copy / "open_clip_model.safetensors")
    assert load_encoder(copy).identity != encoder.identity


def test_identity_follows_preprocessing(encoder: Encoder, tmp_path: Path) -> None:
    copy = shutil.copytree(BUILT_IN_MODEL, tmp_path / "copy")
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["interpolation"] = "bilinear"
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    assert load_encoder(copy).identity != encoder.identity


def test_targetpad_pads_before_the_models_own_preprocessing(encoder: Encoder, photos: Path) -> None:
    padded = load_encoder("wardrobe", device="cpu", dtype="float32", preprocessing="targetpad")
    square = Image.open(next(photos.rglob("*.png"))).convert("RGB")
    pictures = [square.resize((200, 80)), square.resize((80, 200)), square]
    rows = padded.encode_images(pictures)
    np.testing.assert_allclose(rows, encoder.encode_images(map(target_pad, pictures)), atol=1e-6)
    assert np.abs(rows - encoder.encode_images(pictures)).max(axis=1)[:2].min() > 1e-2
    assert padded.identity.weights == encoder.identity.weights
    assert padded.identity != encoder.identity
    assert [preprocessing_of(one.identity) for one in (encoder, padded)] == [Preprocessing.PLAIN, Preprocessing.TARGET_PAD]


def test_an_unknown_preprocessing_is_refused() -> None:
    with pytest.raises(OptionError, match=r"unknown preprocessing 'squarepad'; did you mean 'targetpad'\? choose from: plain"):
        load_encoder("wardrobe", preprocessing="squarepad")


def test_a_checkpoint_file_loads_by_model_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}
    (tmp_path / "tiny-for-tests.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-for-tests.json")
    weights = {name: value.contiguous() for name, value in CLIP(**config).state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    torch.save(weights, tmp_path / "weights.pt")
    safe, pickled = (load_encoder(f"tiny-for-tests/{tmp_path}/weights.{suffix}") for suffix in ("safetensors", "pt"))
    assert safe.identity == pickled.identity
    assert safe.dim == 16


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("/tmp/mmretrieve-was-unpickled"),))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    Path("/tmp/mmretrieve-was-unpickled").unlink(missing_ok=True)
    torch.save({"state_dict": Trap()}, tmp_path / "evil.pt")
    with pytest.raises(EncoderError, match=r"evil\.pt"):
        load_encoder(f"ViT-B-32/{tmp_path}/evil.pt")
    assert not Path("/tmp/mmretrieve-was-unpickled").exists()


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("wardrob", OptionError, "choose from: wardrobe"),
        ("ViT-B-32", OptionError, "laion2b_s34b_b79k"),
        ("ViT-B-32/nowhere", OptionError, "checkpoint file or one of"),
        ("ViT-B-32/laion2b", OptionError, "did you mean 'laion2b_e16'?"),
        ("ViT-B-32/openai", EncoderError, "use ViT-B-32-quickgelu/openai"),
        ("hf-hub:nobody/nothing", EncoderError, "local open_clip folder"),
        ("ViT-B-32/laion2b_s34b_b79k", EncoderError, "without a network"),
    ],
)
def test_load_errors_are_one_line(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load_encoder(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "suggested"),
    [
        ("openai/clip-vit-base-patch32", "ViT-B-32-quickgelu/openai"),
        ("openai/clip-vit-large-patch14-336", "ViT-L-14-336-quickgelu/openai"),
        ("ViT-B/32", "ViT-B-32-quickgelu/openai"),
        ("clip-ViT-L-14", "ViT-L-14-quickgelu/openai"),
        ("ViT-B-32", "ViT-B-32/laion2b_s34b_b79k"),
        ("ViT-L-14", "ViT-L-14/laion2b_s32b_b82k"),
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "ViT-B-32/laion2b_s34b_b79k"),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "ViT-H-14/laion2b_s32b_b79k"),
        ("apple/DFN5B-CLIP-ViT-H-14-378", "ViT-H-14-378-quickgelu/dfn5b"),
        ("google/siglip-base-patch16-224", "ViT-B-16-SigLIP/webli"),
    ],
)
def test_names_that_people_type_get_a_name_that_loads(spec: str, suggested: str) -> None:
    with pytest.raises(OptionError, match=f"did you mean '{suggested}'") as caught:
        load_encoder(spec)
    assert "\n" not in str(caught.value)
    model, tag = suggested.split("/")
    assert tag in open_clip.list_pretrained_tags_by_model(model)
    assert model_with_activation(model, tag) == model, "the suggestion would be refused"


def test_a_name_of_the_hub_is_told_how_packages_are_named() -> None:
    for prefix in ("hf-hub", "transformers", "sentence-transformers"):
        with pytest.raises(OptionError, match=f"if it is a model on the Hugging Face Hub, .*'{prefix}:me/my-model'"):
            load_encoder("me/my-model")


def test_an_unreachable_hub_fails_quickly_in_one_line(tmp_path: Path) -> None:
    """A real process without HF_HUB_OFFLINE, behind a proxy that refuses; nothing leaves this machine."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_HOME": str(tmp_path),
        "NO_PROXY": "",
        **dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), "http://127.0.0.1:9"),
    }
    command = [sys.executable, "-m", "mmretrieve.cli.main", "index", str(tmp_path), "--gallery", str(tmp_path / "g")]
    (tmp_path / "a.png").write_bytes(b"")
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert time.monotonic() - started < 30
    assert done.returncode == 1
    assert "without a network" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "g").exists()


def test_folders_without_an_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="not an encoder folder"):
        load_encoder(tmp_path)
    shutil.copy(BUILT_IN_MODEL / "open_clip_config.json", tmp_path)
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_encoder(tmp_path)  # a configuration without weights must not become a random model


def test_devices_and_dtypes() -> None:
    assert resolve_device("cpu").type == "cpu"
    for wrong in ("tpu", "cuda:x", ""):
        with pytest.raises(OptionError, match="choose from: auto, cpu"):
            resolve_device(wrong)
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="no cuda devices"):
            resolve_device("cuda")
    with pytest.raises(OptionError, match="choose from: auto, float32"):
        resolve_dtype("int4", torch.device("cpu"))


def test_an_unreadable_image_is_named(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        encoder.encode_images([tmp_path / "bad.jpg"])


@pytest.mark.gpu
def test_gpu_and_cpu_agree(encoder: Encoder, photos: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    paths = sorted(photos.rglob("*.png"))[:20]
    on_gpu = mm.load_encoder("wardrobe", device="cuda")
    assert (on_gpu.encode_images(paths) * encoder.encode_images(paths)).sum(axis=1).min() > 0.999
