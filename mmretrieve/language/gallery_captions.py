"""A captioner for the pictures of a gallery: what their fields say, what their neighbors' fields say, else another captioner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Caption
from mmretrieve.language.base import Captioner
from mmretrieve.language.fields import caption_from_fields, sentence_of, words_from_fields
from mmretrieve.language.vocabulary import Vocabulary
from mmretrieve.options import CaptionSource
from mmretrieve.vectors import Float32

NEIGHBORS = 10  # that vote
MIN_NEIGHBORS = 3  # of them that must name a thing
MIN_SHARE = 0.5  # of the votes for a word that is said
Fields = Mapping[str, object]


@dataclass(frozen=True)
class GalleryCaptioner:
    """Captions each reference by the first of three sources that has something to say.

    1. Its own fields (`caption_from_fields`), where it is an item: trust 1, or 0.8 of a title.
    2. The fields of its ten nearest neighbors (`caption_from_neighbors`): trust is the product of the shares of the votes.
    3. `otherwise`, with the trust that it gives.

    With `count` above 1 the first caption is this one. The others are those of `otherwise`, which describe what is seen in
    other words, without any that repeats it; so there may be one fewer than `otherwise` has.

    Parameters
    ----------
    vocabulary : the words of the gallery's fields; without one only captions, descriptions and titles are read.
    fields_of : the fields of a query's reference; None where it is no item.
    neighbors : (d,) unit vector → the fields of the nearest items, nearest first, without the reference itself.
    otherwise : captions what is left.
    """

    vocabulary: Vocabulary | None
    fields_of: Callable[[ComposerInput], Fields | None]
    neighbors: Callable[[Float32], list[Fields]]
    otherwise: Captioner

    def captions(self, queries: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        """`count` captions of each reference, the best first; fewer where `otherwise` has fewer."""
        first = [self._from_gallery(query) for query in queries]
        left = [query for query, caption in zip(queries, first, strict=True) if caption is None or count > 1]
        others = iter(self.otherwise.captions(left, count) if left else [])
        return [
            next(others) if caption is None else _before(caption, next(others) if count > 1 else [], count) for caption in first
        ]

    def _from_gallery(self, query: ComposerInput) -> Caption | None:
        fields = self.fields_of(query)
        if fields is not None and (caption := caption_from_fields(fields, self.vocabulary)) is not None:
            return caption
        if self.vocabulary is None or query.vector is None:
            return None
        return caption_from_neighbors(self.neighbors(query.vector), self.vocabulary)


def caption_from_neighbors(neighbors: Sequence[Fields], vocabulary: Vocabulary) -> Caption | None:
    """What the first ten neighbors agree on, each group by vote; of equal votes the nearest neighbor's counts.

    Neighbors whose field has none of the vocabulary's words do not vote, unless saying nothing is one of its words. A word
    with less than half of the votes is left out ("thing" stands for a noun), and its share counts in the trust as well.
    None where fewer than three neighbors name a thing.

    >>> from mmretrieve.language.fields import vocabulary_from_fields
    >>> rows = [{"colour": c, "article": a} for c in ("red", "blue", "black") for a in ("hat", "shirt")] * 2
    >>> near = [{"colour": c, "article": "hat"} for c in ("red", "blue", "black", "blue")]
    >>> caption = caption_from_neighbors(near, vocabulary_from_fields(rows))
    >>> caption, caption.trust
    ('a photo of a blue hat', 0.5)
    """
    said = [words_from_fields(fields, vocabulary) for fields in neighbors[:NEIGHBORS]]
    votes = {
        each.name: Counter(words[each.name] for words in said if words[each.name] in each.words) for each in vocabulary.groups
    }
    noun = vocabulary.noun
    voters = votes[noun.name].total() if noun is not None else max(counter.total() for counter in votes.values())
    if voters < MIN_NEIGHBORS:
        return None
    chosen: dict[str, str] = {}
    shares: list[float] = []
    for group in vocabulary.groups:
        if not votes[group.name] or not group.applies(chosen):
            continue
        ((word, count),) = votes[group.name].most_common(1)
        shares.append(count / votes[group.name].total())
        chosen[group.name] = word
        if shares[-1] < MIN_SHARE:
            chosen = vocabulary.without(chosen, group)
    return Caption(sentence_of(chosen, vocabulary), trust=prod(shares), source=CaptionSource.NEIGHBORS)


def _before(caption: Caption, others: Sequence[str], count: int) -> list[str]:
    return [caption, *(other for other in others if other != caption)][:count]
