"""Text as words that can be compared: tokens, American and British spelling, plural and participle endings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("classes.json")
TOKEN = re.compile(
    r"\b(?:t|tee)[- ]?shirts?\b|[^\W_]+(?:['’][^\W_]+)?['’]?(?=[\s,;.]|$)|[^\W_]+|\s[-–—]\s|[^\w\s'’/–—-]", re.IGNORECASE
)
ENDINGS = (  # the first that matches is replaced; British doubling is undone afterwards
    (re.compile(r"(?<=..)ies$"), "y"),
    (re.compile(r"(?<=ss|sh|ch)es$|(?<=[xz])es$|(?<=bus)es$"), ""),
    (re.compile(r"(?<=..)(?<![siu])s$"), ""),
    (re.compile(r"(?<=...)(?<!e)ed$"), ""),
)
KNOWN_TEXTS = 4_096  # whose words are remembered
SHORT = 4  # words of so few letters keep their final e, and "ties" is "tie"


@dataclass(frozen=True)
class WordToken:
    """A word or a punctuation mark: its place in the text, `exact` in lower case and one spelling, and its `stem`."""

    start: int
    end: int
    exact: str
    stem: str

    @property
    def is_word(self) -> bool:
        return self.exact[0].isalnum()


@cache
def data() -> Mapping[str, Any]:
    """What `classes.json` holds: spellings, irregular forms, fillers and classes of words."""
    content: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return content


@lru_cache(KNOWN_TEXTS)
def tokens(text: str) -> tuple[WordToken, ...]:
    """The words and punctuation marks of a text, in order.

    Hyphens separate words, so that "short-sleeved" equals "short sleeved"; "t-shirt", "tee shirt" and "tshirt" are one word.

    >>> [token.stem for token in tokens("Two gray T-shirts, striped")]
    ['two', 'grey', 'tshirt', ',', 'strip']
    """
    return tuple(_token(match) for match in TOKEN.finditer(text))


def exact_key(text: str) -> tuple[str, ...]:
    return tuple(token.exact for token in tokens(text))


def stem_key(text: str) -> tuple[str, ...]:
    return tuple(token.stem for token in tokens(text))


@cache
def stem(word: str) -> str:
    """A word without plural and participle ending, for comparison only.

    >>> stem("watches") == stem("watch"), stem("dotted") == stem("dots"), stem("scarves") == stem("scarf")
    (True, True, True)
    """
    irregular: Mapping[str, str] = data()["irregular"]
    if word in irregular:
        return irregular[word]
    endings = ENDINGS if len(word) > SHORT else ENDINGS[1:]
    for ending, replacement in endings:
        if ending.search(word):
            word = _undoubled(ending.sub(replacement, word))
            break
    word = irregular.get(word, word)
    word = word[:-1] if len(word) > SHORT and word.endswith("e") else word
    return f"{word[:-1]}f" if len(word) >= SHORT and word.endswith("v") else word


def occurrences(words: Sequence[WordToken], phrase: str) -> list[tuple[int, int]]:
    """Where a phrase stands among words, in whichever forms: positions [start, end)."""
    key, stems = stem_key(phrase), [word.stem for word in words]
    return [(i, i + len(key)) for i in range(len(stems)) if key and tuple(stems[i : i + len(key)]) == key]


def says(text: str, phrase: str) -> bool:
    """Whether a text has the words of a phrase, in whichever forms: "two dogs" says "dog"."""
    return bool(occurrences(tokens(text), phrase))


def is_plural(noun: str) -> bool:
    """Whether a noun looks like a plural: "jeans", "flip flops"; not "dress", "bus", "pair of jeans"."""
    return not noun.startswith("pair of ") and re.search(r"(?<![\Wsui])s$", noun, flags=re.IGNORECASE) is not None


@cache
def word_list(*names: str) -> frozenset[str]:
    """The words of lists in `classes.json`."""
    return frozenset(word for name in names for word in data()[name])


def _token(match: re.Match[str]) -> WordToken:
    word = match.group().lower().replace("’", "'")
    if word[0].isalnum() and "shirt" in word:
        word = re.sub(r"^(?:t|tee)[- ]?shirt", "tshirt", word)
    elif word[0].isalnum() and not word.endswith("s'"):
        word = word.rstrip("'")
    word = data()["spelling"].get(word, word)
    return WordToken(match.start(), match.end(), word.strip() or word, stem(word.strip() or word))


def _undoubled(word: str) -> str:
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz" else word
