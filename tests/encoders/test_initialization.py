"""Models are loaded without drawing weights at random first, and are the same as those of the ordinary load, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import mmretrieve as mm
from mmretrieve.encoders import int8
from mmretrieve.encoders.dtypes import compare_int8
from mmretrieve.encoders.initialization import RANDOM_FILLS, create_loaded
from mmretrieve.errors import EncoderError

VISION = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
SMALL_BERT = {
    "model_type": "bert",
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
SMALL_TOWERS: dict[str, dict[str, Any]] = {
    "bert": SMALL_BERT,
    "roberta": SMALL_BERT | {"model_type": "roberta", "max_position_embeddings": 80},
    "xlm-roberta": SMALL_BERT | {"model_type": "xlm-roberta", "max_position_embeddings": 80},
    "mt5": {"model_type": "mt5", "vocab_size": 100, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2},
    "m2m_100": {
        "model_type": "m2m_100",
        "vocab_size": 100,
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
    },
}


def with_tower(kind: str, **settings: Any) -> dict[str, Any]:
    """A model whose text tower is one of transformers."""
    text = {"hf_model_name": f"{{folder}}/{kind}", "hf_proj_type": "mlp", "context_length": 77}
    return {"vision_cfg": VISION, "text_cfg": text | settings}


def with_trunk(name: str, size: int, pool: str, projection: str | None = "linear", **text: Any) -> dict[str, Any]:
    """A model whose image tower is one of timm."""
    vision = {"image_size": size, "timm_model_name": name, "timm_pool": pool, "timm_proj": projection}
    return {"custom_text": True, "vision_cfg": vision, "text_cfg": TEXT | text}


FAMILIES: dict[str, dict[str, Any]] = {
    "CLIP": {"quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "ResNet": {
        "vision_cfg": VISION | {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "CLIPA": {"vision_cfg": VISION | {"pool_type": "avg", "pos_embed_type": "sin_cos_2d", "no_ln_pre": True}, "text_cfg": TEXT},
    "SigLIP": {
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "linear"},
        "text_cfg": TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True, "norm_kwargs": {"eps": 1e-6}},
    },
    "EVA": {
        "custom_text": True,
        "vision_cfg": {
            "image_size": 224,
            "timm_model_name": "eva02_tiny_patch14_224",
            "timm_pool": "token",
            "timm_proj": "linear",
        },
        "text_cfg": TEXT,
    },
    "MobileCLIP": {
        "custom_text": True,
        "vision_cfg": {"image_size": 64, "timm_model_name": "fastvit_t8", "timm_pool": "avg", "timm_proj": "linear"},
        "text_cfg": TEXT,
    },
    "CoCa": {
        "custom_text": True,
        "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {
            "context_length": 76,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 1,
            "attn_pooler_heads": 2,
        },
    },
    "BERT": with_tower("bert"),
    "RoBERTa": with_tower("roberta", hf_pooler_type="mean_pooler"),
    "XLM-RoBERTa": with_tower("xlm-roberta", hf_pooler_type="mean_pooler"),
    "mT5": with_tower("mt5", hf_pooler_type="mean_pooler"),
    "NLLB": with_tower("m2m_100", hf_pooler_type="cls_pooler"),
    "ConvNeXt": with_trunk("test_convnext", 64, "", "mlp"),
    "ViTamin": with_trunk("vitamin_small_224", 224, ""),
    "PE-Core": with_trunk("vit_pe_core_tiny_patch16_384", 384, "map", "linear", context_length=77),
    "MobileCLIP2": with_trunk("fastvit_mci0", 64, "avg", no_causal_mask=True),
    "MetaCLIP2": {"quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT | {"pool_type": "eos", "eos_id": 2}},
}


def create(folder: Path) -> Callable[[], Any]:
    return lambda: open_clip.create_model(f"local-dir:{folder}", pretrained_text=False, require_pretrained=True)


def write(folder: Path, family: str) -> Path:
    """A folder with a small model of a family, all values of which differ from those of a new one."""
    for kind, tower in SMALL_TOWERS.items():
        (folder / kind).mkdir()
        (folder / kind / "config.json").write_text(json.dumps(tower))
    config = json.loads(json.dumps({"embed_dim": 16} | FAMILIES[family]).replace("{folder}", str(folder)))
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    torch.manual_seed(1)
    state = {name: other_values(value) if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors")
    return folder


def other_values(value: Tensor) -> Tensor:
    """Random values that no layer has when it is new, and that do not grow from layer to layer."""
    return torch.randn_like(value) / 20 if value.ndim > 1 else 0.5 + torch.rand_like(value)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """All weights and buffers of a model, those that files do not have included."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_equals_that_of_the_ordinary_load(family: str, tmp_path: Path) -> None:
    folder = write(tmp_path, family)
    usual, ours = create(folder)().eval(), create_loaded(create(folder)).eval()
    expected, got = tensors(usual), tensors(ours)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(got[name], value), name
    size = FAMILIES[family]["vision_cfg"]["image_size"]
    tokens = torch.randint(3, 90, (2, 77), generator=torch.Generator().manual_seed(2))
    tokens[:, 40] = 2  # the end token of some
    with torch.inference_mode():
        for encode, values in (("encode_image", torch.rand(2, 3, size, size)), ("encode_text", tokens)):
            row = getattr(usual, encode)(values)
            assert row.isfinite().all()
            assert torch.equal(getattr(ours, encode)(values), row)


@pytest.mark.skipif(not int8.is_supported(), reason="int8 needs an x86 CPU with AVX2")
def test_a_tower_that_gives_tokens_too_is_compared_in_int8(tmp_path: Path) -> None:
    tower = create_loaded(create(write(tmp_path, "CoCa"))).eval().visual
    assert 0.99 < compare_int8(tower, 32).cosine < 1


class Recorder(TorchFunctionMode):
    """Records which functions of torch are called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[Any] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called.add(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", ["CLIP", "SigLIP", "BERT"])
def test_no_random_values_are_drawn(family: str, tmp_path: Path) -> None:
    folder = write(tmp_path, family)
    with Recorder() as usual:
        create(folder)()
    assert usual.called & RANDOM_FILLS
    with Recorder() as ours:
        create_loaded(create(folder))
    assert not ours.called & RANDOM_FILLS


def test_load_encoder_draws_none() -> None:
    with Recorder() as recorder:
        mm.load_encoder("wardrobe")
    assert recorder.called
    assert not recorder.called & RANDOM_FILLS


def test_a_weight_that_is_not_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, "CLIP")
    load = open_clip.factory.load_checkpoint

    def load_most(model: Any, *args: Any, **kwargs: Any) -> Any:
        """As a loader that ignores what it does not know."""
        weight = model.visual.transformer.resblocks[1].mlp.c_fc.weight
        before = weight.detach().clone()
        result = load(model, *args, **kwargs)
        weight.data[3, 5] = before[3, 5]
        return result

    monkeypatch.setattr(open_clip.factory, "load_checkpoint", load_most)
    with pytest.raises(
        EncoderError, match=r"1 weights are missing or not numbers; first: visual.*resblocks\.1\.mlp\.c_fc\.weight"
    ):
        mm.load_encoder(folder)


@pytest.mark.parametrize("change", ["missing", "unknown", "nan"])
def test_weights_of_another_model_are_refused(change: str, tmp_path: Path) -> None:
    folder = write(tmp_path, "CLIP")
    file = folder / "open_clip_model.safetensors"
    state = load_file(file)
    if change == "missing":
        del state["visual.proj"]
    elif change == "unknown":
        state["visual.other"] = torch.ones(1)
    else:
        state["visual.proj"][1, 1] = torch.nan
    save_file(state, file)
    with pytest.raises(EncoderError, match=r"visual\.(proj|other)"):
        mm.load_encoder(folder)
