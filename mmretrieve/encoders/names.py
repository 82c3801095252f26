"""Names of encoders: those of open_clip, and suggestions for other names of the same weights, such as those of the Hub."""

from __future__ import annotations

from difflib import get_close_matches

import open_clip

from mmretrieve.errors import OptionError, did_you_mean
from mmretrieve.options import DEFAULT_ENCODER
from mmretrieve.registry import ENCODERS

QUICK_GELU = "-quickgelu"  # suffix of the models with this activation
OPENAI_MODELS = {  # OpenAI's names → open_clip's
    "clip-vit-base-patch32": "ViT-B-32",
    "clip-vit-base-patch16": "ViT-B-16",
    "clip-vit-large-patch14": "ViT-L-14",
    "clip-vit-large-patch14-336": "ViT-L-14-336",
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
FORMS = (
    "MODEL/TAG (see open_clip.list_pretrained()), MODEL/checkpoint file, hf-hub:org/name, transformers:MODEL or "
    "sentence-transformers:MODEL (a name on the Hub, or a folder), a local folder of any of the three packages"
)


def unknown_encoder(spec: str) -> OptionError:
    """The error for a name that no encoder has, with the name under which open_clip has the same weights, or the most similar one.

    >>> print(str(unknown_encoder("openai/clip-vit-base-patch32")).partition(" choose")[0])
    unknown encoder 'openai/clip-vit-base-patch32'; did you mean 'ViT-B-32-quickgelu/openai'?
    """
    suggested = _same_weights(spec)
    pairs = list(map("/".join, open_clip.list_pretrained()))
    hint = f"; did you mean {suggested!r}?" if suggested else did_you_mean(spec, [*ENCODERS, *pairs])
    if not hint and spec.count("/") == 1 and not spec.startswith((".", "/")):
        hint = (
            f"; if it is a model on the Hugging Face Hub, say for which package: 'hf-hub:{spec}' (open_clip), 'transformers:{spec}' "
            f"or 'sentence-transformers:{spec}';"
        )
    return OptionError(f"unknown encoder {spec!r}{hint or ';'} choose from: {', '.join(ENCODERS)}, {FORMS}")


def missing_tag(model: str) -> OptionError:
    """The error for a model without the name of its weights.

    >>> print(str(missing_tag("ViT-B-32")).partition(" choose")[0])
    'ViT-B-32' names no weights; did you mean 'ViT-B-32/laion2b_s34b_b79k'?
    """
    tags = open_clip.list_pretrained_tags_by_model(model)
    likely = get_close_matches(DEFAULT_ENCODER.partition("/")[2], tags, n=1, cutoff=0)
    hint = f"; did you mean '{model}/{likely[0]}'?" if likely else ";"
    return OptionError(f"{model!r} names no weights{hint} choose from: {', '.join(tags) or 'a checkpoint file'}")


def model_with_activation(model: str, tag: str) -> str:
    """The model as open_clip names it with the activation that its published weights were trained with.

    >>> model_with_activation("ViT-B-32", "openai"), model_with_activation("ViT-B-32", "laion2b_s34b_b79k")
    ('ViT-B-32-quickgelu', 'ViT-B-32')
    """
    has_quick_gelu = bool((open_clip.get_pretrained_cfg(model, tag) or {}).get("quick_gelu", False))
    if has_quick_gelu == bool((open_clip.get_model_config(model) or {}).get("quick_gelu", False)):
        return model
    return f"{model}{QUICK_GELU}" if has_quick_gelu else model.removesuffix(QUICK_GELU)


def _same_weights(spec: str) -> str | None:
    """MODEL/TAG of the weights that OpenAI, the Hub or sentence-transformers publish under a name."""
    owner, _, name = spec.rpartition("/")
    model = OPENAI_MODELS.get(spec) or (OPENAI_MODELS.get(name) if owner in ("", "openai") else None)
    if model is None and not owner and name.startswith("clip-ViT-"):  # sentence-transformers: OpenAI's weights
        model = name.removeprefix("clip-")
    if model is not None and model in OPENAI_MODELS.values():
        return f"{model_with_activation(model, 'openai')}/openai"
    wanted = {spec.casefold(), f"timm/{_as_open_clip(name)}".casefold() if owner == "google" else ""}
    published = (pair for pair in open_clip.list_pretrained() if _repository(*pair).casefold() in wanted)
    return next((f"{model_with_activation(*pair)}/{pair[1]}" for pair in published), None)


def _repository(model: str, tag: str) -> str:
    """The repository of the Hub that has the weights, or nothing."""
    path = str((open_clip.get_pretrained_cfg(model, tag) or {}).get("hf_hub") or "")
    return "/".join(path.split("/")[:2])


def _as_open_clip(name: str) -> str:
    """`siglip-base-patch16-224` → `ViT-B-16-SigLIP`, as timm names the same weights; 224 pixels are not named."""
    family, _, rest = name.partition("-")
    size, _, patch = rest.partition("-patch")
    sizes = {"base": "B", "large": "L", "so400m": "SO400M", "giant-opt": "gopt"}
    if family not in ("siglip", "siglip2") or size not in sizes:
        return name
    number, _, side = patch.partition("-")
    resolution = "" if side in ("", "224") else f"-{side}"
    return f"ViT-{sizes[size]}-{number}-{family.replace('siglip', 'SigLIP')}{resolution}"
