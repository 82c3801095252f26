"""Rewriters that need no language model: a template, and one that puts the prompt's words in the place of the caption's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmretrieve.language.vocabulary import Group, Vocabulary


@dataclass(frozen=True)
class TemplateRewriter:
    """`"{caption}, {prompt}"`."""

    is_rule_based: ClassVar[bool] = True  # may be asked again, with a part of a caption

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        return [f"{caption}, {prompt}" for caption, prompt in zip(captions, prompts, strict=True)]


@dataclass(frozen=True)
class SwapRewriter:
    """The template, after every word of the caption has given way to the prompt's word of the same group of the vocabulary.

    `"a photo of a blue dress"` with `"in red"` becomes `"a photo of a red dress, in red"`: the old colour is not said any more.
    """

    vocabulary: Vocabulary
    is_rule_based: ClassVar[bool] = True

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        return [self._swapped(caption, prompt) for caption, prompt in zip(captions, prompts, strict=True)]

    def _swapped(self, caption: str, prompt: str) -> str:
        for group in self.vocabulary.groups:
            asked, said = _first(group, prompt), _first(group, caption)
            if asked is not None and said is not None:
                caption = _replaced(caption, said, asked)
        return f"{caption}, {prompt}"


def _first(group: Group, text: str) -> str | None:
    """The group's word that `text` says first, the longest where several begin there."""
    found = [(match.start(), -len(word), word) for word in group.words if word and (match := _search(word, text))]
    return min(found)[2] if found else None


def _search(word: str, text: str) -> re.Match[str] | None:
    return re.search(rf"\b{re.escape(word)}\b", text, flags=re.IGNORECASE)


def _replaced(text: str, old: str, new: str) -> str:
    """`new` wherever `text` says `old`, with the article that `new` wants."""
    article = "an " if new[0].lower() in "aeiou" else "a "

    def put(match: re.Match[str]) -> str:
        return (article if match[1] else "") + new

    return re.sub(rf"\b(an? )?{re.escape(old)}\b", put, text, flags=re.IGNORECASE)
