"""What every encoder is: four members, and an identity by which galleries recognise it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from mmretrieve.images import ImageLike
from mmretrieve.vectors import Float32

Progress = Callable[[int], object]
"""Called with the number of items newly done; `tqdm.update` is one."""


class PromptCutWarning(UserWarning):
    """A text was longer than the encoder's context, and its end was left out."""


@dataclass(frozen=True)
class EncoderIdentity:
    """Two encoders are the same when weights and preprocessing are; `model` is the name to load it by."""

    model: str = field(compare=False)
    weights: str
    preprocessing: str

    def __str__(self) -> str:
        return f"{self.model} (weights {self.weights[:12]}, preprocessing {self.preprocessing})"


@runtime_checkable
class Encoder(Protocol):
    """Turns images and words into unit vectors of one space."""

    @property
    def identity(self) -> EncoderIdentity: ...

    @property
    def dim(self) -> int: ...

    def encode_images(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        """Paths, PIL images or file objects → (n, dim) unit float32. Raises ImageError naming an unreadable one."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Sentences → (n, dim) unit float32. One above the context length is cut, with a warning."""
        ...


@runtime_checkable
class ContextLimit(Protocol):
    """What an encoder may offer besides its four members: it tells which texts fit into its context.

    Composers shorten captions for such an encoder, so that the prompt behind them is read. Other encoders get texts as they are.
    """

    @property
    def context_length(self) -> int:
        """Tokens that the text tower reads, its start and end tokens included."""
        ...

    def fits_context(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is read to its end. No text is encoded for that."""
        ...
