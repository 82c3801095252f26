"""Vocabularies and captions from the fields of a gallery's items."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

from mmretrieve.composition import Caption
from mmretrieve.errors import OptionError, unknown
from mmretrieve.language.lexicon import general_lexicon, nearest_class
from mmretrieve.language.tokens import is_plural, stem, word_list
from mmretrieve.language.vocabulary import NOUNS, Vocabulary, WordGroup, words_of
from mmretrieve.options import CaptionSource

MAX_FIELDS = 4  # of a vocabulary
MIN_VALUES, MAX_VALUES = 2, 500  # distinct values of a categorical field
MIN_REPEATS = 2  # mean frequency of a value of a categorical field
MAX_VALUE_WORDS, MAX_VALUE_LENGTH = 4, 40
MIN_READABLE_SHARE = 0.9  # of the values of a categorical field that are words
MAX_CAPTION_LENGTH = 240
MAX_CACHED_VALUES = 4_096
TITLE_TRUST = 0.8
PLACEHOLDERS = (
    "na",
    "n a",
    "nan",
    "none",
    "null",
    "unknown",
    "other",
    "others",
    "misc",
    "default",
    "yes",
    "no",
    "true",
    "false",
)
CAPTION_FIELDS = ("caption", "description", "captions")
TITLE_FIELDS = ("title", "name", "headline")
WEARER_FIELDS = ("gender", "department", "wearer", "audience")
ATTRIBUTE_FIELDS = (
    "colour",
    "color",
    "pattern",
    "print",
    "material",
    "fabric",
    "length",
    "fit",
    "style",
    "usage",
    "occasion",
    "shape",
    "finish",
    "sex",
)
EXCLUDED_FIELDS = (
    "id",
    "file",
    "path",
    "url",
    "image",
    "split",
    "source",
    "brand",
    "background",
    "season",
    "date",
    *CAPTION_FIELDS,
    *TITLE_FIELDS,
)
WEARER_KIND = 2  # "for men"; kinds 0 and 1 are "men's" and "men"
SINGULARS = ((r"(?<=..)ies$", "y"), (r"(?<=ss|sh|ch)es$|(?<=x)es$", ""), (r"s$", ""))
NOT_ATTRIBUTIVE = ("wearer", "room", "season", "time of day", "weather", "number")  # classes whose words do not precede a noun


def vocabulary_from_fields(rows: Iterable[Mapping[str, object]], names: Sequence[str] | None = None) -> Vocabulary | None:
    """A vocabulary of the words in the fields of items, such as `"a photo of a {colour} {article} {gender}"`.

    Parameters
    ----------
    rows : the fields of each item. Values that are not text are ignored.
    names : the fields to use; by default at most four categorical ones: repeated short words, no ids, titles or dates.

    Returns
    -------
    The vocabulary; None if no field is suitable.

    Raises
    ------
    OptionError : if no row has a named field, or the field has no words.

    >>> colours, articles, genders = ("red", "navy_blue"), ("Shirts", "Hat"), ("men", "women", "")
    >>> rows = [{"colour": c, "article": a, "gender": g} for c in colours for a in articles for g in genders]
    >>> vocabulary = vocabulary_from_fields(rows)
    >>> vocabulary.sentence
    'a photo of a {colour} {article} {gender}'
    >>> [group.words for group in vocabulary.groups]
    [('hat', 'shirt'), ('navy blue', 'red'), ('', 'for men', 'for women')]
    """
    columns = _columns(rows)
    if names is None:
        chosen = [column for column in columns.values() if column.is_categorical]
    else:
        chosen = _select_columns(columns, names)
    noun = _noun(chosen)
    others = [column for column in chosen if column is not noun]
    if names is None:
        if noun is None:
            return None
        others = sorted((each for each in others if each.is_attribute), key=lambda each: each.rank)[: MAX_FIELDS - 1]
    nouns = [WordGroup(noun.slot, tuple(dict.fromkeys(noun.nouns.values())))] if noun is not None else []
    attributes = [WordGroup(each.slot, each.attribute_phrases()) for each in others]
    slots = [f"{{{group.name}}}" for group in (*attributes, *nouns) if not group.is_added()]
    added = [f"{{{group.name}}}" for group in attributes if group.is_added()]
    return Vocabulary(" ".join(("a photo of a", *slots, *([] if nouns else ["thing"]), *added)), (*nouns, *attributes))


def caption_from_fields(fields: Mapping[str, object], vocabulary: Vocabulary | None) -> Caption | None:
    """A caption from an item's fields: its caption or description, else the vocabulary's sentence, else its title.

    Parameters
    ----------
    fields : the fields of the item. Codes and numbers are ignored.
    vocabulary : the words of the gallery's fields; with None there is no sentence.

    Returns
    -------
    The caption, with trust 1, or 0.8 for a title, which may name a brand or a model instead of what is visible. None if there
    is neither text nor a noun.

    >>> rows = [{"colour": c, "article": a} for c in ("red", "black") for a in ("tshirt", "hat")] * 2
    >>> caption_from_fields({"colour": "Black", "article": "tshirt"}, vocabulary_from_fields(rows))
    'a photo of a black tshirt'
    """
    sentence = None if vocabulary is None else _sentence(fields, vocabulary)
    if text := next(filter(None, (*(_text(fields, name) for name in CAPTION_FIELDS), sentence)), None):
        return Caption(text, trust=1.0, source=CaptionSource.FIELDS)
    title = next(filter(None, (_text(fields, name) for name in TITLE_FIELDS)), None)
    return None if title is None else Caption(f"a photo of {title}", trust=TITLE_TRUST, source=CaptionSource.FIELDS)


def words_from_fields(fields: Mapping[str, object], vocabulary: Vocabulary) -> dict[str, str]:
    """The vocabulary's word for the value of each field that is one of its groups; "" if it has none.

    >>> rows = [{"colour": c, "article": a} for c in ("red", "black") for a in ("tshirts", "hats")] * 2
    >>> words_from_fields({"colour": "Black", "article": "Hats", "price": 9}, vocabulary_from_fields(rows))
    {'article': 'hat', 'colour': 'black'}
    """
    values = {_slot(name): _word(value) for name, value in fields.items()}
    return {group.name: _matching(values.get(group.name, ""), group) for group in vocabulary.groups}


def sentence_of(chosen: Mapping[str, str], vocabulary: Vocabulary) -> str:
    """The vocabulary's sentence without words that the noun repeats: not "sports sports shoe"."""
    noun = vocabulary.noun
    repeated = set(chosen.get(noun.name, "").split()) if noun is not None else set()
    return vocabulary.say({name: word for name, word in chosen.items() if word not in repeated or (noun and name == noun.name)})


@dataclass(frozen=True)
class FieldWords:
    """The values of one field over all rows.

    Parameters
    ----------
    name : name of the field.
    counts : frequency of each word; "" counts the rows without one.
    unreadable : number of values that are not words.
    """

    name: str
    counts: Mapping[str, int]
    unreadable: int

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(sorted(filter(None, self.counts)))

    @property
    def slot(self) -> str:
        """The name in the form that a slot of a sentence can have."""
        return _slot(self.name)

    @cached_property
    def word_class(self) -> str:
        """The general class that has most of its words; "" if there is none."""
        named = set(words_of(self.name))
        if "sex" in named:  # a male dog is not a dog for men
            return ""
        return "wearer" if named & set(WEARER_FIELDS) else nearest_class(self.words, general_lexicon().classes)

    @property
    def is_categorical(self) -> bool:
        """Whether the field has few, repeated, readable values and a suitable name."""
        filled = sum(self.counts[word] for word in self.words)
        repeated = filled >= MIN_REPEATS * len(self.words)
        readable = filled >= MIN_READABLE_SHARE * (filled + self.unreadable)
        fitting = MIN_VALUES <= len(self.words) <= MAX_VALUES and not set(words_of(self.name)) & set(EXCLUDED_FIELDS)
        return fitting and repeated and readable and self.slot[:1].isalpha()

    @property
    def is_attribute(self) -> bool:
        """Whether its words are understood without the field's name: "red" and "striped", but not the "short" of sleeves."""
        named = set(words_of(self.name))
        classes = {each.name for each in general_lexicon().classes} & named
        if self.word_class == "wearer":
            return True
        is_clear = self.word_class not in ("", *NOT_ATTRIBUTIVE) and (not classes or self.word_class in classes)
        return is_clear or bool(named & set(ATTRIBUTE_FIELDS))

    @property
    def rank(self) -> int:
        """Position in the order of preference: colors first, then wearers, patterns and materials."""
        order = ("colour", "wearer", "pattern", "material")
        return order.index(self.word_class) if self.word_class in order else len(order)

    @property
    def nouns(self) -> Mapping[str, str]:
        """Each of its words as a noun in the singular."""
        return {word: singular(word) for word in self.words}

    def attribute_phrases(self) -> tuple[str, ...]:
        """Its words in the form of attributes of a noun, and "" if some rows have no value."""
        phrases = [_phrase(word, self.word_class) for word in self.words]
        return tuple(dict.fromkeys([*([""] if self.counts.get("") else []), *phrases]))


@lru_cache(maxsize=4096)
def singular(noun: str) -> str:
    """A noun in the form that follows "a": in the singular, or as a pair.

    >>> [singular(noun) for noun in ("tshirts", "watches", "casual shoes", "accessories", "jeans", "dress")]
    ['tshirt', 'watch', 'casual shoe', 'accessory', 'pair of jeans', 'dress']
    """
    if not is_plural(noun):
        return noun
    if noun.split()[-1] in word_list("pairs"):
        return noun if noun.startswith("pair of ") else f"pair of {noun}"
    if general := _singular_things().get(stem(noun)):
        return general
    ending, replacement = next((pattern, by) for pattern, by in SINGULARS if re.search(pattern, noun))
    return re.sub(ending, replacement, noun)


@cache
def _singular_things() -> Mapping[str, str]:
    """Nouns of the general lexicon in the singular, by stem."""
    lexicon = general_lexicon()
    words = (kinds[0][0] for kinds in lexicon.classes[lexicon.thing].members)
    return {stem(word): word for word in words if not is_plural(word) and word.isalpha()}


@lru_cache(maxsize=4096)
def _phrase(word: str, word_class: str) -> str:
    """A value as an attribute of a noun: "for men" for a wearer, "striped" for stripes."""
    lexicon = general_lexicon()
    meaning = lexicon.meaning(word) if word_class else None
    for c, reading in meaning.readings.items() if meaning is not None else ():
        if lexicon.classes[c].name == word_class:
            kind = WEARER_KIND if word_class == "wearer" else 0
            forms = lexicon.classes[c].forms(reading.member, kind)
            return word if reading.kind == kind or not forms else forms[0]
    return f"for {word}" if word_class == "wearer" else word


def _columns(rows: Iterable[Mapping[str, object]]) -> dict[str, FieldWords]:
    values: dict[str, list[object]] = {}
    total = 0
    for row in rows:
        total += 1
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    columns = {}
    for name, each in values.items():
        words = Counter(_word(value) for value in each)
        missing = total - len(each) + sum(value is None or value == "" for value in each)
        unreadable = words[""] + total - len(each) - missing
        columns[name] = FieldWords(
            name, words | ({"": words[""] + total - len(each)} if words[""] or total > len(each) else {}), unreadable
        )
    return columns


def _select_columns(columns: Mapping[str, FieldWords], names: Sequence[str]) -> list[FieldWords]:
    for name in names:
        if name not in columns:
            raise unknown("field", name, columns)
        if not columns[name].words or not columns[name].slot[:1].isalpha():
            raise OptionError(
                f"field {name!r} contains no words that a caption could use; name fields such as a color or a category"
            )
    if not names:
        raise OptionError("no fields are named for the vocabulary; name at least one, or omit the names")
    return [columns[name] for name in dict.fromkeys(names)]


def _noun(columns: Sequence[FieldWords]) -> FieldWords | None:
    """The field of the noun: by its name, else the one with the most words that is not an attribute."""
    named = [column for word in NOUNS for column in columns if word in words_of(column.name)]
    others = [column for column in columns if not column.is_attribute and column.word_class in ("", "room")]
    return next(iter(named), None) or max(others, key=lambda each: len(each.words), default=None)


def _sentence(fields: Mapping[str, object], vocabulary: Vocabulary) -> str | None:
    noun, chosen = vocabulary.noun, words_from_fields(fields, vocabulary)
    return sentence_of(chosen, vocabulary) if noun is not None and chosen[noun.name] else None


def _matching(value: str, group: WordGroup) -> str:
    """The group's word for a value; "" if it has none."""
    if not value or value in group.words:
        return value
    phrases = (phrase for each in general_lexicon().classes if (phrase := _phrase(value, each.name)) in group.words)
    return next((form for form in (singular(value), *phrases) if form in group.words), "")


def _text(fields: Mapping[str, object], name: str) -> str | None:
    """The first sentence of a field with that name, if it has several words; else None."""
    for field, value in fields.items():
        if name in words_of(field) and isinstance(value, str):
            text = " ".join(re.sub(r"<[^>]*>", " ", value).split())
            sentence = re.split(r"(?<=[^\W\d_]{3}[.!?])\s", text[: MAX_CAPTION_LENGTH + 1])[0].rstrip(".")
            sentence = sentence if len(sentence) <= MAX_CAPTION_LENGTH else sentence[:MAX_CAPTION_LENGTH].rsplit(" ", 1)[0]
            if len(re.findall(r"[^\W\d_]{2,}", sentence)) > 1:
                return sentence
    return None


def _word(value: object) -> str:
    """A value as a few words in lower case; "" if it is a code, a placeholder or not text."""
    return _word_of(value) if isinstance(value, str) and len(value) <= MAX_VALUE_LENGTH else ""


@lru_cache(MAX_CACHED_VALUES)
def _word_of(value: str) -> str:
    word = " ".join(value.replace("_", " ").split()).lower()
    is_word = re.fullmatch(r"[^\W\d_]+(?:[ '’&/-]+[^\W\d_]+)*", word)
    fits = len(word) > 1 and len(word) <= MAX_VALUE_LENGTH and len(word.split()) <= MAX_VALUE_WORDS
    return word if is_word and fits and word not in PLACEHOLDERS else ""


@lru_cache(MAX_CACHED_VALUES)
def _slot(name: str) -> str:
    return " ".join(re.sub(r"[^\w]+", " ", name).split())
