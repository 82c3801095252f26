"""A judge that needs no model beside the encoder: the words of the desired description, looked for in each candidate one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composers.factory import ComposerContext
from mmretrieve.encoders.base import Encoder
from mmretrieve.judges.words import WordReader
from mmretrieve.language.captioners.tagger import word_probabilities
from mmretrieve.language.vocabulary import Vocabulary, default_vocabulary


@dataclass(frozen=True)
class AttributeJudge:
    """Counts the attributes of the desired description that a candidate has.

    The reference is tagged, and the prompt is applied to its caption. Each word of the result that the vocabulary has is compared with the other
    words of its group, in the same sentence, as the tagger compares them. A candidate has the attribute if the word is more probable than all
    others together. (The product of the probabilities was measured as well: it reorders candidates that have everything, and is worse.)

    Parameters
    ----------
    encoder : Encoder
        Encodes candidates and sentences.
    vocabulary : Vocabulary
        The groups of words.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> from mmretrieve.images import open_image
    >>> encoder = mm.load_encoder("wardrobe")
    >>> judge = AttributeJudge(encoder, default_vocabulary(encoder))
    >>> names = ["teal-striped-shirt-1728.png", "red-checked-dress-1815.png"]
    >>> pictures = [{"image": open_image(mm.wardrobe.pictures_folder() / name)} for name in names]
    >>> shirt, dress = (answer["score"] for answer in judge.rank({"text": "a red dress"}, pictures))
    >>> shirt < dress
    True
    """

    encoder: Encoder
    vocabulary: Vocabulary

    @classmethod
    def of(cls, context: ComposerContext) -> AttributeJudge:
        """The judge for the encoder and the vocabulary of a retriever."""
        encoder = context.encoder
        return cls(encoder, context.parts.vocabulary or default_vocabulary(encoder))

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Scores documents as `Judge.rank` says."""
        words = self._reader.read(query).desired
        vectors = self.encoder.encode_images([document["image"] for document in documents])
        probabilities = [self._probabilities(name, words, vectors) for name in words]
        return [{"corpus_id": i, "score": float(sum(each[i] > 0.5 for each in probabilities))} for i in range(len(documents))]

    def _probabilities(self, name: str, words: Mapping[str, str], vectors: NDArray[np.float32]) -> list[float]:
        """For each of (n, d) vectors the probability of the word of a group among all words of the group."""
        (group,) = (group for group in self.vocabulary.groups if group.name == name)
        sentences = [self.vocabulary.say({**words, name: word}) for word in group.words]
        scores = np.einsum("nd,wd->nw", vectors, self.encoder.encode_texts(sentences))
        return word_probabilities(scores)[:, group.words.index(words[name])].tolist()  # type: ignore[no-any-return]

    @cached_property
    def _reader(self) -> WordReader:
        return WordReader(self.encoder, self.vocabulary)
