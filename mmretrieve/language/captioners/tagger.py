"""Zero-shot tagger: a captioner that scores the words of a vocabulary with the encoder and needs no other model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Caption
from mmretrieve.encoders.base import Encoder
from mmretrieve.encoders.checked import encode_texts
from mmretrieve.language.base import CaptionerContext
from mmretrieve.language.vocabulary import Vocabulary, WordGroup
from mmretrieve.options import CaptionSource
from mmretrieve.vectors import Float32

TEMPERATURE = 0.2  # in standard deviations; calibrated on product photos: the mean probability is about the accuracy
MIN_PROBABILITY = 0.3  # of a word in a caption
MIN_DEVIATION = 1e-6  # smaller differences of scores are rounding errors
MAX_CACHED_VECTORS = 20_000  # of sentences
MAX_CACHED_CANDIDATES = 1_000  # lists of sentences, one for each group and choice of the other words


def word_probabilities(scores: Float32) -> NDArray[np.float64]:
    """Probabilities of the words of a group: softmax(scores / (0.2 · standard deviation of the scores)).

    Scaling or shifting all scores changes nothing, so the result does not depend on the encoder's logit scale.

    Parameters
    ----------
    scores : (…, n) scores of images with the n words.

    Returns
    -------
    (…, n) float64 probabilities, which sum to 1 along the last axis.

    >>> word_probabilities(np.array([0.2, 0.2, 0.2, 0.2], np.float32)).tolist()
    [0.25, 0.25, 0.25, 0.25]
    >>> word_probabilities(np.array([0.1, 0.2, 0.3, 0.9], np.float32)).round(2).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    exact = scores.astype(np.float64)
    scale = TEMPERATURE * np.maximum(exact.std(axis=-1, keepdims=True), MIN_DEVIATION)
    powers = np.exp((exact - exact.max(axis=-1, keepdims=True)) / scale)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@dataclass
class Selection:
    """The words selected for one image, by group, and their probabilities in the last round."""

    words: dict[str, str] = field(default_factory=dict)
    probabilities: dict[str, float] = field(default_factory=dict)

    @property
    def trust(self) -> float:
        """The probability that all words are correct, if they are independent."""
        return prod(self.probabilities.values())


@dataclass
class Tagger:
    """Selects the words of a caption group by group: the word whose sentence, with the words selected so far, scores highest.

    Later rounds select each group again, given the words of all others. In the last round a word whose probability
    (`word_probabilities`) is below 0.3, or equal to that of another word, is omitted; "thing" replaces an omitted noun. The
    trust of a caption is the product of the probabilities, those of omitted words included.

    Further captions are the highest scoring sentences that differ from the first in one word, changed or omitted. They have
    the trust of the first.

    Parameters
    ----------
    encoder : scores sentences.
    vocabulary : the sentence and the words of each group.
    rounds : how often each group is selected, at least 1.
    """

    encoder: Encoder
    vocabulary: Vocabulary
    rounds: int = 2
    _vectors: dict[str, Float32] = field(default_factory=dict, repr=False)
    _sentences: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = field(default_factory=dict, repr=False)

    def captions(self, inputs: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        """`count` `Caption`s for each query, fewer if the vocabulary has no more, from the vector of its reference.

        Raises
        ------
        OptionError : if a query has no reference.
        """
        selections = [Selection() for _ in inputs]
        for number in range(1, self.rounds + 1):
            for group in self.vocabulary.groups:
                self._select(group, inputs, selections, is_last=number == self.rounds)
        neighbors = self._neighbors(inputs, selections, count - 1) if count > 1 else [[] for _ in inputs]
        return [
            [
                Caption(text, trust=selection.trust, source=CaptionSource.TAGGER)
                for text in (self.vocabulary.say(selection.words), *others)
            ]
            for selection, others in zip(selections, neighbors, strict=True)
        ]

    def _select(
        self, group: WordGroup, inputs: Sequence[ComposerInput], selections: Sequence[Selection], *, is_last: bool
    ) -> None:
        """Select the group's word for every image to which the group applies; in the last round only if it is probable enough."""
        applying = [i for i, selection in enumerate(selections) if group.applies(selection.words)]
        if not applying or not group.words:
            return
        sentences = [self._candidates(group, selections[i].words) for i in applying]
        scores = np.stack(self._scores([inputs[i] for i in applying], sentences))
        rows = zip(applying, scores.argmax(axis=1).tolist(), word_probabilities(scores), strict=True)
        for i, best, probabilities in rows:
            selection = selections[i]
            chosen = {**selection.words, group.name: group.words[best]}
            is_omitted = is_last and not _is_likely(probabilities, best)
            selection.probabilities[group.name] = float(probabilities[best])
            words = self.vocabulary.without(chosen, group) if is_omitted else self.vocabulary.consistent(chosen)
            if words == selection.words:
                continue  # the same groups apply
            selection.words = words
            applying_groups = {group.name for group in self.vocabulary.groups if group.applies(selection.words)}
            selection.probabilities = {
                name: probability for name, probability in selection.probabilities.items() if name in applying_groups
            }

    def _neighbors(self, inputs: Sequence[ComposerInput], selections: Sequence[Selection], count: int) -> list[list[str]]:
        """For each query the `count` highest scoring sentences that differ from its caption in one word."""
        variants = [
            sorted(self._variants(selection.words) - {self.vocabulary.say(selection.words)}) for selection in selections
        ]
        order = [np.argsort(-scores, kind="stable") for scores in self._scores(inputs, variants)]
        return [[sentences[j] for j in best[:count]] for sentences, best in zip(variants, order, strict=True)]

    def _variants(self, chosen: dict[str, str]) -> set[str]:
        groups = self.vocabulary.groups
        changed = {sentence for group in groups for sentence in self._candidates(group, chosen)}
        return changed | {
            self.vocabulary.say(self.vocabulary.without(chosen, group)) for group in groups if group.name in chosen
        }

    def _candidates(self, group: WordGroup, chosen: dict[str, str]) -> list[str]:
        """The caption with each word of a group. Cached, because many images share their other words."""
        key = group.name, tuple(chosen.items())
        sentences = self._sentences.get(key)
        if sentences is None:
            if len(self._sentences) >= MAX_CACHED_CANDIDATES:
                self._sentences.clear()
            sentences = self._sentences[key] = self._sentences_with(group, chosen)
        return sentences

    def _sentences_with(self, group: WordGroup, chosen: dict[str, str]) -> list[str]:
        if not group.applies(chosen):
            return []
        candidates = ({**chosen, group.name: word} for word in group.words)
        return [self.vocabulary.say(self.vocabulary.consistent(words)) for words in candidates]

    def _scores(self, inputs: Sequence[ComposerInput], sentences: Sequence[Sequence[str]]) -> list[Float32]:
        """For each query the inner products of its reference with its sentences."""
        members: dict[tuple[str, ...], list[int]] = {}
        for i, several in enumerate(sentences):
            members.setdefault(tuple(several), []).append(i)
        vectors = self._encode(set().union(*members))
        scores: dict[int, Float32] = {}
        for several, rows in members.items():
            texts = np.stack([vectors[sentence] for sentence in several]) if several else np.empty((0, self.encoder.dim))
            images = np.stack([inputs[i].required_reference() for i in rows])
            # not a matrix product: its rounding depends on the position of a row
            scores |= zip(rows, np.einsum("qd,sd->qs", images, texts).astype(np.float32), strict=True)
        return [scores[i] for i in range(len(inputs))]

    def _encode(self, sentences: set[str]) -> dict[str, Float32]:
        """The vector of each sentence. The last MAX_CACHED_VECTORS new ones stay in the cache."""
        vectors = {text: vector for text in sentences if (vector := self._vectors.get(text)) is not None}
        if new := sorted(sentences - set(vectors)):
            encoded = dict(zip(new, encode_texts(self.encoder, new), strict=True))
            vectors |= encoded
            self._vectors.update(encoded)
            for old in list(self._vectors)[:-MAX_CACHED_VECTORS]:
                self._vectors.pop(old, None)
        return vectors


def make_tagger(context: CaptionerContext) -> Tagger:
    return Tagger(context.encoder, context.vocabulary)


def _is_likely(probabilities: NDArray[np.float64], best: int) -> bool:
    """Whether the best word is probable enough, and more probable than every other."""
    others = np.delete(probabilities, best)
    return bool(probabilities[best] >= MIN_PROBABILITY and probabilities[best] > others.max(initial=0.0))
