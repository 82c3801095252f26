"""Sorts prompts into roles by rules: what a target should show, keep or not show. To add a role compiler, see `base.RoleCompiler`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from mmretrieve.composer_input import ComposerInput
from mmretrieve.language import role_patterns as patterns
from mmretrieve.language.base import Roles
from mmretrieve.language.lexicon import general_lexicon
from mmretrieve.language.tokens import tokenize, word_list

MAX_CACHED_PROMPTS = 1_000


@dataclass(frozen=True)
class RuleCompiler:
    """Sorts a prompt by rules: "without X", "not so X", "X-free", "anything but X" forbid; "keep the X", "the same X" preserve.

    The rest is desired.

    Parameters
    ----------
    fixed_phrases : phrases that are desired although they contain a negation, such as the "without sleeves" of a vocabulary.

    >>> RuleCompiler().roles("the same but red, without stripes or dots")
    Roles(whole=None, desired=('red',), preserve=(), forbidden=('stripes', 'dots'))
    >>> RuleCompiler(fixed_phrases=frozenset({"without sleeves"})).roles("without sleeves").desired
    ('without sleeves',)
    """

    fixed_phrases: frozenset[str] = field(default=frozenset())
    _cache: dict[str, tuple[list[Segment], list[str]]] = field(default_factory=dict, repr=False, compare=False)

    def compile(self, queries: Sequence[ComposerInput]) -> list[Roles]:
        """The roles of each query's prompt, in order.

        Raises
        ------
        OptionError : if a query has no prompt.
        """
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
        """The prompt without what it forbids, as one text: "" if nothing remains, the whole prompt if it forbids nothing.

        >>> RuleCompiler().remaining("in red with long sleeves, but without stripes")
        'in red with long sleeves'
        """
        segments, masked = self._segments(prompt)
        if not any(role == "forbidden" for segment in segments for role, _ in segment.roles()):
            return prompt.strip()
        parts = ((segment.separator, segment.wanted()) for segment in segments)
        text = "".join(f"{_spaced(separator)}{wanted}" for separator, wanted in parts if wanted)
        return re.sub(r"^(?:\s|[,;.]|(?:and|but|while)\b)+|[\s,;.]+$", "", _unmasked(text, masked))

    def _segments(self, prompt: str) -> tuple[list[Segment], list[str]]:
        """The segments of a prompt, and the fixed phrases that are masked in them. Cached for recent prompts."""
        result = self._cache.get(prompt)
        if result is None:
            if len(self._cache) >= MAX_CACHED_PROMPTS:
                self._cache.clear()
            result = self._cache[prompt] = self._parse(prompt)
        return result

    def _parse(self, prompt: str) -> tuple[list[Segment], list[str]]:
        text, masked = self._masked(prompt.strip().replace("’", "'"))
        for pattern, replacement in patterns.REWRITES:
            text = re.sub(pattern, replacement, text, flags=re.IGNORECASE)
        first, *rest = re.split(patterns.BREAK, patterns.NEGATION.sub(_mark, text), flags=re.IGNORECASE)
        pairs = [("", first), *zip(rest[::2], rest[1::2], strict=True)]
        segments = [Segment(separator, part.strip(), patterns.NEGATED in part) for separator, part in pairs]
        return _without_vacuous(_with_scope(segments)), masked

    def _masked(self, text: str) -> tuple[str, list[str]]:
        """The text with a number instead of each fixed phrase that has a negation, and these phrases."""
        masked: list[str] = []

        def mask(match: re.Match[str]) -> str:
            masked.append(match[1])
            listed = f", {patterns.NEGATED}" if match[2] else ""
            return f", {patterns.MASK}{len(masked) - 1}{patterns.MASK}{listed}"

        return (self._negations.sub(mask, text) if self._negations is not None else text), masked

    @cached_property
    def _negations(self) -> re.Pattern[str] | None:
        """Matches the fixed phrases that have a negation, and an "or" after them; None if there are none."""
        phrases = sorted((phrase for phrase in self.fixed_phrases if patterns.NEGATION.search(phrase)), key=len, reverse=True)
        words = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases)
        return re.compile(rf"\b({words})(?!\w)(\s+n?or\s+)?", re.IGNORECASE) if words else None


@dataclass(frozen=True)
class Segment:
    """A part of a prompt: the separator before it, its text, and whether it is negated."""

    separator: str
    text: str
    negated: bool

    def roles(self) -> list[tuple[str, str]]:
        """Pairs of a role and a phrase."""
        if not self.negated:
            return [(role, phrase) for role, phrase in _wished(self.text) if phrase]
        forbidden, wanted = _split_tail(_unmarked(self.text))
        phrases = [_bare(part) for part in re.split(r"\s+(?:or|nor)\s+|\s*/\s*", forbidden, flags=re.IGNORECASE)]
        return [("forbidden", phrase) for phrase in phrases if phrase] + [("desired", wanted)] * bool(wanted)

    def wanted(self) -> str:
        """The text without what it forbids; "" if nothing remains."""
        if self.negated:
            return _split_tail(_unmarked(self.text))[1]
        return self.text if self.roles() else ""


def _with_scope(segments: Sequence[Segment]) -> list[Segment]:
    """The segments, negated as far as a negation extends: "no stripes, dots or checks", "without stripes and dots"."""
    scoped: list[Segment] = []
    for i, segment in enumerate(segments):
        before = scoped[-1] if scoped else None
        reached = before is not None and before.negated and not segment.negated and _reaches(before.text, segments[i:])
        scoped.append(Segment(segment.separator, segment.text, segment.negated or reached))
    return scoped


def _mark(match: re.Match[str]) -> str:
    return f", {patterns.NEGATED}{patterns.CONTRAST if patterns.CONTRASTING.match(match.group()) else ''}"


def _without_vacuous(segments: list[Segment]) -> list[Segment]:
    """The segments without the text of empty ones such as "a version" or "something similar", if others are negated."""
    if not any(segment.negated for segment in segments):
        return segments
    empty = [
        all(patterns.VACUOUS.fullmatch(phrase) for _, phrase in segment.roles()) and not segment.negated for segment in segments
    ]
    return [replace(segment, text="") if vacuous else segment for segment, vacuous in zip(segments, empty, strict=True)]


def _reaches(negated: str, following: Sequence[Segment]) -> bool:
    """Whether a negation extends to the next segment: a list that ends in "or", or nouns of the same form joined by "and"."""
    separator, text = following[0].separator.strip().lower(), following[0].text
    replaced = patterns.CONTRAST in negated
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
    """Whether a text is a noun or an adjective, not a phrase such as "in red" or "more formal"."""
    words = tokenize(text)
    fillers = word_list("fillers") - word_list("determiners")
    return (
        bool(words)
        and not patterns.CLAUSE.search(text)
        and words[0].exact not in fillers
        and words[0].exact not in patterns.NOT_BARE
    )


def _wished(part: str) -> Iterable[tuple[str, str]]:
    """The roles of a part without negation."""
    if match := re.match(patterns.KEEPING, part, flags=re.IGNORECASE):
        kept, wanted = _split_tail(part[match.end() :].strip())
        return ("preserve", patterns.TRAILING.sub("", kept)), ("desired", wanted)
    desired = part
    while (shorter := re.sub(patterns.FILLING, "", desired, flags=re.IGNORECASE).strip()) != desired:
        desired = shorter
    return (("desired", "" if patterns.EMPTY.fullmatch(desired) else desired),)


def _split_tail(phrase: str) -> tuple[str, str]:
    """A phrase and a wish after it: "red in blue" → "red", "in blue"; "people in the background" is not split."""
    if match := patterns.WISH.search(phrase):
        return phrase[: match.start()].strip(), phrase[match.end() :].strip()
    for match in patterns.TAIL.finditer(phrase):
        if match.start() and general_lexicon().meaning(phrase[match.end() :]) is not None:
            return phrase[: match.start()].strip(), phrase[match.end() :].strip()
    return phrase, ""


def _bare(phrase: str) -> str:
    """A forbidden phrase without determiners, degrees and courtesies: "the very long sleeves please" → "long sleeves"."""
    while (shorter := patterns.TRAILING.sub("", patterns.LEADING.sub("", phrase.strip()))) != phrase:
        phrase = shorter
    return "" if patterns.EMPTY.fullmatch(phrase) or patterns.LEADING.fullmatch(f"{phrase} ") else phrase


def _unmasked(text: str, masked: Sequence[str]) -> str:
    restored = re.sub(rf"{patterns.MASK}(\d+){patterns.MASK}", lambda match: masked[int(match[1])], text)
    return restored.replace(patterns.MASK, " ")


def _unmarked(text: str) -> str:
    return text.replace(patterns.NEGATED, "").replace(patterns.CONTRAST, "").strip()


def _spaced(separator: str) -> str:
    mark = separator.strip()
    return f"{mark} " if mark in (",", ";", ".") else f" {mark} " if mark else ""
