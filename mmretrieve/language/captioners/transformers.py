"""A captioner that runs on this machine: any image-to-text model of transformers that needs no prompt (BLIP, BLIP-2, GIT, ViT-GPT2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmretrieve.composer_input import ComposerInput
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import MMRetrieveError
from mmretrieve.images import ImageLike, open_image, source_name
from mmretrieve.language.base import reference_images
from mmretrieve.language.llm.cache import AnswerCache, picture_key
from mmretrieve.options import check_count

if TYPE_CHECKING:
    from torch import Tensor

BEAMS = 3
TOP_P = 0.9  # nucleus sampling: the likeliest words that make up this share of the probability


@dataclass(frozen=True)
class TransformersCaptioner:
    """Captions images with a model from the hub, or from a folder with safetensors weights. No code of a model is executed.

    The first caption comes from a beam search. Further ones are samples, seeded by the image, so that they do not depend on the
    rest of the batch; with `sampled=False` they are the next best of the beam search.

    Parameters
    ----------
    model : name on the hub, or a folder.
    device : "auto", or a torch device.
    cache : where captions are stored and looked up; None stores nothing.
    sampled : whether captions after the first are sampled.
    max_new_tokens : longest caption, at least 1.
    batch : images per forward pass, at least 1.
    progress : called with the number of queries that were just captioned.

    Raises
    ------
    OptionError : if a parameter is out of range.
    MMRetrieveError : if the package `transformers` is not installed.
    """

    model: str
    device: str = "auto"
    cache: AnswerCache | None = None
    sampled: bool = True
    max_new_tokens: int = 40
    batch: int = 16
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_count("max_new_tokens", self.max_new_tokens)
        check_count("batch", self.batch)
        if find_spec("transformers") is None:
            raise MMRetrieveError(
                "captions by a local model need the package transformers; install it with: pip install 'mmretrieve[captioners]'"
            )

    def captions(self, inputs: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        """`count` captions for each query, fewer if the model generated blank ones. Equal images are captioned once.

        Raises
        ------
        OptionError : if a query has no image.
        ImageError : if an image cannot be read.
        MMRetrieveError : if the model cannot be loaded, or generates nothing for an image.
        """
        images = reference_images(inputs)
        keys = [picture_key(image) for image in images]
        captions: dict[str, list[str]] = {}
        for key in dict.fromkeys(keys):
            cached = self.cache.get("caption", self.model, self._request(key, count)) if self.cache is not None else None
            if cached is not None:
                captions[key] = cached
        missing = {key: image for key, image in zip(keys, images, strict=True) if key not in captions}
        self._report(len(keys) - sum(key in missing for key in keys))
        for start in range(0, len(missing), self.batch):
            batch = dict(list(missing.items())[start : start + self.batch])
            captions |= self._generate_and_cache(batch, count)
            self._report(sum(key in batch for key in keys))
        return [captions[key] for key in keys]

    def _generate_and_cache(self, images: Mapping[str, ImageLike], count: int) -> dict[str, list[str]]:
        generated = self._generate(images, count)
        for key, captions in generated.items():
            if not captions:
                raise MMRetrieveError(f"{self.model} has no caption for {source_name(images[key])}; use another captioner")
            if self.cache is not None:
                self.cache.put("caption", self.model, self._request(key, count), captions)
        return generated

    def _generate(self, images: Mapping[str, ImageLike], count: int) -> dict[str, list[str]]:
        """Captions by the key of the image."""
        pixels = self._loaded.pixels([open_image(image) for image in images.values()])
        by_search = count if not self.sampled else 1
        best = self._loaded.generate(
            pixels, self.max_new_tokens, num_beams=max(by_search, BEAMS), num_return_sequences=by_search, do_sample=False
        )
        captions = {key: best[i * by_search : (i + 1) * by_search] for i, key in enumerate(images)}
        if by_search < count:
            for row, key in enumerate(images):
                captions[key] += self._samples(pixels[row : row + 1], count - 1, seed=int(key[:12], 16))
        return {key: [caption for caption in several if caption] for key, several in captions.items()}

    def _samples(self, pixels: Tensor, count: int, seed: int) -> list[str]:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self._loaded.generate(
                pixels, self.max_new_tokens, do_sample=True, top_p=TOP_P, num_beams=1, num_return_sequences=count
            )

    def _request(self, key: str, count: int) -> dict[str, object]:
        return {"picture": key, "count": count, "sampled": self.sampled, "max_new_tokens": self.max_new_tokens}

    def _report(self, count: int) -> None:
        if self.progress is not None and count:
            self.progress(count)

    @cached_property
    def _loaded(self) -> _LoadedModel:
        return _LoadedModel.load(self.model, self.device)


@dataclass(frozen=True)
class _LoadedModel:
    """A model with its image processor and tokenizer."""

    model: Any
    processor: Any
    tokenizer: Any

    @classmethod
    def load(cls, name: str, device: str) -> _LoadedModel:
        import transformers

        from mmretrieve.encoders.openclip import resolve_device
        from mmretrieve.encoders.transformers import quiet_transformers
        from mmretrieve.hub import offline_if_unreachable

        torch_device = resolve_device(device)
        try:
            with offline_if_unreachable(needed=not Path(name).is_dir()), quiet_transformers():
                processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
                tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
                model = transformers.AutoModelForImageTextToText.from_pretrained(
                    name, trust_remote_code=False, use_safetensors=True
                )
        except Exception as error:  # the hub, the folder and the weights raise many kinds; the user needs one line
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise MMRetrieveError(
                f"{name}: the captioner could not be loaded ({reason}); without a network, give the folder of an image-to-text "
                "model with safetensors weights"
            ) from error
        return cls(model.to(torch_device).eval().requires_grad_(False), processor, tokenizer)

    def pixels(self, images: Sequence[Any]) -> Tensor:
        """(n, 3, height, width) input of the model."""
        pixels: Tensor = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.device, self.model.dtype)

    def generate(self, pixels: Tensor, max_new_tokens: int, **options: Any) -> list[str]:
        """Texts for (n, 3, height, width) pixels, `num_return_sequences` for each image, in one list."""
        import torch

        from mmretrieve.encoders.transformers import quiet_transformers

        with torch.inference_mode(), quiet_transformers():
            tokens = self.model.generate(pixel_values=pixels, max_new_tokens=max_new_tokens, **options)
        return [" ".join(text.split()) for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
