"""Models of sentence-transformers, from a folder or as objects: CLIP-like ones, and those that encode image and text together."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers
import torch
from PIL import Image

from mmretrieve.concurrency import map_ahead
from mmretrieve.encoders.base import EncoderIdentity, check_images, check_texts
from mmretrieve.encoders.checkpoints import one_line
from mmretrieve.encoders.dtypes import resolve_dtype
from mmretrieve.encoders.hub import locate_model
from mmretrieve.encoders.model import IMAGE_BATCH_SIZE, ModelEncoder
from mmretrieve.encoders.openclip import describe_preprocessing, resolve_device
from mmretrieve.encoders.transformers import (
    hash_with_settings,
    image_settings,
    model_settings,
    name_of,
    quiet_transformers,
    token_counts,
)
from mmretrieve.errors import EncoderError, OptionError
from mmretrieve.hub import offline_if_unreachable
from mmretrieve.images import ImageLike
from mmretrieve.options import AUTO, Dtype, Modality, Preprocessing, load_json
from mmretrieve.vectors import Float32, unit

MODULES = "modules.json"
OWN_MODULES = "sentence_transformers."


class SentenceTransformersEncoder(ModelEncoder[Image.Image]):
    """A model of sentence-transformers as an `Encoder`, and a `PairEncoder` if it takes images and texts together.

    Use `load_encoder` to create one. Images and texts get the model's default prompt, as in its own `encode`.
    """

    def __init__(self, model: Any, name: str, *, preprocessing: Preprocessing = Preprocessing.PLAIN) -> None:
        super().__init__(preprocessing)
        self._model = model.eval()
        self._prompt: str = model.prompts.get(model.default_prompt_name, "")
        self._tokenizer = getattr(model, "tokenizer", None) if model.max_seq_length else None
        self.context_length = sys.maxsize if self._tokenizer is None else model.max_seq_length
        settings = {
            "context": model.max_seq_length,
            "dim": model.truncate_dim,
            "prompt": self._prompt,
            **image_settings(getattr(getattr(model[0], "processor", None), "image_processor", None)),
        }
        self.identity = EncoderIdentity(
            name, hash_with_settings(model, list(map(_settings_of, model))), describe_preprocessing(settings, preprocessing)
        )
        sample: Any = {"text": "a"} if self.supports(Modality.TEXT) else {"image": Image.new("RGB", (64, 64))}
        self.dim = self._encode([sample]).shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the model computes."""
        dtype: torch.dtype = next(self._model.parameters()).dtype
        return dtype

    def supports(self, modality: str) -> bool:
        """Whether the model encodes "image", "text", or a "pair" of both.

        >>> import mmretrieve as mm
        >>> mm.load_encoder(SentenceTransformer("Qwen/Qwen3-VL-Embedding-2B")).supports("pair")  # doctest: +SKIP
        True
        """
        return bool(self._model.supports(("image", "text") if modality == Modality.PAIR else modality))

    def encode_pairs(self, images: Iterable[ImageLike], texts: Sequence[str]) -> Float32:
        """(n, dim) float32 unit rows for n images, each together with its text. Raises OptionError unless there are n of both."""
        check_images(images)
        pictures, texts = list(map_ahead(self._prepare, images, IMAGE_BATCH_SIZE)), check_texts(texts)
        if len(pictures) != len(texts):
            raise OptionError(f"encode_pairs expects a text for each image, got {len(pictures)} images and {len(texts)} texts")
        pairs = [{"image": picture, "text": text} for picture, text in zip(pictures, texts, strict=True)]
        return unit(self._encode(pairs), "features of pairs")

    def _prepare(self, image: ImageLike) -> Image.Image:
        return self._open(image)

    def _image_features(self, images: Sequence[Image.Image]) -> Float32:
        return self._encode([{"image": image} for image in images])

    def _text_features(self, texts: Sequence[str]) -> Float32:
        return self._encode([{"text": text} for text in texts])  # a plain text that is an address would be taken for an image

    def _token_counts(self, texts: Sequence[str]) -> list[int]:
        if self._tokenizer is None:  # the model names no limit
            return [0] * len(texts)
        return token_counts(self._tokenizer, [self._prompt + text for text in texts])

    def _encode(self, inputs: Sequence[Mapping[str, Any]]) -> Float32:
        if not inputs:
            return np.empty((0, self.dim), np.float32)
        rows = self._model.encode(list(inputs), batch_size=IMAGE_BATCH_SIZE, show_progress_bar=False)
        return np.asarray(rows, np.float32)


def load(spec: str, *, device: str, dtype: str, preprocessing: Preprocessing) -> SentenceTransformersEncoder:
    """The encoder of a folder or a name of sentence-transformers. Arguments and errors are those of `load_encoder`."""
    torch_device = resolve_device(device)
    resolved = Dtype.FLOAT32 if dtype == AUTO else resolve_dtype(dtype, torch_device)
    if resolved is Dtype.INT8:
        raise OptionError(f"{spec}: dtype 'int8' is for models of open_clip; use 'float32'")
    folder, name = locate_model(spec)
    _check_modules(folder, spec)
    options = {"dtype": getattr(torch, resolved), "use_safetensors": True}
    try:
        with offline_if_unreachable(needed=False), quiet_transformers():
            model = sentence_transformers.SentenceTransformer(
                str(folder), device=str(torch_device), local_files_only=True, model_kwargs=options
            )
    except Exception as error:  # of the configuration, the weights or the tokenizer
        if "trust_remote_code" in str(error):
            raise _own_code(spec, "a module") from error
        raise EncoderError(f"{spec}: the encoder cannot be loaded ({one_line(error)})") from error
    return SentenceTransformersEncoder(model, name, preprocessing=preprocessing)


def wrap(model: Any) -> SentenceTransformersEncoder:
    """The encoder of a SentenceTransformer."""
    if not isinstance(model, sentence_transformers.SentenceTransformer):
        raise OptionError(f"an encoder of sentence-transformers is a SentenceTransformer, got a {type(model).__name__}")
    return SentenceTransformersEncoder(model, _name_of(model))


def _settings_of(module: Any) -> dict[str, Any]:
    """What changes the vectors without changing a weight: the class of a module, such as Pooling, and its settings."""
    config = getattr(getattr(module, "model", None), "config", None)
    own = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    return {"type": type(module).__name__, "own": own, "model": {} if config is None else model_settings(config.to_dict())}


def _name_of(model: Any) -> str:
    """The folder or the name that a model was loaded from. Its first module may have been in a folder of that one."""
    name = name_of(getattr(model[0], "model", None), "sentence-transformers")
    folders = (folder for folder in (Path(name), Path(name).parent) if (folder / MODULES).is_file())
    return str(next(folders, name))


def _check_modules(folder: Path, spec: str) -> None:
    """Raises EncoderError unless all modules of a model are classes of sentence-transformers. Others are code that is not executed."""
    try:
        types = [module["type"] for module in load_json((folder / MODULES).read_bytes())]
    except FileNotFoundError as error:
        raise EncoderError(f"{spec}: not a model of sentence-transformers, which has {MODULES}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"{spec}: {MODULES} cannot be read ({one_line(error)}); download it again") from error
    if not types:
        raise EncoderError(f"{spec}: a model of sentence-transformers, but {MODULES} names no modules; download it again")
    if others := [each for each in types if not str(each).startswith(OWN_MODULES)]:
        raise _own_code(spec, f"the module {others[0]!r}")


def _own_code(spec: str, what: str) -> EncoderError:
    return EncoderError(
        f"{spec}: {what} is code of the model, which is not executed; load it with SentenceTransformer yourself, and pass the object"
    )
