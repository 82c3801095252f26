"""What a composer gets: one reference image and one prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmretrieve.errors import OptionError
from mmretrieve.images import ImageLike
from mmretrieve.request import check_text
from mmretrieve.vectors import Float32


@dataclass(frozen=True)
class ComposerInput:
    """One reference and one prompt: (d,) unit `vector` of the reference, the `prompt`, and a `caption` if one is given.

    `image` is the reference itself, for methods that look at pixels, and `id` its name in files of captions: the item's
    id, or the name of its file. `fields` is what the gallery knows of it, where it is one of its items. `desired` is what
    remains of a prompt that also forbids something ("" where it does nothing else), and `avoid` are phrases that no rewrite may
    say. Raises OptionError for a prompt or a caption without words.
    """

    vector: Float32 | None = None
    prompt: str | None = None
    caption: str | None = None
    image: ImageLike | None = None
    id: str | None = None
    fields: Mapping[str, Any] | None = None
    desired: str | None = None
    avoid: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.vector is None and self.prompt is None:
            raise OptionError("a query needs a reference image, a prompt, or both")
        for name in ("prompt", "caption"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))

    def reference(self) -> Float32:
        """The (d,) reference vector. OptionError where the query has none."""
        if self.vector is None:
            raise OptionError("this way of composing needs a reference image")
        return self.vector

    def words(self) -> str:
        """The prompt. OptionError where the query has none."""
        if self.prompt is None:
            raise OptionError("this way of composing needs a prompt")
        return self.prompt.strip()

    def wish(self) -> str:
        """What the prompt asks to be there: all of it, or what remains of one that forbids; "" where nothing does."""
        said = self.prompt if self.desired is None else self.desired
        return "" if said is None else said.strip()
