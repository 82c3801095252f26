"""Rewriters without a language model: a template, and one that replaces words of the caption by words of the prompt.

To add a rewriter, implement `base.Rewriter` and name it in `registry.REWRITERS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from mmretrieve.language.editing import Edit, Sentence, apply_edits, remove_phrase
from mmretrieve.language.lexicon import Lexicon, Match, Reading
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.language.tokens import WordToken, contains, stem_key, tokenize, word_list
from mmretrieve.language.vocabulary import Vocabulary

BREAKS = ("and", "but", "or", "with", "without", "while")
PREPOSITIONS = ("in", "on", "at", "of", "for", "from", "with")  # "in a dress" does not ask for a dress
ADDING_VERBS = (
    "has",
    "have",
    "shows",
    "contains",
    "wears",
    "holds",
    "there",
)  # "has a belt" does, together with "instead of a tie"
INSTEAD = re.compile(r"\b(?:instead|in place of|rather than|replace|swap|exchange)\b", re.IGNORECASE)
NOUN_MARKERS = ("as", "into", "a", "an")  # a word after them is a noun although it may be a color or a room: "an orange"


@dataclass(frozen=True)
class TemplateRewriter:
    """`"{caption}, {prompt}"`.

    >>> TemplateRewriter().rewrite(["a photo of a dress"], ["in red"])
    ['a photo of a dress, in red']
    """

    is_rule_based: ClassVar[bool] = True  # see base.Rewriter

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        """One text for each pair, in order."""
        return [f"{caption}, {prompt}" for caption, prompt in zip(captions, prompts, strict=True)]


def make_template(_vocabulary: Vocabulary) -> TemplateRewriter:
    """The factory of the template."""
    return TemplateRewriter()


@dataclass(frozen=True)
class SwapRewriter:
    """The template, after words of the caption are replaced by the prompt's words of the same class.

    `"a photo of a blue dress"` with `"in red"` becomes `"a photo of a red dress, in red"`. Comparatives move one step
    ("shorter"). Only a word that stands by itself replaces another: "with red buttons" does not change the color, "with a belt"
    not the dress. What the prompt forbids is removed from the caption and not appended. If nothing matches, the result is that
    of the template.

    Parameters
    ----------
    vocabulary : its groups are the classes of words, extended by the general ones of `Lexicon`.

    >>> from mmretrieve.language.vocabulary import WordGroup
    >>> groups = WordGroup("colour", ("red", "blue")), WordGroup("thing", ("dress", "skirt"))
    >>> vocabulary = Vocabulary("a {colour} {thing}", groups)
    >>> SwapRewriter(vocabulary).rewrite(["a blue striped dress"], ["as a skirt in red, without stripes"])
    ['a red skirt, as a skirt in red']
    """

    vocabulary: Vocabulary
    is_rule_based: ClassVar[bool] = True

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        """One rewritten caption for each pair, in order, each in one line."""
        pairs = list(zip(captions, prompts, strict=True))
        edits = {
            prompt: PromptEdit.of(" ".join(prompt.splitlines()), self.compiler, self.lexicon)
            for _, prompt in dict.fromkeys(pairs)
        }
        rewrites = {
            (caption, prompt): edits[prompt].apply(" ".join(caption.splitlines())) for caption, prompt in dict.fromkeys(pairs)
        }
        return [rewrites[pair] for pair in pairs]

    @cached_property
    def lexicon(self) -> Lexicon:
        """The classes of words that replace each other."""
        return Lexicon.of(self.vocabulary)

    @cached_property
    def compiler(self) -> RuleCompiler:
        """Sorts prompts into roles; the vocabulary's phrases with a negation, such as "without sleeves", are desired."""
        return RuleCompiler(
            self.lexicon.negations | frozenset(word for group in self.vocabulary.groups for word in group.words)
        )


@dataclass(frozen=True)
class PromptPart:
    """A part of a prompt between conjunctions and punctuation marks: its tokens, its known phrases, and the token before it."""

    words: Sequence[WordToken]
    matches: Sequence[Match]
    introduced_by: str

    def others(self) -> set[str]:
        """Stems of the words that are in no class and are not fillers such as "a … one" or "in … colour"."""
        known = {i for match in self.matches for i in range(match.start, match.end)}
        return {word.stem for i, word in enumerate(self.words) if i not in known and word.exact not in word_list("fillers")}

    def asks_for(self, match: Match, thing: int, instead: bool) -> bool:
        """Whether a match asks for another kind of thing: "as a dress", "a red skirt", not "with a belt", "in a dress".

        `instead`: whether the prompt names what is replaced; then "has a belt" asks for a belt too.
        """
        before = [word.exact for word in self.words[: match.start]]
        excluding = {*PREPOSITIONS, *(() if instead else ADDING_VERBS)}
        things = [each for each in self.matches if thing in each.readings and len(each.readings) == 1]
        named = len(match.readings) == 1 or (not things and before[-1:] in [[word] for word in NOUN_MARKERS])
        alone = len(things) <= 1 and not self.others() and not set(before) & excluding
        return thing in match.readings and named and alone and self.introduced_by not in ("with", "and")


@dataclass(frozen=True)
class PromptEdit:
    """What a prompt, read once, does to captions.

    Parameters
    ----------
    lexicon : the classes of words.
    wanted : the prompt without what it forbids.
    forbidden : the phrases that the prompt forbids; they are replaced first.
    phrases : the known phrases of `wanted`, each with its part; then, if the prompt forbids something, the comparatives of the
        whole prompt ("less formal").
    instead : whether the prompt names what is replaced.
    """

    lexicon: Lexicon
    wanted: str
    forbidden: tuple[str, ...]
    phrases: tuple[tuple[PromptPart, Match], ...]
    instead: bool

    @classmethod
    def of(cls, prompt: str, compiler: RuleCompiler, lexicon: Lexicon) -> PromptEdit:
        """Reads a prompt of one line."""
        wanted = compiler.desired_text(prompt)
        phrases = [(part, match) for part in split_prompt(lexicon, wanted) for match in part.matches]
        if prompt != wanted:
            whole = ((part, match) for part in split_prompt(lexicon, prompt) for match in part.matches)
            phrases += [(part, match) for part, match in whole if any(reading.step for reading in match.readings.values())]
        forbidden = compiler.roles(prompt).forbidden
        return cls(lexicon, wanted, forbidden, tuple(phrases), INSTEAD.search(prompt) is not None)

    def apply(self, caption: str) -> str:
        """The rewrite of a caption of one line: at most one phrase per class is replaced, what is forbidden removed, the rest appended."""
        plan = SwapPlan(Sentence(caption, self.lexicon), self.forbidden, self.instead)
        for part, match in self.phrases:
            plan.add(part, match)
        caption = apply_edits(caption, plan.edits)
        for phrase in self.forbidden:
            if not contains(self.wanted, phrase):  # "a hall with green walls instead of a hall with blue ones"
                caption = remove_phrase(caption, phrase, self.lexicon)
        return ", ".join(filter(None, (caption, self.wanted)))


def split_prompt(lexicon: Lexicon, text: str) -> Iterator[PromptPart]:
    """A prompt split at conjunctions and punctuation marks, except within known phrases ("with long sleeves")."""
    words = tokenize(text)
    matches = lexicon.merge_conjunctions(lexicon.find(words), words)
    inside = {i for match in matches for i in range(match.start, match.end)}
    cuts = [i for i, word in enumerate(words) if i not in inside and (not word.is_word or word.exact in BREAKS)]
    adding = next((i for i, word in enumerate(words) if i not in inside and word.exact in ("with", *ADDING_VERBS)), len(words))
    for cut, end in zip([-1, *cuts], [*cuts, len(words)], strict=True):
        start = cut + 1
        introduced_by = words[cut].exact if cut >= 0 else ""
        is_list = introduced_by == "," and adding < cut  # "has a bed, a lamp"
        within = [Match(m.start - start, m.end - start, m.readings) for m in matches if start <= m.start < end]
        yield PromptPart(words[start:end], within, "with" if is_list else introduced_by)


class SwapPlan:
    """Collects the edits of one caption, at most one phrase per class."""

    def __init__(self, sentence: Sentence, forbidden: Sequence[str], instead: bool) -> None:
        self.sentence = sentence
        self.lexicon = sentence.lexicon
        self.edits: list[Edit] = []
        self._used_classes: set[int] = set()
        self._instead = instead
        forbidden_matches = (self.lexicon.meaning(phrase) for phrase in forbidden)
        self._forbidden = [match for meaning in forbidden_matches if meaning for match in sentence.matches_of(meaning)]
        self._candidates = [*self._forbidden, *self.lexicon.merge_conjunctions(sentence.matches, sentence.words)]

    def add(self, part: PromptPart, match: Match) -> None:
        """Add the edits for one phrase of the prompt, in the first meaning for which the caption has a word."""
        for c, requested in match.readings.items():
            current = None if c in self._used_classes else self._phrase_to_replace(part, match, requested)
            edits = self.sentence.replacements(current, requested) if current is not None else []
            if edits:
                self._used_classes.add(c)
                spans = {(edit.start, edit.end) for edit in self.edits}
                self.edits += [edit for edit in edits if (edit.start, edit.end) not in spans]
                return

    def _phrase_to_replace(self, part: PromptPart, match: Match, requested: Reading) -> Match | None:
        """The phrase of the caption that is replaced; None if there is none, or if the prompt is about something else."""
        c = requested.cls
        candidates = [current for current in self._candidates if c in current.readings and not current.readings[c].step]
        if c == self.lexicon.thing:
            return self._noun_to_replace(candidates, match) if self._asks_for(part, match) else None
        others = part.others() | self._other_things(part)
        return next((current for current in candidates if others <= self.sentence.head_stems(current)), None)

    def _noun_to_replace(self, candidates: Sequence[Match], requested: Match) -> Match | None:
        """A forbidden noun, else the first one of the same kind: people replace people, and things replace things."""
        if self.sentence.matches_of(requested):
            return None
        forbidden = [current for current in candidates if current in self._forbidden]
        heads = [current for current in candidates if not self.sentence.head_stems(current)]
        pure = [current for current in heads if len(current.readings) == 1]
        alike = [current for current in pure or heads if self._is_person(current) == self._is_person(requested)]
        return next(iter([*forbidden, *alike]), None)

    def _asks_for(self, part: PromptPart, match: Match) -> bool:
        instead = self._instead and any(self.lexicon.thing in current.readings for current in self._forbidden)
        return part.asks_for(match, self.lexicon.thing, instead)

    def _is_person(self, match: Match) -> bool:
        return stem_key(match.readings[self.lexicon.thing].form) in {stem_key(word) for word in word_list("people")}

    def _other_things(self, part: PromptPart) -> set[str]:
        """Stems of the nouns of a part that it does not ask for, or that the caption already contains."""
        thing = self.lexicon.thing
        things = [match for match in part.matches if set(match.readings) == {thing}]
        unchanged = [match for match in things if self.sentence.matches_of(match) or not self._asks_for(part, match)]
        return {word.stem for match in unchanged for word in part.words[match.start : match.end]}
