"""Requests → compositions: reads references and prompts, and asks the composer of each request for its terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, reduce
from itertools import islice
from typing import Any

from mmretrieve.axes import axis_from_words
from mmretrieve.composers import Parts, make_composer
from mmretrieve.composers.avoiding import PhrasesToAvoid, avoid_terms
from mmretrieve.composers.base import Composer
from mmretrieve.composers.factory import ComposerContext
from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import OptionError
from mmretrieve.inputs import PreparedRequest, ReferenceReader, paraphrase_requests
from mmretrieve.language.base import Captioner, Paraphraser
from mmretrieve.language.captioners.gallery import GalleryCaptioner
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.options import named_captioner
from mmretrieve.language.paraphrases import make_paraphraser
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.vocabulary import Vocabulary, default_vocabulary, own_vocabulary
from mmretrieve.opening import AnyGallery
from mmretrieve.options import RuleName
from mmretrieve.registry import COMPOSERS
from mmretrieve.request import EMPTY_QUERY, SearchRequest
from mmretrieve.rules import ScoreRule
from mmretrieve.weighting import AVOID, AXIS

LOOKING_UP = ("captioner", "rewriter", "compiler", "describer", "editor")  # parts that may be files by prompts
LIKE_WEIGHTS = {"more": 0.75, "less": -0.25}  # Rocchio: what is wanted, and what is not, beside the query's own 1


class RequestComposer:
    """Composes requests for one gallery and its encoder.

    Parameters
    ----------
    gallery : Gallery or MilvusGallery
        What is searched; its fields caption its items, and its words are those of rewrites.
    encoder : Encoder
        The encoder of the gallery.
    parts : Parts
        What was given; each part that was not has a default.

    Attributes
    ----------
    references : ReferenceReader
        Reads the references of requests, and remembers the vectors of images.
    """

    def __init__(self, gallery: AnyGallery, encoder: Encoder, parts: Parts) -> None:
        self._gallery, self._encoder, self._given = gallery, encoder, parts
        self.references = ReferenceReader(gallery, encoder)
        self._composers: dict[tuple[str, str], Composer] = {}

    def compose(self, requests: Sequence[SearchRequest]) -> list[Composition]:
        """One composition for each request. Requests with the same composer and rule are composed together."""
        paraphrases = paraphrase_requests(requests, self._paraphraser)
        compiler = self._swap.compiler  # it knows the negations of the vocabulary
        exact = any(not isinstance(getattr(self._given, name), str | None) for name in LOOKING_UP)
        prepared = [
            PreparedRequest.of(request, compiler, own, word_for_word=exact)
            for request, own in zip(requests, paraphrases, strict=True)
        ]
        wholes = self._compose_references(prepared, self.references.read(requests))
        avoided = self._avoid_terms(prepared, wholes)
        return [self._composition_of(*one) for one in zip(prepared, wholes, avoided, strict=True)]

    @property
    def context(self) -> ComposerContext:
        """What factories of composers and judges get."""
        return ComposerContext(self._encoder, self._parts, self._gallery.scores)

    def supports(self, name: str) -> bool:
        """Whether a composer combines a reference with a prompt, and all its parts are there."""
        entry = COMPOSERS[name]
        try:
            return entry.reads_image and entry.reads_prompt and self._composer(name, RuleName.LINEAR) is not None
        except OptionError:  # a part is missing
            return False

    def _compose_references(
        self, prepared: Sequence[PreparedRequest], references: Sequence[Sequence[dict[str, Any]]]
    ) -> list[Composition | None]:
        """For each request the composition of its references and prompts; None if it has neither."""
        inputs = [one.inputs(of_each) for one, of_each in zip(prepared, references, strict=True)]
        keys = [(one.composer, one.request.rule or RuleName.LINEAR.value) for one in prepared]
        parts: list[list[Composition]] = [[] for _ in prepared]
        for key in dict.fromkeys(keys):
            members = [i for i, other in enumerate(keys) if other == key and inputs[i]]
            together = [one for i in members for one in inputs[i]]
            compositions = iter(self._composer(*key).compose(together) if together else ())
            for i in members:
                parts[i] = list(islice(compositions, len(inputs[i])))
        return [one.combine(of_each) if of_each else None for one, of_each in zip(prepared, parts, strict=True)]

    def _avoid_terms(
        self, prepared: Sequence[PreparedRequest], compositions: Sequence[Composition | None]
    ) -> list[Composition | None]:
        """For each request the terms of what it avoids; None if it avoids nothing."""
        queries: list[PhrasesToAvoid | None] = []
        for one, composition in zip(prepared, compositions, strict=True):
            words = {} if composition is None else composition.words
            if one.avoid:
                _check_weighs(one.rule, AVOID)
            avoided = PhrasesToAvoid(one.avoid, one.avoid_weights, words.get(Term.TEXT), words.get(Term.COMPOSED))
            queries.append(avoided if one.avoid else None)
        terms = iter(avoid_terms(self._encoder, self._swap.lexicon, [query for query in queries if query is not None]))
        return [None if query is None else next(terms) for query in queries]

    def _composition_of(
        self, prepared: PreparedRequest, composition: Composition | None, avoided: Composition | None
    ) -> Composition:
        """The composition of a request's inputs with the terms of what it avoids, likes and dislikes, and of its axis, under its rule."""
        request, rule, parts = prepared.request, prepared.rule, [composition, avoided]
        for role, ids in {"more": request.more_like, "less": request.less_like}.items():
            if ids:
                _check_weighs(rule, role)
                parts.append(Composition.of(role, self._gallery.vectors(ids), LIKE_WEIGHTS[role], ids))
        if request.axis:
            _check_weighs(rule, AXIS)
            along = axis_from_words(self._encoder, request.axis, request.axis_opposite).composition
            parts.append(along.weighted({AXIS: request.axis_weight}))
        present = [part for part in parts if part is not None]
        if not present:
            raise OptionError(EMPTY_QUERY)
        whole = reduce(Composition.with_terms, present)
        return whole if rule is None else whole.with_rule(rule)

    def _composer(self, name: str, rule: str) -> Composer:
        if (name, rule) not in self._composers:
            self._composers[name, rule] = make_composer(name, self._encoder, self._parts, score=self._gallery.scores, rule=rule)
        return self._composers[name, rule]

    @property
    def _parts(self) -> Parts:
        """What was given, and the choices of searches for what was not."""
        given = self._given
        return replace(given, vocabulary=self._vocabulary, captioner=self._captioner, rewriter=given.rewriter or self._swap)

    @cached_property
    def _captioner(self) -> Captioner:
        """What describes references for all composers: what was given, else the fields of items and the tagger."""
        given = self._given.captioner
        if isinstance(given, str):
            return named_captioner(given, self._encoder, self._vocabulary)
        tagger = Tagger(self._encoder, self._vocabulary)
        return given or GalleryCaptioner(self._gallery.vocabulary, self._gallery.fields_near, tagger)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        """The words of rewrites and tags: those that were given or chosen for the gallery, else the encoder's, the fields' or general ones."""
        of_fields = self._gallery.vocabulary
        chosen = of_fields if self._gallery.vocabulary_fields else None
        return (
            self._given.vocabulary or chosen or own_vocabulary(self._encoder) or of_fields or default_vocabulary(self._encoder)
        )

    @cached_property
    def _swap(self) -> SwapRewriter:
        return SwapRewriter(self._vocabulary)

    @cached_property
    def _paraphraser(self) -> Paraphraser:
        """What says prompts in other words: what was given, else templates."""
        return make_paraphraser(self._given.paraphraser, self._vocabulary)


def _check_weighs(rule: ScoreRule | None, role: str) -> None:
    """OptionError for terms beside a rule that has no weights for them."""
    if rule is not None and not rule.uses_weights:
        name = f"{role}_like" if role in LIKE_WEIGHTS else role
        raise OptionError(f"the {str(rule.name)!r} rule has no weights: leave out {name}")
