"""Parsing of model answers: one clean sentence, a JSON object inside prose, lists of phrases."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

QUOTES = "\"'“”‘’`"
REASONING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)  # some servers return the reasoning within the answer


def clean_sentence(answer: str) -> str:
    """An answer in one line, without `<think>` blocks and without quotation marks around the whole.

    >>> clean_sentence('<think>red, so</think> "a red\\ndress"')
    'a red dress'
    """
    line = " ".join(REASONING.sub("", answer).split())
    is_quoted = len(line) > 1 and line[0] in QUOTES and line[-1] in QUOTES
    return line[1:-1].strip() if is_quoted else line


def json_object(answer: str, names: Collection[str]) -> dict[str, object] | None:
    """The first JSON object in an answer that has one of the fields `names`; code fences and prose around it are ignored.

    Returns None if there is no such object, for instance because the answer was cut off.

    >>> json_object('Sure! {"mood": 1} {"target": "a red dress"}', ["target"])
    {'target': 'a red dress'}
    """
    text = REASONING.sub("", answer)
    decoder = json.JSONDecoder(strict=False)
    for brace in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, brace.start())
        except ValueError:
            continue
        if isinstance(value, dict) and not value.keys().isdisjoint(names):
            return value
    return None


def text_or_none(value: object) -> str | None:
    """The value in one line if it is text that is not blank, else None."""
    return " ".join(value.split()) or None if isinstance(value, str) else None


def phrases(value: object) -> tuple[str, ...]:
    """The distinct texts of a list, or of a single value; what is not text is dropped.

    >>> phrases(["red", 3, " ", "red"]), phrases("red")
    (('red',), ('red',))
    """
    values = value if isinstance(value, list | tuple) else [value]
    texts = (text_or_none(each) for each in values)
    return tuple(dict.fromkeys(text for text in texts if text is not None))
