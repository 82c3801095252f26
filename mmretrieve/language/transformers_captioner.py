"""Captions by a model on this machine: any image-to-text model of transformers that needs no prompt (BLIP, BLIP-2, GIT, ViT-GPT2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmretrieve.composer_input import ComposerInput
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.images import ImageLike, open_image, source_name
from mmretrieve.language.llm.cache import AnswerCache, picture_key

if TYPE_CHECKING:
    from torch import Tensor

BEAMS = 3
TOP_P = 0.9  # samples are drawn from the likeliest words that make up this share


@dataclass(frozen=True)
class TransformersCaptioner:
    """Says pictures in words with a model from the hub, or from a folder with safetensors weights. No code of a model is run.

    The first caption is found by beam search. With `sampled` further ones are drawn at random, seeded by the picture, so
    that they do not depend on its neighbours; without, they are the next best of the search.
    Raises OptionError for settings out of range, MMRetrieveError where transformers is missing or the model cannot be had.
    """

    model: str
    device: str = "auto"
    memory: AnswerCache | None = None
    sampled: bool = True
    max_new_tokens: int = 40
    batch: int = 16
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.batch < 1:
            raise OptionError(f"expected max_new_tokens and batch of at least 1, got {self.max_new_tokens} and {self.batch}")
        if find_spec("transformers") is None:
            raise MMRetrieveError(
                "captions by a local model need the package transformers: pip install 'mmretrieve[captioners]'"
            )

    def captions(self, queries: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        """`count` captions a query, fewer where the model had nothing to say. One picture is captioned once.

        Raises OptionError where a query has no picture, ImageError where it cannot be read.
        """
        pictures = pictures_of(queries)
        keys = [picture_key(picture) for picture in pictures]
        said: dict[str, list[str]] = {}
        for key in keys:
            if (
                self.memory is not None
                and (known := self.memory.get("caption", self.model, self._asked(key, count))) is not None
            ):
                said[key] = known
        new = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in said}
        self._report(len(keys) - sum(key in new for key in keys))
        for start in range(0, len(new), self.batch):
            some = dict(list(new.items())[start : start + self.batch])
            said |= self._say_and_keep(some, count)
            self._report(sum(key in some for key in keys))
        return [said[key] for key in keys]

    def _say_and_keep(self, pictures: Mapping[str, ImageLike], count: int) -> dict[str, list[str]]:
        said = self._say(pictures, count)
        for key, captions in said.items():
            if not captions:
                raise MMRetrieveError(f"{self.model} says nothing about {source_name(pictures[key])}; try another captioner")
            if self.memory is not None:
                self.memory.put("caption", self.model, self._asked(key, count), captions)
        return said

    def _say(self, pictures: Mapping[str, ImageLike], count: int) -> dict[str, list[str]]:
        """Captions by the key of the picture."""
        pixels = self._loaded.pixels([open_image(picture) for picture in pictures.values()])
        searched = count if not self.sampled else 1
        best = self._loaded.words(
            pixels, self.max_new_tokens, num_beams=max(searched, BEAMS), num_return_sequences=searched, do_sample=False
        )
        said = {key: best[i * searched : (i + 1) * searched] for i, key in enumerate(pictures)}
        if searched < count:
            for row, key in enumerate(pictures):
                said[key] += self._samples(pixels[row : row + 1], count - 1, seed=int(key[:12], 16))
        return {key: [caption for caption in captions if caption] for key, captions in said.items()}

    def _samples(self, pixels: Tensor, count: int, seed: int) -> list[str]:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self._loaded.words(
                pixels, self.max_new_tokens, do_sample=True, top_p=TOP_P, num_beams=1, num_return_sequences=count
            )

    def _asked(self, key: str, count: int) -> dict[str, object]:
        return {"picture": key, "count": count, "sampled": self.sampled, "max_new_tokens": self.max_new_tokens}

    def _report(self, count: int) -> None:
        if self.progress is not None and count:
            self.progress(count)

    @cached_property
    def _loaded(self) -> _LoadedModel:
        return _LoadedModel.load(self.model, self.device)


@dataclass(frozen=True)
class _LoadedModel:
    """A model with what prepares its pictures and spells its words."""

    model: Any
    processor: Any
    tokenizer: Any

    @classmethod
    def load(cls, name: str, device: str) -> _LoadedModel:
        from mmretrieve.encoders.hub import offline_if_unreachable
        from mmretrieve.encoders.openclip import resolve_device

        transformers: Any = import_module("transformers")
        where = resolve_device(device)
        try:
            with offline_if_unreachable(needed=not Path(name).is_dir()), _quietly():
                processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
                tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
                model = transformers.AutoModelForImageTextToText.from_pretrained(
                    name, trust_remote_code=False, use_safetensors=True
                )
        except Exception as error:  # whatever the hub, the folder or the weights raised, the user needs one line
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise MMRetrieveError(
                f"{name}: the captioner could not be loaded ({reason}); without a network, give the folder of an image-to-text "
                "model with safetensors weights"
            ) from error
        return cls(model.to(where).eval().requires_grad_(False), processor, tokenizer)

    def pixels(self, pictures: Sequence[Any]) -> Tensor:
        """(n, 3, height, width), as the model wants them."""
        pixels: Tensor = self.processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.device, self.model.dtype)

    def words(self, pixels: Tensor, max_new_tokens: int, **how: Any) -> list[str]:
        """What is generated for (n, 3, height, width) pixels, `num_return_sequences` lines each, in one list."""
        import torch

        with torch.inference_mode(), _quietly():
            tokens = self.model.generate(pixel_values=pixels, max_new_tokens=max_new_tokens, **how)
        return [" ".join(said.split()) for said in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def pictures_of(queries: Sequence[ComposerInput]) -> list[ImageLike]:
    """The pictures of the references. Raises OptionError naming the first query that has none."""
    for number, query in enumerate(queries, 1):
        if query.image is None:
            named = query.id or query.prompt or "without a prompt"
            raise OptionError(
                f"this needs the pictures of the references, and query {number} of {len(queries)} ({named}) has none"
            )
    return [shared(query.image) for query in queries if query.image is not None]


def shared(image: ImageLike) -> ImageLike:
    """The same picture, but an open file is read now: threads cannot share its place, and it may be closed later."""
    return image if isinstance(image, str | Path) else open_image(image)


@contextmanager
def _quietly() -> Iterator[None]:
    """While it lasts, transformers shows no bars and gives no advice."""
    logging: Any = import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
