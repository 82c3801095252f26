"""Which words of a caption give way to which words of a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmretrieve.language.lexicon import Lexicon, Match, Reading
from mmretrieve.language.sentence import Edit, Sentence
from mmretrieve.language.words import WordToken, stem_key, tokens, word_list

BREAKS = ("and", "but", "or", "with", "without", "while")
BEFORE_THINGS = ("in", "on", "at", "of", "for", "from", "with")  # "in a dress" does not ask for a dress
ADDING = ("has", "have", "shows", "contains", "wears", "holds", "there")  # "has a belt" does, if it is "instead of a tie"
INSTEAD = re.compile(r"\b(?:instead|in place of|rather than|replace|swap|exchange)\b", re.IGNORECASE)
INTRODUCING = ("as", "into", "a", "an")  # what makes a thing of a word that is a colour or a room as well: "an orange"


@dataclass(frozen=True)
class PromptPart:
    """A stretch of a prompt between conjunctions and punctuation marks: its words, what is known in it, and what introduces it."""

    words: Sequence[WordToken]
    matches: Sequence[Match]
    introduced_by: str

    def others(self) -> set[str]:
        """Stems of the words that no class knows and that are no fillers such as "a … one" or "in … colour"."""
        known = {i for match in self.matches for i in range(match.start, match.end)}
        return {word.stem for i, word in enumerate(self.words) if i not in known and word.exact not in word_list("fillers")}

    def asks_for(self, match: Match, thing: int, instead: bool) -> bool:
        """Whether a match asks for another kind of thing: "as a dress", "a red skirt", and not "with a belt", "in a dress".

        `instead`: whether the prompt says what gives way; then "has a belt" asks for one too.
        """
        before = [word.exact for word in self.words[: match.start]]
        excluding = {*BEFORE_THINGS, *(() if instead else ADDING)}
        things = [each for each in self.matches if thing in each.readings and len(each.readings) == 1]
        named = len(match.readings) == 1 or (not things and before[-1:] in [[word] for word in INTRODUCING])
        alone = len(things) <= 1 and not self.others() and not set(before) & excluding
        return thing in match.readings and named and alone and self.introduced_by not in ("with", "and")


def swaps(lexicon: Lexicon, caption: str, wanted: str, prompt: str, forbidden: Sequence[str]) -> list[Edit]:
    """Edits that put what a prompt wants in the place of what the caption says, at most one word a class.

    `wanted` is the prompt without what it forbids; of the whole `prompt` only comparatives are read besides ("less formal").
    """
    plan = SwapPlan(Sentence(caption, lexicon), forbidden, INSTEAD.search(prompt) is not None)
    for part in parts(lexicon, wanted):
        for match in part.matches:
            plan.put(part, match)
    for part in parts(lexicon, prompt) if prompt != wanted else ():
        for match in part.matches:
            if any(reading.step for reading in match.readings.values()):
                plan.put(part, match)
    return plan.edits


def parts(lexicon: Lexicon, text: str) -> Iterator[PromptPart]:
    """A prompt cut at conjunctions and punctuation marks, those within known phrases aside ("with long sleeves")."""
    words = tokens(text)
    matches = lexicon.joined(lexicon.find(words), words)
    inside = {i for match in matches for i in range(match.start, match.end)}
    cuts = [i for i, word in enumerate(words) if i not in inside and (not word.is_word or word.exact in BREAKS)]
    adding = next((i for i, word in enumerate(words) if i not in inside and word.exact in ("with", *ADDING)), len(words))
    for cut, end in zip([-1, *cuts], [*cuts, len(words)], strict=True):
        start = cut + 1
        introduced_by = words[cut].exact if cut >= 0 else ""
        listed = introduced_by == "," and adding < cut  # "has a bed, a lamp"
        within = [Match(m.start - start, m.end - start, m.readings) for m in matches if start <= m.start < end]
        yield PromptPart(words[start:end], within, "with" if listed else introduced_by)


class SwapPlan:
    """The edits of one caption, as they are found."""

    def __init__(self, sentence: Sentence, forbidden: Sequence[str], instead: bool) -> None:
        self.sentence = sentence
        self.lexicon = sentence.lexicon
        self.edits: list[Edit] = []
        self._done: set[int] = set()
        self._instead = instead
        forbidden_matches = (self.lexicon.meaning(phrase) for phrase in forbidden)
        self._leaving = [match for meaning in forbidden_matches if meaning for match in sentence.matching(meaning)]
        self._said = [*self._leaving, *self.lexicon.joined(sentence.matches, sentence.words)]

    def put(self, part: PromptPart, match: Match) -> None:
        """Adds the edits that one phrase of the prompt asks for, in the first meaning that the caption has a word for."""
        for c, requested in match.readings.items():
            current = None if c in self._done else self._place(part, match, requested)
            edits = self.sentence.replaced(current, requested) if current is not None else []
            if edits:
                self._done.add(c)
                places = {(edit.start, edit.end) for edit in self.edits}
                self.edits += [edit for edit in edits if (edit.start, edit.end) not in places]
                return

    def _place(self, part: PromptPart, match: Match, requested: Reading) -> Match | None:
        """The phrase of the caption that gives way; None where the caption has none, or the prompt speaks of something else."""
        c = requested.cls
        candidates = [current for current in self._said if c in current.readings and not current.readings[c].step]
        if c == self.lexicon.thing:
            return self._thing(candidates, match) if self._asks(part, match) else None
        others = part.others() | self._other_things(part)
        return next((current for current in candidates if others <= self.sentence.noun(current)), None)

    def _thing(self, candidates: Sequence[Match], requested: Match) -> Match | None:
        """What the prompt forbids, else the first noun: people give way to people alone, and things to things."""
        if self.sentence.matching(requested):
            return None
        leaving = [current for current in candidates if current in self._leaving]
        heads = [current for current in candidates if not self.sentence.noun(current)]
        pure = [current for current in heads if len(current.readings) == 1]
        alike = [current for current in pure or heads if self._is_person(current) == self._is_person(requested)]
        return next(iter([*leaving, *alike]), None)

    def _asks(self, part: PromptPart, match: Match) -> bool:
        gives_way = self._instead and any(self.lexicon.thing in current.readings for current in self._leaving)
        return part.asks_for(match, self.lexicon.thing, gives_way)

    def _is_person(self, match: Match) -> bool:
        return stem_key(match.readings[self.lexicon.thing].form) in {stem_key(word) for word in word_list("people")}

    def _other_things(self, part: PromptPart) -> set[str]:
        """Stems of the things of a part that it does not ask for, or that the caption says already."""
        thing = self.lexicon.thing
        things = [match for match in part.matches if set(match.readings) == {thing}]
        stays = [match for match in things if self.sentence.matching(match) or not self._asks(part, match)]
        return {word.stem for match in stays for word in part.words[match.start : match.end]}
