"""Who speaks: captioners say references in words, rewriters apply prompts to captions, describers do both at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mmretrieve.composer_input import ComposerInput


class Captioner(Protocol):
    """Says reference images in words."""

    def captions(self, queries: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        """`count` captions of each reference, the best first. Methods that need many (LDRE, SEIZE) ask for 15.

        A captioner that knows how far each of its captions can be trusted returns `Caption`s.
        """
        ...


class Rewriter(Protocol):
    """Applies prompts to captions.

    One with an attribute `is_rule_based = True` is asked again with a part of a caption if its rewrite does not fit into an
    encoder's context. Others, which may be slow, cost money or know only whole captions, are asked once.
    """

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        """One rewritten caption for each pair, in order."""
        ...


@dataclass(frozen=True)
class Description:
    """What a model says of a target, and of the reference where it says that too. None where its answer could not be read."""

    target: str | None
    reference: str | None = None


class Describer(Protocol):
    """Sees pictures and prompts, and describes targets in one step."""

    def describe(self, queries: Sequence[ComposerInput]) -> list[Description]: ...
