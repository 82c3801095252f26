"""Who speaks: captioners say references in words, rewriters apply prompts to captions, describers do both at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mmretrieve.errors import OptionError
from mmretrieve.options import Choice
from mmretrieve.query import Query


class CaptionSource(Choice):
    """Where a caption comes from: the caller, an item's fields, the fields of its neighbors, the tagger, or a model."""

    GIVEN = "given"
    FIELDS = "fields"
    NEIGHBORS = "neighbors"
    TAGGER = "tagger"
    CAPTIONER = "captioner"


class Caption(str):
    """A caption with its source and `trust`, a number from 0 to 1: how likely it is that all of its words are right.

    It is a str, so everything that takes text takes it. Methods of str, such as `strip`, return a plain str.
    Raises OptionError for a trust outside 0 to 1 and for an unknown source.

    >>> caption = Caption("a photo of a dress", trust=0.9, source="tagger")
    >>> caption
    'a photo of a dress'
    >>> caption.trust, str(caption.source)
    (0.9, 'tagger')
    """

    trust: float
    source: CaptionSource

    def __new__(cls, text: str, *, trust: float, source: CaptionSource | str) -> Caption:
        if not 0 <= trust <= 1:
            raise OptionError(f"the trust of a caption must be a number from 0 to 1, got {trust!r}")
        caption = super().__new__(cls, text)
        caption.trust, caption.source = float(trust), CaptionSource(source)
        return caption

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (str(self),), {"trust": self.trust, "source": self.source}


class Captioner(Protocol):
    """Says reference images in words."""

    def captions(self, queries: Sequence[Query], count: int = 1) -> list[list[str]]:
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

    def describe(self, queries: Sequence[Query]) -> list[Description]: ...
