"""Suggested prompts for an image: words of captions that are nearly as likely as its own."""

from __future__ import annotations

import re
from collections import Counter

from mmretrieve import Encoder
from mmretrieve.composer_input import ComposerInput
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.vocabulary import WordGroup, default_vocabulary
from mmretrieve.vectors import Float32

MAX_SUGGESTIONS, MAX_PER_GROUP = 8, 2
N_CAPTIONS = 60  # that words are taken from


class Suggester:
    """Words of the tagger's vocabulary from the captions that score highest for an image, except its own caption."""

    def __init__(self, encoder: Encoder) -> None:
        self._vocabulary = default_vocabulary(encoder)
        self._tagger = Tagger(encoder, self._vocabulary)

    def words(self, vector_d: Float32) -> list[str]:
        """The most likely words first, at most MAX_PER_GROUP of each group, without words of the caption.

        vector_d: (d,) the vector of the image.
        """
        caption, *others = self._tagger.captions([ComposerInput(vector=vector_d)], N_CAPTIONS)[0]
        words: dict[str, None] = {}
        per_group: Counter[str] = Counter()
        for other in others:
            for group in self._vocabulary.groups:
                word = _new_word(group, other, caption)
                if word and word not in words and per_group[group.name] < MAX_PER_GROUP:
                    words[word] = None
                    per_group[group.name] += 1
        return list(words)[:MAX_SUGGESTIONS]


def _new_word(group: WordGroup, sentence: str, caption: str) -> str | None:
    """The longest word of a group that is in a sentence and not in the caption."""
    new_words = [word for word in group.words if word and _contains(sentence, word) and not _contains(caption, word)]
    return max(new_words, key=len, default=None)


def _contains(sentence: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", sentence) is not None
