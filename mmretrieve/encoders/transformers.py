"""Models of transformers with an image tower and a text tower (CLIP, MetaCLIP 2, SigLIP, SigLIP 2), from a folder or as objects."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.utils import logging

from mmretrieve.encoders.base import EncoderIdentity
from mmretrieve.encoders.checkpoints import one_line
from mmretrieve.encoders.dtypes import resolve_dtype
from mmretrieve.encoders.hub import locate_model
from mmretrieve.encoders.model import ModelEncoder
from mmretrieve.encoders.openclip import describe_preprocessing, resolve_device, weights_hash
from mmretrieve.errors import EncoderError, OptionError
from mmretrieve.hub import offline_if_unreachable
from mmretrieve.images import DEFAULT_IMAGE_SIZE, ImageLike
from mmretrieve.options import Dtype, Preprocessing, load_json
from mmretrieve.vectors import Float32

MODEL_TYPES = ("clip", "metaclip_2", "siglip", "siglip2")
MODEL_SETTINGS = frozenset(
    {"eos_token_id", "hidden_act", "layer_norm_eps", "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "rope_theta"}
)
"""What changes the vectors of a model without changing a weight."""
IMAGE_SETTINGS = (
    "crop_size",
    "do_center_crop",
    "do_normalize",
    "do_pad",
    "do_rescale",
    "do_resize",
    "image_mean",
    "image_std",
    "max_num_patches",
    "patch_size",
    "resample",
    "rescale_factor",
    "size",
)
"""What an image processor does, in names that did not change between versions of transformers."""


class TransformersEncoder(ModelEncoder[Mapping[str, Tensor]]):
    """A model of transformers as an `Encoder`. Use `load_encoder` to create one.

    Texts are padded to the whole context, as SigLIP was trained; the towers of CLIP do not read what follows the end of a text.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        *,
        dtype: torch.dtype | None = None,
        preprocessing: Preprocessing = Preprocessing.PLAIN,
    ) -> None:
        super().__init__(preprocessing)
        self._model, self._tokenizer, self._image_processor = model.eval(), processor.tokenizer, processor.image_processor
        config = model.config
        self.context_length = min(config.text_config.max_position_embeddings, self._tokenizer.model_max_length)
        self.image_size: int = getattr(config.vision_config, "image_size", DEFAULT_IMAGE_SIZE)
        self.identity = EncoderIdentity(
            name,
            hash_with_settings(model, model_settings(config.to_dict())),
            describe_preprocessing({"context": self.context_length, **image_settings(self._image_processor)}, preprocessing),
        )
        if dtype is not None:
            for part, module in model.named_children():
                if part.startswith("vis"):  # `vision_model`, and CLIP's `visual_projection`
                    module.to(dtype)
        self.dim = len(self._text_features(["a"])[0])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the image tower computes."""
        dtype: torch.dtype = next(self._model.vision_model.parameters()).dtype
        return dtype

    def _prepare(self, image: ImageLike) -> Mapping[str, Tensor]:
        inputs: Mapping[str, Tensor] = self._image_processor(images=[self._open(image)], return_tensors="pt")
        return inputs

    @torch.inference_mode()
    def _image_features(self, images: Sequence[Mapping[str, Tensor]]) -> Float32:
        inputs = {name: torch.cat([image[name] for image in images]).to(self._model.device) for name in images[0]}
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return _to_numpy(self._model.get_image_features(**inputs).pooler_output)

    @torch.inference_mode()
    def _text_features(self, texts: Sequence[str]) -> Float32:
        tokens = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.context_length, return_tensors="pt"
        )
        ids = tokens["input_ids"].to(self._model.device)
        return _to_numpy(self._model.get_text_features(input_ids=ids).pooler_output)

    def _token_counts(self, texts: Sequence[str]) -> list[int]:
        return token_counts(self._tokenizer, texts)


def load(spec: str, *, device: str, dtype: str, preprocessing: Preprocessing) -> TransformersEncoder:
    """The encoder of a folder or a name of transformers. Arguments and errors are those of `load_encoder`."""
    torch_device = resolve_device(device)
    resolved = resolve_dtype(dtype, torch_device)
    if resolved is Dtype.INT8:
        raise OptionError(f"{spec}: dtype 'int8' is for models of open_clip; use 'float32'")
    folder, name = locate_model(spec)
    _check_type(_type_in(folder), f"{spec}: a model of Hugging Face transformers")
    try:
        with offline_if_unreachable(needed=False), quiet_transformers():
            model, report = transformers.AutoModel.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
            processor = _load_processor(folder)
    except Exception as error:  # of the configuration, the weights or the tokenizer
        raise EncoderError(
            f"{spec}: the encoder cannot be loaded ({one_line(error)}); it needs config.json, model.safetensors and the files of its processor"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise EncoderError(f"{spec}: the weights are not complete: {missing[0]} is missing; download them again")
    return TransformersEncoder(
        model.to(torch_device), processor, name, dtype=getattr(torch, resolved), preprocessing=preprocessing
    )


def wrap(value: Any) -> TransformersEncoder:
    """The encoder of a model whose processor is loaded from where the model was, or of a pair (model, processor)."""
    model, processor = value if isinstance(value, tuple) else (value, None)
    _check_type(getattr(getattr(model, "config", None), "model_type", None), f"a {type(model).__name__} of transformers")
    processor = _processor_of(model) if processor is None else processor
    if missing := [name for name in ("tokenizer", "image_processor") if not hasattr(processor, name)]:
        raise OptionError(
            f"the second of a pair (model, processor) must be a processor of transformers; a {type(processor).__name__} has no {missing[0]}"
        )
    return TransformersEncoder(model, processor, name_of(model))


def name_of(model: Any, package: str = "transformers") -> str:
    """The name by which `load_encoder` finds a model again: its folder, or that on the Hub. The name of its class for one without either."""
    name = str(getattr(model, "name_or_path", ""))
    if os.path.isdir(name):
        return str(Path(name).resolve())
    return f"{package}:{name}" if name else type(model).__name__


def hash_with_settings(model: nn.Module, settings: object) -> str:
    """SHA-256 over all weights and what else changes the vectors."""
    return hashlib.sha256(f"{weights_hash(model)} {json.dumps(settings, sort_keys=True, default=str)}".encode()).hexdigest()


def model_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that are in MODEL_SETTINGS, those of its parts included.

    >>> model_settings({"hidden_act": "gelu", "vocab_size": 9, "text_config": {"num_attention_heads": 2}})
    {'hidden_act': 'gelu', 'text_config': {'num_attention_heads': 2}}
    """
    parts = {name: model_settings(value) for name, value in config.items() if isinstance(value, Mapping)}
    own = {name: value for name, value in config.items() if name in MODEL_SETTINGS}
    return own | {name: settings for name, settings in parts.items() if settings}


def image_settings(processor: Any) -> dict[str, Any]:
    """What an image processor does to an image; nothing for None."""
    values = {name: getattr(processor, name, None) for name in IMAGE_SETTINGS}
    return {
        name: dict(value) if hasattr(value, "get") else value  # sizes are objects that convert to a dict
        for name, value in values.items()
        if value is not None
    }


def token_counts(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """The number of tokens of each of n > 0 texts, uncut, start and end tokens included."""
    return [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppresses progress bars and warnings of transformers within the block."""
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def _to_numpy(features: Tensor) -> Float32:
    return features.float().cpu().numpy()


def _type_in(folder: Path) -> object:
    """The type of the model in a folder; None if config.json names none."""
    try:
        config = load_json((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise EncoderError(f"{folder}: config.json cannot be read ({one_line(error)}); download it again") from error
    return config.get("model_type") if isinstance(config, Mapping) else None


def _check_type(model_type: object, what: str) -> None:
    if model_type not in MODEL_TYPES:
        raise EncoderError(f"{what} of type {model_type!r}; expected one of {', '.join(MODEL_TYPES)}")


def _processor_of(model: Any) -> Any:
    """The processor in the folder, or under the name on the hub, that a model was loaded from."""
    name = str(getattr(model, "name_or_path", ""))
    try:
        with offline_if_unreachable(needed=not os.path.isdir(name)), quiet_transformers():
            return _load_processor(name)
    except Exception as error:
        raise OptionError(
            f"there is no processor where this {type(model).__name__} was loaded from ({name or 'nowhere'}); give a pair (model, processor)"
        ) from error


def _load_processor(name: str | Path) -> Any:
    return transformers.AutoProcessor.from_pretrained(name, trust_remote_code=False)
