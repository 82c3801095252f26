"""Cuts a caption where its noun phrases stand, as LinCIR's training does.

LinCIR masks every maximal run of nouns, adjectives and determiners. Runs are found here as what stands between function
words and the commonest verbs of captions (`function_words.txt`): no tagger, no download, and right often enough to train.
"""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import groupby


def _read() -> frozenset[str]:
    lines = files(__package__).joinpath("function_words.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


FUNCTION_WORDS = _read()


def cut(caption: str) -> tuple[str, ...]:
    """The pieces around the noun phrases: `"a red dress with long sleeves"` → `("", "with", "")`.

    A caption without a noun phrase stays whole, one piece.
    """
    parts = re.findall(r"[\w'’-]+|[^\w\s]+", caption)
    pieces = [""]
    for between, run in groupby(parts, key=_stands_between):
        if between:
            pieces[-1] = " ".join(run)
        else:
            pieces.append("")
    return tuple(pieces)


def _stands_between(part: str) -> bool:
    return not part[0].isalnum() or part.lower() in FUNCTION_WORDS
