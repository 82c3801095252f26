"""Classes of words that replace each other: the groups of a vocabulary, extended by general classes (`classes.json`).

A class such as "pattern" has members ("striped", "dotted"). A member has forms of several kinds: an adjective ("striped"), a noun
("stripes"), a phrase ("with stripes"). A word is replaced by a form of the same kind, so that the sentence stays grammatical.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain
from typing import Any

from mmretrieve.language.tokens import WordToken, exact_key, is_plural, stem_key, tokenize, word_data, word_list
from mmretrieve.language.vocabulary import GENERAL, THING, Vocabulary

MemberForms = tuple[tuple[str, ...], ...]  # forms by kind, the best form of each kind first
NEGATIONS = ("without", "no", "not")


@dataclass(frozen=True)
class Reading:
    """One meaning of a phrase: class, member and kind by position, and the form.

    A comparative has member -1 and a `step` of +1 or -1. Several members joined by "and" have member -1 and step 0.
    """

    cls: int
    member: int
    kind: int
    form: str
    step: int = 0

    def equals(self, other: Reading) -> bool:
        """Whether two readings have the same meaning, in any form."""
        same = (self.cls, self.member, self.step) == (other.cls, other.member, other.step)
        return same and (self.member >= 0 or self.form == other.form)


@dataclass(frozen=True)
class WordClass:
    """Words that exclude each other.

    Parameters
    ----------
    name : name of the class.
    members : the forms of each member.
    scales : ordered members, by position.
    more, less : comparatives, which move one step up or down the scale of the current member.
    absence_of : names of the whole class; its first member states their absence ("no sleeves" is "sleeveless").
    not_before : stems of words before which a member has another meaning ("long hair").
    vocabulary : the words of the class that a gallery's vocabulary has.
    """

    name: str
    members: tuple[MemberForms, ...]
    scales: tuple[tuple[int, ...], ...] = ()
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    absence_of: tuple[str, ...] = ()
    not_before: frozenset[str] = frozenset()
    vocabulary: frozenset[str] = frozenset()

    def forms(self, member: int, kind: int) -> tuple[str, ...]:
        """The forms of a member, the best one first; () if it has none of that kind."""
        kinds = self.members[member] if 0 <= member < len(self.members) else ()
        return kinds[kind] if kind < len(kinds) else ()

    def replacement_form(self, current: Reading, requested: Reading) -> str | None:
        """The form of the requested reading that can replace the current one; None if there is none."""
        if current.equals(requested):
            return None
        if requested.member < 0 and not requested.step:
            return requested.form if requested.kind == current.kind else None
        forms = self.forms(
            self._step_from(current.member, requested.step) if requested.step else requested.member, current.kind
        )
        if not forms or forms[0] in self.vocabulary:
            return forms[0] if forms else None
        return requested.form if requested.form in forms else forms[0]

    def readings(self, cls: int) -> Iterator[Reading]:
        """All forms and comparatives, as readings of the class at position `cls`."""
        for m, kinds in enumerate(self.members):
            yield from (Reading(cls, m, k, form) for k, forms in enumerate(kinds) for form in forms)
        for step, forms in ((1, self.more), (-1, self.less)):
            yield from (Reading(cls, -1, 0, form, step) for form in forms)

    def is_in_vocabulary(self, member: int) -> bool:
        """Whether the vocabulary has a form of the member."""
        return any(form in self.vocabulary for forms in self.members[member] for form in forms)

    def _step_from(self, member: int, step: int) -> int:
        """The next member of the scale, among those of the vocabulary if it has several; -1 at the end of the scale."""
        scale = next((scale for scale in self.scales if member in scale), ())
        preferred = [i for i in scale if self.is_in_vocabulary(i)]
        steps = preferred if len(preferred) > 1 else list(scale)
        position = steps.index(member) + step if member in steps else -1
        return steps[position] if 0 <= position < len(steps) else -1


@dataclass(frozen=True)
class Match:
    """A known phrase of a text: its tokens [start, end) and its readings by class.

    Fixed phrases such as "on top of" have no readings.
    """

    start: int
    end: int
    readings: Mapping[int, Reading]

    def means(self, other: Match) -> bool:
        """Whether both have the same meaning in some class."""
        return any(reading.equals(other.readings[c]) for c, reading in self.readings.items() if c in other.readings)


@dataclass(frozen=True)
class Lexicon:
    """All classes, in the order of their precedence."""

    classes: tuple[WordClass, ...]

    @classmethod
    def of(cls, vocabulary: Vocabulary | None = None) -> Lexicon:
        """The general classes, extended by the groups of a vocabulary. The words of the vocabulary are the preferred forms."""
        general = {each.name: each for each in _general_classes()}
        noun = vocabulary.noun if vocabulary is not None else None
        classes = []
        for group in vocabulary.groups if vocabulary is not None else ():
            words = [word for word in group.words if word]
            near = nearest_class(words, general.values()) if group is not noun else THING
            classes.append(_extend_class(general.pop(near, WordClass(group.name, ())), words))
        rest = [*general.values()]
        return cls(tuple(sorted([*classes, *rest], key=lambda each: each.name == THING)))

    def find(self, text: str | Sequence[WordToken]) -> list[Match]:
        """The known phrases of a text, from left to right, without overlap; at each position the longest one."""
        words = tokenize(text) if isinstance(text, str) else text
        matches: list[Match] = []
        position = 0
        while position < len(words):
            match = self._match_at(words, position)
            if match is not None and match.readings:
                matches.append(match)
            position = match.end if match is not None else position + 1
        return matches

    def meaning(self, phrase: str) -> Match | None:
        """The known phrase that `phrase` consists of, fillers such as "a … one" or "in … colour" aside; None if it is not known."""
        words = tokenize(phrase)
        matches = self.find(words)
        others = [word for i, word in enumerate(words) if not any(match.start <= i < match.end for match in matches)]
        filled = all(word.exact in word_list("fillers") for word in others)
        return matches[0] if len(matches) == 1 and filled else None

    def alternatives(self, phrase: str) -> list[str]:
        """The other members of the class of `phrase`: in words of the vocabulary if it has any, else in forms of the same kind.

        [] for an unknown phrase, and for a noun, whose class is open. The alternative of the name of a class is the word for
        its absence.

        >>> general_lexicon().alternatives("mini"), general_lexicon().alternatives("sleeves")
        (['knee-length', 'long'], ['sleeveless'])
        """
        meaning = self.meaning(phrase)
        if meaning is None:
            return [] if (absent := self.absence(phrase)) is None else [self.classes[absent].members[0][0][0]]
        reading = next(iter(meaning.readings.values()))
        word_class = self.classes[reading.cls]
        if reading.step or word_class.name == THING:
            return []
        others = [kinds for i, kinds in enumerate(word_class.members) if i != reading.member]
        preferred = [[form for forms in kinds for form in forms if form in word_class.vocabulary] for kinds in others]
        same_kind = [word_class.forms(i, reading.kind) for i in range(len(word_class.members)) if i != reading.member]
        return [forms[0] for forms in (preferred if any(preferred) else same_kind) if forms]

    def merge_conjunctions(self, matches: Sequence[Match], words: Sequence[WordToken]) -> list[Match]:
        """The matches, with those of one class that "and" joins merged into one: "red and white"."""
        merged: list[Match] = []
        for match in matches:
            last = merged[-1] if merged else None
            if last is not None and match.start == last.end + 1 and words[last.end].exact in ("and", "&"):
                joint = {
                    c: Reading(c, -1, one.kind, f"{one.form} and {other.form}")
                    for c, one in last.readings.items()
                    if (other := match.readings.get(c))
                    and c != self.thing
                    and one.kind == other.kind
                    and not one.step | other.step
                }
                if joint:
                    merged[-1] = Match(last.start, match.end, joint)
                    continue
            merged.append(match)
        return merged

    def absence(self, phrase: str) -> int | None:
        """The class whose absence "no {phrase}" states, by position: the class of sleeves for "sleeves"; None if there is none."""
        key = stem_key(phrase)
        named = (i for i, each in enumerate(self.classes) if any(stem_key(name) == key for name in each.absence_of))
        return next(named, None)

    @cached_property
    def negations(self) -> frozenset[str]:
        """Forms with a negation of members in the vocabulary: "without sleeves", and so "with no sleeves" too."""
        members = (kinds for each in self.classes for m, kinds in enumerate(each.members) if each.is_in_vocabulary(m))
        return frozenset(
            form for kinds in members for forms in kinds for form in forms if set(form.lower().split()) & set(NEGATIONS)
        )

    @cached_property
    def thing(self) -> int:
        """The position of the class of nouns."""
        return next(i for i, each in enumerate(self.classes) if each.name == THING)

    @cached_property
    def _tables(self) -> tuple[ReadingTable, ReadingTable]:
        exact: ReadingTable = {}
        stems: ReadingTable = {}
        for c, word_class in enumerate(self.classes):
            for reading in sorted(word_class.readings(c), key=lambda each: each.form not in word_class.vocabulary):
                for table, key in ((exact, exact_key(reading.form)), (stems, stem_key(reading.form))):
                    table.setdefault(key, {}).setdefault(c, reading)
        phrases: ReadingTable = {exact_key(phrase): {} for phrase in word_data()["phrases"]}
        return exact | phrases, stems

    @cached_property
    def _lengths(self) -> Mapping[str, tuple[int, ...]]:
        """The first token of known phrases, exact or as a stem → their lengths, the longest first."""
        lengths: dict[str, set[int]] = {}
        for key in chain(*self._tables):
            lengths.setdefault(key[0], set()).add(len(key))
        return {first: tuple(sorted(several, reverse=True)) for first, several in lengths.items()}

    def _match_at(self, words: Sequence[WordToken], start: int) -> Match | None:
        first = words[start]
        lengths = self._lengths.get(first.exact, ())
        if first.stem != first.exact and (of_stem := self._lengths.get(first.stem, ())):
            lengths = tuple(sorted({*lengths, *of_stem}, reverse=True))
        exact, stems = self._tables
        for length in lengths:
            part = words[start : start + length]
            if len(part) < length:
                continue
            readings: Mapping[int, Reading] | None = exact.get(tuple(word.exact for word in part))
            if readings is None:
                readings = self._match_number(stems.get(tuple(word.stem for word in part)), part)
            if readings is None:
                continue
            following = words[start + length].stem if start + length < len(words) else ""
            meant = {
                c: self._with_written_form(each, part)
                for c, each in readings.items()
                if following not in self.classes[c].not_before
            }
            if meant or not readings:
                return Match(start, start + length, meant)
        return None

    def _match_number(self, readings: Mapping[int, Reading] | None, part: Sequence[WordToken]) -> Mapping[int, Reading] | None:
        """The readings without adjectives if the phrase is plural: "laces" are not made of lace. None if none remains."""
        if readings is None or not is_plural(part[-1].exact):
            return readings
        kept = {c: r for c, r in readings.items() if r.kind or is_plural(r.form) or self.classes[c].name == THING}
        return kept or None

    def _with_written_form(self, reading: Reading, part: Sequence[WordToken]) -> Reading:
        """The reading, for a noun in the form of the text: singular or plural."""
        thing = self.classes[reading.cls].name == THING
        return replace(reading, form=" ".join(word.exact for word in part)) if thing else reading


ReadingTable = dict[tuple[str, ...], dict[int, Reading]]


@cache
def general_lexicon() -> Lexicon:
    """The classes of `classes.json` and the nouns of the general vocabulary."""
    return Lexicon.of()


@cache
def _general_classes() -> tuple[WordClass, ...]:
    things = next(group for group in Vocabulary.read(GENERAL).groups if group.name == THING)
    return (*(_parse_class(entry) for entry in word_data()["classes"]), _noun_class(things.words))


def _noun_class(words: Iterable[str]) -> WordClass:
    known = {exact_key(word) for word in words}
    more = [word for word in word_data()["people"] if exact_key(word) not in known]
    same = {
        key: synonyms for forms in word_data()["synonyms"] for synonyms in [tuple(forms.split("|"))] for key in synonyms[:1]
    }
    forms = ((word, *_thing_forms(word)[1:], *same.get(word, ())[1:]) for word in (*words, *more))
    return WordClass(THING, tuple((tuple(dict.fromkeys(each)),) for each in forms))


def _thing_forms(word: str) -> tuple[str, ...]:
    """A noun, and the same noun with or without "pair of" if it is plural: "jeans", "pair of jeans"."""
    bare = word.removeprefix("pair of ")
    other = bare if bare != word else f"pair of {word}"
    return (word, other) if is_plural(bare) else (word,)


def _parse_class(entry: Mapping[str, Any]) -> WordClass:
    members = [tuple(tuple(forms.split("|")) for forms in kinds) for kinds in entry["members"]]
    scales = [tuple(range(len(members)))] if "more" in entry else []
    if "shades" in entry:
        plain = [i for i, kinds in enumerate(members) if " " not in kinds[0][0] and kinds[0][0] not in entry["unshaded"]]
        light, dark = len(members), len(members) + len(plain)
        scales = [(light + i, member, dark + i) for i, member in enumerate(plain)]
        for shades in entry["shades"]:
            members += [(tuple(f"{shade} {members[i][0][0]}" for shade in shades.split("|")),) for i in plain]
    more, less, absence_of = (tuple(entry.get(name, ())) for name in ("more", "less", "absence_of"))
    not_before = frozenset(key for word in entry.get("not_before", ()) for key in stem_key(word))
    return WordClass(entry["name"], tuple(members), tuple(scales), more, less, absence_of, not_before)


def nearest_class(words: Sequence[str], classes: Iterable[WordClass]) -> str:
    """The name of the class, nouns aside, that has most of the words; "" if none has a quarter of them."""
    keys = {exact_key(word) for word in words}
    shared = {
        each.name: len(keys & {exact_key(form) for kinds in each.members for form in sum(kinds, ())})
        for each in classes
        if each.name != THING
    }
    name = max(shared, key=shared.__getitem__, default="")
    return name if shared.get(name, 0) * 4 >= len(keys) > 0 else ""


def _extend_class(general: WordClass, words: Sequence[str]) -> WordClass:
    """The class with the vocabulary's words as the best forms of their members, and a new member for each new word."""
    positions = _member_positions(general, words)
    members = list(general.members)
    new = [word for word in words if word not in positions]
    for word, (member, kind) in positions.items():
        kinds = members[member]
        members[member] = (*kinds[:kind], (word, *(form for form in kinds[kind] if form != word)), *kinds[kind + 1 :])
    new_kind = next((kind for _, kind in positions.values()), 0)
    members += [(*((),) * new_kind, _thing_forms(word) if general.name == THING else (word,)) for word in new]
    return replace(general, members=tuple(members), vocabulary=frozenset(words))


def _member_positions(general: WordClass, words: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The member and kind of each word that the class has in any form ("watches", "watch"); one word per member."""
    forms = [(form, (m, k)) for m, kinds in enumerate(general.members) for k, each in enumerate(kinds) for form in each]
    exact = {exact_key(form): position for form, position in reversed(forms)}
    stems = {stem_key(form): position for form, position in reversed(forms)}
    positions: dict[str, tuple[int, int]] = {}
    used_members: set[int] = set()
    for word in words:
        position = exact.get(exact_key(word)) or stems.get(stem_key(word))
        if position is not None and position[0] not in used_members:
            positions[word] = position
            used_members.add(position[0])
    return positions
