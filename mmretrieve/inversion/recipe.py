"""The settings and the training data of a phi network. Imports no torch: the command line shows the defaults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from pathlib import Path

from mmretrieve.errors import OptionError

MAX_INTEGER = 2**31
MAX_VALIDATION_CAPTIONS, VALIDATION_SHARE = 2048, 0.05
FUNCTION_WORDS = frozenset(
    word
    for line in Path(__file__).with_name("function_words.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for word in line.split()
)
SplitCaption = tuple[str, tuple[str, ...]]
"""A caption, and its pieces around its noun phrases."""


@dataclass(frozen=True, kw_only=True)
class PhiRecipe:
    """The settings of a training run. Learning rate and weight decay are those of LinCIR (arXiv 2312.01998).

    Raises OptionError for a value that is out of range.
    """

    steps: int = 20_000
    batch: int = 512
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    noise: float = 1.0
    validate_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name, minimum in (("steps", 1), ("batch", 1), ("validate_every", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or not minimum <= value <= MAX_INTEGER:
                raise OptionError(f"{name} must be a whole number from {minimum} to {MAX_INTEGER}, got {value!r}")
        for name in ("learning_rate", "weight_decay", "noise"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < inf:
                raise OptionError(f"{name} must be a finite number of at least 0, got {value!r}")


def split_captions(captions: Sequence[str]) -> tuple[list[SplitCaption], list[SplitCaption]]:
    """Splits captions into training and validation data, and each caption into pieces.

    Captions without a noun phrase and duplicates are dropped. Validation captions are spread evenly over the file.
    Raises OptionError if too few captions have a noun phrase.
    """
    pieces = {caption: split_noun_phrases(caption) for caption in dict.fromkeys(captions)}
    usable = [caption for caption, parts in pieces.items() if len(parts) > 1]
    step = max(2, round(1 / VALIDATION_SHARE), len(usable) // MAX_VALIDATION_CAPTIONS)
    validation, training = usable[::step], [caption for i, caption in enumerate(usable) if i % step]
    if not training:
        raise OptionError(
            f"only {len(usable)} of {len(captions)} captions have a noun phrase, and training needs at least 2: give more captions"
        )
    return [(caption, pieces[caption]) for caption in training], [(caption, pieces[caption]) for caption in validation]


def split_noun_phrases(caption: str) -> tuple[str, ...]:
    """The pieces of a caption around its noun phrases. A caption without a noun phrase is returned as one piece.

    LinCIR masks every maximal run of nouns, adjectives and determiners. Here a run is what is between function words and the
    most common verbs of captions (`function_words.txt`): no tagger is needed, and it is accurate enough for training.

    >>> split_noun_phrases("a red dress with long sleeves")
    ('', 'with', '')
    """
    tokens = re.findall(r"[\w'’-]+|[^\w\s]+", caption)
    pieces = [""]
    for is_between, run in groupby(tokens, key=lambda token: not token[0].isalnum() or token.lower() in FUNCTION_WORDS):
        if is_between:
            pieces[-1] = " ".join(run)
        else:
            pieces.append("")
    return tuple(pieces)
