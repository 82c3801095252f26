"""What models answer, read: a sentence without its trimmings, or the JSON object somewhere in the prose."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

QUOTES = "\"'“”‘’`"
THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)  # reasoning models think aloud on some servers


def sentence(answer: str) -> str:
    """The answer in one line, without thoughts, and without quotation marks around the whole of it."""
    said = " ".join(THOUGHT.sub("", answer).split())
    return said[1:-1].strip() if len(said) > 1 and said[0] in QUOTES and said[-1] in QUOTES else said


def json_object(answer: str, wanted: Collection[str]) -> dict[str, object] | None:
    """The first JSON object in the answer with one of the `wanted` fields; code fences and prose around it do not matter.

    None where there is none: an answer that broke off, or is no JSON at all.
    """
    said = THOUGHT.sub("", answer)
    decoder = json.JSONDecoder(strict=False)
    for brace in re.finditer(r"\{", said):
        try:
            found, _ = decoder.raw_decode(said, brace.start())
        except ValueError:
            continue
        if isinstance(found, dict) and not found.keys().isdisjoint(wanted):
            return found
    return None


def words_or_none(value: object) -> str | None:
    """The value where it is text with words in it."""
    return " ".join(value.split()) or None if isinstance(value, str) else None


def phrases(value: object) -> tuple[str, ...]:
    """A list of phrases as JSON or a table has them; one phrase may stand alone. What is not text is left out."""
    several = value if isinstance(value, list | tuple) else [value]
    said = (words_or_none(one) for one in several)
    return tuple(dict.fromkeys(one for one in said if one is not None))
