"""Models of transformers as encoders: equal to open_clip and to transformers itself, from folders and as objects. Random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import tokenizers
import torch
import transformers
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import load_file, save_file

import mmretrieve as mm
from mmretrieve.encoders.base import BatchEncoder, ContextLimit, Encoder, PromptCutWarning
from mmretrieve.encoders.transformers import MODEL_TYPES
from mmretrieve.errors import EncoderError, GalleryError, OptionError
from mmretrieve.images import target_pad

SIZE, WIDTH, LAYERS, HEADS, PATCH, DIM = 32, 32, 2, 2, 16, 16
VISION = {"image_size": SIZE, "layers": LAYERS, "width": WIDTH, "patch_size": PATCH, "head_width": WIDTH // HEADS}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": HEADS, "layers": LAYERS}
TOWER = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "projection_dim": DIM,
}
TEXTS = ["a red dress", "not so shiny, in navy instead of red", "", "$5 a piece", "red " * 75]
CONTEXT = 12  # of the models with the tokenizer of words


def pictures(count: int = 5, size: tuple[int, int] = (SIZE, SIZE)) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, size=(*size, 3), dtype=np.uint8)) for _ in range(count)]


def as_transformers(name: str, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """A weight of open_clip's CLIP under its names in transformers."""
    tower, rest = ("vision_model", name.removeprefix("visual.")) if name.startswith("visual.") else ("text_model", name)
    if rest in ("proj", "text_projection"):
        return {("visual_projection" if rest == "proj" else "text_projection") + ".weight": weights.T}
    if name == "logit_scale":
        return {name: weights}
    if rest.endswith(("in_proj_weight", "in_proj_bias")):
        block, kind = rest.split(".")[2], rest.rpartition("_")[2]
        parts = zip("qkv", weights.chunk(3), strict=True)
        return {f"{tower}.encoder.layers.{block}.self_attn.{part}_proj.{kind}": rows for part, rows in parts}
    for old, new in {
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "token_embedding": "embeddings.token_embedding",
        "conv1": "embeddings.patch_embedding",
        "ln_pre": "pre_layrnorm",
        "ln_post": "post_layernorm",
        "ln_final": "final_layer_norm",
        "transformer.resblocks": "encoder.layers",
        ".ln_1": ".layer_norm1",
        ".ln_2": ".layer_norm2",
        ".attn.": ".self_attn.",
        ".mlp.c_fc": ".mlp.fc1",
        ".mlp.c_proj": ".mlp.fc2",
    }.items():
        rest = rest.replace(old, new)
    return {f"{tower}.{rest}": weights}


def clip_tokenizer() -> Any:
    """The tokenizer of CLIP, from the words that open_clip ships."""
    words = open_clip.SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(word, word): i for word, i in words.encoder.items()}
    return transformers.CLIPTokenizer(vocabulary, list(words.bpe_ranks), model_max_length=77)


def word_tokenizer() -> Any:
    """A tokenizer with one id a word, that ends a text with </s> and pads with another id."""
    words = ["<pad>", "</s>", "<unk>", "a", "red", "dress", "navy", "in"]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def small(kind: str) -> tuple[Any, Any]:
    """A small random model of a family, and its processor."""
    torch.manual_seed(0)
    sizes = {"height": SIZE, "width": SIZE}
    text = TOWER | {"max_position_embeddings": CONTEXT, "vocab_size": 8, "eos_token_id": 1, "pad_token_id": 0}
    vision = TOWER | {"image_size": SIZE, "patch_size": PATCH}
    images: Any
    if kind == "siglip2":
        vision = {name: value for name, value in vision.items() if name not in ("image_size", "projection_dim")}
        vision |= {"num_patches": 4}
        images = transformers.Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=4)
    elif kind == "siglip":
        images = transformers.SiglipImageProcessor(size=sizes)
    else:
        images = transformers.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=sizes)
    if kind.startswith("siglip"):
        text = {name: value for name, value in text.items() if name != "projection_dim"} | {"projection_size": WIDTH}
        vision.pop("projection_dim", None)
    config = transformers.AutoConfig.for_model(kind, text_config=text, vision_config=vision, projection_dim=DIM)
    processors = {"siglip": transformers.SiglipProcessor, "siglip2": transformers.Siglip2Processor}
    return transformers.AutoModel.from_config(config), processors.get(kind, transformers.CLIPProcessor)(
        images, word_tokenizer()
    )


def saved(pair: tuple[Any, Any], folder: Path) -> Path:
    for part in pair:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=MODEL_TYPES)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return small(request.param)


@pytest.fixture(scope="module")
def folder(pair: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(pair, tmp_path_factory.mktemp("transformers"))


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_the_same_weights_give_the_vectors_of_open_clip(quick_gelu: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = {"embed_dim": DIM, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": quick_gelu}
    weights = {name: value.contiguous() for name, value in CLIP(**config).state_dict().items()}
    (tmp_path / "theirs").mkdir()
    save_file(weights, tmp_path / "theirs" / "open_clip_model.safetensors")
    (tmp_path / "theirs" / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    text = TOWER | {"max_position_embeddings": 77, "vocab_size": 49408, "hidden_act": "quick_gelu" if quick_gelu else "gelu"}
    vision = TOWER | {"image_size": SIZE, "patch_size": PATCH, "hidden_act": text["hidden_act"]}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM))
    converted = {new: value for name, old in weights.items() for new, value in as_transformers(name, old).items()}
    model.load_state_dict(converted)
    sizes = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    saved((model, transformers.CLIPProcessor(transformers.CLIPImageProcessor(**sizes), clip_tokenizer())), tmp_path / "ours")
    theirs, ours = (mm.load_encoder(tmp_path / name, device="cpu", dtype="float32") for name in ("theirs", "ours"))
    assert (theirs.encode_images(pictures()) * ours.encode_images(pictures())).sum(axis=1).min() >= 1 - 1e-6
    assert (theirs.encode_texts(TEXTS) * ours.encode_texts(TEXTS)).sum(axis=1).min() >= 1 - 1e-6
    large = pictures(size=(3 * SIZE, 4 * SIZE))  # resized, by code of another package
    assert (theirs.encode_images(large) * ours.encode_images(large)).sum(axis=1).min() >= 1 - 1e-4
    assert ours.context_length == theirs.context_length
    borders = ["red " * count for count in (74, 75, 76)]
    assert ours.fits_context(borders) == theirs.fits_context(borders) == [True, True, False]


def test_vectors_are_those_that_transformers_documents(pair: tuple[Any, Any]) -> None:
    model, processor = pair
    encoder, images = mm.load_encoder(pair), pictures(size=(40, 60))
    inputs = processor.image_processor(images=images, return_tensors="pt")
    tokens = processor.tokenizer(["a red dress", "navy"], padding="max_length", max_length=CONTEXT, return_tensors="pt")
    with torch.inference_mode():
        seen = model.eval().get_image_features(**inputs).pooler_output.numpy()
        read = model.get_text_features(input_ids=tokens["input_ids"]).pooler_output.numpy()
    for ours, theirs in ((encoder.encode_images(images), seen), (encoder.encode_texts(["a red dress", "navy"]), read)):
        assert (ours.dtype, ours.shape) == (np.float32, theirs.shape)
        np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=1e-6)
    assert encoder.dim == seen.shape[1]


def test_a_batch_equals_single_inputs(pair: tuple[Any, Any]) -> None:
    encoder, images, texts = mm.load_encoder(pair), pictures(40, (20, 50)), ["a red dress", "navy", "in red in red"]
    reported: list[int] = []
    together = encoder.encode_images(images, reported.append)
    assert reported == [32, 8]
    np.testing.assert_allclose(together, np.concatenate([encoder.encode_images([image]) for image in images]), atol=1e-6)
    fresh = mm.load_encoder(pair)
    singles = np.concatenate([fresh.encode_texts([text]) for text in texts])
    np.testing.assert_allclose(encoder.encode_texts(texts), singles, atol=1e-6)
    assert isinstance(encoder, BatchEncoder)
    batches = list(encoder.feature_batches([images[:3], [], images[3:]]))
    assert [len(features) for features in batches] == [3, 0, 37]
    rows = np.concatenate(batches)
    np.testing.assert_allclose(rows / np.linalg.norm(rows, axis=1, keepdims=True), together, atol=1e-6)
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, encoder.dim)


def test_objects_folders_and_names_are_one_encoder(pair: tuple[Any, Any], folder: Path, tmp_path: Path) -> None:
    by_name = mm.load_encoder(folder, device="cpu", dtype="float32")
    model = transformers.AutoModel.from_pretrained(folder)
    by_model = mm.load_encoder(model)  # with the processor in the folder that it was loaded from
    assert isinstance(by_model, Encoder)
    assert by_name.identity == by_model.identity == mm.load_encoder(pair).identity
    assert by_model.identity.model == str(folder)
    gallery = mm.Gallery.create(tmp_path / "g", encoder=model)
    for i, picture in enumerate(pictures()):
        picture.save(tmp_path / f"{i}.png")
    gallery.add([tmp_path / f"{i}.png" for i in range(5)])
    query = {"image": tmp_path / "3.png", "prompt": "in red", "composer": "sum"}
    expected = mm.Retriever.open(tmp_path / "g", device="cpu").search(**query)
    assert mm.Retriever.open(tmp_path / "g", device="cpu", lazy=True).search(**query).ids == expected.ids
    assert mm.Retriever.open(tmp_path / "g", encoder=pair).search(**query).ids == expected.ids
    assert mm.Retriever.open(tmp_path / "g", encoder=model, parts=lambda it: mm.Parts(oti=None) if it.dim else None)


def test_the_identity_covers_weights_settings_and_preprocessing(pair: tuple[Any, Any], folder: Path, tmp_path: Path) -> None:
    before = mm.load_encoder(folder, device="cpu").identity

    def changed(change: Callable[[Path], None]) -> mm.EncoderIdentity:
        copy = shutil.copytree(folder, tmp_path / change.__name__)
        change(copy)
        return mm.load_encoder(copy, device="cpu").identity

    def plain(copy: Path) -> None:
        assert copy != folder

    def weights(copy: Path) -> None:
        state = load_file(copy / "model.safetensors")
        save_file(state | {"logit_scale": state["logit_scale"] + 0.5}, copy / "model.safetensors", {"format": "pt"})

    def heads(copy: Path) -> None:
        config = json.loads((copy / "config.json").read_text())
        config["text_config"]["num_attention_heads"] = 1
        (copy / "config.json").write_text(json.dumps(config))

    def normalization(copy: Path) -> None:
        file = next(path for path in copy.glob("*processor*.json") if "image_mean" in path.read_text())
        settings = json.loads(file.read_text())
        settings.get("image_processor", settings)["image_mean"] = [0.1, 0.2, 0.3]
        file.write_text(json.dumps(settings))

    assert changed(plain) == before
    assert changed(weights).difference(before).startswith("weights")
    assert changed(heads).difference(before).startswith("weights")
    assert changed(normalization).difference(before).startswith("preprocessing (image_mean")
    assert pair


def test_long_texts_are_cut_with_a_warning(pair: tuple[Any, Any]) -> None:
    encoder = mm.load_encoder(pair)
    assert isinstance(encoder, ContextLimit)
    longest = "red " * (CONTEXT - 1)
    assert (encoder.context_length, encoder.fits_context([longest, longest + "a"])) == (CONTEXT, [True, False])
    with pytest.warns(PromptCutWarning, match=f"1 of 2 texts were cut to the {CONTEXT} tokens"):
        encoder.encode_texts([longest, longest + "a"])


def test_targetpad_and_dtype_are_options_of_folders(folder: Path) -> None:
    plain, padded, half = (
        mm.load_encoder(folder, device="cpu", dtype=dtype, preprocessing=preprocessing)
        for dtype, preprocessing in (("float32", "plain"), ("float32", "targetpad"), ("bfloat16", "plain"))
    )
    wide = pictures(size=(20, 80))
    np.testing.assert_allclose(padded.encode_images(wide), plain.encode_images(map(target_pad, wide)), atol=1e-6)
    assert padded.identity != plain.identity == half.identity
    assert (half.dtype, plain.dtype) == (torch.bfloat16, torch.float32)
    assert (half.encode_images(wide) * plain.encode_images(wide)).sum(axis=1).min() > 0.99
    np.testing.assert_array_equal(half.encode_texts(["a red dress"]), plain.encode_texts(["a red dress"]))
    with pytest.raises(OptionError, match="dtype 'int8' is for models of open_clip"):
        mm.load_encoder(folder, device="cpu", dtype="int8")


def test_broken_folders_are_told_in_one_sentence(tmp_path: Path) -> None:
    folder = saved(small("clip"), tmp_path / "clip")
    state = load_file(folder / "model.safetensors")
    for change, message in {
        "incomplete": "the weights are not complete: visual_projection.weight is missing",
        "pickled": "the encoder cannot be loaded",
        "type": "a model of Hugging Face transformers of type 'bert'; expected one of clip, metaclip_2",
        "json": "config.json cannot be read",
    }.items():
        copy = shutil.copytree(folder, tmp_path / change)
        if change == "incomplete":
            rest = {name: value for name, value in state.items() if name != "visual_projection.weight"}
            save_file(rest, copy / "model.safetensors", {"format": "pt"})
        elif change == "pickled":
            torch.save(state, copy / "pytorch_model.bin")
            (copy / "model.safetensors").unlink()
        else:
            (copy / "config.json").write_text("{" if change == "json" else '{"model_type": "bert"}')
        with pytest.raises(EncoderError, match=message) as caught:
            mm.load_encoder(copy, device="cpu")
        assert str(caught.value).isprintable()


def test_objects_that_are_no_encoders_are_refused(tmp_path: Path) -> None:
    model, processor = small("clip")
    for value, error, message in (
        (model, OptionError, "there is no processor where this CLIPModel was loaded from"),
        (
            model.vision_model,
            EncoderError,
            "a CLIPVisionModel of transformers of type 'clip_vision_model'; expected one of clip",
        ),
        ((model, processor.tokenizer), OptionError, r"must be a processor of transformers; a \w+ has no tokenizer"),
    ):
        with pytest.raises(error, match=message):
            mm.load_encoder(value)
        with pytest.raises(error, match=message):
            mm.Gallery.create(tmp_path / "g", encoder=value)
    assert not (tmp_path / "g").exists()
    mm.Gallery.create(tmp_path / "h", encoder=(model, processor))
    other = small("clip")[0]
    other.logit_scale.data += 1
    with pytest.raises(GalleryError, match="they differ in weights"):
        mm.Retriever.open(tmp_path / "h", encoder=(other, processor))
