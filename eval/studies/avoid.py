"""What should not show: how many of the ten best still show it, by today's searches and as they were before weights were chosen.

On the wardrobe, whose fields say what each drawing shows. "Before" is the base of a method without reading prompts: for `avoid` the
image minus the phrase, for prompts the caption and the prompt behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import numpy as np

from eval.studies.weights import AUTO, FACTORS
from mmretrieve import PDV, PUBLISHED, Composition, Ranking, Retriever, Term, weighting
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers.captions import Captions
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.vocabulary import default_vocabulary
from mmretrieve.weighting import AVOID as AVOID_ROLE

K = 10
BEFORE_PDV = "before, PDV-F"
REFERENCES = 20  # of each attribute
AVOID = "avoid={}"
WAYS = {AVOID: "avoid", 'prompt "without {}"': "without", 'prompt "not {}"': "not"}


@dataclass(frozen=True)
class AvoidAttribute:
    """A phrase, and the field and value of the items that it is true of."""

    phrase: str
    field: str
    value: str


ATTRIBUTES = (
    AvoidAttribute("stripes", "pattern", "striped"),
    AvoidAttribute("checks", "pattern", "checked"),
    AvoidAttribute("dots", "pattern", "dotted"),
    AvoidAttribute("zigzags", "pattern", "zigzag"),
    AvoidAttribute("long sleeves", "sleeves", "long sleeves"),
    AvoidAttribute("short sleeves", "sleeves", "short sleeves"),
    AvoidAttribute("red", "colour", "red"),
    AvoidAttribute("navy", "colour", "navy"),
    AvoidAttribute("a v-neck", "neckline", "v-neck"),
    AvoidAttribute("a high neck", "neckline", "high neck"),
)
Asked = Sequence[tuple[str, str]]
"""A reference's id and a phrase for each search."""
Searcher = Callable[[str, Asked], Sequence[Ranking]]
"""A way to ask, and what is asked → the ten best of each."""
Fields = Mapping[str, Mapping[str, str | None]]


def studied(retriever: Retriever, fields: Fields) -> dict[str, Any]:
    """Way → search → attribute → [share of the ten best that show it, share that are the reference's kind], in per cent.

    fields: of the gallery's items by id.
    """
    found: dict[str, Any] = {}
    for label, way in WAYS.items():
        searchers = _searchers(retriever)
        if way == WAYS[AVOID]:
            del searchers[BEFORE_PDV]  # which has no words to weigh
        found[label] = {name: shares(search, way, fields) for name, search in searchers.items()}
    for name, factor in FACTORS.items():
        with _avoided(weighting.AVOID_AMOUNT * factor):
            found[AVOID][f"auto, AVOIDED {name}"] = shares(_searchers(retriever)[AUTO], WAYS[AVOID], fields)
    return found


def shares(search: Searcher, way: str, fields: Fields) -> dict[str, list[float]]:
    """Attribute → [share that shows it, share of the reference's kind] of the ten best, in per cent."""
    asked = {attribute: [(id_, attribute.phrase) for id_ in references(attribute, fields)] for attribute in ATTRIBUTES}
    rankings = iter(search(way, [pair for pairs in asked.values() for pair in pairs]))
    found = {}
    for attribute, pairs in asked.items():
        rows = [_showing(attribute, fields[id_], [fields[hit] for hit in next(rankings).ids]) for id_, _ in pairs]
        found[attribute.phrase] = [float(share) for share in 100 * np.mean(rows, axis=0)]
    return found


def _showing(
    attribute: AvoidAttribute, reference: Mapping[str, str | None], hits: Sequence[Mapping[str, str | None]]
) -> list[float]:
    shows = [hit[attribute.field] == attribute.value for hit in hits]
    return [float(np.mean(shows)), float(np.mean([hit["kind"] == reference["kind"] for hit in hits]))]


def references(attribute: AvoidAttribute, fields: Fields) -> list[str]:
    """The same items in every run that show an attribute, at most REFERENCES."""
    showing = sorted(id_ for id_, own in fields.items() if own[attribute.field] == attribute.value)
    return Random(0).sample(showing, min(REFERENCES, len(showing)))


def _searchers(retriever: Retriever) -> dict[str, Searcher]:
    """Searches by name: two of before, and today's."""

    def auto(way: str, asked: Asked) -> list[Ranking]:
        return retriever.search_many(
            [
                {"reference_id": id_, "k": K, "exclude": [id_]}
                | ({"avoid": phrase} if way == WAYS[AVOID] else {"prompt": f"{way} {phrase}"})
                for id_, phrase in asked
            ]
        )

    def before(way: str, asked: Asked, pdv: PDV | None = None) -> list[Ranking]:
        composed = _before(retriever, way, asked)
        weighed = [one.with_pdv(pdv) if pdv is not None and one.supports_pdv else one for one in composed]
        return [retriever.gallery.search(one, K, exclude=[id_]) for one, (id_, _) in zip(weighed, asked, strict=True)]

    return {"before, base": before, BEFORE_PDV: partial(before, pdv=PUBLISHED["cirevl"]), AUTO: auto}


def _before(retriever: Retriever, way: str, asked: Asked) -> list[Composition]:
    """What was composed before prompts were read: the phrase taken from the image, or the prompt put behind a caption."""
    ids, phrases = zip(*asked, strict=True)
    vectors = retriever.gallery.vectors(ids)
    if way == WAYS[AVOID]:
        terms = np.stack([vectors, retriever.encoder.encode_texts(phrases)], axis=1)
        return [Composition((Term.IMAGE, AVOID_ROLE), pair, (1.0, -1.0)) for pair in terms]
    composer = Captions(retriever.encoder, Tagger(retriever.encoder, default_vocabulary(retriever.encoder)))
    return composer.compose([ComposerInput(vector, f"{way} {phrase}") for vector, phrase in zip(vectors, phrases, strict=True)])


@contextmanager
def _avoided(amount: float) -> Iterator[None]:
    """Another amount of each phrase to avoid."""
    before, weighting.AVOID_AMOUNT = weighting.AVOID_AMOUNT, amount
    try:
        yield
    finally:
        weighting.AVOID_AMOUNT = before
