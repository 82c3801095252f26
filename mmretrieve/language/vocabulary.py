"""What a zero-shot tagger may say: one sentence with slots, and for each slot the words that may fill it. Data, not code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any

from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import VocabularyError

GENERAL = Path(__file__).with_name("vocabulary.json")
ADDING = ("for ", "with ", "without ", "in ", "on ", "at ")
THING = "thing"  # stands for a noun that is left out
NOUNS = (THING, "article", "garment", "product", "object", "item", "kind", "type", "class", "category", "subcategory")


@dataclass(frozen=True)
class WordGroup:
    """One slot: its name, its words, and `only`, the earlier choices under which it is filled at all."""

    name: str
    words: tuple[str, ...]
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def is_added(self) -> bool:
        """Whether its words stand behind a noun and bring their preposition: "for men", "without sleeves"."""
        return all(word.startswith(ADDING) for word in self.words if word)

    def applies(self, chosen: Mapping[str, str]) -> bool:
        return all(chosen.get(name) in words for name, words in self.only.items())


@dataclass(frozen=True)
class Vocabulary:
    """A sentence such as `"a photo of a {colour} {thing}"` and its groups, in the order in which they are chosen.

    Raises VocabularyError where slots and groups do not match, or a group has no words.
    """

    sentence: str
    groups: tuple[WordGroup, ...]

    def __post_init__(self) -> None:
        slots = {name for _, name, _, _ in Formatter().parse(self.sentence) if name is not None}
        names = [group.name for group in self.groups]
        if slots != set(names) or len(names) != len(set(names)):
            raise VocabularyError(
                f"slots of the sentence {sorted(slots)} and groups {sorted(names)} must be the same names, once each"
            )
        for group in self.groups:
            if not group.words:
                raise VocabularyError(f"group {group.name!r} has no words")

    @cached_property
    def noun(self) -> WordGroup | None:
        """The group that names what a picture shows: by its name (`NOUNS`), else the one that ends the sentence.

        Groups such as "for men" and "without sleeves" may follow it. None where a fixed word ends the sentence.
        """
        named = next((group for word in NOUNS for group in self.groups if word in words_of(group.name)), None)
        if named is not None:
            return named
        by_name = {group.name: group for group in self.groups}
        ending: list[WordGroup] = []
        for literal, name, _, _ in Formatter().parse(self.sentence):
            ending = [*(ending if not literal.strip() else []), *([by_name[name]] if name is not None else [])]
        return next((group for group in reversed(ending) if not group.is_added()), None)

    def consistent(self, chosen: Mapping[str, str]) -> dict[str, str]:
        """What is chosen, without the words of groups that do not apply to it (any more)."""
        kept: dict[str, str] = {}
        for group in self.groups:
            if group.name in chosen and group.applies(kept):
                kept[group.name] = chosen[group.name]
        return kept

    def without(self, chosen: Mapping[str, str], group: WordGroup) -> dict[str, str]:
        """What is chosen, without the word of that group; for the noun "thing" stands in its place.

        >>> vocabulary = Vocabulary("a photo of a {colour} {article}", (WordGroup("article", ("hat",)), WordGroup("colour", ("red",))))
        >>> vocabulary.say(vocabulary.without({"article": "hat", "colour": "red"}, vocabulary.groups[0]))
        'a photo of a red thing'
        """
        noun = self.noun
        others = {name: word for name, word in chosen.items() if name != group.name}
        return self.consistent({**others, group.name: THING} if group == noun else others)

    def say(self, chosen: Mapping[str, str]) -> str:
        """The sentence with what is chosen so far; slots still open are left out: `{"thing": "orange"}` → `"a photo of an orange"`."""
        filled = self.sentence.format_map({group.name: chosen.get(group.name, "") for group in self.groups})
        return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(filled.split()))

    @classmethod
    def read(cls, path: str | Path) -> Vocabulary:
        """From a JSON file: `{"sentence": …, "groups": [{"name": …, "words": […], "only": {group: [words]}}, …]}`."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise VocabularyError(
                f"cannot read the vocabulary {path}: {error!r}; expected JSON with 'sentence' and 'groups'"
            ) from error

    def write(self, path: str | Path) -> None:
        """Writes the vocabulary as JSON, which `Vocabulary.read` reads."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vocabulary:
        """From what `to_dict` returns, or from the same as read from JSON. KeyError or TypeError for anything else."""
        groups = [
            WordGroup(g["name"], tuple(g["words"]), {name: tuple(words) for name, words in g.get("only", {}).items()})
            for g in data["groups"]
        ]
        return cls(data["sentence"], tuple(groups))

    def to_dict(self) -> dict[str, Any]:
        """The sentence and the groups as JSON can hold them."""
        return asdict(self)


def words_of(name: str) -> list[str]:
    """The words of a field's name: `"baseColour"` and `"base_colour"` → `["base", "colour"]`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", " ", name).lower().split()


def default_vocabulary(encoder: Encoder) -> Vocabulary:
    """`vocabulary.json` in the encoder's own folder where there is one, else the general vocabulary of the package."""
    return own_vocabulary(encoder) or Vocabulary.read(GENERAL)


def own_vocabulary(encoder: Encoder) -> Vocabulary | None:
    """`vocabulary.json` in the encoder's own folder, None where there is none."""
    folder = getattr(encoder, "folder", None)
    own = None if folder is None else folder / "vocabulary.json"
    return Vocabulary.read(own) if own is not None and own.is_file() else None
