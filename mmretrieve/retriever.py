"""The facade: a gallery, the encoder that made it, and composers, behind one `search`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

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
from mmretrieve.gallery.view import SearchOptions
from mmretrieve.images import ImageLike, Region
from mmretrieve.inputs import PreparedRequest, ReferenceReader
from mmretrieve.language.captioners.gallery import NEIGHBORS, GalleryCaptioner
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.language.vocabulary import Vocabulary, default_vocabulary, own_vocabulary
from mmretrieve.milvus.address import is_address
from mmretrieve.milvus.gallery import MilvusGallery
from mmretrieve.options import AUTO, BALANCED, BASE, DEFAULT_K, RuleName
from mmretrieve.ranking import Ranking
from mmretrieve.registry import COMPOSERS
from mmretrieve.request import SearchRequest, Weights, parse_requests, parse_weights
from mmretrieve.rules import ScoreRule, make_rule
from mmretrieve.vectors import Float32
from mmretrieve.weighting import AVOID, automatic_weights, balanced_weights

AnyGallery = GalleryBase[Any]
"""A gallery in a folder (`Gallery`) or on a server (`MilvusGallery`)."""
SAME_PICTURE = 0.9995  # the cosine from which two vectors count as one picture's
MORE, LESS = 0.75, -0.25  # Rocchio: what is wanted, and what is not, beside the query's own 1


def open_gallery(
    address: str | Path, *, encoder: Encoder | None = None, device: IndexDevice | str = IndexDevice.AUTO
) -> AnyGallery:
    """Opens the gallery in a folder or on a Milvus server.

    Parameters
    ----------
    address : str or Path
        A folder, or ``"milvus://[USER:PASSWORD@]HOST[:PORT]/[DATABASE/]COLLECTION"`` (``milvuss://`` over TLS).
    encoder : Encoder, optional
        The encoder that made the gallery. Only adding needs it.
    device : {"auto", "cpu", "cuda"}, default="auto"
        Where the index of a folder is searched (see `Gallery.open`). A Milvus server ignores it.

    Returns
    -------
    Gallery or MilvusGallery
        The gallery.

    Raises
    ------
    GalleryError
        If there is no gallery, it is damaged, another encoder made it, or the server does not answer.
    OptionError
        If the address or `device` is invalid.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> len(mm.open_gallery(mm.wardrobe.gallery_folder()))
    2000
    """
    if is_address(address):
        return MilvusGallery.open(str(address), encoder=encoder)
    return Gallery.open(address, encoder=encoder, device=device)


class Retriever:
    """Answers "like this picture, but …" from one gallery."""

    def __init__(self, gallery: AnyGallery, encoder: Encoder, *, parts: Parts | None = None) -> None:
        gallery.check_encoder(encoder)
        self.gallery, self.encoder, self._given = gallery, encoder, parts or Parts()
        self._composers: dict[tuple[str, str], Composer] = {}

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
        *,
        reference_id: str | Sequence[str] | None = None,
        region: Region | Sequence[Region | None] | None = None,
        image_weight: float | Sequence[float] | None = None,
        strength: float | Sequence[float] | None = None,
        avoid: str | Sequence[str] | None = None,
        more_like: str | Sequence[str] | None = None,
        less_like: str | Sequence[str] | None = None,
        caption: str | Sequence[str] | None = None,
        composer: str | None = None,
        rule: str | None = None,
    ) -> Composition:
        """The terms of a query under the base weights of its composer.

        Takes the parameters of `search` that decide the terms. What a prompt forbids ("in red without stripes") is a term of its
        own, `avoid`, which weighs 0 until weights are chosen; `prompt` is what remains.

        Returns
        -------
        The composition, from which `weigh` and `Gallery.search` go on. Images and texts are encoded here and only here.

        Raises
        ------
        OptionError : for values that contradict each other, or a query without anything to search for.
        ImageError : for an unreadable image.
        GalleryError : for an unknown id.
        """
        request = SearchRequest.parse(
            image=image,
            prompt=prompt,
            reference_id=reference_id,
            region=region,
            image_weight=image_weight,
            strength=strength,
            avoid=avoid,
            more_like=more_like,
            less_like=less_like,
            caption=caption,
            composer=composer,
            rule=rule,
        )
        return self.compose_requests([request])[0]

    def weigh(
        self,
        composition: Composition,
        *,
        alpha_image: float | Literal["auto"] | None = None,
        alpha_text: float | None = None,
        beta: float | None = None,
        weights: Weights | None = None,
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
            return self._weigh_by_name(composition, AUTO if weights is None else weights, keep_rule)
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
        reference_id: str | Sequence[str] | None = None,
        region: Region | Sequence[Region | None] | None = None,
        image_weight: float | Sequence[float] | None = None,
        strength: float | Sequence[float] | None = None,
        avoid: str | Sequence[str] | None = None,
        more_like: str | Sequence[str] | None = None,
        less_like: str | Sequence[str] | None = None,
        caption: str | Sequence[str] | None = None,
        composer: str | None = None,
        rule: str | None = None,
        k: int = DEFAULT_K,
        alpha_image: float | Literal["auto"] | None = None,
        alpha_text: float | None = None,
        beta: float | None = None,
        weights: Weights | None = None,
        min_score: float | None = None,
        where: Where | None = None,
        exclude: str | Collection[str] | None = None,
        exclude_reference: bool = False,
    ) -> Ranking:
        """The k items that best match reference images and prompts: `compose`, then `weigh`, then one search of the gallery.

        Parameters
        ----------
        image : one or several paths, PIL images or open files.
        prompt : one or several texts, whose directions add.
        reference_id : items of the gallery as references, after the images if there are both.
        region : the part of each reference that counts, (left, top, right, bottom) as shares of its sides; None is all of it.
        image_weight : the weight of each reference, 1 by default.
        strength : how far to follow each prompt, 1 by default; 0 ignores it, negative values reverse it.
        avoid : what should not be visible, such as "stripes".
        more_like, less_like : items that results should be near to, and far from.
        caption : a description of each reference.
        composer : by default "captions" for a reference with a prompt, else "image" or "prompt".
        rule : how term scores become one score; by default the composer's own.
        k : the number of results.
        alpha_image, alpha_text, beta : explicit PDV (see `weigh`).
        weights : "auto" (the default) chooses for the query without labels: a score is then the mean of how many standard
            deviations an item is above the gallery's average item, under each term. "base" is the composer's own; "balanced", or
            a number for each role. A named composer that has weights of its own ("sum", "sdr", …) keeps them unless weights
            are named, and a named rule is kept.
        min_score : leave out items that score below.
        where : an SQL condition on the fields of items, an `Expression`, or the structure of one.
        exclude : items that must not appear.
        exclude_reference : leave out the references (by id, or any item with the same content as a file).

        Returns
        -------
        A ranking of k hits, or of as many as there are; then `note` says why. `why` says which weights were chosen, `answerable`
        how well the gallery fits the query.

        Raises
        ------
        OptionError, ImageError, GalleryError : as `compose`.
        """
        request = SearchRequest.parse(
            image=image,
            prompt=prompt,
            reference_id=reference_id,
            region=region,
            image_weight=image_weight,
            strength=strength,
            avoid=avoid,
            more_like=more_like,
            less_like=less_like,
            caption=caption,
            composer=composer,
            rule=rule,
            k=k,
            alpha_image=alpha_image,
            alpha_text=alpha_text,
            beta=beta,
            weights=weights,
            min_score=min_score,
            where=where,
            exclude=exclude,
            exclude_reference=exclude_reference,
        )
        return self.search_requests([request])[0]

    def search_many(self, requests: Sequence[Mapping[str, Any]]) -> list[Ranking]:
        """One ranking for each request, a mapping of the parameters of `search`: `[{"image": "a.jpg", "prompt": "in red"}, …]`.

        All images and texts are encoded together, and linear queries are one search of the index, so many requests take a
        fraction of the time of as many calls of `search`. Ids and order are the same, scores within 1e-6.
        Raises OptionError, with the request's number, for one that `search` would refuse; then none is answered.
        """
        return self.search_requests(parse_requests(requests))

    def search_requests(self, requests: Sequence[SearchRequest]) -> list[Ranking]:
        """`search_many` of requests that are parsed already."""
        hidden = [
            [*request.exclude, *(self.ids_of_references(request) if request.exclude_reference else ())] for request in requests
        ]
        compositions = self.compose_requests(requests)
        weighted = [self.weigh(one, **request.weighting) for one, request in zip(compositions, requests, strict=True)]
        options = [
            SearchOptions(request.k, ids, request.min_score, request.where)
            for request, ids in zip(requests, hidden, strict=True)
        ]
        return self._judged(self.gallery.search_many(weighted, options), compositions)

    def compose_requests(self, requests: Sequence[SearchRequest]) -> list[Composition]:
        """One composition for each request, as `compose` gives it; requests of one composer are composed together."""
        prepared = [PreparedRequest.of(request, self._compiler) for request in requests]
        references = ReferenceReader(self.gallery, self.encoder).read(requests)
        inputs = [one.inputs(of_each) for one, of_each in zip(prepared, references, strict=True)]
        keys = [(one.composer, one.request.rule or RuleName.LINEAR.value) for one in prepared]
        parts: list[list[Composition]] = [[] for _ in prepared]
        for key in dict.fromkeys(keys):
            members = [i for i, other in enumerate(keys) if other == key and inputs[i]]
            together = [one for i in members for one in inputs[i]]
            compositions = iter(self._composer(*key).compose(together) if together else ())
            for i in members:
                parts[i] = list(islice(compositions, len(inputs[i])))
        return [self._complete(*one) for one in zip(prepared, parts, strict=True)]

    def ids_of_references(self, request: SearchRequest) -> list[str]:
        """The items that the references of a request are: by id, or by the content of their files.

        Raises OptionError for a request without references, and for a reference that is neither.
        """
        return ReferenceReader(self.gallery, self.encoder).ids(request)

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

    def _weigh_by_name(self, composition: Composition, weights: Weights | str, keep_rule: bool) -> Composition:
        weights = parse_weights(weights)
        if weights == BASE:
            return composition
        if weights == AUTO:
            return automatic_weights(composition, self.gallery.spread, keep_rule=keep_rule)
        if weights == BALANCED:
            return balanced_weights(composition, self.gallery.spread)
        assert isinstance(weights, Mapping)  # `parse_weights` lets nothing else through
        return composition.with_weights(weights)

    def _complete(self, prepared: PreparedRequest, parts: Sequence[Composition]) -> Composition:
        """The compositions of one request's inputs as one, with terms for what it avoids, likes and dislikes, under its rule."""
        request = prepared.request
        composition = prepared.combine(parts) if parts else None
        learned_words = COMPOSERS[request.composer_name].learned_words
        rule = None if request.rule is None else make_rule(request.rule, learned_words=learned_words)
        for role, names, weight, weights in (
            (AVOID, prepared.avoid, -1.0, prepared.avoid_weights),
            ("more", request.more_like, MORE, None),
            ("less", request.less_like, LESS, None),
        ):
            if names:
                _check_weighs(rule, role)
                rows = self._avoid_terms(names, composition) if role == AVOID else self.gallery.vectors(names)
                terms = Composition.of(role, rows, weight, names)
                terms = terms if weights is None else replace(terms, weights=weights, shares={})
                composition = terms if composition is None else composition.with_terms(terms)
        if composition is None:
            raise OptionError("a query needs a reference image, a prompt, or both")
        return composition if rule is None else composition.with_rule(rule)

    def _avoid_terms(self, phrases: Sequence[str], composition: Composition | None) -> Float32:
        words = {} if composition is None else composition.words
        lexicon = self._swap.lexicon
        return avoid_directions(self.encoder, phrases, lexicon, words.get(Term.TEXT), words.get(Term.COMPOSED))

    def _composer(self, name: str, rule: str) -> Composer:
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
        raise OptionError(f"the {str(rule.name)!r} rule has no weights: leave out {name}")


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
