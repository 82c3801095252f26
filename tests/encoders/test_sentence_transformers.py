"""Models of sentence-transformers as encoders: a small CLIP, and a joint embedder. Random weights; nothing is downloaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("sentence_transformers", reason="NO SENTENCE-TRANSFORMERS: pip install 'mmretrieve[encoders]'")

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from test_transformers import CONTEXT, pictures, saved, small

import mmretrieve as mm
from mmretrieve.encoders.base import Encoder, PairEncoder, PromptCutWarning
from mmretrieve.errors import EncoderError, ImageError, OptionError

DIM = 8


class Pairs(torch.nn.Module):
    """The input module of a joint embedder: the mean color of an image, the length of a text, and a random matrix for all of them."""

    modalities = ("text", "image", ("image", "text"))

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(5, DIM)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, torch.Tensor]:
        return {"rows": torch.tensor([self._row(one, prompt or "") for one in inputs], dtype=torch.float32)}

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**features, "sentence_embedding": self.linear(features["rows"]).tanh()}

    def _row(self, one: Any, prompt: str) -> list[float]:
        image, text = one.get("image"), one.get("text")
        colors = [0.0] * 3 if image is None else (np.asarray(image).reshape(-1, 3).mean(axis=0) / 255).tolist()
        return [*colors, *([0.0, 0.0] if text is None else [1.0, len(prompt + text) / 10])]


def joint(**options: Any) -> SentenceTransformer:
    torch.manual_seed(0)
    return SentenceTransformer(modules=[Pairs()], device="cpu", **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of transformers in a folder of sentence-transformers."""
    model, processor = small("clip")
    processor.tokenizer.model_max_length = CONTEXT  # sentence-transformers reads no other limit
    inner = saved((model, processor), tmp_path_factory.mktemp("clip"))
    own = tmp_path_factory.mktemp("sentences")
    SentenceTransformer(modules=[Transformer(str(inner))], device="cpu").save(str(own), create_model_card=False)
    return own


def test_a_clip_has_the_vectors_that_transformers_gives(folder: Path, tmp_path: Path) -> None:
    encoder, same = mm.load_encoder(folder, device="cpu"), mm.load_encoder(small("clip"))
    assert isinstance(encoder, Encoder)
    assert (encoder.dim, [encoder.supports(kind) for kind in ("image", "text", "pair")]) == (same.dim, [True, True, False])
    images = pictures(40, (20, 50))
    np.testing.assert_allclose(encoder.encode_images(images), same.encode_images(images), atol=1e-6)
    np.testing.assert_allclose(
        encoder.encode_texts(["a red dress", "navy"]), same.encode_texts(["a red dress", "navy"]), atol=1e-6
    )
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, encoder.dim)
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(ImageError, match=r"bad\.png"):
        encoder.encode_images([tmp_path / "bad.png"])
    longest = "red " * (CONTEXT - 1)
    assert (encoder.context_length, encoder.fits_context([longest, longest + "a"])) == (CONTEXT, [True, False])
    with pytest.warns(PromptCutWarning):
        encoder.encode_texts([longest + "a"])


def test_objects_and_folders_are_one_encoder(folder: Path, tmp_path: Path) -> None:
    model = SentenceTransformer(str(folder), device="cpu")
    by_object, by_name = mm.load_encoder(model), mm.load_encoder(folder, device="cpu")
    assert by_object.identity == by_name.identity
    assert by_object.identity.model == str(folder)
    for i, picture in enumerate(pictures()):
        picture.save(tmp_path / f"{i}.png")
    mm.Gallery.create(tmp_path / "g", encoder=model).add([tmp_path / f"{i}.png" for i in range(5)])
    query = {"image": tmp_path / "3.png", "prompt": "in red", "composer": "sum"}
    again = mm.Retriever.open(tmp_path / "g", device="cpu", lazy=True).search(**query)
    assert mm.Retriever.open(tmp_path / "g", encoder=model).search(**query).ids == again.ids


def test_a_text_is_never_taken_for_an_image(folder: Path, tmp_path: Path) -> None:
    """sentence-transformers opens a text that is the path of a picture, and fetches one that is an address."""
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    texts = [str(tmp_path / "red.png"), "https://127.0.0.1:9/red.png", "data:image/png;base64,AAAA"]
    encoder = mm.load_encoder(folder, device="cpu")
    np.testing.assert_allclose(encoder.encode_texts(texts), mm.load_encoder(small("clip")).encode_texts(texts), atol=1e-6)


def test_the_identity_covers_weights_prompts_and_modules(folder: Path, tmp_path: Path) -> None:
    plain = mm.load_encoder(joint()).identity
    prompted = mm.load_encoder(joint(prompts={"query": "find: ", "other": "x"}, default_prompt_name="query")).identity
    assert mm.load_encoder(joint(prompts={"query": "find: "})).identity == plain, "prompts that nobody uses"
    assert plain.difference(prompted) == "preprocessing (prompt  and find: )"
    assert mm.load_encoder(joint(truncate_dim=4)).identity.difference(plain).startswith("preprocessing (dim 4 and None)")
    changed = joint()
    changed[0].linear.weight.data += 1
    assert mm.load_encoder(changed).identity.difference(plain).startswith("weights")
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert mm.load_encoder(copy, device="cpu").identity == mm.load_encoder(folder, device="cpu").identity


def test_prompts_of_the_model_are_applied() -> None:
    prompted = joint(prompts={"query": "find: "}, default_prompt_name="query")
    one, plain = mm.load_encoder(prompted), mm.load_encoder(joint())
    np.testing.assert_allclose(one.encode_texts(["in red"]), plain.encode_texts(["find: in red"]), atol=1e-6)


def test_pairs_are_encoded_as_the_model_does(tmp_path: Path) -> None:
    model, images, texts = joint(), pictures(3), ["in red", "longer, with dots", "dark"]
    encoder = mm.load_encoder(model)
    assert isinstance(encoder, PairEncoder)
    assert [encoder.supports(kind) for kind in ("image", "text", "pair")] == [True, True, True]
    own = model.encode([{"image": image, "text": text} for image, text in zip(images, texts, strict=True)])
    np.testing.assert_allclose(encoder.encode_pairs(images, texts), own / np.linalg.norm(own, axis=1, keepdims=True), atol=1e-6)
    assert encoder.encode_pairs([], []).shape == (0, DIM)
    with pytest.raises(OptionError, match="expects a text for each image, got 3 images and 1 texts"):
        encoder.encode_pairs(images, ["in red"])
    for i, picture in enumerate(images):
        picture.save(tmp_path / f"{i}.png")
    mm.Gallery.create(tmp_path / "g", encoder=model).add([tmp_path / f"{i}.png" for i in range(3)])
    retriever = mm.Retriever.open(tmp_path / "g", encoder=model)
    query = retriever.compose(tmp_path / "0.png", "in red", composer="joint")
    np.testing.assert_allclose(query.vector, encoder.encode_pairs([images[0]], ["in red"])[0], atol=1e-6)


def test_broken_and_foreign_folders_are_told_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    modules = [{"idx": 0, "name": "0", "path": "", "type": "custom.Module"}]
    for text, message in (
        (json.dumps(modules), "the module 'custom.Module' is code of the model, which is not executed"),
        ("{", "modules.json cannot be read"),
        ("[]", "names no modules"),
    ):
        copy = shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)
        (copy / "modules.json").write_text(text)
        with pytest.raises(EncoderError, match=message) as caught:
            mm.load_encoder(copy, device="cpu")
        assert str(caught.value).isprintable()
    broken = shutil.copytree(folder, tmp_path / "broken")
    next(broken.rglob("model.safetensors")).unlink()
    with pytest.raises(EncoderError, match="the encoder cannot be loaded"):
        mm.load_encoder(broken, device="cpu")
    with pytest.raises(OptionError, match="dtype 'int8' is for models of open_clip"):
        mm.load_encoder(folder, device="cpu", dtype="int8")
