"""A captioner that needs nothing but the encoder: it tries the words of a vocabulary and keeps those nearest to the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmretrieve.encoders.base import Encoder
from mmretrieve.language.vocabulary import Group, Vocabulary
from mmretrieve.query import Query
from mmretrieve.vectors import Float32


@dataclass
class Tagger:
    """Builds a caption group by group: of each the word whose sentence, with all that is chosen so far, lies nearest to the image.

    After the first round every group is chosen again in the light of all the others. More captions than one are the
    caption and its nearest neighbours: the same words but for one, changed or left out.
    """

    encoder: Encoder
    vocabulary: Vocabulary
    rounds: int = 2
    _vectors: dict[str, Float32] = field(default_factory=dict, repr=False)

    def captions(self, queries: Sequence[Query], count: int = 1) -> list[list[str]]:
        """`count` captions a query (fewer where the vocabulary has no more), from its reference vector.

        OptionError where a query has no reference.
        """
        chosen: list[dict[str, str]] = [{} for _ in queries]
        for group in self.vocabulary.groups * self.rounds:
            said = [self._candidates(group, words) for words in chosen]
            for i, scores in enumerate(self._scores(queries, said)):
                if len(scores):
                    word = group.words[int(np.argmax(scores))]
                    chosen[i] = self.vocabulary.consistent({**chosen[i], group.name: word})
        best = [self.vocabulary.say(words) for words in chosen]
        return [[caption] for caption in best] if count == 1 else self._with_neighbours(queries, best, chosen, count)

    def _with_neighbours(
        self, queries: Sequence[Query], best: list[str], chosen: list[dict[str, str]], count: int
    ) -> list[list[str]]:
        near = [sorted(self._neighbours(words) - {caption}) for words, caption in zip(chosen, best, strict=True)]
        order = [np.argsort(-scores, kind="stable") for scores in self._scores(queries, near)]
        return [[best[i], *(near[i][j] for j in order[i][: count - 1])] for i in range(len(queries))]

    def _neighbours(self, chosen: dict[str, str]) -> set[str]:
        changed = {sentence for group in self.vocabulary.groups for sentence in self._candidates(group, chosen)}
        left_out = ({name: word for name, word in chosen.items() if name != out} for out in chosen)
        return changed | {self.vocabulary.say(words) for words in left_out}

    def _candidates(self, group: Group, chosen: dict[str, str]) -> list[str]:
        if not group.applies(chosen):
            return []
        tried = ({**chosen, group.name: word} for word in group.words)
        return [self.vocabulary.say(self.vocabulary.consistent(words)) for words in tried]

    def _scores(self, queries: Sequence[Query], said: Sequence[Sequence[str]]) -> list[Float32]:
        """For each query the inner products of its reference with its sentences, each sentence encoded once and for all."""
        if new := sorted({sentence for sentences in said for sentence in sentences} - set(self._vectors)):
            self._vectors.update(zip(new, self.encoder.encode_texts(new), strict=True))
        return [
            np.array([self._vectors[sentence] @ query.reference() for sentence in sentences], dtype=np.float32)
            for query, sentences in zip(queries, said, strict=True)
        ]
