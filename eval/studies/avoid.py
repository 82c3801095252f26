"""How many of the ten best hits still show an attribute that a search avoids, today and before weights were chosen.

Measured on the wardrobe, whose fields say what each drawing shows. "Before" is the base of a method that does not analyze
prompts: the image minus the phrase for `avoid`, and the caption followed by the prompt for prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import numpy as np

from eval.studies.weights import FACTORS
from mmretrieve import PDV, PUBLISHED, Composition, Ranking, Retriever, Term, weighting
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers.captions import Captions
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.vocabulary import default_vocabulary
from mmretrieve.options import AUTO
from mmretrieve.weighting import AVOID as AVOID_ROLE

K = 10
MAX_REFERENCES = 20  # of each attribute
BEFORE_BASE, BEFORE_PDV = "before, base", "before, PDV-F"
AVOID = "avoid={}"
FORMS = {AVOID: "avoid", 'prompt "without {}"': "without", 'prompt "not {}"': "not"}
"""Label of a form of the request → the word that it uses."""


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
Pairs = Sequence[tuple[str, str]]
"""A reference's id and a phrase for each search."""
Searcher = Callable[[str, Pairs], Sequence[Ranking]]
"""The word of a form, and pairs → the ten best hits of each."""
Fields = Mapping[str, Mapping[str, str | None]]
"""Item id → its fields."""


def measure_avoid(retriever: Retriever, fields: Fields) -> dict[str, Any]:
    """Form of the request → search → attribute → [percent of hits that show it, percent of hits of the reference's kind]."""
    shares: dict[str, Any] = {}
    for label, word in FORMS.items():
        searchers = _make_searchers(retriever)
        if label == AVOID:
            del searchers[BEFORE_PDV]  # `avoid` has no texts to weigh
        shares[label] = {name: measure_shares(search, word, fields) for name, search in searchers.items()}
    for name, factor in FACTORS.items():
        with _set_avoided(weighting.AVOID_AMOUNT * factor):
            search = _make_searchers(retriever)[AUTO]
            shares[AVOID][f"auto, AVOIDED {name}"] = measure_shares(search, FORMS[AVOID], fields)
    return shares


def measure_shares(search: Searcher, word: str, fields: Fields) -> dict[str, list[float]]:
    """Attribute → [percent of the ten best hits that show it, percent that are of the reference's kind]."""
    pairs_of = {
        attribute: [(id_, attribute.phrase) for id_ in sample_references(attribute, fields)] for attribute in ATTRIBUTES
    }
    rankings = iter(search(word, [pair for pairs in pairs_of.values() for pair in pairs]))
    shares = {}
    for attribute, pairs in pairs_of.items():
        rows = [_hit_shares(attribute, fields[id_], [fields[hit] for hit in next(rankings).ids]) for id_, _ in pairs]
        shares[attribute.phrase] = [float(share) for share in 100 * np.mean(rows, axis=0)]
    return shares


def sample_references(attribute: AvoidAttribute, fields: Fields) -> list[str]:
    """At most MAX_REFERENCES items that show an attribute, the same in every run."""
    showing = sorted(id_ for id_, own in fields.items() if own[attribute.field] == attribute.value)
    return Random(0).sample(showing, min(MAX_REFERENCES, len(showing)))


def _hit_shares(
    attribute: AvoidAttribute, reference: Mapping[str, str | None], hits: Sequence[Mapping[str, str | None]]
) -> list[float]:
    shows = [hit[attribute.field] == attribute.value for hit in hits]
    return [float(np.mean(shows)), float(np.mean([hit["kind"] == reference["kind"] for hit in hits]))]


def _make_searchers(retriever: Retriever) -> dict[str, Searcher]:
    """Searches by name: two as they were before, and today's."""

    def search_today(word: str, pairs: Pairs) -> list[Ranking]:
        return retriever.search_many(
            [
                {"reference_id": id_, "k": K, "exclude": [id_]}
                | ({"avoid": phrase} if word == FORMS[AVOID] else {"prompt": f"{word} {phrase}"})
                for id_, phrase in pairs
            ]
        )

    def search_before(word: str, pairs: Pairs, pdv: PDV | None = None) -> list[Ranking]:
        compositions = _compose_before(retriever, word, pairs)
        weighed = [one.with_pdv(pdv) if pdv is not None and one.supports_pdv else one for one in compositions]
        return [retriever.gallery.search(one, K, exclude=[id_]) for one, (id_, _) in zip(weighed, pairs, strict=True)]

    return {BEFORE_BASE: search_before, BEFORE_PDV: partial(search_before, pdv=PUBLISHED["cirevl"]), AUTO: search_today}


def _compose_before(retriever: Retriever, word: str, pairs: Pairs) -> list[Composition]:
    """Compositions without prompt analysis: the image minus the phrase, or a caption followed by the prompt."""
    ids, phrases = zip(*pairs, strict=True)
    vectors = retriever.gallery.vectors(ids)
    if word == FORMS[AVOID]:
        terms = np.stack([vectors, retriever.encoder.encode_texts(phrases)], axis=1)
        return [Composition((Term.IMAGE, AVOID_ROLE), pair, (1.0, -1.0)) for pair in terms]
    composer = Captions(retriever.encoder, Tagger(retriever.encoder, default_vocabulary(retriever.encoder)))
    return composer.compose(
        [ComposerInput(vector, f"{word} {phrase}") for vector, phrase in zip(vectors, phrases, strict=True)]
    )


@contextmanager
def _set_avoided(amount: float) -> Iterator[None]:
    """Sets the strength of phrases to avoid inside the block."""
    before, weighting.AVOID_AMOUNT = weighting.AVOID_AMOUNT, amount
    try:
        yield
    finally:
        weighting.AVOID_AMOUNT = before
