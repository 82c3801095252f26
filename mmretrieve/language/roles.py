"""What a prompt asks, sorted by role: phrases a target should show, keep or lack. A compiler does the sorting.

Roles and their signs: MulVec (arXiv 2608.25305).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

from mmretrieve.composer_input import ComposerInput
from mmretrieve.language.lexicon import general_lexicon
from mmretrieve.language.patterns import (
    BREAK,
    CLAUSE,
    CONTRAST,
    CONTRASTING,
    EMPTY,
    FILLING,
    KEEPING,
    LEADING,
    MASK,
    NEGATED,
    NEGATION,
    NOT_BARE,
    REWRITES,
    TAIL,
    TRAILING,
    VACUOUS,
    WISH,
)
from mmretrieve.language.words import tokens, word_list


@dataclass(frozen=True)
class Roles:
    """`whole` describes the target, `desired` is what the prompt adds, `preserve` what must stay, `forbidden` what must not show."""

    whole: str | None = None
    desired: tuple[str, ...] = ()
    preserve: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


class Compiler(Protocol):
    """Sorts prompts into roles."""

    def compile(self, queries: Sequence[ComposerInput]) -> list[Roles]: ...


KNOWN_PROMPTS = 1_000  # whose segments are remembered


@dataclass(frozen=True)
class RuleCompiler:
    """Sorts a prompt by rules: "without X", "not so X", "X-free", "anything but X" forbid; "keep the X", "the same X" preserve.

    The rest is desired. `known` are phrases that are words of their own, such as the "without sleeves" of a vocabulary: they are
    desired although they sound like a negation.

    >>> RuleCompiler().roles("the same but red, without stripes or dots")
    Roles(whole=None, desired=('red',), preserve=(), forbidden=('stripes', 'dots'))
    >>> RuleCompiler(known=frozenset({"without sleeves"})).roles("without sleeves").desired
    ('without sleeves',)
    """

    known: frozenset[str] = field(default=frozenset())
    _read: dict[str, tuple[list[Segment], list[str]]] = field(default_factory=dict, repr=False, compare=False)

    def compile(self, queries: Sequence[ComposerInput]) -> list[Roles]:
        """The roles of each query's prompt, in order. OptionError where a query has no prompt."""
        return [self.roles(query.words()) for query in queries]

    def roles(self, prompt: str) -> Roles:
        """The roles of one prompt."""
        segments, masked = self._segments(prompt)
        roles: dict[str, list[str]] = {"desired": [], "preserve": [], "forbidden": []}
        for segment in segments:
            for role, phrase in segment.roles():
                roles[role].append(_unmasked(phrase, masked))
        return Roles(None, *(tuple(dict.fromkeys(phrases)) for phrases in roles.values()))

    def remaining(self, prompt: str) -> str:
        """What a prompt says apart from what it forbids, as one text; "" where it does nothing else, the prompt where it forbids nothing.

        >>> RuleCompiler().remaining("in red with long sleeves, but without stripes")
        'in red with long sleeves'
        """
        segments, masked = self._segments(prompt)
        if not any(role == "forbidden" for segment in segments for role, _ in segment.roles()):
            return prompt.strip()
        said = ((segment.separator, segment.wanted()) for segment in segments)
        text = "".join(f"{_spaced(separator)}{wanted}" for separator, wanted in said if wanted)
        return re.sub(r"^(?:\s|[,;.]|(?:and|but|while)\b)+|[\s,;.]+$", "", _unmasked(text, masked))

    def _segments(self, prompt: str) -> tuple[list[Segment], list[str]]:
        """The segments of a prompt, and the known phrases that are masked in them; those of the last prompts are remembered."""
        read = self._read.get(prompt)
        if read is None:
            if len(self._read) >= KNOWN_PROMPTS:
                self._read.clear()
            read = self._read[prompt] = self._cut(prompt)
        return read

    def _cut(self, prompt: str) -> tuple[list[Segment], list[str]]:
        text, masked = self._masked(prompt.strip().replace("’", "'"))
        for pattern, replacement in REWRITES:
            text = re.sub(pattern, replacement, text, flags=re.IGNORECASE)
        first, *rest = re.split(BREAK, NEGATION.sub(_mark, text), flags=re.IGNORECASE)
        pairs = [("", first), *zip(rest[::2], rest[1::2], strict=True)]
        segments = [Segment(separator, part.strip(), NEGATED in part) for separator, part in pairs]
        return _without_vacuous(_with_scope(segments)), masked

    def _masked(self, text: str) -> tuple[str, list[str]]:
        """The text with a number in the place of each known phrase that has a negation, and these phrases."""
        masked: list[str] = []

        def mask(match: re.Match[str]) -> str:
            masked.append(match[1])
            listed = f", {NEGATED}" if match[2] else ""
            return f", {MASK}{len(masked) - 1}{MASK}{listed}"

        return (self._negations.sub(mask, text) if self._negations is not None else text), masked

    @cached_property
    def _negations(self) -> re.Pattern[str] | None:
        """Matches the known phrases that have a negation, and an "or" behind them; None where there are none."""
        phrases = sorted((phrase for phrase in self.known if NEGATION.search(phrase)), key=len, reverse=True)
        words = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases)
        return re.compile(rf"\b({words})(?!\w)(\s+n?or\s+)?", re.IGNORECASE) if words else None


@dataclass(frozen=True)
class Segment:
    """A stretch of a prompt: the separator before it, its text, and whether a negation governs it."""

    separator: str
    text: str
    negated: bool

    def roles(self) -> list[tuple[str, str]]:
        """Its phrases, each with its role."""
        if not self.negated:
            return [(role, phrase) for role, phrase in _wished(self.text) if phrase]
        forbidden, wanted = _split_tail(_unmarked(self.text))
        phrases = [_bare(part) for part in re.split(r"\s+(?:or|nor)\s+|\s*/\s*", forbidden, flags=re.IGNORECASE)]
        return [("forbidden", phrase) for phrase in phrases if phrase] + [("desired", wanted)] * bool(wanted)

    def wanted(self) -> str:
        """Its text without what is forbidden, "" where nothing is left to be said."""
        if self.negated:
            return _split_tail(_unmarked(self.text))[1]
        return self.text if self.roles() else ""


def _with_scope(segments: Sequence[Segment]) -> list[Segment]:
    """The segments, those negated too to which a negation reaches: "no stripes, dots or checks", "without stripes and dots"."""
    scoped: list[Segment] = []
    for i, segment in enumerate(segments):
        before = scoped[-1] if scoped else None
        reached = before is not None and before.negated and not segment.negated and _reaches(before.text, segments[i:])
        scoped.append(Segment(segment.separator, segment.text, segment.negated or reached))
    return scoped


def _mark(match: re.Match[str]) -> str:
    return f", {NEGATED}{CONTRAST if CONTRASTING.match(match.group()) else ''}"


def _without_vacuous(segments: list[Segment]) -> list[Segment]:
    """The segments without "a version", "something similar" and the like, where others say what the prompt forbids."""
    if not any(segment.negated for segment in segments):
        return segments
    empty = [all(VACUOUS.fullmatch(phrase) for _, phrase in segment.roles()) and not segment.negated for segment in segments]
    return [replace(segment, text="") if vacuous else segment for segment, vacuous in zip(segments, empty, strict=True)]


def _reaches(negated: str, following: Sequence[Segment]) -> bool:
    """Whether a negation goes on: over a list that ends in "or", and over nouns of the same form joined by "and"."""
    separator, text = following[0].separator.strip().lower(), following[0].text
    replaced = CONTRAST in negated
    negated = _unmarked(negated)
    if separator == "with":  # "not with a belt", "instead of a hall with blue walls"
        return not negated or (replaced and re.match(r"(?:an?|the)\s", negated, flags=re.IGNORECASE) is not None)
    if not _is_bare(text) or separator not in (",", "and"):
        return False
    if separator == "and":
        return _parallel(negated, text)
    if re.search(r"^(?:or|nor)\b|\b(?:or|nor)\s", text, flags=re.IGNORECASE):
        return True
    return (
        len(following) > 1 and not following[1].negated and _reaches(negated if _parallel(negated, text) else "", following[1:])
    )


def _parallel(first: str, second: str) -> bool:
    articles = [re.match(r"(?:an?|the|any)\b", text, flags=re.IGNORECASE) for text in (first, second)]
    if all(articles):
        return True
    return not any(articles) and all(re.search(r"[^\Ws]s$", text, flags=re.IGNORECASE) for text in (first, second))


def _is_bare(text: str) -> bool:
    """Whether a text is a noun or an adjective and no phrase of its own such as "in red" or "more formal"."""
    words = tokens(text)
    fillers = word_list("fillers") - word_list("determiners")
    return bool(words) and not CLAUSE.search(text) and words[0].exact not in fillers and words[0].exact not in NOT_BARE


def _wished(part: str) -> Iterable[tuple[str, str]]:
    """The roles of a part without negation."""
    if match := re.match(KEEPING, part, flags=re.IGNORECASE):
        kept, wanted = _split_tail(part[match.end() :].strip())
        return ("preserve", TRAILING.sub("", kept)), ("desired", wanted)
    desired = part
    while (shorter := re.sub(FILLING, "", desired, flags=re.IGNORECASE).strip()) != desired:
        desired = shorter
    return (("desired", "" if EMPTY.fullmatch(desired) else desired),)


def _split_tail(phrase: str) -> tuple[str, str]:
    """A phrase and a wish that follows it: "red in blue" → "red", "in blue"; "people in the background" stays whole."""
    if match := WISH.search(phrase):
        return phrase[: match.start()].strip(), phrase[match.end() :].strip()
    for match in TAIL.finditer(phrase):
        if match.start() and general_lexicon().meaning(phrase[match.end() :]) is not None:
            return phrase[: match.start()].strip(), phrase[match.end() :].strip()
    return phrase, ""


def _bare(phrase: str) -> str:
    """A forbidden phrase without determiners, degrees and courtesies: "the very long sleeves please" → "long sleeves"."""
    while (shorter := TRAILING.sub("", LEADING.sub("", phrase.strip()))) != phrase:
        phrase = shorter
    return "" if EMPTY.fullmatch(phrase) or LEADING.fullmatch(f"{phrase} ") else phrase


def _unmasked(text: str, masked: Sequence[str]) -> str:
    restored = re.sub(rf"{MASK}(\d+){MASK}", lambda match: masked[int(match[1])], text)
    return restored.replace(MASK, " ")


def _unmarked(text: str) -> str:
    return text.replace(NEGATED, "").replace(CONTRAST, "").strip()


def _spaced(separator: str) -> str:
    mark = separator.strip()
    return f"{mark} " if mark in (",", ";", ".") else f" {mark} " if mark else ""
