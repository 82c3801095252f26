"""A captioner for images of a gallery: from their own fields, from those of their neighbors, else by another captioner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Caption
from mmretrieve.language.base import Captioner
from mmretrieve.language.fields import caption_from_fields, sentence_of, words_from_fields
from mmretrieve.language.vocabulary import Vocabulary
from mmretrieve.options import CaptionSource
from mmretrieve.vectors import Float32

NEIGHBORS = 10
MIN_VOTERS = 3  # neighbors with a noun
MIN_VOTE_SHARE = 0.5  # of a word in the caption
Fields = Mapping[str, object]


@dataclass(frozen=True)
class GalleryCaptioner:
    """Captions each reference from the first of three sources that has a caption.

    1. Its own fields (`caption_from_fields`), if it is an item: trust 1, or 0.8 for a title.
    2. The fields of its ten nearest neighbors (`caption_from_neighbors`): the trust is the product of the vote shares.
    3. `fallback`, with its own trust.

    With `count` above 1 this caption comes first, then those of `fallback` without repetitions of it.

    Parameters
    ----------
    vocabulary : the words of the gallery's fields; with None only captions, descriptions and titles are read.
    neighbors : ((q, d) unit vectors, n) → for each the fields of the n nearest items, nearest first, without the reference itself.
    fallback : captions the remaining references.
    """

    vocabulary: Vocabulary | None
    neighbors: Callable[[Float32, int], Sequence[Sequence[Fields]]]
    fallback: Captioner

    def captions(self, inputs: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        """`count` captions of each reference, the best first; fewer if `fallback` has fewer."""
        first = self._from_gallery(inputs)
        remaining = [query for query, caption in zip(inputs, first, strict=True) if caption is None or count > 1]
        others = iter(self.fallback.captions(remaining, count) if remaining else [])
        captions: list[list[str]] = []
        for caption in first:
            more = next(others) if caption is None or count > 1 else []
            captions.append(more if caption is None else [caption, *(other for other in more if other != caption)][:count])
        return captions

    def _from_gallery(self, inputs: Sequence[ComposerInput]) -> list[Caption | None]:
        """The caption of each reference from its own fields, else from those of its neighbors."""
        captions = [None if query.fields is None else caption_from_fields(query.fields, self.vocabulary) for query in inputs]
        vectors = {
            i: query.vector
            for i, (query, caption) in enumerate(zip(inputs, captions, strict=True))
            if caption is None and query.vector is not None
        }
        if self.vocabulary is None or not vectors:
            return captions
        neighbors = self.neighbors(np.stack(list(vectors.values())), NEIGHBORS)
        voted = {i: caption_from_neighbors(near, self.vocabulary) for i, near in zip(vectors, neighbors, strict=True)}
        return [voted.get(i, caption) for i, caption in enumerate(captions)]


def caption_from_neighbors(neighbors: Sequence[Fields], vocabulary: Vocabulary) -> Caption | None:
    """The majority word of the first ten neighbors in each group; ties go to the nearest neighbor.

    Neighbors whose field has none of the group's words do not vote, unless the empty word is one of them. A word with less
    than half of the votes is omitted ("thing" replaces a noun).

    Parameters
    ----------
    neighbors : the fields of the nearest items, nearest first.
    vocabulary : the words of the gallery's fields.

    Returns
    -------
    The caption, whose trust is the product of all vote shares; None if fewer than three neighbors have a noun.

    >>> from mmretrieve.language.fields import vocabulary_from_fields
    >>> rows = [{"colour": c, "article": a} for c in ("red", "blue", "black") for a in ("hat", "shirt")] * 2
    >>> near = [{"colour": c, "article": "hat"} for c in ("red", "blue", "black", "blue")]
    >>> caption = caption_from_neighbors(near, vocabulary_from_fields(rows))
    >>> caption, caption.trust
    ('a photo of a blue hat', 0.5)
    """
    words = [words_from_fields(fields, vocabulary) for fields in neighbors[:NEIGHBORS]]
    votes = {
        group.name: Counter(each[group.name] for each in words if each[group.name] in group.words)
        for group in vocabulary.groups
    }
    noun = vocabulary.noun
    voters = votes[noun.name].total() if noun is not None else max(counter.total() for counter in votes.values())
    if voters < MIN_VOTERS:
        return None
    chosen: dict[str, str] = {}
    shares: list[float] = []
    for group in vocabulary.groups:
        if not votes[group.name] or not group.applies(chosen):
            continue
        ((word, count),) = votes[group.name].most_common(1)
        shares.append(count / votes[group.name].total())
        chosen[group.name] = word
        if shares[-1] < MIN_VOTE_SHARE:
            chosen = vocabulary.without(chosen, group)
    return Caption(sentence_of(chosen, vocabulary), trust=prod(shares), source=CaptionSource.NEIGHBORS)
