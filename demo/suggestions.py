"""A few words to try on a picture: what the tagger would nearly have said of it."""

from __future__ import annotations

import re
from collections import Counter

from mmretrieve import Encoder
from mmretrieve.composer_input import ComposerInput
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.vocabulary import WordGroup, default_vocabulary
from mmretrieve.vectors import Float32

OFFERED, OF_A_GROUP, LOOKED_AT = 8, 2, 60


class Suggester:
    """Words of the tagger's vocabulary, from the sentences nearest to a picture that are not its caption."""

    def __init__(self, encoder: Encoder) -> None:
        self._vocabulary = default_vocabulary(encoder)
        self._tagger = Tagger(encoder, self._vocabulary)

    def words(self, vector_d: Float32) -> list[str]:
        """The likeliest first, two of each group at most, and none that the caption says already."""
        caption, *near = self._tagger.captions([ComposerInput(vector=vector_d)], LOOKED_AT)[0]
        offered: dict[str, str] = {}
        used: Counter[str] = Counter()
        for sentence in near:
            for group in self._vocabulary.groups:
                word = _new_word(group, sentence, caption)
                if word and word not in offered and used[group.name] < OF_A_GROUP:
                    offered[word] = group.name
                    used[group.name] += 1
        return list(offered)[:OFFERED]


def _new_word(group: WordGroup, sentence: str, caption: str) -> str | None:
    """The longest word of a group that a sentence says and the caption does not."""
    new = [word for word in group.words if word and _says(sentence, word) and not _says(caption, word)]
    return max(new, key=len, default=None)


def _says(sentence: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", sentence) is not None
