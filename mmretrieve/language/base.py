"""The interfaces of this room: `Captioner`, `Rewriter`, `Paraphraser`, `Describer`, `Editor` and `RoleCompiler`. `options.py` makes them by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmretrieve.composer_input import ComposerInput
from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import OptionError
from mmretrieve.images import ImageLike, open_image
from mmretrieve.language.vocabulary import Vocabulary


class Captioner(Protocol):
    """Describes reference images in words."""

    def captions(self, inputs: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        """Captions of the reference of each query.

        Parameters
        ----------
        inputs : the queries, with a vector or an image, as the captioner needs it.
        count : captions per query, at least 1. LDRE and SEIZE ask for 15.

        Returns
        -------
        One list per query with up to `count` captions, the best first. A captioner that can estimate how likely a caption is
        correct returns `Caption`s.
        """
        ...


@dataclass(frozen=True)
class CaptionerContext:
    """What the factory of a captioner gets.

    Parameters
    ----------
    encoder : Encoder
        The encoder of the gallery.
    vocabulary : Vocabulary
        The words of captions: those of the search, of the gallery or of the encoder, else general ones.
    """

    encoder: Encoder
    vocabulary: Vocabulary


class Rewriter(Protocol):
    """Applies prompts to captions.

    If a rewrite does not fit into the encoder's context, a rewriter with the attribute `is_rule_based = True` is called again
    with a shortened caption. Others, which may be slow, cost money or know only whole captions, are called once.
    """

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        """One caption of the target for each pair of caption and prompt, in order."""
        ...


class Paraphraser(Protocol):
    """Says prompts in other words."""

    def paraphrase(self, prompts: Sequence[str], count: int) -> list[list[str]]:
        """Up to `count` paraphrases of each prompt, in order, without the prompt itself.

        A paraphrase must mean the same. Fewer are better than a wrong one.
        """
        ...


@dataclass(frozen=True)
class Description:
    """A model's description of a target and, optionally, of the reference; None if its answer could not be parsed."""

    target: str | None
    reference: str | None = None


class Editor(Protocol):
    """Edits the images of references after prompts."""

    def edit(self, inputs: Sequence[ComposerInput]) -> list[ImageLike]:
        """One image for each query, in order."""
        ...


class Describer(Protocol):
    """Describes targets in one step, from images and prompts."""

    def describe(self, inputs: Sequence[ComposerInput]) -> list[Description]:
        """One description for each query, in order."""
        ...


@dataclass(frozen=True)
class Roles:
    """A prompt sorted by role.

    Source: MulVec (arXiv 2608.25305).

    Parameters
    ----------
    whole : describes the whole target, or None.
    desired : phrases that the prompt adds.
    preserve : phrases that must stay.
    forbidden : phrases that must not appear.
    """

    whole: str | None = None
    desired: tuple[str, ...] = ()
    preserve: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


class RoleCompiler(Protocol):
    """Sorts prompts into roles."""

    def compile(self, inputs: Sequence[ComposerInput]) -> list[Roles]:
        """The roles of each query's prompt, in order."""
        ...


def reference_images(inputs: Sequence[ComposerInput]) -> list[ImageLike]:
    """The images of the references, ready for use in threads.

    Raises
    ------
    OptionError : if a query has no image; the message names the first one.
    """
    images = [query.image for query in inputs]
    for number, (query, image) in enumerate(zip(inputs, images, strict=True), 1):
        if image is None:
            name = query.id or query.prompt or "without a prompt"
            raise OptionError(
                f"this needs the images of the references, and query {number} of {len(inputs)} ({name}) has none; give it one"
            )
    return [thread_safe_image(image) for image in images if image is not None]


def thread_safe_image(image: ImageLike) -> ImageLike:
    """The same image; an open file is decoded now, because threads cannot share its position and the caller may close it."""
    return image if isinstance(image, str | Path) else open_image(image)
