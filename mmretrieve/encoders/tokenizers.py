"""What open_clip models read beside their weights to encode texts: tokenizers and configurations of text towers from the Hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import constants
from torch import Tensor

from mmretrieve.encoders.checkpoints import CONFIG, one_line
from mmretrieve.errors import EncoderError
from mmretrieve.options import load_json


def text_config(name: str, folder: Path | None) -> Mapping[str, Any]:
    """The settings of the text tower of an open_clip model, or of that in a folder; none if they cannot be read.

    Parameters
    ----------
    name : str
        As open_clip names the model; the models of the Hub have no settings here.
    folder : Path or None
        Where the model is, if it is in a folder.

    Returns
    -------
    Mapping
        The part `text_cfg` of the configuration.

    Examples
    --------
    >>> text_config("ViT-B-16-SigLIP", None)["hf_tokenizer_name"]
    'timm/ViT-B-16-SigLIP'
    """
    try:
        if folder is None:  # for a model of the Hub, open_clip would ask the Hub
            config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
        else:
            config = load_json((folder / CONFIG).read_bytes())["model_cfg"]
        return dict((config or {}).get("text_cfg", {}))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # the load of the model says what is wrong with it
        return {}


def needs_hub(config: Mapping[str, Any], folder: Path | None) -> bool:
    """Whether a text tower with these settings reads files of the Hub. A folder has its tokenizer in it.

    >>> needs_hub({"hf_tokenizer_name": "roberta-base"}, None), needs_hub({"hf_tokenizer_name": "roberta-base"}, Path("model"))
    (True, False)
    """
    tower = config.get("hf_model_name")
    return bool((folder is None and config.get("hf_tokenizer_name")) or (tower and not Path(tower).is_dir()))


def load_tokenizer(spec: str, name: str, config: Mapping[str, Any], folder: Path | None) -> Callable[..., Tensor]:
    """The tokenizer of an open_clip model.

    Raises EncoderError, naming what is missing, if it or the configuration of the text tower cannot be loaded.
    """
    wanted, tower = config.get("hf_tokenizer_name"), config.get("hf_model_name")
    try:
        tokenizer: Callable[..., Tensor] = open_clip.get_tokenizer(name)
    except Exception as error:  # of the Hub, the folder or its files
        if not wanted:
            raise
        if folder is not None:
            raise EncoderError(
                f"{spec}: the tokenizer in this folder cannot be loaded; save there the one of {wanted!r} on the Hub, "
                "such as tokenizer.json and tokenizer_config.json"
            ) from error
        raise _missing(spec, "tokenizer", wanted, error) from error
    if tower:
        _check_tower(spec, tower)
    return tokenizer


def _check_tower(spec: str, tower: str) -> None:
    from transformers import AutoConfig  # only for the models that have such a text tower

    try:
        AutoConfig.from_pretrained(tower)
    except Exception as error:  # of the Hub, the folder or its files
        raise _missing(spec, "configuration of the text tower", tower, error) from error


def _missing(spec: str, what: str, name: str, error: Exception) -> EncoderError:
    reason = "it is not in the cache, and the Hub cannot be reached" if constants.HF_HUB_OFFLINE else one_line(error)
    return EncoderError(
        f"{spec}: the {what}, {name!r} on the Hub, could not be loaded ({reason}); "
        "load the model once with a network, which keeps it in the cache"
    )
