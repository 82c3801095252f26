"""What every composer is: from a reference image and a prompt to named terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mmretrieve.composition import Composition
from mmretrieve.errors import OptionError
from mmretrieve.images import ImageLike
from mmretrieve.vectors import Float32


@dataclass(frozen=True)
class Query:
    """What a person asks: (d,) unit `vector` of the reference image, a `prompt`, and a `caption` where one is given.

    `image` is the reference itself, for composers that look at pixels; a reference from the gallery has only a vector.
    Raises OptionError for a prompt or a caption without words.
    """

    vector: Float32 | None = None
    prompt: str | None = None
    caption: str | None = None
    image: ImageLike | None = None

    def __post_init__(self) -> None:
        if self.vector is None and self.prompt is None:
            raise OptionError("a query needs a reference image, a prompt, or both")
        for name in ("prompt", "caption"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise OptionError(f"the {name} must be text, got {value!r}")
            if value is not None and not value.strip():
                raise OptionError(f"the {name} is empty; say something, or leave it out")

    def reference(self) -> Float32:
        """The (d,) reference vector. OptionError where the query has none."""
        if self.vector is None:
            raise OptionError("this composer needs a reference image")
        return self.vector

    def words(self) -> str:
        """The prompt. OptionError where the query has none."""
        if self.prompt is None:
            raise OptionError("this composer needs a prompt")
        return self.prompt.strip()


class Composer(Protocol):
    """Makes terms. One call takes many queries, so that texts are encoded in batches."""

    def compose(self, queries: Sequence[Query]) -> list[Composition]:
        """One composition a query, in order, under the method's own base weights."""
        ...


class Captioner(Protocol):
    """Says reference images in words."""

    def captions(self, queries: Sequence[Query]) -> list[str]: ...


class Rewriter(Protocol):
    """Applies prompts to captions."""

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]: ...
