"""Encoders over open_clip: any public CLIP-style model, a local folder or checkpoint, or the built-in wardrobe."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor, nn

from mmretrieve.concurrency import map_ahead
from mmretrieve.encoders.base import EncoderIdentity, Progress, PromptCutWarning
from mmretrieve.encoders.context import TextContext
from mmretrieve.encoders.hub import offline_if_unreachable
from mmretrieve.encoders.pseudo_tokens import PseudoTokens
from mmretrieve.encoders.text_tower import encode_tokens
from mmretrieve.errors import EncoderError, OptionError, unknown
from mmretrieve.images import TARGET_RATIO, ImageLike, open_image, target_pad
from mmretrieve.options import BUILT_IN, BUILT_IN_MODEL, Preprocessing
from mmretrieve.vectors import Float32, unit

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BATCH, TEXT_BATCH = 64, 256
PADDED = "target_pad"
logger = logging.getLogger(__name__)


class OpenClipEncoder:
    """One open_clip model as an `Encoder`. Made by `load_encoder`.

    The image tower computes in `dtype`, the text tower always in float32: PDV lives on small differences of text vectors.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Callable[..., Tensor],
        name: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        folder: Path | None = None,
        preprocessing: Preprocessing = Preprocessing.PLAIN,
    ) -> None:
        self._model = model.eval().requires_grad_(False)
        self._tokenizer, self._context = tokenizer, TextContext(tokenizer)
        config: dict[str, Any] = model.visual.preprocess_cfg
        self._preprocess = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**config), is_train=False)
        self.preprocessing = preprocessing
        self.identity = EncoderIdentity(name, weights_hash(model), _describe(config, preprocessing))
        self.folder, self.device, self.dtype = folder, device, dtype
        self._model.to(device)
        self._model.visual.to(dtype)
        self.dim = int(self._text_features(["a"]).shape[1])

    @property
    def image_size(self) -> int:
        """The side of the picture the image tower sees, in pixels."""
        size = self._model.visual.image_size
        return int(max(size) if isinstance(size, tuple | list) else size)

    @property
    def context_length(self) -> int:
        """Tokens that the text tower reads, its start and end tokens included."""
        return self._context.length

    def fits_context(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is read to its end. Tokenizes, and does not encode.

        >>> encoder = load_encoder("wardrobe")
        >>> encoder.context_length, encoder.fits_context(["in red", "red " * 300])
        (40, [True, False])
        """
        return self._context.fits(texts)

    @cached_property
    def pseudo_tokens(self) -> PseudoTokens:
        """What encodes sentences with pseudo tokens. EncoderError where this model's text tower cannot."""
        return PseudoTokens(self._model, self._tokenizer, self.identity.model)

    def encode_images(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        """Paths, PIL images or file objects → (n, dim) unit float32. Raises ImageError naming an unreadable one."""
        return unit(self.image_features(images, progress), "image features")

    def image_features(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        """The same before they are normalised: (n, dim) float32, as textual inversion reads them."""

        def prepare(image: ImageLike) -> Tensor:
            picture = open_image(image)
            return self._preprocess(target_pad(picture) if self.preprocessing is Preprocessing.TARGET_PAD else picture)  # type: ignore[no-any-return]

        features = [np.empty((0, self.dim), np.float32)]
        prepared = map_ahead(prepare, images, 2 * BATCH)
        while batch := list(islice(prepared, BATCH)):
            features.append(self._image_features(torch.stack(batch)))
            if progress is not None:
                progress(len(batch))
        return np.concatenate(features)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Sentences → (n, dim) unit float32. One above the context length is cut, with a PromptCutWarning."""
        return unit(self.text_features(texts), "text features")

    def text_features(self, texts: Sequence[str]) -> Float32:
        """The same before they are normalised."""
        if isinstance(texts, str):
            raise OptionError("encode_texts takes a list of sentences, got one string")
        places = {text: i for i, text in enumerate(sorted(set(texts), key=lambda text: (len(text), text)))}
        once = list(places)  # a batch costs what its longest text costs
        features = np.empty((len(once), self.dim), np.float32)
        for start in range(0, len(once), TEXT_BATCH):
            features[start : start + TEXT_BATCH] = self._text_features(once[start : start + TEXT_BATCH])
        return features[[places[text] for text in texts]]

    @torch.inference_mode()
    def _text_features(self, texts: list[str]) -> Float32:
        features = encode_tokens(self._model, self._tokens(texts).to(self.device))
        return features.float().cpu().numpy()

    @torch.inference_mode()
    def _image_features(self, pixels: Tensor) -> Float32:
        features = self._model.encode_image(pixels.to(self.device, self.dtype), normalize=False)
        return features.float().cpu().numpy()  # type: ignore[no-any-return]

    def _tokens(self, texts: list[str]) -> Tensor:
        tokens, fits = self._context.tokenize(texts)
        too_long = [text for text, whole in zip(texts, fits, strict=True) if not whole]
        if too_long:
            warnings.warn(
                f"{len(too_long)} of {len(texts)} texts cut to the {self.context_length} tokens that {self.identity.model} reads, "
                f"first: {too_long[0][:60]!r}…",
                PromptCutWarning,
                stacklevel=4,
            )
        return tokens


def load_encoder(
    spec: str | Path, *, device: str = "auto", dtype: str = "auto", preprocessing: str = Preprocessing.PLAIN
) -> OpenClipEncoder:
    """Loads an encoder by name.

    spec: "wardrobe" (built in), "MODEL/TAG" or "MODEL/checkpoint.safetensors" (an open_clip model and its weights),
    "hf-hub:org/name", or a folder with open_clip_config.json and open_clip_model.safetensors.
    device: "auto", "cpu", "cuda", "cuda:N", "mps". dtype of the image tower: "auto" (bfloat16 where the hardware computes
    in it, else float32), "float32", "bfloat16", "float16". Output is float32 whatever the dtype. preprocessing: "plain", or
    "targetpad" (see `images.target_pad`) before the model's own.
    Raises OptionError for an unknown name, EncoderError where weights cannot be had or do not fit. Nothing is unpickled.
    """
    where = resolve_device(device)
    compute = resolve_dtype(dtype, where)
    before = Preprocessing(preprocessing)
    name, pretrained, folder = _resolve(str(spec))
    try:
        with offline_if_unreachable(needed=folder is None and not Path(pretrained or "").is_file()):
            model = open_clip.create_model(name, pretrained, require_pretrained=True, pretrained_text=False, weights_only=True)
            tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # whatever the hub, the file or the checkpoint raised, the user needs one line
        raise EncoderError(_why_not(str(spec), folder, error)) from error
    logger.info("loaded %s on %s in %s", spec, where, compute)
    return OpenClipEncoder(
        model,
        tokenizer,
        str(spec if folder is None or str(spec) == BUILT_IN else folder),
        device=where,
        dtype=compute,
        folder=folder,
        preprocessing=before,
    )


def preprocessing_of(identity: EncoderIdentity) -> Preprocessing:
    """What the encoder of that identity does to a picture before its own resizing."""
    return Preprocessing.TARGET_PAD if f'"{PADDED}"' in identity.preprocessing else Preprocessing.PLAIN


def resolve_device(device: str) -> torch.device:
    """The torch device for a name; "auto" takes CUDA, then MPS, then the CPU. OptionError for an unknown or absent one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = str(device).partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise unknown("device", device, ["auto", "cpu", "cuda", "cuda:N", "mps"])
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(index or 0) >= present:
        raise OptionError(
            f"device {device!r} was asked for, but this machine has {present or 'no'} {kind} device{'s' * (present != 1)}; use 'auto' or 'cpu'"
        )
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The image tower's dtype for a name; "auto" is bfloat16 exactly where the hardware multiplies in it."""
    if dtype == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, ["auto", *DTYPES])
    return DTYPES[dtype]


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes and float32 bytes of all weights, and over the kind of activation."""
    digest = hashlib.sha256(b"quickgelu" if any(type(m).__name__ == "QuickGELU" for m in model.modules()) else b"gelu")
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


def _resolve(spec: str) -> tuple[str, str | None, Path | None]:
    """(open_clip name, pretrained tag or file, local folder) for a spec."""
    if spec == BUILT_IN:
        return f"local-dir:{BUILT_IN_MODEL}", None, BUILT_IN_MODEL
    if spec.startswith("hf-hub:"):
        return spec, None, None
    if Path(spec).is_dir():
        folder = Path(spec).resolve()
        if not (folder / "open_clip_config.json").is_file():
            raise EncoderError(
                f"{spec}: not an encoder folder: expected open_clip_config.json and open_clip_model.safetensors in it"
            )
        return f"local-dir:{folder}", None, folder
    model, _, weights = spec.partition("/")
    if model not in open_clip.list_models():
        near = difflib.get_close_matches(spec, [BUILT_IN, *map("/".join, open_clip.list_pretrained())], n=5, cutoff=0.4)
        forms = [
            BUILT_IN,
            "MODEL/TAG (see open_clip.list_pretrained())",
            "MODEL/checkpoint file",
            "hf-hub:org/name",
            "a local open_clip folder",
        ]
        raise unknown("encoder", spec, forms + ([f"did you mean {' or '.join(near)}?"] if near else []))
    if not Path(weights).is_file():
        _check_tag(model, weights)
    return model, weights, None


def _check_tag(model: str, tag: str) -> None:
    """Refuses an unknown tag, and weights whose activation is not the model's: open_clip would only warn."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:
        raise OptionError(
            f"no weights {tag!r} for {model}: expected a checkpoint file or one of: {', '.join(tags) or 'none published'}"
        )
    trained_quick = bool((open_clip.get_pretrained_cfg(model, tag) or {}).get("quick_gelu", False))
    if trained_quick != bool((open_clip.get_model_config(model) or {}).get("quick_gelu", False)):
        right = f"{model}-quickgelu" if trained_quick else model.removesuffix("-quickgelu")
        raise EncoderError(
            f"{model}/{tag}: the weights were trained with {'QuickGELU' if trained_quick else 'GELU'} and the model has the other; use {right}/{tag}"
        )


def _why_not(spec: str, folder: Path | None, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if folder is not None:
        return f"{spec}: the encoder in this folder cannot be loaded: {reason}"
    return f"{spec}: weights could not be loaded ({reason}); without a network, give a local open_clip folder or use 'wardrobe'"


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        can = torch.cpu.get_capabilities()
        return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    return False


def _describe(config: dict[str, Any], preprocessing: Preprocessing) -> str:
    """Preprocessing in one canonical line."""
    whole = config | ({PADDED: TARGET_RATIO} if preprocessing is Preprocessing.TARGET_PAD else {})
    return json.dumps({name: whole[name] for name in sorted(whole)}, separators=(",", ":"), default=list)
