"""Encoders based on open_clip: public CLIP-style models, local folders or checkpoints, and the built-in wardrobe model."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from math import ceil, prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor, nn

from mmretrieve.concurrency import LruCache, map_ahead, map_batches_ahead, map_on_cores
from mmretrieve.encoders.base import (
    EncoderContext,
    EncoderIdentity,
    Progress,
    check_images,
    check_supports,
    check_texts,
    warn_of_cut_texts,
)
from mmretrieve.encoders.checkpoints import (
    CONFIG,
    encoder_folder,
    file_problem,
    folder_weights,
    is_json,
    one_line,
    strip_prefixes,
)
from mmretrieve.encoders.deferred import DeferredEncoder
from mmretrieve.encoders.dtypes import cast_tower, choose_dtype, input_dtype, resolve_dtype
from mmretrieve.encoders.image_tower import (
    has_patches,
    input_size,
    make_resize,
    patch_features,
    patch_grid,
    with_short_last_block,
)
from mmretrieve.encoders.initialization import create_loaded
from mmretrieve.encoders.names import QUICK_GELU, missing_tag, model_with_activation, unknown_encoder
from mmretrieve.encoders.pseudo_tokens import PseudoTokens
from mmretrieve.encoders.text_tower import TextContext, cropped_lengths, encode_tokens
from mmretrieve.encoders.tokenizers import load_tokenizer, needs_hub, text_config
from mmretrieve.errors import EncoderError, OptionError, did_you_mean, unknown
from mmretrieve.hub import offline_if_unreachable
from mmretrieve.images import TARGET_RATIO, ImageLike, open_image, target_pad
from mmretrieve.options import BUILT_IN, Modality, Preprocessing
from mmretrieve.vectors import Float32, unit

TEXT_GROUP_SIZE = 32  # texts that are encoded at a time
MIN_TEXTS_ON_CORES = 32  # with fewer, all cores encode one group
MAX_CACHED_TEXTS = 4096  # features: 16 MB of 1024 dimensions
CPU_GROUP_SIZE = 16  # images that each core encodes at a time; the activations of more do not stay in its caches
GPU_GROUP_SIZE, GPU_WORKERS = 128, 2  # until memory runs out
MIN_IMAGES_OF_CORE = 4  # with fewer, all cores encode one group
MAX_PREPARED_IMAGES = 256  # resized, but not yet encoded
TARGET_PAD_KEY = "target_pad"
logger = logging.getLogger(__name__)


class OpenClipEncoder:
    """An open_clip model as an `Encoder`. Use `load_encoder` to create one.

    The image tower computes in `dtype`, the text tower always in float32, because PDV uses small differences of text vectors.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Callable[..., Tensor],
        name: str,
        *,
        device: torch.device,
        dtype: str,
        folder: Path | None = None,
        preprocessing: Preprocessing = Preprocessing.PLAIN,
    ) -> None:
        self._model = model.eval().requires_grad_(False)
        self._tokenizer, self._context = tokenizer, TextContext(tokenizer)
        config: dict[str, Any] = model.visual.preprocess_cfg
        transform = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**config), is_train=False)
        *resize, _, self._normalize = transform.transforms  # the one left out makes float values of pixels
        self._resize = make_resize(resize)
        self.preprocessing = preprocessing
        self.identity = EncoderIdentity(name, weights_hash(model), describe_preprocessing(config, preprocessing))
        model.visual = with_short_last_block(model.visual)
        self.folder, self.device = folder, device
        self._group_size = CPU_GROUP_SIZE if device.type == "cpu" else GPU_GROUP_SIZE
        self.dtype: torch.dtype = getattr(torch, choose_dtype(dtype, device, model.visual, self.image_size, self.identity))
        self._model.to(device)
        self._model.visual = cast_tower(model.visual, self.dtype)
        self.recent_texts = LruCache[Float32](MAX_CACHED_TEXTS)
        self.dim = int(self._text_features(self._context.tokenize(["a"])[0]).shape[1])

    @property
    def image_size(self) -> int:
        """The input size of the image tower in pixels."""
        return input_size(self._model.visual)

    @property
    def context_length(self) -> int:
        """The number of tokens that the text tower reads, including start and end tokens."""
        return self._context.length

    def fits_context(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text fits completely. Texts are tokenized, not encoded.

        >>> from mmretrieve import load_encoder
        >>> encoder = load_encoder("wardrobe")
        >>> encoder.context_length, encoder.fits_context(["in red", "red " * 300])
        (40, [True, False])
        """
        return self._context.fits(texts)

    def supports(self, modality: str) -> bool:
        """Whether it encodes "image", "text", "pair" or "patches"; patches only if the image tower reads a class token.

        >>> from mmretrieve import load_encoder
        >>> [load_encoder("wardrobe").supports(modality) for modality in ("text", "pair", "patches")]
        [True, False, True]
        """
        return modality in (Modality.IMAGE, Modality.TEXT) or (modality == Modality.PATCHES and has_patches(self._model.visual))

    @cached_property
    def pseudo_tokens(self) -> PseudoTokens:
        """Encodes sentences with pseudo tokens. Raises EncoderError if the text tower does not support them."""
        return PseudoTokens(self._model, self._tokenizer, self.identity.model)

    def encode_images(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        """(n, dim) float32 unit rows for n paths, PIL images or binary files. Raises ImageError, naming an unreadable one."""
        return unit(self.image_features(images, progress), "image features")

    def image_features(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        """(n, dim) float32 image features, not normalized, as textual inversion needs them."""
        check_images(images)
        remaining = iter(images)
        first = list(islice(remaining, 2))
        groups: Iterable[tuple[Float32, bool]] = (
            self._features_of_groups([chain(first, remaining)])
            if len(first) == 2
            else [self._features_of_group((list(map(self._resized, first)), True))]  # threads would cost more than they save
        )
        features = [self._no_features]
        for rows, _ in groups:
            features.append(rows)
            if progress is not None:
                progress(len(rows))
        return np.concatenate(features)

    def encode_patches(self, images: Iterable[ImageLike]) -> Float32:
        """(n, p, dim) float32 unit rows for the patches of n images, as `PatchEncoder` says; p is at most 64.

        Raises OptionError if the image tower does not read a class token, and ImageError, naming an unreadable image.

        >>> from mmretrieve import load_encoder, wardrobe
        >>> encoder = load_encoder("wardrobe")
        >>> encoder.encode_patches([wardrobe.pictures_folder() / "red-checked-dress-1815.png"]).shape
        (1, 64, 128)
        """
        check_supports(self, Modality.PATCHES, "encode_patches")
        check_images(images)
        prepared = map_ahead(self._resized, images, MAX_PREPARED_IMAGES)
        patches = [np.empty((0, prod(patch_grid(self._model.visual)), self.dim), np.float32)]
        while group := list(islice(prepared, self._group_size)):
            patches.append(self._image_features(group, self._encode_patches))
        rows = np.concatenate(patches)
        return unit(rows.reshape(-1, self.dim), "patches").reshape(rows.shape)

    def feature_batches(self, batches: Iterable[Iterable[ImageLike]]) -> Iterator[Float32]:
        """Yields the image features of each batch, as `BatchEncoder` says."""
        features = [self._no_features]
        for rows, is_last in self._features_of_groups(batches):
            features.append(rows)
            if is_last:
                yield np.concatenate(features)
                features = [self._no_features]

    @property
    def _no_features(self) -> Float32:
        return np.empty((0, self.dim), np.float32)

    def _features_of_groups(self, batches: Iterable[Iterable[ImageLike]]) -> Iterator[tuple[Float32, bool]]:
        """The features of groups of images, and whether they are the last of their batch.

        On a CPU, each core encodes groups of its own, which need not wait for others. On a GPU, one group is copied while another is
        computed. A single group is encoded by all cores.
        """
        prepared = map_batches_ahead(self._resized, batches, MAX_PREPARED_IMAGES)
        if self.device.type == "cpu":
            cores = torch.get_num_threads()
            return map_on_cores(self._features_of_group, self._groups_of_batches(prepared, cores))
        return map_ahead(self._features_of_group, self._groups_of_batches(prepared, 1), 2 * GPU_WORKERS, workers=GPU_WORKERS)

    def _groups_of_batches(self, batches: Iterable[Iterator[Tensor]], cores: int) -> Iterator[tuple[list[Tensor], bool]]:
        return chain.from_iterable(self._groups(images, cores) for images in batches)

    def _groups(self, images: Iterator[Tensor], cores: int) -> Iterator[tuple[list[Tensor], bool]]:
        """The images of a batch in groups, at least one, and whether it is the last. The last ones have equal sizes, one or two a core."""
        size = self._group_size
        ahead = list(islice(images, 2 * cores * size))
        while len(ahead) == 2 * cores * size:
            yield from ((ahead[start : start + size], False) for start in range(0, cores * size, size))
            ahead = [*ahead[cores * size :], *islice(images, cores * size)]
        if len(ahead) >= cores * MIN_IMAGES_OF_CORE:  # fewer are one group of all cores
            size = ceil(len(ahead) / cores / ceil(len(ahead) / cores / size))
        groups = [ahead[start : start + size] for start in range(0, len(ahead), size)] or [[]]
        yield from ((group, False) for group in groups[:-1])
        yield groups[-1], True

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """(n, dim) float32 unit rows for n texts. A text that exceeds the context length is cut, with a PromptCutWarning."""
        return unit(self.text_features(texts), "text features")

    def text_features(self, texts: Sequence[str]) -> Float32:
        """(n, dim) float32 text features, not normalized."""
        texts = check_texts(texts)
        warn_of_cut_texts(self, self.identity.model, texts, stacklevel=3)
        rows = self.recent_texts.get_all(texts, self._features_of_texts)
        return np.array(rows, dtype=np.float32).reshape(len(texts), self.dim)

    def _features_of_texts(self, texts: list[str]) -> list[Float32]:
        """The (dim,) features of n texts. Those of one length are encoded together: a text has the same features in every batch."""
        tokens = self._context.tokenize(texts)[0]
        lengths = cropped_lengths(self._model, tokens)
        groups = [
            rows
            for length in sorted(set(lengths.tolist()))
            for rows in (lengths == length).nonzero()[:, 0].split(TEXT_GROUP_SIZE)
        ]
        of_groups = (tokens[rows] for rows in groups)
        on_cores = self.device.type == "cpu" and len(texts) >= MIN_TEXTS_ON_CORES
        encoded = map_on_cores(self._text_features, of_groups) if on_cores else map(self._text_features, of_groups)
        features = np.empty((len(texts), self.dim), np.float32)
        for rows, group in zip(groups, encoded, strict=True):
            features[rows] = group
        return [row.copy() for row in features]

    @torch.inference_mode()
    def _text_features(self, tokens: Tensor) -> Float32:
        features = encode_tokens(self._model, tokens.to(self.device))
        return features.float().cpu().numpy()

    def _resized(self, image: ImageLike) -> Tensor:
        """(height, width, 3) uint8 pixels, a quarter of the bytes of float values: these are made of a whole batch, on the device."""
        picture = open_image(image, copy=False)
        if self.preprocessing is Preprocessing.TARGET_PAD:
            picture = target_pad(picture)
        return self._resize(picture)

    def _features_of_group(self, group: tuple[list[Tensor], bool]) -> tuple[Float32, bool]:
        images, is_last = group
        return self._image_features(images, self._encode_pooled) if images else self._no_features, is_last

    def _encode_pooled(self, images_bchw: Tensor) -> Tensor:
        return self._model.encode_image(images_bchw, normalize=False)  # type: ignore[no-any-return]

    def _encode_patches(self, images_bchw: Tensor) -> Tensor:
        return patch_features(self._model.visual, images_bchw)

    def _image_features(self, images: list[Tensor], encode: Callable[[Tensor], Tensor]) -> Float32:
        """The features of (height, width, 3) uint8 pixels. Where memory runs out, this and all later groups are halved."""
        try:
            return self._tower_features(images, encode)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(images) == 1:
                raise EncoderError(
                    f"{self.identity.model}: memory ran out while one image was encoded on {str(self.device)!r}; end other programs, "
                    "or use another device or a smaller encoder"
                ) from error
        half = len(images) // 2  # behind the handler, which keeps the tensors of the failed attempt
        self._group_size = min(self._group_size, half)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return np.concatenate([self._image_features(images[:half], encode), self._image_features(images[half:], encode)])

    @torch.inference_mode()
    def _tower_features(self, images: list[Tensor], encode: Callable[[Tensor], Tensor]) -> Float32:
        """The features of a group of (height, width, 3) uint8 pixels, which are normalized in float32."""
        pixels = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        torch.stack(images, out=pixels)
        values = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).contiguous().float().div_(255)
        return encode(self._normalize(values).to(input_dtype(self.dtype))).float().cpu().numpy()


def require_open_clip(encoder: object, purpose: str) -> OpenClipEncoder:
    """The encoder, loaded if it is deferred. Raises OptionError, with the purpose, unless it is one of open_clip."""
    encoder = encoder.loaded if isinstance(encoder, DeferredEncoder) else encoder
    if not isinstance(encoder, OpenClipEncoder):
        raise OptionError(f"{purpose} reaches into the towers of open_clip, and cannot use a {type(encoder).__name__}")
    return encoder


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out. On some devices, a CPU among them, torch raises a plain RuntimeError."""
    return isinstance(error, MemoryError) or any(reason in str(error) for reason in ("out of memory", "can't allocate memory"))


def load_open_clip(context: EncoderContext) -> OpenClipEncoder:
    return load(context.name, device=str(context.device), dtype=context.dtype, preprocessing=context.preprocessing)


def load(spec: str, *, device: str, dtype: str, preprocessing: str) -> OpenClipEncoder:
    """The encoder of a name, a folder or a checkpoint of open_clip. Arguments and errors are those of `load_encoder`."""
    torch_device = resolve_device(device)
    resolve_dtype(dtype, torch_device)  # before the weights are read
    checked_preprocessing = Preprocessing(preprocessing)
    name, pretrained, folder = _resolve(spec)
    config, is_local = text_config(name, folder), folder is not None or Path(pretrained or "").is_file()
    try:
        with offline_if_unreachable(needed=not is_local or needs_hub(config, folder)):
            tokenizer = load_tokenizer(spec, name, config, folder) if config else None  # fails long before the model is there
            model = _create_model(name, pretrained)
            tokenizer = tokenizer or open_clip.get_tokenizer(name)
    except EncoderError:
        raise
    except Exception as error:  # of the hub, the file system or the checkpoint
        raise EncoderError(_load_error(spec, pretrained, folder, error)) from error
    encoder = OpenClipEncoder(
        model,
        tokenizer,
        spec if folder is None or spec == BUILT_IN else str(folder),
        device=torch_device,
        dtype=dtype,
        folder=folder,
        preprocessing=checked_preprocessing,
    )
    logger.info("loaded %s on %s in %s", spec, torch_device, encoder.dtype)
    return encoder


def _create_model(name: str, pretrained: str | None) -> Any:
    """The model with its weights. Weights of a file may have the prefixes of torch.compile and of parallel training."""
    options = {"require_pretrained": True, "pretrained_text": False, "weights_only": True}
    try:
        return create_loaded(lambda: open_clip.create_model(name, pretrained, **options))
    except Exception:
        state = None if pretrained is None else _state_with_prefixes(Path(pretrained))
        if state is None:
            raise
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pt"
        torch.save({strip_prefixes(key): value for key, value in state.items()}, path)
        return create_loaded(lambda: open_clip.create_model(name, str(path), **options))


def _state_with_prefixes(path: Path) -> dict[str, Tensor] | None:
    """The weights in a file; None if there are none, or their names have no prefix that `strip_prefixes` removes."""
    try:
        state: dict[str, Tensor] = open_clip.factory.load_state_dict(str(path), weights_only=True)
        return state if all(name != strip_prefixes(name) for name in state) else None
    except Exception:  # the first attempt has told why
        return None


def preprocessing_of(identity: EncoderIdentity) -> Preprocessing:
    """The preprocessing option with which the encoder of that identity was loaded."""
    return Preprocessing.TARGET_PAD if f'"{TARGET_PAD_KEY}"' in identity.preprocessing else Preprocessing.PLAIN


def resolve_device(device: str) -> torch.device:
    """The torch device for a name; "auto" is CUDA, then MPS, then the CPU. Raises OptionError if it is unknown or absent."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = str(device).partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise unknown("device", device, ["auto", "cpu", "cuda", "cuda:N", "mps"])
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(index or 0) >= count:
        raise OptionError(
            f"device {device!r} is not available: this machine has {count or 'no'} {kind} device{'s' * (count != 1)}; use 'auto' or 'cpu'"
        )
    return torch.device(device)


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over the names, shapes and float32 bytes of all weights, and the activation function."""
    digest = hashlib.sha256(b"quickgelu" if any(type(m).__name__ == "QuickGELU" for m in model.modules()) else b"gelu")
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


def _resolve(spec: str) -> tuple[str, str | None, Path | None]:
    """(open_clip name, pretrained tag or file, local folder) of a spec."""
    if (folder := encoder_folder(spec)) is not None:
        return f"local-dir:{folder}", None, folder
    if spec.startswith("hf-hub:"):
        return spec, None, None
    model, _, weights = spec.partition("/")
    if model not in open_clip.list_models():
        raise unknown_encoder(spec)
    if not weights:
        raise missing_tag(model)
    if not os.path.isfile(weights):
        _check_tag(model, weights)
    return model, weights, None


def _check_tag(model: str, tag: str) -> None:
    """Raises an error for an unknown tag, and for weights trained with another activation (open_clip only warns)."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:
        hint = did_you_mean(tag, tags) or ":"
        raise OptionError(
            f"no weights {tag!r} for {model}{hint} expected a checkpoint file or one of: {', '.join(tags) or 'none published'}"
        )
    correct = model_with_activation(model, tag)
    if correct != model:
        kind = "QuickGELU" if correct.endswith(QUICK_GELU) else "GELU"
        raise EncoderError(
            f"{model}/{tag}: the weights were trained with {kind}, which is not the activation of the model; use {correct}/{tag}"
        )


def _load_error(spec: str, pretrained: str | None, folder: Path | None, error: Exception) -> str:
    if folder is not None:
        weights = folder_weights(folder)
        if not is_json(folder / CONFIG):
            return f"{spec}: the encoder in this folder cannot be loaded: {CONFIG} is not valid JSON; download it again"
        if weights is None:
            return f"{spec}: the encoder in this folder cannot be loaded: there are no weights in it; download them, too"
        return f"{spec}: the encoder in this folder cannot be loaded: {weights.name} is {file_problem(weights, error)}"
    if pretrained is not None and Path(pretrained).is_file():
        return f"{pretrained}: {file_problem(Path(pretrained), error)}"
    return (
        f"{spec}: weights could not be loaded ({one_line(error)}); "
        "without a network, give a local open_clip folder or use 'wardrobe'"
    )


def describe_preprocessing(config: Mapping[str, Any], preprocessing: Preprocessing) -> str:
    """The preprocessing as canonical JSON."""
    complete = {**config, **({TARGET_PAD_KEY: TARGET_RATIO} if preprocessing is Preprocessing.TARGET_PAD else {})}
    return json.dumps({name: complete[name] for name in sorted(complete)}, separators=(",", ":"), default=list)
