"""Vocabulary of a zero-shot tagger: a sentence with slots, and for each slot a group of words that can fill it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from string import Formatter
from typing import Any

from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import VocabularyError
from mmretrieve.options import check_regular, load_json

GENERAL = Path(__file__).with_name("vocabulary.json")
PREPOSITIONS = ("for ", "with ", "without ", "in ", "on ", "at ")
MAX_BYTES = 1 << 26  # of a file
MAX_CACHED_NAMES = 4_096  # of fields
THING = "thing"  # replaces an omitted noun
NOUNS = (THING, "article", "garment", "product", "object", "item", "kind", "type", "class", "category", "subcategory")


@dataclass(frozen=True)
class WordGroup:
    """The words of one slot.

    Parameters
    ----------
    name : str
        The name of the slot.
    words : tuple of str
        The words that can fill it; "" leaves the slot empty.
    only : mapping of str to tuple of str, optional
        Earlier group → its words with which this group applies; no entry means any word.
    """

    name: str
    words: tuple[str, ...]
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def is_added(self) -> bool:
        """Whether its words follow a noun, with a preposition: "for men", "without sleeves"."""
        return all(word.startswith(PREPOSITIONS) for word in self.words if word)

    def applies(self, chosen: Mapping[str, str]) -> bool:
        """Whether the group is filled, given the words of earlier groups."""
        return all(chosen.get(name) in words for name, words in self.only.items())


@dataclass(frozen=True)
class Vocabulary:
    """A sentence with slots, and the groups of words that fill them.

    Parameters
    ----------
    sentence : str
        A format string such as ``"a photo of a {colour} {thing}"``.
    groups : tuple of WordGroup
        One group for each slot, in the order in which their words are selected.

    Raises
    ------
    VocabularyError
        Slots and groups do not have the same names, or a group has no words.

    Examples
    --------
    >>> from mmretrieve.language.vocabulary import Vocabulary, WordGroup
    >>> vocabulary = Vocabulary("a photo of a {colour} hat", (WordGroup("colour", ("red", "orange")),))
    >>> vocabulary.say({"colour": "orange"})
    'a photo of an orange hat'
    """

    sentence: str
    groups: tuple[WordGroup, ...]

    def __post_init__(self) -> None:
        slots = {name for _, name in self._parts if name is not None}
        names = [group.name for group in self.groups]
        if slots != set(names) or len(names) != len(set(names)):
            raise VocabularyError(
                f"slots of the sentence {sorted(slots)} and groups {sorted(names)} must be the same names, once each"
            )
        for group in self.groups:
            if not group.words:
                raise VocabularyError(f"group {group.name!r} has no words")

    @cached_property
    def _parts(self) -> tuple[tuple[str, str | None], ...]:
        """The texts of the sentence, each with the slot that follows it. A slot has a name and nothing else: no width, no attribute."""
        try:
            return tuple((literal, name) for literal, name, _, _ in Formatter().parse(self.sentence))
        except ValueError as error:
            raise VocabularyError(f"the sentence {self.sentence!r:.80} is not a format string: {error}") from error

    @cached_property
    def noun(self) -> WordGroup | None:
        """The group of the noun: the one with a name in `NOUNS`, else the last one of the sentence.

        Groups such as "for men" and "without sleeves" may follow it. None if the sentence ends with a fixed word.

        Examples
        --------
        >>> from mmretrieve.language.vocabulary import Vocabulary, WordGroup
        >>> Vocabulary("a photo of a {size} {article}", (WordGroup("article", ("hat",)), WordGroup("size", ("big",)))).noun.name
        'article'
        """
        named = next((group for word in NOUNS for group in self.groups if word in words_of(group.name)), None)
        if named is not None:
            return named
        by_name = {group.name: group for group in self.groups}
        ending: list[WordGroup] = []
        for literal, name in self._parts:
            ending = [*(ending if not literal.strip() else []), *([by_name[name]] if name is not None else [])]
        return next((group for group in reversed(ending) if not group.is_added()), None)

    def consistent(self, chosen: Mapping[str, str]) -> dict[str, str]:
        """Leaves out the words of groups that do not apply.

        Parameters
        ----------
        chosen : mapping of str to str
            Group → its word.

        Returns
        -------
        dict of str to str
            The words of groups that apply, in the order of the groups.

        Examples
        --------
        >>> from mmretrieve.language.vocabulary import Vocabulary, WordGroup
        >>> sleeves = WordGroup("sleeves", ("sleeveless",), only={"article": ("dress",)})
        >>> vocabulary = Vocabulary("a {sleeves} {article}", (WordGroup("article", ("hat", "dress")), sleeves))
        >>> vocabulary.consistent({"article": "hat", "sleeves": "sleeveless"})
        {'article': 'hat'}
        """
        kept: dict[str, str] = {}
        for group in self.groups:
            if group.name in chosen and group.applies(kept):
                kept[group.name] = chosen[group.name]
        return kept

    def without(self, chosen: Mapping[str, str], group: WordGroup) -> dict[str, str]:
        """Leaves out the word of one group; "thing" replaces the noun.

        Parameters
        ----------
        chosen : mapping of str to str
            Group → its word.
        group : WordGroup
            The group whose word is left out.

        Returns
        -------
        dict of str to str
            The other words, without those of groups that do not apply any more.

        Examples
        --------
        >>> from mmretrieve.language.vocabulary import Vocabulary, WordGroup
        >>> vocabulary = Vocabulary("a photo of a {colour} {article}", (WordGroup("article", ("hat",)), WordGroup("colour", ("red",))))
        >>> vocabulary.say(vocabulary.without({"article": "hat", "colour": "red"}, vocabulary.groups[0]))
        'a photo of a red thing'
        """
        noun = self.noun
        others = {name: word for name, word in chosen.items() if name != group.name}
        return self.consistent({**others, group.name: THING} if group == noun else others)

    def say(self, chosen: Mapping[str, str]) -> str:
        """Fills the sentence with the chosen words; slots without a word are omitted.

        Parameters
        ----------
        chosen : mapping of str to str
            Group → its word.

        Returns
        -------
        str
            The sentence, with "an" before vowels.

        Examples
        --------
        >>> from mmretrieve.language.vocabulary import Vocabulary, WordGroup
        >>> vocabulary = Vocabulary("a photo of a {colour} {thing}", (WordGroup("colour", ("red",)), WordGroup("thing", ("orange",))))
        >>> vocabulary.say({"thing": "orange"})
        'a photo of an orange'
        """
        filled = "".join(literal + ("" if name is None else chosen.get(name, "")) for literal, name in self._parts)
        return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(filled.split()))

    @classmethod
    def read(cls, path: str | Path) -> Vocabulary:
        """Reads a JSON file: `{"sentence": …, "groups": [{"name": …, "words": […], "only": {group: [words]}}, …]}`.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        Vocabulary
            Its vocabulary.

        Raises
        ------
        VocabularyError
            The file cannot be read or has another structure.

        Examples
        --------
        >>> from mmretrieve.language.vocabulary import GENERAL, Vocabulary
        >>> Vocabulary.read(GENERAL).noun.name
        'thing'
        """
        try:
            return cls.from_dict(load_json(check_regular(path, MAX_BYTES).read_text(encoding="utf-8")))
        except OSError as error:
            raise VocabularyError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, VocabularyError):
                raise
            raise VocabularyError(f"{path}: not a vocabulary; expected JSON with 'sentence' and 'groups'") from error

    def write(self, path: str | Path) -> None:
        """Writes the JSON file that `read` reads.

        Parameters
        ----------
        path : str or Path
            The file; it is replaced if it exists.

        Examples
        --------
        >>> import tempfile
        >>> from mmretrieve.language.vocabulary import Vocabulary, WordGroup
        >>> vocabulary = Vocabulary("a {colour} hat", (WordGroup("colour", ("red",)),))
        >>> with tempfile.NamedTemporaryFile(suffix=".json") as file:
        ...     vocabulary.write(file.name)
        ...     Vocabulary.read(file.name) == vocabulary
        True
        """
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vocabulary:
        """Makes a vocabulary from what `to_dict` returns.

        Parameters
        ----------
        data : mapping
            The structure of the JSON file that `read` reads.

        Returns
        -------
        Vocabulary
            The vocabulary.

        Raises
        ------
        KeyError, TypeError
            `data` has another structure.
        VocabularyError
            Slots and groups do not have the same names, or a group has no words.

        Examples
        --------
        >>> from mmretrieve import Vocabulary
        >>> Vocabulary.from_dict({"sentence": "a {colour} hat", "groups": [{"name": "colour", "words": ["red"]}]}).groups[0].words
        ('red',)
        """
        groups = [
            WordGroup(g["name"], tuple(g["words"]), {name: tuple(words) for name, words in g.get("only", {}).items()})
            for g in data["groups"]
        ]
        return cls(data["sentence"], tuple(groups))

    def to_dict(self) -> dict[str, Any]:
        """Returns the vocabulary as values that JSON can represent.

        Returns
        -------
        dict
            The structure of the JSON file that `read` reads.

        Examples
        --------
        >>> from mmretrieve.language.vocabulary import Vocabulary, WordGroup
        >>> sorted(Vocabulary("a {colour} hat", (WordGroup("colour", ("red",)),)).to_dict())
        ['groups', 'sentence']
        """
        return asdict(self)


@lru_cache(MAX_CACHED_NAMES)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a field's name: `"baseColour"` and `"base_colour"` → `("base", "colour")`."""
    return tuple(re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", " ", name).lower().split())


def default_vocabulary(encoder: Encoder) -> Vocabulary:
    """The file `vocabulary.json` in the encoder's own folder if there is one, else the general vocabulary of the package."""
    return own_vocabulary(encoder) or Vocabulary.read(GENERAL)


def own_vocabulary(encoder: Encoder) -> Vocabulary | None:
    """The file `vocabulary.json` in the encoder's own folder; None if there is none."""
    folder = getattr(encoder, "folder", None)
    path = None if folder is None else folder / "vocabulary.json"
    return Vocabulary.read(path) if path is not None and path.is_file() else None
