"""Models of open_clip with a tokenizer of the Hub: in their folder or in the cache of the Hub, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import tokenizers
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import save_file

import mmretrieve as mm
from mmretrieve import hub
from mmretrieve.encoders.tokenizers import load_tokenizer, text_config
from mmretrieve.errors import EncoderError
from mmretrieve.vectors import unit

WORDS = ["<pad>", "<eos>", "<unk>", "<sep>", "a", "red", "dress", "Red", "dress,", "in"]
TEXTS = ["a red dress", "A  Red dress, in <b>red</b>!", "", "a red dress in red a red dress in red"]
SIZES = {"width": 32, "heads": 2, "layers": 2, "vocab_size": len(WORDS), "context_length": 8}
SIGLIP = SIZES | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "tokenizer_kwargs": {"clean": "canonicalize"}}
TEXT_TOWERS: dict[str, tuple[dict[str, Any], str]] = {  # settings, padding token
    "SigLIP": (SIGLIP, "<eos>"),
    "SigLIP2": (SIGLIP | {"act_kwargs": {"approximate": "tanh"}}, "<pad>"),
    "CLIPA": (SIZES | {"no_causal_mask": True, "pool_type": "last", "tokenizer_kwargs": {"strip_sep_token": True}}, "<pad>"),
    "MetaCLIP2": (SIZES | {"pool_type": "eos", "eos_id": 1}, "<pad>"),
    "XLM-RoBERTa": ({"hf_model_name": "{folder}/tower", "hf_proj_type": "mlp", "context_length": 8}, "<pad>"),
}
TOWER = {
    "model_type": "xlm-roberta",
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
}


@pytest.fixture(autouse=True)
def _unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_is_hub_reachable", lambda: False)


def save_tokenizer(folder: Path, padding: str) -> None:
    """One id a word, and an end token."""
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    special = {"pad_token": padding, "eos_token": "<eos>", "unk_token": "<unk>", "sep_token": "<sep>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)


def save_model(folder: Path, settings: dict[str, Any]) -> None:
    """A small random model of open_clip, without its tokenizer."""
    vision = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16}
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": settings | {"hf_tokenizer_name": "someone/words"}}
    text = json.dumps({"model_cfg": model, "preprocess_cfg": {}}).replace("{folder}", str(folder))
    (folder / "open_clip_config.json").write_text(text)
    (folder / "tower").mkdir()
    (folder / "tower" / "config.json").write_text(json.dumps(TOWER))
    torch.manual_seed(0)
    state = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors")


@pytest.mark.filterwarnings("ignore::mmretrieve.encoders.base.PromptCutWarning")
@pytest.mark.parametrize("family", TEXT_TOWERS)
def test_a_tokenizer_in_the_folder_gives_the_vectors_of_open_clip(family: str, tmp_path: Path) -> None:
    settings, padding = TEXT_TOWERS[family]
    save_model(tmp_path, settings)
    save_tokenizer(tmp_path, padding)
    encoder = mm.load_encoder(tmp_path)
    model = open_clip.create_model(f"local-dir:{tmp_path}", pretrained_text=False).eval()
    with torch.inference_mode():
        expected = unit(model.encode_text(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS)).numpy())
    got = encoder.encode_texts(TEXTS)
    assert (got * expected).sum(axis=1).min() > 1 - 1e-6
    assert np.abs(got[0] - got[3]).max() > 1e-3  # the words were read
    assert encoder.context_length == 8
    assert encoder.fits_context(TEXTS) == [True, True, True, False]


def test_a_folder_without_its_tokenizer_names_it(tmp_path: Path) -> None:
    save_model(tmp_path, SIGLIP)
    with pytest.raises(
        EncoderError, match=r"the tokenizer in this folder cannot be loaded; save there the one of 'someone/words'"
    ):
        mm.load_encoder(tmp_path)


def test_a_text_tower_without_its_configuration_names_it(tmp_path: Path) -> None:
    save_model(tmp_path, TEXT_TOWERS["XLM-RoBERTa"][0])
    save_tokenizer(tmp_path, "<pad>")
    config = tmp_path / "open_clip_config.json"
    config.write_text(config.read_text().replace(f"{tmp_path}/tower", "someone/tower"))
    with pytest.raises(
        EncoderError, match=r"the configuration of the text tower, 'someone/tower' on the Hub, could not be loaded"
    ):
        mm.load_encoder(tmp_path)


def test_settings_of_a_model_on_the_hub_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub is asked only where an unreachable one is noticed; elsewhere, each file is tried for half a minute."""

    def ask(name: str) -> None:
        raise AssertionError(f"the Hub was asked for {name}")

    monkeypatch.setattr(open_clip, "get_model_config", ask)
    assert text_config("hf-hub:someone/model", None) == {}


def test_models_whose_tokenizer_is_missing_name_it(tmp_path: Path) -> None:
    (weights := tmp_path / "weights.pt").write_bytes(b"not read before the tokenizer")
    for name in ("ViT-B-16-SigLIP2-256", "nllb-clip-base", "mt5-base-ViT-B-32", "ViT-H-14-worldwide", "roberta-ViT-B-32"):
        wanted = text_config(name, None)["hf_tokenizer_name"]
        with pytest.raises(
            EncoderError, match=rf"the tokenizer, '{wanted}' on the Hub, could not be loaded \(it is not in the cache"
        ):
            mm.load_encoder(f"{name}/{weights}")


def test_a_tokenizer_is_loaded_from_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--timm--ViT-B-16-SigLIP"
    save_tokenizer(repository / "snapshots" / "0123", "<eos>")
    (repository / ".no_exist" / "0123").mkdir(parents=True)  # what the repository has not, as the Hub's client records it
    (repository / ".no_exist" / "0123" / "config.json").touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with hub.offline_if_unreachable(needed=True):
        tokenizer = load_tokenizer("spec", "ViT-B-16-SigLIP", text_config("ViT-B-16-SigLIP", None), None)
    assert tokenizer(["A red, dress!"])[0, :5].tolist() == [4, 5, 6, 1, 1]  # canonical words, padded with the end token
    assert tokenizer(["a"]).shape == (1, 64)
