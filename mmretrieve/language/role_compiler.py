"""Sorts prompts into roles by rules: what a target should show, keep or not show. To add a role compiler, see `base.RoleCompiler`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from mmretrieve.composer_input import ComposerInput
from mmretrieve.language.base import Roles
from mmretrieve.language.lexicon import general_lexicon
from mmretrieve.language.tokens import tokenize, word_list

MAX_CACHED_PROMPTS = 1_000
# Private-use characters: before a forbidden phrase, around the number of a masked phrase, before what is replaced.
NEGATED, MASK, CONTRAST = "\ue000", "\ue001", "\ue002"

DETERMINERS = r"(?:the|its|his|her|their|that|those|this|these|any|all|every)"
RELATION = r"(?=\s+(?:in|for|as|at|with|by|but)\s)"
THIS = rf"(?:(?:this|it|that|the same)(?: one)?|(?:one|something)(?:{RELATION}|$))"
SAME = r"(?:the |exactly (?:the )?)?same(?: one| thing)?|exactly (?:like )?this(?: one)?"
SHARED = r"(?:colou?r|shape|size|style|pattern|material|length|background|pose|shade|design|cut)"
HAVING = r"(?:(?:(?:it|that|which|who|they|there|(?:the |this )?(?:photo|picture|image))\s+)?(?:has|have|is|are|shows?|contains?)\s+)?"
ASKING = r"(?:(?:can|could|would|will)\s+you\s+)?(?:please\s+)?"
DEGREES = r"(?:(?:an?\s+(?:tiny\s+|little\s+)?(?:bit|little|lot)|slightly|much|far|way|somewhat)\s+)?"
SUBJECT = r"(?:(?:i|it|that|which|who|they|we|you|there)\s+)?"
DO_NOT = r"(?:(?:do|does|did|should|must)(?:n'?t|\s+not))"
VERBS_OF_WISHES = r"(?:want|need|like|have|show|include|wear|contain|be)"
AUXILIARIES = r"(?:do|does|did|is|are|was|were|has|have|should|must)"

NEGATIONS = (  # wordings before a forbidden phrase
    rf"{SUBJECT}{DO_NOT}\s+{VERBS_OF_WISHES}\s+(?:it\s+)?",
    rf"{SUBJECT}{AUXILIARIES}(?:n'?t|\s+not)\s+",
    r"(?:instead|in place|free) of\s+",
    r"(?:rather than|other than|apart from|free from|no longer|no more)\s+",
    r"any(?:thing)?(?:\s+\w+)?\s+(?:but|except(?:\s+for)?|other than|apart from)\s+",
    r"except(?:ing)?(?:\s+for)?\s+(?!(?:that|this|it|they|there|he|she|is|has|with|in|on|more)\s)",
    rf"{ASKING}(?:remov(?:e|ing)|delete|omit|avoid|get(?:ting)? rid of|tak(?:e|ing) (?:off|away|out)|leav(?:e|ing) (?:out|off))\s+",
    rf"{ASKING}(?:lose|losing|drop|ditch|skip|cut|leave away)\s+(?={DETERMINERS}\s)",
    rf"{HAVING}(?:without|minus|lacking|neither|w/o)\s+",
    rf"{HAVING}(?:but\s+)?not\s+(?!(?:only|just|necessarily|sure|to)\b)",
    rf"{HAVING}no\s+(?!(?:matter|problem|doubt|idea|one)\b)",
    rf"{HAVING}nothing\s+(?!(?:like|but|else|to|in|on|with|about|changes?|different|special)\b)",
    rf"(?<!or ){HAVING}{DEGREES}(?:less|fewer)\s+(?!than\b)",
)
NEGATION = re.compile(rf"(?<![\w-])(?:{'|'.join(NEGATIONS)})", re.IGNORECASE)
CONTRASTING = re.compile(r"instead|in place|rather", re.IGNORECASE)

REWRITES = (  # (pattern, replacement): wordings that are normalized first
    (rf"\b(?:{DO_NOT}|never|without)\s+(?:chang|touch|alter|los|remov)(?:e|ing)?\s+(?:the\s+|its\s+)?", ", keep the "),
    (r"\b(not|nothing)\s+(?=(?:only|just)\b)", rf"\1{MASK}"),
    (r"\b(same(?: one| thing)?|exactly this|like this|this) except (?:that )?(?!the\b|for\b|an?\b|no\b|with)", r"\1 but "),
    (r"\b([a-z]+)-free\b", rf", {NEGATED}\1, "),
    (rf"\b(?:take|leave)\s+({DETERMINERS}\s+[^,;.]+?)\s+(?:off|away|out)\b", rf", {NEGATED}\1, "),
    (rf"\bwith\s+({DETERMINERS}\s+[^,;.]+?)\s+(?:removed|taken off|gone)\b", rf", {NEGATED}\1, "),
    (r"\b(?:replace|swap|exchange)\s+([^,;.]+?)\s+(?:with|by|for)\s+", rf", {NEGATED}\1, "),
)

KEEPING = (
    r"(?:keep(?:ing)?|with|in)?\s*the same\s+(?!(?:in|for|as|at|by|one|thing|only|just)\b)"
    rf"|same\s+(?={SHARED})|keep(?:ing)?\s+(?:the\s+|its\s+)?"
)
POLITE = (
    rf"(?:can|could|may) (?:i|you|we) (?:please )?(?:have|get|see|show me|give me|find me|find|make) {THIS}",
    rf"(?:what|how) about|do you (?:have|sell) {THIS}",
    rf"(?:show|give|find|get) (?:me|us) {THIS}",
    rf"i(?:'d| would) (?:like|love|want|prefer) {THIS}",
    rf"i want {THIS}",
    rf"(?:{SAME}){RELATION}",
)
FILLING = rf"^(?:but|and|make it|i want it|please|instead|with|is|has|{'|'.join(POLITE)})\b\s*|\s*\b(?:instead|please)$"
LEADING_BUT = re.compile(
    rf"^(?:(?:{SAME}|(?:something |one )?like (?:this|that|it)(?: one)?|this(?: one)?),?\s+)?but\s+(?!not\b|no\b|without\b)",
    re.IGNORECASE,
)
BREAK = r"(\s*(?:[,;.]|\b(?:and|but(?! not)|with(?!out)|while)\b)\s*)"
EMPTY = re.compile(rf"(?:{SAME}|the same (?:but|except)|like this(?: one)?|this|it|no|not|without)?", re.IGNORECASE)
VACUOUS = re.compile(  # the rest of a prompt that only forbids: "a version without", "something similar but not"
    r"(?:(?:something |one )?(?:like|similar to) (?:this|that)(?: one)?|that|(?:this |that |an? |the )?(?:one|ones|version)"
    r"|(?:something |a )?similar(?: one)?|something|anything|i want|i prefer|it is|it has|there (?:is|are)|which|who|a bit|make)",
    re.IGNORECASE,
)
LEADING = re.compile(
    rf"^(?:{DETERMINERS}|an?|so|too|very|quite|as|such|really|in|with|made of|of|being|be|having|have|has|had|got|wearing|is|are"
    r"|much|many|either)\s+",
    re.IGNORECASE,
)
TRAILING = re.compile(
    r"\s+(?:please|at all|any ?more|instead|this time|though|on it|in it|ones?|either|if possible|as (?:before|this|here|it is))$",
    re.IGNORECASE,
)
TAIL = re.compile(r"\s+(?=(?:in|for|as|at)\s)", re.IGNORECASE)
WISH = re.compile(
    r"(?<!\bthat)(?<!\bwhich)(?<!\bwho)\s+(?=(?:has|shows|it has|it is|it's|show|make it|use|put|add|i want)\s)", re.IGNORECASE
)
CLAUSE = re.compile(r"\b(?:is|are|was|were|has|have|shows?|there)\b", re.IGNORECASE)
PHRASE_WORDS = ("more", "less", "keep", "then", "also", "still", "very", "longer", "shorter", "without", "no", "not", "please")


def wish_of(prompt: str) -> str:
    """The prompt without a "like this, but" before it, which says nothing that a reference does not say.

    >>> wish_of("the same but in red"), wish_of("but black"), wish_of("but without stripes")
    ('in red', 'black', 'but without stripes')
    """
    return LEADING_BUT.sub("", prompt.strip()) or prompt


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
    _cache: dict[str, tuple[Roles, str]] = field(default_factory=dict, repr=False, compare=False)

    def compile(self, inputs: Sequence[ComposerInput]) -> list[Roles]:
        """The roles of each query's prompt, in order.

        Raises
        ------
        OptionError : if a query has no prompt.
        """
        return [self.roles(query.required_prompt()) for query in inputs]

    def roles(self, prompt: str) -> Roles:
        """The roles of one prompt."""
        return self._read(prompt)[0]

    def desired_text(self, prompt: str) -> str:
        """The prompt without what it forbids, as one text: "" if nothing remains, the whole prompt if it forbids nothing.

        >>> RuleCompiler().desired_text("in red with long sleeves, but without stripes")
        'in red with long sleeves'
        """
        return self._read(prompt)[1]

    def _read(self, prompt: str) -> tuple[Roles, str]:
        """The roles of a prompt and its desired text. Cached for recent prompts."""
        result = self._cache.get(prompt)
        if result is None:
            if len(self._cache) >= MAX_CACHED_PROMPTS:
                self._cache.clear()
            segments, masked = self._parse(prompt)
            roles = _roles_of(segments, masked)
            result = self._cache[prompt] = roles, _desired_text(segments, masked) if roles.forbidden else prompt.strip()
        return result

    def _parse(self, prompt: str) -> tuple[list[Segment], list[str]]:
        text, masked = self._mask(prompt.strip().replace("’", "'"))
        for pattern, replacement in REWRITES:
            text = re.sub(pattern, replacement, text, flags=re.IGNORECASE)
        first, *rest = re.split(BREAK, NEGATION.sub(_mark, text), flags=re.IGNORECASE)
        pairs = [("", first), *zip(rest[::2], rest[1::2], strict=True)]
        segments = [Segment(separator, part.strip(), NEGATED in part) for separator, part in pairs]
        return _blank_vacuous(_extend_negations(segments)), masked

    def _mask(self, text: str) -> tuple[str, list[str]]:
        """The text with a number instead of each fixed phrase that has a negation, and these phrases."""
        masked: list[str] = []

        def mask(match: re.Match[str]) -> str:
            masked.append(match[1])
            listed = f", {NEGATED}" if match[2] else ""
            return f", {MASK}{len(masked) - 1}{MASK}{listed}"

        return (self._negations.sub(mask, text) if self._negations is not None else text), masked

    @cached_property
    def _negations(self) -> re.Pattern[str] | None:
        """Matches the fixed phrases that have a negation, and an "or" after them; None if there are none."""
        phrases = sorted((phrase for phrase in self.fixed_phrases if NEGATION.search(phrase)), key=len, reverse=True)
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
            return [(role, phrase) for role, phrase in _roles_of_wish(self.text) if phrase]
        forbidden, wanted = _split_tail(_unmark(self.text))
        phrases = [_strip_fillers(part) for part in re.split(r"\s+(?:or|nor)\s+|\s*/\s*", forbidden, flags=re.IGNORECASE)]
        return [("forbidden", phrase) for phrase in phrases if phrase] + [("desired", wanted)] * bool(wanted)

    def wanted(self) -> str:
        """The text without what it forbids; "" if nothing remains."""
        if self.negated:
            return _split_tail(_unmark(self.text))[1]
        return self.text if self.roles() else ""


def _roles_of(segments: Sequence[Segment], masked: Sequence[str]) -> Roles:
    roles: dict[str, list[str]] = {"desired": [], "preserve": [], "forbidden": []}
    for segment in segments:
        for role, phrase in segment.roles():
            roles[role].append(_unmask(phrase, masked))
    return Roles(None, *(tuple(dict.fromkeys(phrases)) for phrases in roles.values()))


def _desired_text(segments: Sequence[Segment], masked: Sequence[str]) -> str:
    """The segments without what they forbid."""
    parts = ((segment.separator, segment.wanted()) for segment in segments)
    text = "".join(f"{_add_spaces(separator)}{wanted}" for separator, wanted in parts if wanted)
    return re.sub(r"^(?:\s|[,;.]|(?:and|but|while)\b)+|[\s,;.]+$", "", _unmask(text, masked))


def _extend_negations(segments: Sequence[Segment]) -> list[Segment]:
    """The segments, negated as far as a negation extends: "no stripes, dots or checks", "without stripes and dots"."""
    scoped: list[Segment] = []
    for i, segment in enumerate(segments):
        before = scoped[-1] if scoped else None
        reached = before is not None and before.negated and not segment.negated and _negation_extends(before.text, segments[i:])
        scoped.append(Segment(segment.separator, segment.text, segment.negated or reached))
    return scoped


def _mark(match: re.Match[str]) -> str:
    return f", {NEGATED}{CONTRAST if CONTRASTING.match(match.group()) else ''}"


def _blank_vacuous(segments: list[Segment]) -> list[Segment]:
    """The segments without the text of empty ones such as "a version" or "something similar", if others are negated."""
    if not any(segment.negated for segment in segments):
        return segments
    empty = [all(VACUOUS.fullmatch(phrase) for _, phrase in segment.roles()) and not segment.negated for segment in segments]
    return [replace(segment, text="") if vacuous else segment for segment, vacuous in zip(segments, empty, strict=True)]


def _negation_extends(negated: str, following: Sequence[Segment]) -> bool:
    """Whether a negation extends to the next segment: a list that ends in "or", or nouns of the same form joined by "and"."""
    separator, text = following[0].separator.strip().lower(), following[0].text
    replaced = CONTRAST in negated
    negated = _unmark(negated)
    if separator == "with":  # "not with a belt", "instead of a hall with blue walls"
        return not negated or (replaced and re.match(r"(?:an?|the)\s", negated, flags=re.IGNORECASE) is not None)
    if not _is_noun_or_adjective(text) or separator not in (",", "and"):
        return False
    if separator == "and":
        return _have_same_form(negated, text)
    if re.search(r"^(?:or|nor)\b|\b(?:or|nor)\s", text, flags=re.IGNORECASE):
        return True
    return (
        len(following) > 1
        and not following[1].negated
        and _negation_extends(negated if _have_same_form(negated, text) else "", following[1:])
    )


def _have_same_form(first: str, second: str) -> bool:
    articles = [re.match(r"(?:an?|the|any)\b", text, flags=re.IGNORECASE) for text in (first, second)]
    if all(articles):
        return True
    return not any(articles) and all(re.search(r"[^\Ws]s$", text, flags=re.IGNORECASE) for text in (first, second))


def _is_noun_or_adjective(text: str) -> bool:
    """Whether a text is a noun or an adjective, not a phrase such as "in red" or "more formal"."""
    words = tokenize(text)
    fillers = word_list("fillers") - word_list("determiners")
    return bool(words) and not CLAUSE.search(text) and words[0].exact not in fillers and words[0].exact not in PHRASE_WORDS


def _roles_of_wish(part: str) -> Iterable[tuple[str, str]]:
    """The roles of a part without negation."""
    if match := re.match(KEEPING, part, flags=re.IGNORECASE):
        kept, wanted = _split_tail(part[match.end() :].strip())
        return ("preserve", TRAILING.sub("", kept)), ("desired", wanted)
    desired = part
    while (shorter := re.sub(FILLING, "", desired, flags=re.IGNORECASE).strip()) != desired:
        desired = shorter
    return (("desired", "" if EMPTY.fullmatch(desired) else desired),)


def _split_tail(phrase: str) -> tuple[str, str]:
    """A phrase and a wish after it: "red in blue" → "red", "in blue"; "people in the background" is not split."""
    if match := WISH.search(phrase):
        return phrase[: match.start()].strip(), phrase[match.end() :].strip()
    for match in TAIL.finditer(phrase):
        if match.start() and general_lexicon().meaning(phrase[match.end() :]) is not None:
            return phrase[: match.start()].strip(), phrase[match.end() :].strip()
    return phrase, ""


def _strip_fillers(phrase: str) -> str:
    """A forbidden phrase without determiners, degrees and courtesies: "the very long sleeves please" → "long sleeves"."""
    while (shorter := TRAILING.sub("", LEADING.sub("", phrase.strip()))) != phrase:
        phrase = shorter
    return "" if EMPTY.fullmatch(phrase) or LEADING.fullmatch(f"{phrase} ") else phrase


def _unmask(text: str, masked: Sequence[str]) -> str:
    restored = re.sub(rf"{MASK}(\d+){MASK}", lambda match: masked[int(match[1])], text)
    return restored.replace(MASK, " ")


def _unmark(text: str) -> str:
    return text.replace(NEGATED, "").replace(CONTRAST, "").strip()


def _add_spaces(separator: str) -> str:
    mark = separator.strip()
    return f"{mark} " if mark in (",", ";", ".") else f" {mark} " if mark else ""
