"""Edits of captions: phrases are replaced, removed or inserted so that the caption stays a sentence with correct articles."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from mmretrieve.language.lexicon import Lexicon, Match, Reading, general_lexicon
from mmretrieve.language.tokens import is_plural, occurrences, tokenize, word_list

ARTICLE = re.compile(r"\b(a)n?(\s+)$", re.IGNORECASE)
PARTICIPLE = re.compile(r"(?!thing)[a-z]{2,}ing")
PICTURES = ("photo", "picture", "image", "drawing", "painting", "photograph")


@dataclass(frozen=True)
class Edit:
    """Replaces the characters [start, end) of a text by `new`."""

    start: int
    end: int
    new: str = ""


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """The text after edits, with correct articles before them and without stray commas and spaces.

    Of two edits that overlap, the one that starts later counts.

    >>> apply_edits("a photo of a blue dress", [Edit(13, 17, "orange")])
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


def remove_phrase(caption: str, phrase: str, lexicon: Lexicon | None = None) -> str:
    """The caption without a phrase, in any form that has the same meaning.

    The caption is returned unchanged if it does not contain the phrase, or if the phrase is the head of the sentence. A class
    whose absence has a word of its own gets that word: "sleeves" makes a "short-sleeved dress" a "sleeveless dress".

    Parameters
    ----------
    caption : the text to edit.
    phrase : what to remove.
    lexicon : the classes of words; default: the general ones.

    >>> remove_phrase("a photo of a red striped dress with dots and a belt", "stripes")
    'a photo of a red dress with dots and a belt'
    >>> remove_phrase("a photo of a red striped dress with dots and a belt", "dots")
    'a photo of a red striped dress with a belt'
    """
    lexicon = lexicon or general_lexicon()
    sentence = Sentence(caption, lexicon)
    absent = lexicon.absence(phrase)
    edits = sentence.removals(phrase) if absent is None else sentence.absence_edits(absent)
    return apply_edits(caption, edits) or caption


def insert_phrase(caption: str, phrase: str, lexicon: Lexicon | None = None) -> str:
    """The caption with a phrase: instead of another word of the same class, else before the noun, else at the end.

    Parameters
    ----------
    caption : the text to edit.
    phrase : what to insert; a caption that contains it is returned unchanged.
    lexicon : the classes of words; default: the general ones.

    >>> insert_phrase("a photo of a red dress", "striped"), insert_phrase("a photo of a red striped dress", "dots")
    ('a photo of a red striped dress', 'a photo of a red dotted dress')
    >>> insert_phrase("a photo of a red dress", "a belt")
    'a photo of a red dress with a belt'
    """
    return Sentence(caption, lexicon or general_lexicon()).with_phrase(phrase)


class Sentence:
    """A caption as tokens, with the phrases that a lexicon knows. Most methods return edits of the caption.

    Parameters
    ----------
    text : the caption.
    lexicon : the classes of words.
    """

    def __init__(self, text: str, lexicon: Lexicon) -> None:
        self.text, self.words, self.lexicon = text, tokenize(text), lexicon
        self.matches = lexicon.find(self.words)
        self._matched_words = {i for match in self.matches for i in range(match.start, match.end)}

    def with_phrase(self, phrase: str) -> str:
        """The caption with a phrase, as `insert_phrase` says."""
        if self.contains(phrase):
            return self.text
        meaning = self.lexicon.meaning(phrase)
        if meaning is not None:
            if swap := self.replace_in_class(meaning):
                return apply_edits(self.text, swap)
            thing = self.lexicon.thing
            adjective = [reading for c, reading in meaning.readings.items() if reading.kind == 0 and c != thing]
            at = self.adjective_position() if adjective else None
            if at is not None:
                return apply_edits(self.text, [Edit(at, at, f"{adjective[0].form} ")])
        joint = " " if (tokenize(phrase)[:1] and tokenize(phrase)[0].exact in boundaries()) else " with "
        return f"{self.text}{joint}{phrase}" if self.text.strip() else phrase

    def contains(self, phrase: str) -> bool:
        """Whether the caption contains a phrase, in any form that has the same meaning."""
        return bool(self._spans(phrase))

    def matches_of(self, meaning: Match) -> list[Match]:
        """The phrases with the same meaning in some class."""
        return [match for match in self.matches if match.means(meaning)]

    def edit(self, start: int, end: int, new: str = "") -> Edit:
        """Replaces the tokens [start, end)."""
        return Edit(self.words[start].start, self.words[end - 1].end, new)

    def replace_in_class(self, meaning: Match) -> list[Edit]:
        """Edits that replace the first phrase of the same class, nouns aside, by a meaning; [] if there is none."""
        for c, requested in meaning.readings.items():
            current = next((match for match in self.matches if c in match.readings and c != self.lexicon.thing), None)
            if current is not None and (edits := self.replacements(current, requested)):
                return edits
        return []

    def replacements(self, current: Match, requested: Reading) -> list[Edit]:
        """Edits that replace a phrase, wherever it occurs, by `requested`; [] if it does not fit or is already there."""
        c = requested.cls
        if requested.member == 0 and self.lexicon.classes[c].absence_of:
            return self.absence_edits(c)
        new = self.lexicon.classes[c].replacement_form(current.readings[c], requested)
        if new is None:
            return []
        if c == self.lexicon.thing and is_plural(current.readings[c].form) and is_plural(requested.form):
            new = requested.form
        repeated = [
            each for each in self.matches if (reading := each.readings.get(c)) and reading.form == current.readings[c].form
        ]
        spans = {(each.start, each.end) for each in (current, *repeated)}
        return [edit for start, end in sorted(spans) for edit in self._replacements_at(start, end, new)]

    def absence_edits(self, c: int) -> list[Edit]:
        """Edits that replace the members of a class by its absence: "sleeveless", or "without sleeves" if the vocabulary has that."""
        word_class = self.lexicon.classes[c]
        current = [(match, reading) for match in self.matches if (reading := match.readings.get(c)) and reading.member > 0]
        edits: list[Edit] = []
        for match, reading in current:
            form = next(iter(word_class.forms(0, reading.kind)), None)
            if form is not None and (reading.kind == 0 or form in word_class.vocabulary):
                edits.append(self.edit(match.start, match.end, form))
            elif removals := self._removals_at(match.start, match.end):
                at = self.adjective_position()
                edits += [*removals, *([Edit(at, at, f"{word_class.forms(0, 0)[0]} ")] if at is not None else [])]
        return edits

    def removals(self, phrase: str) -> list[Edit]:
        """Edits that remove a phrase."""
        return [edit for start, end in self._spans(phrase) for edit in self._removals_at(start, end)]

    def adjective_position(self) -> int | None:
        """The character position of a new adjective: after the article and adjectives of the first noun; None if there is none."""
        start = next(
            (i + 1 for i, word in enumerate(self.words) if i and word.exact == "of" and self.words[i - 1].exact in PICTURES), 0
        )
        attributes = self._attributes
        at = start
        while at < len(self.words) and (self.words[at].exact in word_list("determiners") or at in attributes):
            at += 1
        return self.words[at].start if at < len(self.words) and not self._is_boundary(at) else None

    def head_stems(self, match: Match) -> set[str]:
        """The stems after a phrase within its noun phrase: `{"dress"}` for the "red" of "a red dress with buttons"."""
        return {word.stem for word in self.words[match.end : self._noun_phrase(match.start, match.end)[1]]}

    def _replacements_at(self, start: int, end: int, new: str) -> list[Edit]:
        """The edit of one span, and of the article that a noun loses when it becomes plural ("jeans"), or gains."""
        first, last = self._noun_phrase(start, end)
        plain = self.edit(start, end, new)
        was, becomes = is_plural(" ".join(word.exact for word in self.words[start:end])), is_plural(new)
        if last != end or was == becomes or self._is_boundary(start) or self._is_counted(first):
            return [plain]
        if becomes and self.words[first].exact in ("a", "an") and first < start:
            return [Edit(self.words[first].start, self.words[first + 1].start), plain]
        if becomes or self._is_determiner(first):
            return [plain]
        at = self.words[first].start
        return (
            [Edit(at, at, "a "), plain]
            if first < start
            else [Edit(at, plain.end, f"{'an' if new[0] in 'aeiou' else 'a'} {new}")]
        )

    def _spans(self, phrase: str) -> list[tuple[int, int]]:
        meaning = self.lexicon.meaning(phrase)
        if meaning is not None:  # the "long" of "long sleeves" is not a length
            return [(match.start, match.end) for match in self.matches_of(meaning)]
        return occurrences(self.words, phrase)

    def _removals_at(self, start: int, end: int) -> list[Edit]:
        if any(self._is_verb(i) for i in range(start, end)):
            return []
        inner = start + 1 if self._is_boundary(start) and end > start + 1 else start
        first, last = self._noun_phrase(inner, end)
        if end < last:
            if self._is_adjective_joint(start - 1):
                return [self.edit(start - 1, end)]
            return [Edit(self.words[start].start, self.words[end + self._is_adjective_joint(end)].start)]
        if self._is_joint(last, first) and not self._is_boundary(last + 1):
            keeps = self._is_determiner(first) and set(range(first + 1, last)) <= self._attributes
            keeps = keeps and not self._is_determiner(last + 1)
            return [self.edit(first + 1 if keeps else first, last + 1)]
        begin = first
        while begin > 0 and self._is_introducing(begin - 1):
            begin -= 1
        dangling = last < len(self.words) and self.words[last].exact in word_list("joining")
        return [self.edit(begin, last + dangling)] if 0 < begin < first else []

    def _noun_phrase(self, start: int, end: int) -> tuple[int, int]:
        """The noun phrase around the tokens [start, end): up to the next preposition, conjunction or punctuation mark.

        "black and white cats" is one noun phrase.
        """
        while start > 0 and (not self._is_boundary(start - 1) or self._is_adjective_joint(start - 1)):
            start -= 1
        while end < len(self.words) and (not self._is_boundary(end) or self._is_adjective_joint(end)):
            end += 1
        return start, end

    def _is_boundary(self, i: int) -> bool:
        if i >= len(self.words) or not self.words[i].is_word or self.words[i].exact in boundaries():
            return True
        return self._is_verb(i)

    def _is_verb(self, i: int) -> bool:
        """Whether a token is a participle that begins a phrase: "throwing" in "a man throwing a ball", not in "a throwing man"."""
        participle = PARTICIPLE.fullmatch(self.words[i].exact) is not None
        return participle and i > 0 and i not in self._matched_words and not self._is_determiner(i - 1)

    def _is_introducing(self, i: int) -> bool:
        word = self.words[i].exact
        return (
            word in word_list("removable", "joining")
            or word == ","
            or (word == "of" and i > 0 and self.words[i - 1].exact == "full")
        )

    def _is_joint(self, i: int, first: int = 0) -> bool:
        """Whether a token joins two noun phrases: "and", or a comma in "with A, B and C", whose first begins at `first`."""
        if i >= len(self.words):
            return False
        is_list = self.words[i].exact == "," and first > 0 and self._is_introducing(first - 1)
        return self.words[i].exact in word_list("joining") or is_list

    def _is_adjective_joint(self, i: int) -> bool:
        joins = 0 < i < len(self.words) and self.words[i].exact in word_list("joining")
        return joins and {i - 1, i + 1} <= self._attributes

    def _is_determiner(self, i: int) -> bool:
        return self.words[i].exact in word_list("determiners")

    def _is_counted(self, first: int) -> bool:
        numbers = {i for i, each in enumerate(self.lexicon.classes) if each.name == "number"}
        return any(match.start == first and numbers & set(match.readings) for match in self.matches)

    @cached_property
    def _attributes(self) -> set[int]:
        """The tokens of known adjectives."""
        thing = self.lexicon.thing
        known = (m for m in self.matches if any(c != thing and reading.kind == 0 for c, reading in m.readings.items()))
        return {i for match in known for i in range(match.start, match.end)}


def boundaries() -> frozenset[str]:
    """Words that end a noun phrase."""
    return word_list("removable", "joining", "other_boundaries")
