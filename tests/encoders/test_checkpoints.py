"""Weights that cannot be loaded: one whole sentence says what the file is and what to do."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

import mmretrieve as mm
from mmretrieve.encoders.checkpoints import one_line
from mmretrieve.errors import EncoderError, GalleryError

MODEL = "tiny-for-checkpoints"
VISION = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    path = tmp_path_factory.mktemp("models") / f"{MODEL}.json"
    path.write_text(json.dumps({"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}))
    open_clip.add_model_config(path)
    return dict(open_clip.create_model(MODEL).state_dict())


def data(content: bytes) -> Callable[[State], bytes]:
    """These bytes."""
    return lambda _: content


def pickled(content: Any) -> Callable[[State], bytes]:
    """What torch.save writes."""

    def make(state: State) -> bytes:
        buffer = io.BytesIO()
        torch.save(content(state) if callable(content) else content, buffer)
        return buffer.getvalue()

    return make


def safetensors(state: State) -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    del state
    return struct.pack("<Q", len(header)) + header + bytes(8)


def archive(state: State) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("weights.pt", pickled(state)(state))
    return buffer.getvalue()


def tar(state: State) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("weights.pt"))
    del state
    return buffer.getvalue()


def script(state: State) -> bytes:
    del state
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


def training(state: State) -> Any:
    return {"epoch": 3, "state_dict": state, "best": np.float64(0.5), "optimizer": {"state": {}}}


def hugging_face(state: State) -> Any:
    del state
    return {"vision_model.embeddings.class_embedding": torch.zeros(4), "text_model.final_layer_norm.bias": torch.zeros(4)}


def other_shape(state: State) -> Any:
    return {**state, "visual.proj": torch.zeros(8, 8), "ln_final.bias": torch.zeros(7)}


def lightning(state: State) -> Any:
    return {"pytorch-lightning_version": "2.4", "state_dict": {f"model.{name}": value for name, value in state.items()}}


FILES: dict[str, tuple[Callable[[State], bytes], str]] = {
    "empty.pt": (data(b""), "an empty file"),
    "page.pt": (data(b"\n<!DOCTYPE html><html>log in</html>"), "an HTML page that was saved in place of the weights"),
    "pointer.pt": (data(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"), "run `git lfs pull`"),
    "model.gguf": (data(b"GGUF\3\0\0\0" + bytes(99)), "a GGUF file"),
    "model.onnx": (data(b"\x08\x08\x12\x07pytorch" + bytes(99)), "an ONNX model"),
    "archive.zip": (archive, "a ZIP archive; unpack it"),
    "archive.tar": (tar, "a tar archive; unpack it"),
    "archive.gz": (data(b"\x1f\x8b\x08" + bytes(99)), "a gzip archive; unpack it"),
    "config.json": (data(b'{"model_type": "clip"}'), "a JSON file"),
    "noise.pt": (data(b"\xfe\x01" * 99), "not a file of weights"),
    "cut.pt": (lambda state: pickled(state)(state)[:5000], "a truncated or damaged file of PyTorch; download it again"),
    "cut.safetensors": (
        lambda state: safetensors(state)[:-3],
        "a truncated safetensors file, of which 74 of 77 bytes are there",
    ),
    "named.pt": (safetensors, "give it a name that ends in .safetensors"),
    "not.safetensors": (
        lambda state: pickled(state)(state)[:300].replace(b"PK", b"QK"),
        "not a safetensors file|not a file of weights",
    ),
    "script.pt": (script, "a TorchScript program, which is not run"),
    "training.pt": (pickled(training), r"a training checkpoint with Python objects \(numpy\S*scalar\), which are not loaded"),
    "module.pt": (
        pickled(lambda _: torch.nn.Linear(2, 2)),
        r"Python objects \(torch\.nn\.modules\.linear\.Linear\).*can run any program",
    ),
    "lightning.ckpt": (pickled(lightning), "a checkpoint of Lightning"),
    "transformers.bin": (pickled(hugging_face), "weights of Hugging Face transformers"),
    "other.pt": (
        pickled(other_shape),
        r"weights of another model \(2 of another shape; first: .* is \[.*\] in the file and \[.*\] in the model\)",
    ),
    "small.pt": (
        pickled(lambda state: {"visual.proj": state["visual.proj"], "head": torch.zeros(1)}),
        r"missing, 1 unknown; first: \S+ is missing",
    ),
    "adapter.pt": (pickled({"base.lora_A.weight": torch.zeros(2, 2)}), "an adapter"),
    "wrapped.pt": (pickled(lambda state: {f"clip.{name}": value for name, value in state.items()}), "weights of another model"),
    "list.pt": (pickled([1, 2]), "a file without named weights"),
    "nothing.pt": (pickled({}), "a file without named weights"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch.jit
@pytest.mark.parametrize("name", FILES)
def test_weights_that_do_not_load_are_told_in_one_sentence(name: str, state: State, tmp_path: Path) -> None:
    make, expected = FILES[name]
    path = tmp_path / name
    path.write_bytes(make(state))
    with pytest.raises(EncoderError, match=expected) as caught:
        mm.load_encoder(f"{MODEL}/{path}", device="cpu")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable(), "one line, no escape codes"
    assert "…" not in message, "nothing is cut"
    assert len(message) < len(str(path)) + 400
    assert "network" not in message


def test_nothing_in_a_file_of_weights_is_run(state: State, tmp_path: Path) -> None:
    del state
    torch.save(Evil(str(tmp_path / "ran")), tmp_path / "evil.pt")
    with pytest.raises(EncoderError, match="can run any program"):
        mm.load_encoder(f"{MODEL}/{tmp_path / 'evil.pt'}", device="cpu")
    assert not (tmp_path / "ran").exists()


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_prefixes_of_training_are_removed(prefix: str, state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": {f"{prefix}{name}": value for name, value in state.items()}}, tmp_path / "trained.pt")
    plain, trained = (mm.load_encoder(f"{MODEL}/{tmp_path / name}.pt", device="cpu") for name in ("plain", "trained"))
    assert plain.identity == trained.identity


def test_folders_say_what_they_are(tmp_path: Path, state: State) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "config.json").write_text("{}")
    (tmp_path / "sentences").mkdir()
    (tmp_path / "sentences" / "modules.json").write_text("[]")
    folder = tmp_path / "other"
    folder.mkdir()
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file({name: value.contiguous() for name, value in other_shape(state).items()}, folder / "open_clip_model.safetensors")
    for name, expected in {
        "empty": "not an encoder folder",
        "transformers": "a model of Hugging Face transformers",
        "sentences": "a model of sentence-transformers",
        "other": "open_clip_model.safetensors is weights of another model",
    }.items():
        with pytest.raises(EncoderError, match=expected) as caught:
            mm.load_encoder(tmp_path / name, device="cpu")
        assert str(caught.value).isprintable()
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(EncoderError, match="not valid JSON"):
        mm.load_encoder(folder, device="cpu")


def test_a_long_reason_is_one_line_and_ends_at_a_word() -> None:
    text = one_line("\x1b[31mred\x1b[0m\n" + "word " * 200)
    assert text.isprintable()
    assert text.startswith("red word")
    assert text.endswith("word …")


def test_another_encoder_is_refused_with_what_differs(tmp_path: Path) -> None:
    def identity(weights: str, size: int) -> mm.EncoderIdentity:
        return mm.EncoderIdentity("clip", weights, json.dumps({"mean": [0.5] * 3, "size": size, "mode": "RGB"}))

    gallery = mm.Gallery.for_vectors(tmp_path / "g", identity("5f" * 32, 224), 4)
    with pytest.raises(
        GalleryError, match=r"made by clip, not by clip; they differ in preprocessing \(size 224 and 336\); use"
    ):
        gallery.check_encoder(identity("5f" * 32, 336))
    with pytest.raises(GalleryError, match=r"they differ in weights \(5f5f5f5f5f5f and 777777777777\); use"):
        gallery.check_encoder(identity("77" * 32, 224))
    other = mm.Gallery.for_vectors(tmp_path / "other", identity("5f" * 32, 336), 4, decode="fast")
    with pytest.raises(GalleryError) as caught:
        gallery.merge(other.path)
    assert "differ in encoder (clip and clip): preprocessing (size 336 and 224); decode fast and exact; only" in str(
        caught.value
    )
    assert "{" not in str(caught.value)
