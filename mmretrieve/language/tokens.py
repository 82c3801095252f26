"""Tokens of a text in a comparable form: one spelling for American and British English, stems without endings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

WORD_DATA = Path(__file__).with_name("classes.json")
TOKEN = re.compile(
    r"\b(?:t|tee)[- ]?shirts?\b|[^\W_]+(?:['’][^\W_]+)?['’]?(?=[\s,;.]|$)|[^\W_]+|\s[-–—]\s|[^\w\s'’/–—-]", re.IGNORECASE
)
ENDINGS = (  # the first that matches is replaced; doubled consonants are reduced afterwards
    (re.compile(r"(?<=..)ies$"), "y"),
    (re.compile(r"(?<=ss|sh|ch)es$|(?<=[xz])es$|(?<=bus)es$"), ""),
    (re.compile(r"(?<=..)(?<![siu])s$"), ""),
    (re.compile(r"(?<=...)(?<!e)ed$"), ""),
)
MAX_CACHED_TEXTS = 4_096
MAX_SHORT_WORD = 4  # letters; short words keep their final e, and "ties" becomes "tie"


@dataclass(frozen=True)
class WordToken:
    """A word or a punctuation mark: its characters [start, end) in the text, its normalized spelling and its stem."""

    start: int
    end: int
    exact: str
    stem: str

    @property
    def is_word(self) -> bool:
        return self.exact[0].isalnum()


@cache
def word_data() -> Mapping[str, Any]:
    """The content of `classes.json`: spellings, irregular forms, fillers and classes of words."""
    content: dict[str, Any] = json.loads(WORD_DATA.read_text(encoding="utf-8"))
    return content


@lru_cache(MAX_CACHED_TEXTS)
def tokenize(text: str) -> tuple[WordToken, ...]:
    """The words and punctuation marks of a text, in order. Cached.

    Hyphens separate words, so that "short-sleeved" equals "short sleeved"; "t-shirt", "tee shirt" and "tshirt" are one word.

    >>> [token.stem for token in tokenize("Two gray T-shirts, striped")]
    ['two', 'grey', 'tshirt', ',', 'strip']
    """
    return tuple(_token(match) for match in TOKEN.finditer(text))


def exact_key(text: str) -> tuple[str, ...]:
    """The normalized spellings of a text's words."""
    return tuple(token.exact for token in tokenize(text))


def stem_key(text: str) -> tuple[str, ...]:
    """The stems of a text's words."""
    return tuple(token.stem for token in tokenize(text))


@cache
def stem(word: str) -> str:
    """A word without plural and participle endings, for comparison only.

    >>> stem("watches") == stem("watch"), stem("dotted") == stem("dots"), stem("scarves") == stem("scarf")
    (True, True, True)
    """
    irregular: Mapping[str, str] = word_data()["irregular"]
    if word in irregular:
        return irregular[word]
    endings = ENDINGS if len(word) > MAX_SHORT_WORD else ENDINGS[1:]
    for ending, replacement in endings:
        if ending.search(word):
            word = _reduce_doubled(ending.sub(replacement, word))
            break
    word = irregular.get(word, word)
    word = word[:-1] if len(word) > MAX_SHORT_WORD and word.endswith("e") else word
    return f"{word[:-1]}f" if len(word) >= MAX_SHORT_WORD and word.endswith("v") else word


def occurrences(words: Sequence[WordToken], phrase: str) -> list[tuple[int, int]]:
    """Positions [start, end) of a phrase among words, compared by stem."""
    key, stems = stem_key(phrase), [word.stem for word in words]
    return [(i, i + len(key)) for i in range(len(stems)) if key and tuple(stems[i : i + len(key)]) == key]


def contains(text: str, phrase: str) -> bool:
    """Whether a text contains a phrase, compared by stem.

    >>> contains("two dogs", "dog")
    True
    """
    return bool(occurrences(tokenize(text), phrase))


def is_plural(noun: str) -> bool:
    """Whether a noun looks like a plural: "jeans", "flip flops"; not "dress", "bus", "pair of jeans"."""
    return not noun.startswith("pair of ") and re.search(r"(?<![\Wsui])s$", noun, flags=re.IGNORECASE) is not None


@cache
def word_list(*names: str) -> frozenset[str]:
    """The words of the named lists of `classes.json`."""
    return frozenset(word for name in names for word in word_data()[name])


def _token(match: re.Match[str]) -> WordToken:
    word = match.group().lower().replace("’", "'")
    if word[0].isalnum() and "shirt" in word:
        word = re.sub(r"^(?:t|tee)[- ]?shirt", "tshirt", word)
    elif word[0].isalnum() and not word.endswith("s'"):
        word = word.rstrip("'")
    word = word_data()["spelling"].get(word, word)
    return WordToken(match.start(), match.end(), word.strip() or word, stem(word.strip() or word))


def _reduce_doubled(word: str) -> str:
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz" else word
