"""Rewriters that need no language model: a template, and one that puts the prompt's words in the place of the caption's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from mmretrieve.language.editing import without
from mmretrieve.language.lexicon import Lexicon
from mmretrieve.language.roles import RuleCompiler
from mmretrieve.language.sentence import edited
from mmretrieve.language.swaps import swaps
from mmretrieve.language.vocabulary import Vocabulary
from mmretrieve.language.words import says


@dataclass(frozen=True)
class TemplateRewriter:
    """`"{caption}, {prompt}"`."""

    is_rule_based: ClassVar[bool] = True  # may be asked again, with a part of a caption

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        return [f"{caption}, {prompt}" for caption, prompt in zip(captions, prompts, strict=True)]


@dataclass(frozen=True)
class SwapRewriter:
    """The template, after words of the caption have given way to the prompt's words of the same class.

    `"a photo of a blue dress"` with `"in red"` becomes `"a photo of a red dress, in red"`: the old colour is not said any more.
    Classes are the groups of `vocabulary`, widened by the general ones of `Lexicon`. Comparatives move one step ("shorter").
    A word gives way only to one that stands by itself: "with red buttons" changes no colour, "with a belt" no dress. What the
    prompt forbids is left out of the caption and never added. The template alone remains where nothing matches.

    >>> from mmretrieve.language.vocabulary import WordGroup
    >>> vocabulary = Vocabulary("a {colour} {thing}", (WordGroup("colour", ("red", "blue")), WordGroup("thing", ("dress", "skirt"))))
    >>> SwapRewriter(vocabulary).rewrite(["a blue striped dress"], ["as a skirt in red, without stripes"])
    ['a red skirt, as a skirt in red']
    """

    vocabulary: Vocabulary
    is_rule_based: ClassVar[bool] = True

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        """One rewritten caption for each pair, in order: one line each."""
        pairs = list(zip(captions, prompts, strict=True))
        said = {pair: self._rewritten(*pair) for pair in dict.fromkeys(pairs)}
        return [said[pair] for pair in pairs]

    @cached_property
    def lexicon(self) -> Lexicon:
        """The classes of words that replace each other."""
        return Lexicon.of(self.vocabulary)

    @cached_property
    def compiler(self) -> RuleCompiler:
        """The reader of prompts, which knows the vocabulary's own negations such as "without sleeves"."""
        return RuleCompiler(
            self.lexicon.negations | frozenset(word for group in self.vocabulary.groups for word in group.words)
        )

    def _rewritten(self, caption: str, prompt: str) -> str:
        caption, prompt = (" ".join(text.splitlines()) for text in (caption, prompt))
        forbidden, wanted = self.compiler.roles(prompt).forbidden, self.compiler.remaining(prompt)
        caption = edited(caption, swaps(self.lexicon, caption, wanted, prompt, forbidden))
        for phrase in forbidden:
            if not says(wanted, phrase):  # "a hall with green walls instead of a hall with blue ones"
                caption = without(caption, phrase, self.lexicon)
        return ", ".join(filter(None, (caption, wanted)))
