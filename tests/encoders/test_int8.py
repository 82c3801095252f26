"""int8: linear layers equal their formula, vectors agree with float32 in every batch, and a gallery keeps the dtype that made it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch import nn

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.encoders import dtypes, int8
from mmretrieve.encoders.base import DtypeWarning
from mmretrieve.encoders.dtypes import Int8Comparison
from mmretrieve.errors import EncoderError, GalleryError, OptionError
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.options import Dtype

pytestmark = pytest.mark.skipif(not int8.is_supported(), reason="int8 needs an x86 CPU with AVX2")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def int8_encoder() -> mm.Encoder:
    return mm.load_encoder("wardrobe", device="cpu", dtype="int8")


@pytest.fixture
def int8_gallery(tmp_path: Path, int8_encoder: mm.Encoder, photos: Path) -> Path:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=int8_encoder)
    gallery.add(photos / "summer")
    return gallery.path


def rounded_linear(layer: nn.Linear, rows_ni: np.ndarray) -> np.ndarray:
    """The specification: inputs rounded to 256 levels between the extremes of their row, weights to 127 around 0."""
    weight_oi, bias_o = (
        layer.weight.detach().double().numpy(),
        0 if layer.bias is None else layer.bias.detach().double().numpy(),
    )
    step_o1 = np.abs(weight_oi).max(axis=1, keepdims=True) / 63
    low, step = rows_ni.min(axis=1, keepdims=True), np.ptp(rows_ni, axis=1, keepdims=True) / 255
    inputs_ni = low + np.round((rows_ni - low) / step) * step
    return inputs_ni @ (np.round(weight_oi / step_o1) * step_o1).T + bias_o


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_rounds_inputs_and_weights(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 24, bias=bias)
    with torch.inference_mode():
        rows_ni = torch.randn(3, 5, 64) * torch.logspace(-2, 2, 5)[:, None] + 1
        outputs = int8.Int8Linear(layer.weight, layer.bias)(rows_ni)
    expected = rounded_linear(layer, rows_ni.reshape(15, 64).double().numpy()).reshape(3, 5, 24)
    scale = np.abs(expected).max(axis=2, keepdims=True)
    # a value between two levels may be rounded up in one precision and down in the other
    assert outputs.shape == expected.shape
    assert np.abs((outputs.numpy() - expected) / scale).max() < 2e-3
    assert np.median(np.abs((outputs.numpy() - expected) / scale)) < 1e-6


def test_patches_are_rows_of_a_linear_layer() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 8, kernel_size=4, stride=4, bias=False)
    with torch.inference_mode():
        images = torch.randn(2, 3, 10, 13)  # what does not fill a patch is left out
        outputs, exact = int8.Int8Patches(convolution)(images), convolution(images)
        rows_ni = nn.functional.unfold(images, 4, stride=4).transpose(1, 2).reshape(12, 48)
    layer = nn.Linear(48, 8, bias=False)
    layer.weight = nn.Parameter(convolution.weight.flatten(1))
    expected = rounded_linear(layer, rows_ni.double().numpy()).reshape(2, 2, 3, 8).transpose(0, 3, 1, 2)
    assert outputs.shape == exact.shape
    np.testing.assert_allclose(outputs.numpy(), expected, atol=2e-2)
    assert np.median(np.abs(outputs.numpy() - expected)) < 1e-6 < np.median(np.abs(outputs.numpy() - exact.numpy()))


@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2}, {"dilation": 2}, {"kernel_size": (4, 2)}])
def test_other_convolutions_are_left_as_they_are(options: dict[str, object]) -> None:
    assert not int8._is_of_patches(nn.Conv2d(**{"in_channels": 3, "out_channels": 8, "kernel_size": 4, "stride": 4, **options}))


def test_the_largest_products_do_not_overflow() -> None:
    layer = nn.Linear(512, 8, bias=False)
    with torch.inference_mode():
        layer.weight.fill_(1.0)
        rows_ni = torch.ones(4, 512)
        rows_ni[:, 0] = 0  # all others have the highest level
        outputs = int8.Int8Linear(layer.weight, None)(rows_ni)
    np.testing.assert_allclose(outputs.numpy(), 511, rtol=1e-6)


def test_rows_of_equal_values_are_exact() -> None:
    layer = nn.Linear(16, 4)
    with torch.inference_mode():
        outputs = int8.Int8Linear(layer.weight, layer.bias)(torch.zeros(2, 16))
    np.testing.assert_array_equal(outputs.numpy(), layer.bias.detach().expand(2, 4).numpy())


def test_all_linear_layers_and_the_attention_are_replaced_and_weights_are_shared() -> None:
    tower = open_clip.create_model("local-dir:" + str(mm.wardrobe.__path__[0]) + "/model").visual.eval()
    lower = int8.quantized(tower)
    kinds = [type(module).__name__ for module in lower.modules()]
    assert kinds.count("PlainAttention") == 4
    assert kinds.count("Int8Linear") == 4 * 4 + 1  # and that of the patches
    assert not {"Linear", "MultiheadAttention", "NonDynamicallyQuantizableLinear", "Conv2d"} & set(kinds)
    assert lower.conv1.weight.data_ptr() == tower.conv1.weight.data_ptr()
    assert any(isinstance(module, nn.MultiheadAttention) for module in tower.modules())  # the original is as it was


def test_vectors_agree_with_float32_and_texts_are_equal(encoder: mm.Encoder, int8_encoder: mm.Encoder, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))
    exact, rounded = encoder.encode_images(paths), int8_encoder.encode_images(paths)
    cosines = (exact * rounded).sum(axis=1)
    assert 0.9995 < cosines.mean() < 1 - 1e-6
    np.testing.assert_array_equal(int8_encoder.encode_texts(["a red dress"]), encoder.encode_texts(["a red dress"]))
    assert int8_encoder.identity == encoder.identity


def test_an_image_has_the_same_vector_in_every_batch(int8_encoder: mm.Encoder, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))[:20]
    alone = np.concatenate([int8_encoder.encode_images([path]) for path in paths[:4]])
    np.testing.assert_allclose(int8_encoder.encode_images(paths)[:4], alone, atol=1e-6)


def test_int8_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        OptionError, match="'int8' is not available on device 'cuda:0': it needs an x86 CPU with AVX2; use 'float32'"
    ):
        dtypes.resolve_dtype("int8", torch.device("cuda:0"))
    monkeypatch.setattr(int8, "is_supported", lambda: False)
    with pytest.raises(OptionError, match="'int8' is not available on this CPU"):
        mm.load_encoder("wardrobe", device="cpu", dtype="int8")


def test_a_tower_that_does_not_agree_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtypes, "remembered_comparison", lambda *_: Int8Comparison(cosine=0.97, speedup=2.0))
    with pytest.raises(
        EncoderError, match=r"wardrobe: int8 is not close enough: .* 0\.9700 .*, expected 0\.9995; use dtype 'float32'"
    ):
        mm.load_encoder("wardrobe", device="cpu", dtype="int8")


@pytest.mark.parametrize(
    ("cosine", "speedup", "width", "chosen"),
    [
        (0.9995, 2.0, 256, Dtype.INT8),
        (0.9994, 2.0, 256, Dtype.FLOAT32),
        (0.9999, 1.9, 256, Dtype.FLOAT32),
        (float("nan"), 2.0, 256, Dtype.FLOAT32),
        (0.9999, 2.0, 255, Dtype.FLOAT32),  # not even compared
    ],
)
def test_auto_is_int8_only_if_it_agrees_and_is_faster(
    monkeypatch: pytest.MonkeyPatch, cosine: float, speedup: float, width: int, chosen: Dtype
) -> None:
    monkeypatch.setattr(dtypes, "remembered_comparison", lambda *_: Int8Comparison(cosine, speedup))
    monkeypatch.setattr(dtypes, "_has_bfloat16", lambda _device: False)
    tower, identity = nn.Sequential(nn.Linear(width, 8)), mm.EncoderIdentity("m", "w", "p")
    assert dtypes.choose_dtype("auto", CPU, tower, 32, identity) is chosen
    assert dtypes.choose_dtype("float32", CPU, tower, 32, identity) is Dtype.FLOAT32
    asked: list[Dtype] = []
    monkeypatch.setattr(dtypes, "_has_bfloat16", lambda _device: True)
    for against_bfloat16, faster in ((1.2, chosen is Dtype.INT8 or speedup == 1.9), (1.1, False)):
        compared = Int8Comparison(cosine, against_bfloat16)
        monkeypatch.setattr(dtypes, "remembered_comparison", lambda *given, one=compared: asked.append(given[-1]) or one)
        assert dtypes.choose_dtype("auto", CPU, tower, 32, identity) is (Dtype.INT8 if faster else Dtype.BFLOAT16)
    assert set(asked) <= {Dtype.BFLOAT16}


class Tower(nn.Module):
    """Counts its runs, which are exact and free; its copies count theirs."""

    runs = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        Tower.runs += 1
        return images.flatten(1)[:, :8]


def test_a_comparison_is_remembered_by_weights_and_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMRETRIEVE_CACHE", str(tmp_path))
    Tower.runs = 0
    first = dtypes.remembered_comparison(Tower(), 16, "one")
    assert first.cosine == pytest.approx(1)
    runs = Tower.runs
    assert dtypes.remembered_comparison(Tower(), 16, "one") == first
    assert Tower.runs == runs > 0
    dtypes.remembered_comparison(Tower(), 16, "another")
    assert Tower.runs == 2 * runs
    with monkeypatch.context() as patch:
        patch.setattr(dtypes.platform, "machine", lambda: "another CPU")
        dtypes.remembered_comparison(Tower(), 16, "one")
        assert Tower.runs == 3 * runs
        dtypes.remembered_comparison(Tower(), 16, "one")
        assert Tower.runs == 3 * runs
    dtypes.remembered_comparison(Tower(), 16, "one", Dtype.BFLOAT16)
    assert Tower.runs == 4 * runs + 2, "a third tower is timed"
    Tower.runs = 3 * runs
    for path in (tmp_path / "int8").iterdir():
        path.write_text("{damaged", encoding="utf-8")
    dtypes.remembered_comparison(Tower(), 16, "one")
    assert Tower.runs == 4 * runs


def test_a_cache_that_cannot_be_written_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMRETRIEVE_CACHE", str(tmp_path / "file"))
    assert dtypes.remembered_comparison(Tower(), 16, "one").cosine == pytest.approx(1)


def test_a_gallery_keeps_its_dtype(int8_gallery: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mm.Gallery.open(int8_gallery).info()["dtype"] == "int8"
    retriever = mm.Retriever.open(int8_gallery, device="cpu")
    assert retriever.encoder.dtype is torch.int8
    id_ = retriever.gallery.ids[0]
    image = photos / "summer" / id_
    assert retriever.encoder.encode_images([image])[0] @ retriever.gallery.vectors([id_])[0] == pytest.approx(1, abs=1e-6)
    assert main(["index", str(photos), "--gallery", str(int8_gallery), "--device", "cpu", "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["failed"]
    assert mm.Gallery.like(int8_gallery.parent / "copy", retriever.gallery).dtype is Dtype.INT8


def test_another_dtype_is_a_note(int8_gallery: Path) -> None:
    with pytest.warns(DtypeWarning, match="its vectors were computed in int8, and this encoder computes in float32"):
        retriever = mm.Retriever.open(int8_gallery, device="cpu", dtype="float32")
    assert retriever.encoder.dtype is torch.float32


def test_a_machine_without_the_stored_dtype_names_a_way_out(int8_gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "is_supported", lambda: False)
    with pytest.raises(
        GalleryError, match=r"g: its vectors were computed in int8, but .* not available on this CPU: .* use 'float32'"
    ):
        mm.Retriever.open(int8_gallery, device="cpu")
    with pytest.warns(DtypeWarning):
        mm.Retriever.open(int8_gallery, device="cpu", dtype="float32")


def test_the_shell_on_a_machine_without_the_stored_dtype(
    int8_gallery: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(int8, "is_supported", lambda: False)
    id_ = mm.Gallery.open(int8_gallery, device="cpu").ids[0]
    command = ["search", str(int8_gallery), "--image", str(photos / "summer" / id_), "-k", "1", "--json", "--device", "cpu"]
    assert main(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "its vectors were computed in int8, but dtype 'int8' is not available on this CPU" in line
    with warnings.catch_warnings():
        warnings.simplefilter("always", DtypeWarning)  # an error in tests
        assert main([*command, "--dtype", "float32"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["id"] == id_
    (note,) = output.err.splitlines()
    assert "its vectors were computed in int8, and this encoder computes in float32" in note


def test_galleries_of_two_dtypes_are_not_merged(int8_gallery: Path, encoder: mm.Encoder) -> None:
    with_floats = mm.Gallery.create(int8_gallery.parent / "floats", encoder=encoder)
    with pytest.raises(GalleryError, match="differ in dtype float32 and int8"):
        with_floats.manifest.check_same_vectors("a", mm.Gallery.open(int8_gallery).manifest, "b")


def test_old_galleries_go_on_without_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtypes, "_has_bfloat16", lambda _device: False)
    assert dtypes.dtype_of_gallery("auto", CPU, None, "g") is Dtype.FLOAT32
    assert dtypes.dtype_of_gallery("auto", CPU, Dtype.BFLOAT16, "g") is Dtype.FLOAT32  # where it is slow
    assert dtypes.dtype_of_gallery("auto", CPU, Dtype.INT8, "g") is Dtype.INT8
    assert dtypes.dtype_of_gallery("bfloat16", CPU, Dtype.INT8, "g") is Dtype.BFLOAT16
    monkeypatch.setattr(dtypes, "_has_bfloat16", lambda _device: True)
    assert dtypes.dtype_of_gallery("auto", CPU, Dtype.FLOAT32, "g") is Dtype.FLOAT32
    assert dtypes.dtype_of_gallery("auto", CPU, None, "g") is Dtype.BFLOAT16


def test_a_damaged_dtype_is_named() -> None:
    data = Manifest(mm.EncoderIdentity("m", "w", "p"), 2).to_dict()
    assert Manifest.from_dict(data, "g").dtype is None
    with pytest.raises(GalleryError, match="g: the manifest cannot be read"):
        Manifest.from_dict(data | {"dtype": "int4"}, "g")
