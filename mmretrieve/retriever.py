"""The facade: a gallery, the encoder that made it, and a composer, behind one `search`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from mmretrieve.answerable import BEST, Answerability
from mmretrieve.composers import Parts, make_composer
from mmretrieve.composers.avoiding import avoid_directions
from mmretrieve.composers.base import Composer
from mmretrieve.composition import Composition
from mmretrieve.directions import PDV, Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import GalleryError, MissingError, MMRetrieveError, OptionError
from mmretrieve.filters import Where
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.gallery import Gallery
from mmretrieve.gallery.index.plan import Device as IndexDevice
from mmretrieve.images import ImageLike
from mmretrieve.language.captioners.gallery import NEIGHBORS, GalleryCaptioner
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.language.vocabulary import Vocabulary, default_vocabulary, own_vocabulary
from mmretrieve.milvus.address import is_address
from mmretrieve.milvus.gallery import MilvusGallery
from mmretrieve.options import AUTO, BALANCED, BASE, DEFAULT_K, LEARNED_WORDS, ComposerName, RuleName
from mmretrieve.prepared_request import PreparedRequest
from mmretrieve.ranking import Ranking
from mmretrieve.references import References
from mmretrieve.request import RequestOptions, SearchRequest, read_question, read_requests
from mmretrieve.rules import ScoreRule, make_rule
from mmretrieve.vectors import Float32, is_number
from mmretrieve.weighting import AVOID, automatic_weights, balanced_weights

AnyGallery = GalleryBase[Any]
"""A gallery in a folder (`Gallery`) or on a server (`MilvusGallery`)."""
SAME_PICTURE = 0.9995  # the cosine from which two vectors count as one picture's
MORE, LESS = 0.75, -0.25  # Rocchio: what is wanted, and what is not, beside the query's own 1


def open_gallery(
    address: str | Path, *, encoder: Encoder | None = None, device: IndexDevice | str = IndexDevice.AUTO
) -> AnyGallery:
    """Opens the gallery in a folder, or the one on a Milvus server: `"milvus://host:port/collection"`.

    encoder, device: as in `Gallery.open`; a Milvus server searches on devices of its own. Raises GalleryError where there is none.
    """
    if is_address(address):
        return MilvusGallery.open(str(address), encoder=encoder)
    return Gallery.open(address, encoder=encoder, device=device)


class Retriever:
    """Answers "like this picture, but …" from one gallery."""

    def __init__(self, gallery: AnyGallery, encoder: Encoder, *, parts: Parts | None = None) -> None:
        gallery.check_encoder(encoder)
        self.gallery, self.encoder, self._given = gallery, encoder, parts or Parts()
        self._composers: dict[tuple[ComposerName, RuleName], Composer] = {}

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        device: str = "auto",
        dtype: str = "auto",
        parts: Parts | Callable[[Encoder], Parts] | None = None,
    ) -> Retriever:
        """The gallery at `path` with the encoder that made it, loaded by the name the gallery remembers unless given.

        device: where the encoder computes and, for "cuda" or "auto", the index is searched (see `Gallery.open`).
        parts: what composers are built of: a captioner, a rewriter, a phi, …, or a function that makes them once the
        encoder is there. Raises GalleryError where that name now
        loads another encoder, or `encoder` is another; both are named.
        """
        gallery = open_gallery(path, device=_searching(device))
        encoder = encoder or _encoder_of(gallery, device, dtype)
        return cls(gallery, encoder, parts=parts(encoder) if callable(parts) else parts)

    def compose(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        prompt: str | Sequence[str] | None = None,
        **more: Unpack[RequestOptions],
    ) -> Composition:
        """The terms of a query under the base weights of its composer; images and words are encoded here and only here.

        image: one or several paths, PIL images or open files. prompt: one or several, whose directions add. What else
        can be asked is listed in `RequestOptions`. What a prompt forbids ("in red without stripes") is a term of its own, `avoid`,
        which weighs 0 until weights are chosen, and `prompt` is what remains.
        Raises OptionError for what contradicts itself or says nothing, ImageError for an unreadable image, GalleryError
        for an unknown id.
        """
        ask = read_question(image, prompt, more)
        return self._composed([PreparedRequest.of(ask, self._compiler, takes_away=not ask.keeps_weights)])[0]

    def weigh(
        self,
        composition: Composition,
        *,
        alpha_image: float | Literal["auto"] | None = None,
        alpha_text: float | None = None,
        beta: float | None = None,
        weights: Mapping[str, float] | Literal["auto", "base", "balanced"] | None = None,
        keep_rule: bool = False,
    ) -> Composition:
        """The composition under other weights: automatic ones (see `weighting`) unless something is named.

        alpha_image, alpha_text, beta: PDV; knobs that are not named are those of the gallery's setting, else of the base method.
        alpha_image "auto" takes the closed form of `automatic_alpha_image`. weights: of each role, a role not named weighs 0;
        "auto"; "base", the composer's own; or "balanced". keep_rule: whether automatic weights keep the composition's rule,
        as they do of a rule that was named. OptionError where knobs or roles are named that these terms, or their rule, do not have.
        """
        named = {
            name: value
            for name, value in (("alpha_image", alpha_image), ("alpha_text", alpha_text), ("beta", beta))
            if value is not None
        }
        if not named:
            return self._weighed(composition, AUTO if weights is None else weights, keep_rule)
        if weights is not None:
            raise OptionError(f"give weights or {', '.join(named)}, not both")
        setting = self.gallery.setting or PDV()
        knobs: dict[str, float] = {"alpha_image": setting.alpha_image, "alpha_text": setting.alpha_text, "beta": setting.beta}
        if named.get("alpha_image") == AUTO:
            named["alpha_image"] = composition.automatic_alpha_image()
        return composition.with_pdv(PDV(**(knobs | named)))  # type: ignore[arg-type]

    def search(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        prompt: str | Sequence[str] | None = None,
        *,
        k: int = DEFAULT_K,
        alpha_image: float | Literal["auto"] | None = None,
        alpha_text: float | None = None,
        beta: float | None = None,
        weights: Mapping[str, float] | Literal["auto", "base", "balanced"] | None = None,
        min_score: float | None = None,
        where: Where | None = None,
        exclude: Collection[str] = (),
        exclude_reference: bool = False,
        **more: Unpack[RequestOptions],
    ) -> Ranking:
        """The k items that best match a reference image and a prompt: `compose`, then `weigh`, then one search of the gallery.

        What can be asked besides is listed in `RequestOptions`. Items of `exclude` do not appear, nor, with exclude_reference,
        the references themselves (by id, or as any file of the same content), nor what scores below min_score, nor what
        does not fulfil `where`, an SQL expression over the items' fields (or an `Expression`, or its structure).
        weights: "auto", the default, chooses without labels: a score is then the mean of how many standard deviations an item
        stands above the gallery's average item, under each term. A composer named "image", "prompt", "sum", "slerp", "sdr" or
        "roles" keeps its own weights unless "auto" is said, and a rule that is named is kept.
        The ranking is as long as k or what is left, and notes it when shorter; `why` says what was chosen, `answerable` whether
        the gallery has such an item at all.
        """
        request: dict[str, Any] = {
            "k": k,
            "alpha_image": alpha_image,
            "alpha_text": alpha_text,
            "beta": beta,
            "weights": weights,
        }
        request |= {"min_score": min_score, "where": where, "exclude": exclude, "exclude_reference": exclude_reference}
        return self._searched([SearchRequest.read(image, prompt, request, more)])[0]

    def search_many(self, requests: Sequence[Mapping[str, Any]]) -> list[Ranking]:
        """One ranking for each request, a mapping of the words of `search`: `[{"image": "a.jpg", "prompt": "in red"}, …]`.

        All pictures and words are encoded together, and linear queries are one search of the index, so that many take a
        fraction of the time of as many calls of `search`. Ids and order are the same, scores within 1e-6.
        OptionError, with the request's number, for one that `search` would refuse; then none is answered.
        """
        return self._searched(read_requests(requests))

    def ids_of_references(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        prompt: str | Sequence[str] | None = None,
        **more: Unpack[RequestOptions],
    ) -> list[str]:
        """The items that the references of a question are: by id, or by the content of their files.

        OptionError where it has no reference, or one that is neither.
        """
        return References(self.gallery, self.encoder).ids(read_question(image, prompt, more))

    def judged(self, ranking: Ranking, composition: Composition) -> Ranking:
        """The ranking with `answerable`, which says whether the gallery has what the composition asks for."""
        return self._judged([ranking], [composition])[0]

    def _judged(self, rankings: Sequence[Ranking], compositions: Sequence[Composition]) -> list[Ranking]:
        """Each ranking with `answerable`; the vectors of all best hits are read at once. Without, where others have deleted a hit since."""
        best = [ranking.ids[:BEST] for ranking in rankings]
        shown = list(dict.fromkeys(id_ for ids in best for id_ in ids))
        try:
            row = dict(zip(shown, self.gallery.vectors(shown), strict=True))
        except MissingError:
            return list(rankings)
        spread = self.gallery.spread
        return [
            replace(ranking, answerable=self._answerability.of(composition, spread, np.array([row[id_] for id_ in ids])))
            for ranking, composition, ids in zip(rankings, compositions, best, strict=True)
        ]

    def _searched(self, requests: Sequence[SearchRequest]) -> list[Ranking]:
        references = References(self.gallery, self.encoder)
        hidden = [
            [*request.exclude, *(references.ids(request.ask) if request.exclude_reference else ())] for request in requests
        ]
        readings = [PreparedRequest.of(request.ask, self._compiler, takes_away=request.takes_away) for request in requests]
        compositions = self._composed(readings)
        weighed = [self.weigh(one, **request.weighing) for one, request in zip(compositions, requests, strict=True)]
        cuts = [request.cut(ids) for request, ids in zip(requests, hidden, strict=True)]
        rankings = self.gallery.search_many(weighed, cuts)
        return self._judged(rankings, compositions)

    def _weighed(self, composition: Composition, weights: Mapping[str, float] | str, keep_rule: bool) -> Composition:
        if weights == BASE:
            return composition
        if weights == AUTO:
            return automatic_weights(composition, self.gallery.spread, keep_rule=keep_rule)
        if weights == BALANCED:
            return balanced_weights(composition, self.gallery.spread)
        if not isinstance(weights, Mapping) or not all(isinstance(role, str) and is_number(w) for role, w in weights.items()):
            raise OptionError(
                f"weights are numbers by role, such as {{'image': 1, 'prompt': 2}}, or {AUTO!r}, {BASE!r} or {BALANCED!r}; got {weights!r}"
            )
        return composition.with_weights(weights)

    def _composed(self, readings: Sequence[PreparedRequest]) -> list[Composition]:
        """One composition for each question; those of one composer are composed together."""
        references = References(self.gallery, self.encoder).read([reading.ask for reading in readings])
        queries = [reading.queries(of_each) for reading, of_each in zip(readings, references, strict=True)]
        keys = [(reading.composer, reading.ask.rule or RuleName.LINEAR) for reading in readings]
        parts: list[list[Composition]] = [[] for _ in readings]
        for key in dict.fromkeys(keys):
            members = [i for i, other in enumerate(keys) if other == key and queries[i]]
            asked = [query for i in members for query in queries[i]]
            made = iter(self._composer(*key).compose(asked) if asked else ())
            for i in members:
                parts[i] = list(islice(made, len(queries[i])))
        return [self._finished(*one) for one in zip(readings, parts, strict=True)]

    def _finished(self, reading: PreparedRequest, parts: Sequence[Composition]) -> Composition:
        """The compositions of one question's references and prompts as one, with what it avoids, likes and dislikes beside them."""
        ask = reading.ask
        composition = reading.combined(parts) if parts else None
        rule = None if ask.rule is None else make_rule(ask.rule, learned_words=ask.composer in LEARNED_WORDS)
        for role, names, weight, weights in (
            (AVOID, reading.avoid, -1.0, reading.avoid_weights),
            ("more", ask.more_like, MORE, None),
            ("less", ask.less_like, LESS, None),
        ):
            if names:
                _check_weighs(rule, role)
                rows = self._avoided(names, composition) if role == AVOID else self.gallery.vectors(names)
                terms = Composition.of(role, rows, weight, names)
                terms = terms if weights is None else replace(terms, weights=weights, shares={})
                composition = terms if composition is None else composition.with_terms(terms)
        if composition is None:
            raise OptionError("a query needs a reference image, a prompt, or both")
        return composition if rule is None else composition.with_rule(rule)

    def _avoided(self, phrases: Sequence[str], composition: Composition | None) -> Float32:
        words = {} if composition is None else composition.words
        lexicon = self._swap.lexicon
        return avoid_directions(self.encoder, phrases, lexicon, words.get(Term.TEXT), words.get(Term.COMPOSED))

    def _composer(self, name: ComposerName, rule: RuleName) -> Composer:
        if (name, rule) not in self._composers:
            parts = self._parts
            self._composers[name, rule] = make_composer(name, self.encoder, parts, score=self.gallery.scores, rule=rule)
        return self._composers[name, rule]

    @property
    def _parts(self) -> Parts:
        """What was given, and the choices of searches for what was not."""
        given = self._given
        captioner = given.captioner or GalleryCaptioner(
            self.gallery.vocabulary, lambda query: query.fields, self._neighbors, Tagger(self.encoder, self._vocabulary)
        )
        return replace(given, vocabulary=self._vocabulary, captioner=captioner, rewriter=given.rewriter or self._swap)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        """The words of rewrites and tags: those that were given or chosen for the gallery, else the encoder's, the fields' or general ones."""
        of_fields = self.gallery.vocabulary
        chosen = of_fields if self.gallery.vocabulary_fields else None
        return self._given.vocabulary or chosen or own_vocabulary(self.encoder) or of_fields or default_vocabulary(self.encoder)

    def _neighbors(self, vector: Float32) -> list[Mapping[str, Any]]:
        """The fields of the items nearest to a reference, nearest first, without those that are the same picture."""
        nearest = self.gallery.search(Composition((Term.IMAGE,), vector[None], (1.0,)), NEIGHBORS + 1)
        ids = [hit.id for hit in nearest if hit.score < SAME_PICTURE][:NEIGHBORS]
        return [item.fields for item in self.gallery.items(ids)]

    @cached_property
    def _swap(self) -> SwapRewriter:
        return SwapRewriter(self._vocabulary)

    @property
    def _compiler(self) -> RuleCompiler:
        """What reads prompts: it knows the vocabulary's own negations."""
        return self._swap.compiler

    @cached_property
    def _answerability(self) -> Answerability:
        return Answerability(self.encoder)


def _check_weighs(rule: ScoreRule | None, role: str) -> None:
    """OptionError for terms beside a rule that has no weights for them."""
    if rule is not None and not rule.uses_weights:
        name = role if role == AVOID else f"{role}_like"
        raise OptionError(f"the {rule.name.value!r} rule has no weights: leave out {name}")


def _searching(device: str) -> IndexDevice:
    """What searches where torch computes on `device`: FAISS knows all GPUs of the machine or none, and nothing of Apple's."""
    kind = device.partition(":")[0]
    return IndexDevice(kind) if kind in (IndexDevice.AUTO, IndexDevice.CUDA) else IndexDevice.CPU


def _encoder_of(gallery: AnyGallery, device: str, dtype: str) -> Encoder:
    from mmretrieve.encoders.openclip import load_encoder, preprocessing_of  # torch only where an encoder is not given

    try:
        identity = gallery.encoder_identity
        return load_encoder(identity.model, device=device, dtype=dtype, preprocessing=preprocessing_of(identity))
    except OptionError:
        raise
    except MMRetrieveError as error:
        raise GalleryError(f"{gallery.path}: the encoder that made this gallery cannot be loaded: {error}") from error
