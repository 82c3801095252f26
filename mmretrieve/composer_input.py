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
    """One reference and one prompt.

    Parameters
    ----------
    vector : (d,) float32, optional
        The unit vector of the reference.
    prompt : str, optional
        What should be different.
    caption : str, optional
        A description of the reference, taken as given.
    image : path, PIL image or open file, optional
        The reference itself, for methods that look at pixels.
    id : str, optional
        The name of the reference in files of captions: the id of the item, or the name of the file.
    fields : mapping, optional
        The fields of the reference, where it is an item of the gallery.
    desired : str, optional
        What remains of a prompt that also forbids something; "" where it does nothing else.
    avoid : tuple of str
        Phrases that no rewrite may contain.
    paraphrases : tuple of ComposerInput
        The same with other wordings of the prompt, over which composers take the mean (see `composers.paraphrased`).

    Raises
    ------
    OptionError
        There is neither a vector nor a prompt, or a prompt or a caption has no words.
    """

    vector: Float32 | None = None
    prompt: str | None = None
    caption: str | None = None
    image: ImageLike | None = None
    id: str | None = None
    fields: Mapping[str, Any] | None = None
    desired: str | None = None
    avoid: tuple[str, ...] = ()
    paraphrases: tuple[ComposerInput, ...] = ()

    def __post_init__(self) -> None:
        if self.vector is None and self.prompt is None:
            raise OptionError("a composer needs a vector, a prompt, or both")
        for name in ("prompt", "caption"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))

    def required_reference(self) -> Float32:
        """The (d,) reference vector. OptionError where the query has none."""
        if self.vector is None:
            raise OptionError("this composer needs a reference image; give one, or choose another composer")
        return self.vector

    def required_image(self) -> ImageLike:
        """The reference itself. OptionError where the query has none, or its file is no longer the one that was indexed."""
        self.required_reference()
        if self.image is None:
            raise OptionError(
                f"the image of {self.id or 'the reference'} is missing or has changed since it was indexed, and this composer "
                "encodes it again: restore the file, index it again, or choose another composer"
            )
        return self.image

    def required_prompt(self) -> str:
        """The prompt. OptionError where the query has none."""
        if self.prompt is None:
            raise OptionError("this composer needs a prompt; give one, or choose another composer")
        return self.prompt.strip()

    def desired_text(self) -> str:
        """What the prompt asks to be there: all of it, or what remains of one that forbids; "" where nothing does."""
        text = self.prompt if self.desired is None else self.desired
        return "" if text is None else text.strip()
