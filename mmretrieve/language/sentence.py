"""A caption as words that can be replaced or left out so that it stays a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from mmretrieve.language.lexicon import Lexicon, Match, Reading
from mmretrieve.language.words import is_plural, occurrences, tokens, word_list

ARTICLE = re.compile(r"\b(a)n?(\s+)$", re.IGNORECASE)
PARTICIPLE = re.compile(r"(?!thing)[a-z]{2,}ing")
PICTURES = ("photo", "picture", "image", "drawing", "painting", "photograph")


@dataclass(frozen=True)
class Edit:
    """Characters [start, end) of a text give way to `new`."""

    start: int
    end: int
    new: str = ""


def edited(text: str, edits: Iterable[Edit]) -> str:
    """The text after edits; an article before one of them is made to fit, and no stray comma or space stays.

    Where two edits overlap, the later one counts.

    >>> edited("a photo of a blue dress", [Edit(13, 17, "orange")])
    'a photo of an orange dress'
    """
    changed, limit = text, len(text)
    for edit in sorted(edits, key=lambda each: (-each.start, -each.end)):
        if edit.end > limit:
            continue
        limit = edit.start
        before, after = changed[: edit.start], f"{edit.new}{changed[edit.end :]}"
        if first := re.match(r"\s*([^\W_])", after):
            before = ARTICLE.sub(r"\1n\2" if first[1].lower() in "aeiou" else r"\1\2", before)
        changed = before + after
    return text if changed == text else re.sub(r"\s+(?=[,;.]|\s|$)|^[\s,;]+|[\s,;]+$", "", changed)


class Sentence:
    """A caption as words, with the phrases in it that a lexicon knows."""

    def __init__(self, text: str, lexicon: Lexicon) -> None:
        self.words = tokens(text)
        self.lexicon = lexicon
        self.matches = lexicon.find(self.words)
        self._known = {i for match in self.matches for i in range(match.start, match.end)}

    def says(self, phrase: str) -> bool:
        return bool(self._spans(phrase))

    def matching(self, meaning: Match) -> list[Match]:
        """The phrases that mean the same member of some class."""
        return [match for match in self.matches if match.means(meaning)]

    def edit(self, start: int, end: int, new: str = "") -> Edit:
        return Edit(self.words[start].start, self.words[end - 1].end, new)

    def swap(self, meaning: Match) -> list[Edit]:
        """Edits that put a meaning in the place of the first phrase of its class, things aside; [] where there is none."""
        for c, requested in meaning.readings.items():
            current = next((match for match in self.matches if c in match.readings and c != self.lexicon.thing), None)
            if current is not None and (edits := self.replaced(current, requested)):
                return edits
        return []

    def replaced(self, current: Match, requested: Reading) -> list[Edit]:
        """Edits that put `requested` in the place of a phrase, wherever it occurs; [] where it does not fit or is there already."""
        c = requested.cls
        if requested.member == 0 and self.lexicon.classes[c].absence_of:
            return self.absent(c)
        new = self.lexicon.classes[c].fitting(current.readings[c], requested)
        if new is None:
            return []
        if c == self.lexicon.thing and is_plural(current.readings[c].form) and is_plural(requested.form):
            new = requested.form
        again = [
            each for each in self.matches if (reading := each.readings.get(c)) and reading.form == current.readings[c].form
        ]
        places = {(each.start, each.end) for each in (current, *again)}
        return [edit for start, end in sorted(places) for edit in self._replacing(start, end, new)]

    def absent(self, c: int) -> list[Edit]:
        """Edits that say the absence of a class in the place of its members: "sleeveless", "without sleeves" if the vocabulary says so."""
        word_class = self.lexicon.classes[c]
        current = [(match, reading) for match in self.matches if (reading := match.readings.get(c)) and reading.member > 0]
        edits: list[Edit] = []
        for match, reading in current:
            form = next(iter(word_class.forms(0, reading.kind)), None)
            if form is not None and (reading.kind == 0 or form in word_class.vocabulary):
                edits.append(self.edit(match.start, match.end, form))
            elif left_out := self._left_out(match.start, match.end):
                at = self.before_noun()
                edits += [*left_out, *([Edit(at, at, f"{word_class.forms(0, 0)[0]} ")] if at is not None else [])]
        return edits

    def places(self, phrase: str) -> list[Edit]:
        """Edits that leave a phrase out."""
        return [edit for start, end in self._spans(phrase) for edit in self._left_out(start, end)]

    def before_noun(self) -> int | None:
        """Where an adjective belongs: behind the article and adjectives of what the picture shows."""
        start = next(
            (i + 1 for i, word in enumerate(self.words) if i and word.exact == "of" and self.words[i - 1].exact in PICTURES), 0
        )
        attributes = self._attributes
        at = start
        while at < len(self.words) and (self.words[at].exact in word_list("determiners") or at in attributes):
            at += 1
        return self.words[at].start if at < len(self.words) and not self._is_boundary(at) else None

    def noun(self, match: Match) -> set[str]:
        """The stems that follow a phrase within its noun phrase: `{"dress"}` for the "red" of "a red dress with buttons"."""
        return {word.stem for word in self.words[match.end : self._chunk(match.start, match.end)[1]]}

    def _replacing(self, start: int, end: int, new: str) -> list[Edit]:
        """The edit of one place, and with it the article that a noun loses where it becomes plural ("jeans"), or gains."""
        first, last = self._chunk(start, end)
        plain = self.edit(start, end, new)
        was, becomes = is_plural(" ".join(word.exact for word in self.words[start:end])), is_plural(new)
        if last != end or was == becomes or self._is_boundary(start) or self._is_counted(first):
            return [plain]
        if becomes and self.words[first].exact in ("a", "an") and first < start:
            return [Edit(self.words[first].start, self.words[first + 1].start), plain]
        if becomes or self._determined(first):
            return [plain]
        at = self.words[first].start
        return (
            [Edit(at, at, "a "), plain]
            if first < start
            else [Edit(at, plain.end, f"{'an' if new[0] in 'aeiou' else 'a'} {new}")]
        )

    def _spans(self, phrase: str) -> list[tuple[int, int]]:
        meaning = self.lexicon.meaning(phrase)
        if meaning is not None:  # the "long" of "long sleeves" is no length
            return [(match.start, match.end) for match in self.matching(meaning)]
        return occurrences(self.words, phrase)

    def _left_out(self, start: int, end: int) -> list[Edit]:
        if any(self._is_verb(i) for i in range(start, end)):
            return []
        inner = start + 1 if self._is_boundary(start) and end > start + 1 else start
        first, last = self._chunk(inner, end)
        if end < last:
            if self._joins_adjectives(start - 1):
                return [self.edit(start - 1, end)]
            return [Edit(self.words[start].start, self.words[end + self._joins_adjectives(end)].start)]
        if self._joins(last, first) and not self._is_boundary(last + 1):
            keeps = self._determined(first) and set(range(first + 1, last)) <= self._attributes
            keeps = keeps and not self._determined(last + 1)
            return [self.edit(first + 1 if keeps else first, last + 1)]
        begin = first
        while begin > 0 and self._is_removable(begin - 1):
            begin -= 1
        dangling = last < len(self.words) and self.words[last].exact in word_list("joining")
        return [self.edit(begin, last + dangling)] if 0 < begin < first else []

    def _chunk(self, start: int, end: int) -> tuple[int, int]:
        """The noun phrase around the words [start, end): all up to the next preposition, conjunction or punctuation mark.

        "black and white cats" is one.
        """
        while start > 0 and (not self._is_boundary(start - 1) or self._joins_adjectives(start - 1)):
            start -= 1
        while end < len(self.words) and (not self._is_boundary(end) or self._joins_adjectives(end)):
            end += 1
        return start, end

    def _is_boundary(self, i: int) -> bool:
        if i >= len(self.words) or not self.words[i].is_word or self.words[i].exact in boundaries():
            return True
        return self._is_verb(i)

    def _is_verb(self, i: int) -> bool:
        """Whether a word is a participle that begins a phrase: the "throwing" of "a man throwing a ball", not of "a throwing man"."""
        participle = PARTICIPLE.fullmatch(self.words[i].exact) is not None
        return participle and i > 0 and i not in self._known and not self._determined(i - 1)

    def _is_removable(self, i: int) -> bool:
        word = self.words[i].exact
        return (
            word in word_list("removable", "joining")
            or word == ","
            or (word == "of" and i > 0 and self.words[i - 1].exact == "full")
        )

    def _joins(self, i: int, first: int = 0) -> bool:
        """Whether a word joins two noun phrases: "and", or a comma within "with A, B and C", where the first begins at `first`."""
        if i >= len(self.words):
            return False
        listed = self.words[i].exact == "," and first > 0 and self._is_removable(first - 1)
        return self.words[i].exact in word_list("joining") or listed

    def _joins_adjectives(self, i: int) -> bool:
        joins = 0 < i < len(self.words) and self.words[i].exact in word_list("joining")
        return joins and {i - 1, i + 1} <= self._attributes

    def _determined(self, i: int) -> bool:
        return self.words[i].exact in word_list("determiners")

    def _is_counted(self, first: int) -> bool:
        numbers = {i for i, each in enumerate(self.lexicon.classes) if each.name == "number"}
        return any(match.start == first and numbers & set(match.readings) for match in self.matches)

    @cached_property
    def _attributes(self) -> set[int]:
        """The words of known adjectives."""
        thing = self.lexicon.thing
        known = (m for m in self.matches if any(c != thing and reading.kind == 0 for c, reading in m.readings.items()))
        return {i for match in known for i in range(match.start, match.end)}


def boundaries() -> frozenset[str]:
    """Words that end a noun phrase."""
    return word_list("removable", "joining", "other_boundaries")
