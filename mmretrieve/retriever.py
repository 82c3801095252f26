"""The facade: a gallery, the encoder that made it, and composers, behind one `search`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmretrieve.answerable import JUDGED_HITS, Answerability
from mmretrieve.axes import Axis, axis_from_words, check_axis, parse_words, sort_hits
from mmretrieve.composers import Parts
from mmretrieve.composition import Composition, check_composition
from mmretrieve.concurrency import LruCache
from mmretrieve.directions import PDV
from mmretrieve.encoders.base import Encoder
from mmretrieve.encoders.loading import EncoderLike, as_encoder
from mmretrieve.errors import MissingError, MMRetrieveError, OptionError, checks_keywords
from mmretrieve.filters import Where
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.view import SearchOptions
from mmretrieve.images import ImageLike, Region
from mmretrieve.judges.base import Judge
from mmretrieve.judges.reranking import judge_hits, judge_query
from mmretrieve.opening import AnyGallery, defer_gallery_encoder, index_device, load_gallery_encoder, open_gallery
from mmretrieve.options import AUTO, BALANCED, BASE, DEFAULT_JUDGE_K, DEFAULT_K
from mmretrieve.ranking import Ranking
from mmretrieve.registry import COMPOSERS, JUDGES
from mmretrieve.request import SearchRequest, Weights, parse_requests, parse_weights
from mmretrieve.request_composer import RequestComposer
from mmretrieve.session import DEFAULT_DECAY, Session
from mmretrieve.vectors import Float32
from mmretrieve.weighting import automatic_weights, balanced_weights

logger = logging.getLogger(__name__)


class Retriever:
    """Searches one gallery with reference images and prompts: "like this picture, but …".

    Parameters
    ----------
    gallery : Gallery or MilvusGallery
        What is searched.
    encoder : Encoder, or an object that `load_encoder` takes
        The encoder that made the gallery. `gallery.add` uses it unless the gallery was opened with one.
    parts : Parts, optional
        What composers are built of; each part that is not given has a default.

    Attributes
    ----------
    gallery : Gallery or MilvusGallery
        The gallery.
    encoder : Encoder
        The encoder.

    Raises
    ------
    GalleryError
        The gallery was made by another encoder; both are named.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
    >>> ranking = retriever.search(reference_id="red-checked-dress-1815.png", prompt="in blue", k=3)
    >>> [(hit.rank, hit.id.split("-")[0]) for hit in ranking]
    [(1, 'blue'), (2, 'blue'), (3, 'blue')]
    """

    def __init__(self, gallery: AnyGallery, encoder: EncoderLike, *, parts: Parts | None = None) -> None:
        if not isinstance(gallery, GalleryBase):
            raise OptionError(f"expected a gallery, such as what open_gallery returns, got {gallery!r:.80}")
        if not isinstance(parts, Parts | None):
            raise OptionError(f"parts must be Parts(…), got {parts!r:.80}")
        self.gallery, self.encoder = gallery, gallery.use_encoder(encoder)
        self._request_composer = RequestComposer(gallery, self.encoder, parts or Parts())
        self._judges: dict[str, Judge] = {}

    @classmethod
    @checks_keywords
    def open(
        cls,
        path: str | Path,
        *,
        encoder: EncoderLike | None = None,
        device: str = "auto",
        dtype: str = "auto",
        parts: Parts | Callable[[Encoder], Parts] | None = None,
        lazy: bool = False,
    ) -> Retriever:
        """Opens a gallery together with the encoder that made it.

        Parameters
        ----------
        path : str or Path
            The folder of a gallery, or ``"milvus://host:port/collection"``.
        encoder : str, Path or Encoder, optional
            The encoder that made the gallery: what `load_encoder` takes. By default it is loaded by the name that the gallery stores.
        device : str, default="auto"
            Where the encoder computes: "auto", "cpu", "cuda", "cuda:N" or "mps". With "auto" and "cuda" the index is searched on
            GPUs as well.
        dtype : str, default="auto"
            The dtype of the image tower, as in `load_encoder`. "auto" is the one in which the vectors of the gallery were computed.
        parts : Parts or callable, optional
            What composers are built of, or a function that makes it from the encoder.
        lazy : bool, default=False
            Load the encoder when an image or a text first has to be encoded, and report then why it cannot be loaded. Searches
            by ids of items alone never load it.

        Returns
        -------
        Retriever
            The gallery, ready to be searched.

        Raises
        ------
        GalleryError
            There is no gallery, or its encoder cannot be loaded by its name (pass `encoder`) or is another one; then both are named.
        OptionError
            The address, the device or the dtype cannot be parsed or is not available.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> len(retriever.gallery), retriever.encoder.dim
        (2000, 128)
        """
        gallery = open_gallery(path, device=index_device(device))
        if isinstance(encoder, str | Path):
            encoder = load_gallery_encoder(gallery, device, dtype, encoder)
        elif encoder is None:
            encoder = (defer_gallery_encoder if lazy else load_gallery_encoder)(gallery, device, dtype)
        checked = as_encoder(encoder)
        return cls(gallery, checked, parts=parts(checked) if callable(parts) else parts)

    @checks_keywords
    def compose(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        prompt: str | Sequence[str] | None = None,
        *,
        reference_id: str | Sequence[str] | None = None,
        region: Region | Sequence[Region | None] | None = None,
        image_weight: float | Sequence[float] | None = None,
        strength: float | Sequence[float] | None = None,
        paraphrases: int = 1,
        avoid: str | Sequence[str] | None = None,
        more_like: str | Sequence[str] | None = None,
        less_like: str | Sequence[str] | None = None,
        axis: str | Sequence[str] | None = None,
        axis_opposite: str | Sequence[str] | None = None,
        axis_weight: float = 1.0,
        caption: str | Sequence[str] | None = None,
        composer: str | None = None,
        rule: str | None = None,
    ) -> Composition:
        """Encodes a query: its terms, under the base weights of its composer.

        Parameters
        ----------
        image : path, PIL image, array, bytes, open file, or list of these, optional
            Reference images.
        prompt : str or list of str, optional
            What should be different; the directions of several prompts add up. What a prompt forbids ("in red without stripes")
            becomes a term of its own, `avoid`.
        reference_id : str or list of str, optional
            Items of the gallery as references; they follow the images if there are both.
        region : tuple of 4 float or list of them, optional
            The part of each reference that counts: (left, top, right, bottom) as shares from 0 to 1 of its sides. None in a list
            stands for the whole image.
        image_weight : float or list of float, default=1
            The weight of each reference, 0 or more.
        strength : float or list of float, default=1
            How far to follow each prompt: 0 ignores it, a negative value reverses it.
        paraphrases : int, default=1
            The number of wordings of each prompt that are averaged, its own included; at most 6. `note` says how well they agree.
        avoid : str or list of str, optional
            What should not be visible, such as "stripes".
        more_like, less_like : str or list of str, optional
            Items that results should be near to, and far from.
        axis, axis_opposite : str or list of str, optional
            What there should be more of, such as "formal", and its opposite, as in `axis`. It is a term with the weight `axis_weight`, which may
            be negative; with automatic weights, 1 counts as much as the reference. Without a query, the gallery is sorted by it.
        axis_weight : float, default=1
            The weight of the axis.
        caption : str or list of str, optional
            A description of each reference; by default the captioner makes it.
        composer : str, optional
            A `ComposerName` or a registered name. Default: "captions" for a reference with a prompt, else "image" or "prompt".
        rule : str, optional
            A `RuleName` or a registered name. Default: the composer's own rule.

        Returns
        -------
        Composition
            The input of `weigh` and `Gallery.search`. A term for what a prompt forbids has the weight 0 until weights are chosen.

        Raises
        ------
        OptionError
            Values contradict each other, or there is nothing to search for.
        ImageError
            An image cannot be read.
        GalleryError
            No item has this id.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> query = retriever.compose(reference_id="red-checked-dress-1815.png", prompt="in blue")
        >>> query.names, query.terms.shape
        (('image', 'text', 'composed', 'prompt'), (4, 128))
        """
        request = SearchRequest.parse(
            image=image,
            prompt=prompt,
            reference_id=reference_id,
            region=region,
            image_weight=image_weight,
            strength=strength,
            paraphrases=paraphrases,
            avoid=avoid,
            more_like=more_like,
            less_like=less_like,
            axis=axis,
            axis_opposite=axis_opposite,
            axis_weight=axis_weight,
            caption=caption,
            composer=composer,
            rule=rule,
        )
        return self.compose_requests([request])[0]

    @checks_keywords
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
        """Gives a composition other weights; automatic ones unless something else is named.

        Parameters
        ----------
        composition : Composition
            A query of `compose`.
        alpha_image : float or "auto", optional
            PDV: how far the prompt moves the image. "auto" takes the closed form of `automatic_alpha_image`.
        alpha_text : float, optional
            PDV: how far the prompt moves the caption.
        beta : float, optional
            PDV: from 0, follow the image, to 1, follow the caption. If one of the three is given, the others have the values of
            the gallery's setting, else 1.
        weights : mapping of str to float or str, optional
            A weight for each role, 0 for a role that is not named; "auto" (the default); "base", the composer's own; or
            "balanced". Not together with PDV.
        keep_rule : bool, default=False
            Whether automatic weights keep the rule of the composition, as for a rule that was named.

        Returns
        -------
        Composition
            The same terms under the new weights.

        Raises
        ------
        OptionError
            The composition lacks a term or a role that is named, its rule has no weights, or it is no composition.

        Source
        ------
        PDV: arXiv 2502.07215. Automatic weights: docs/guides/weights.md.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> query = retriever.compose(reference_id="red-checked-dress-1815.png", prompt="in blue")
        >>> retriever.weigh(query, weights={"image": 1, "prompt": 2}).term_weights
        {'image': 1.0, 'text': 0.0, 'composed': 0.0, 'prompt': 2.0}
        """
        check_composition(composition)
        knobs = {"alpha_image": alpha_image, "alpha_text": alpha_text, "beta": beta}
        named = [name for name, value in knobs.items() if value is not None]
        if not named:
            return self._weigh_by_name(composition, AUTO if weights is None else weights, keep_rule)
        if weights is not None:
            raise OptionError(f"give weights or {', '.join(named)}, not both")
        setting = self.gallery.setting or PDV()
        if alpha_image == AUTO:
            alpha_image = composition.automatic_alpha_image()
        pdv = PDV(
            alpha_image=setting.alpha_image if alpha_image is None else alpha_image,
            alpha_text=setting.alpha_text if alpha_text is None else alpha_text,
            beta=setting.beta if beta is None else beta,
        )
        return composition.with_pdv(pdv)

    @checks_keywords
    def search(
        self,
        image: ImageLike | Sequence[ImageLike] | None = None,
        prompt: str | Sequence[str] | None = None,
        *,
        reference_id: str | Sequence[str] | None = None,
        region: Region | Sequence[Region | None] | None = None,
        image_weight: float | Sequence[float] | None = None,
        strength: float | Sequence[float] | None = None,
        paraphrases: int = 1,
        avoid: str | Sequence[str] | None = None,
        more_like: str | Sequence[str] | None = None,
        less_like: str | Sequence[str] | None = None,
        axis: str | Sequence[str] | None = None,
        axis_opposite: str | Sequence[str] | None = None,
        axis_weight: float = 1.0,
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
        judge: str | Judge | None = None,
        judge_k: int = DEFAULT_JUDGE_K,
        judge_weight: float | Literal["inf"] = 1.0,
    ) -> Ranking:
        """Returns the k items that best match reference images and prompts.

        It is `compose`, then `weigh`, then one search of the gallery.

        Parameters
        ----------
        image : path, PIL image, array, bytes, open file, or list of these, optional
            Reference images.
        prompt : str or list of str, optional
            What should be different; the directions of several prompts add up. What a prompt forbids ("in red without stripes")
            becomes a term of its own, `avoid`.
        reference_id : str or list of str, optional
            Items of the gallery as references; they follow the images if there are both.
        region : tuple of 4 float or list of them, optional
            The part of each reference that counts: (left, top, right, bottom) as shares from 0 to 1 of its sides. None in a list
            stands for the whole image.
        image_weight : float or list of float, default=1
            The weight of each reference, 0 or more.
        strength : float or list of float, default=1
            How far to follow each prompt: 0 ignores it, a negative value reverses it.
        paraphrases : int, default=1
            The number of wordings of each prompt that are averaged, its own included; at most 6. `note` says how well they agree.
        avoid : str or list of str, optional
            What should not be visible, such as "stripes".
        more_like, less_like : str or list of str, optional
            Items that results should be near to, and far from.
        axis, axis_opposite : str or list of str, optional
            What there should be more of, such as "formal", and its opposite, as in `axis`. It is a term with the weight `axis_weight`, which may
            be negative; with automatic weights, 1 counts as much as the reference. Without a query, the gallery is sorted by it.
        axis_weight : float, default=1
            The weight of the axis.
        caption : str or list of str, optional
            A description of each reference; by default the captioner makes it.
        composer : str, optional
            A `ComposerName` or a registered name. Default: "captions" for a reference with a prompt, else "image" or "prompt".
        rule : str, optional
            A `RuleName` or a registered name. Default: the composer's own rule.
        k : int, default=10
            The number of results, at least 1.
        alpha_image, alpha_text, beta : float, optional
            Explicit PDV weights, as in `weigh`.
        weights : mapping of str to float or str, optional
            "auto" (the default) chooses weights for the query without labels. A score is then the mean, over the terms, of how
            many standard deviations an item is above the average item of the gallery. "base" is the composer's own weights;
            otherwise "balanced", or a number for each role. A named composer with weights of its own ("sum", "sdr", …) keeps them
            unless weights are named, and a named rule is kept.
        min_score : float, optional
            Leave out items that score below.
        where : str, mapping or Expression, optional
            A condition on the fields of items: SQL such as ``"price < 20"``, values by field such as ``{"colour": "red"}``, or an
            expression or its structure.
        exclude : str or collection of str, optional
            Items that must not appear.
        exclude_reference : bool, default=False
            Leave out the references, and every item with the same content as one.
        judge : str or Judge, optional
            What looks at the images of the best items and scores them: a `JudgeName`, a registered name, or any object with
            `rank(query, documents)`, such as a `CrossEncoder`. Its scores are one more term, `judge`. If it fails, `note` says so, and the
            ranking is the one without it.
        judge_k : int, default=20
            The number of items that the judge sees.
        judge_weight : float, default=1
            The weight of the judge; at 1, a logit counts as much as one standard deviation of the scores of what it sees. With
            infinity, the judge alone orders what it sees.

        Returns
        -------
        Ranking
            k hits, or as many as there are; then `note` says why. `why` says which weights were chosen, `answerable` how well the
            gallery fits the query.

        Raises
        ------
        OptionError
            A value is out of range, values contradict each other, or there is nothing to search for.
        ImageError
            An image cannot be read.
        GalleryError
            No item has this id.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> ranking = retriever.search(prompt="a red dress", where="pattern = 'checked'", k=2)
        >>> len(ranking), ranking.why
        (2, 'automatic: the prompt alone')
        """
        request = SearchRequest.parse(
            image=image,
            prompt=prompt,
            reference_id=reference_id,
            region=region,
            image_weight=image_weight,
            strength=strength,
            paraphrases=paraphrases,
            avoid=avoid,
            more_like=more_like,
            less_like=less_like,
            axis=axis,
            axis_opposite=axis_opposite,
            axis_weight=axis_weight,
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
            judge=judge,
            judge_k=judge_k,
            judge_weight=judge_weight,
        )
        return self.search_requests([request])[0]

    @checks_keywords
    def session(self, *, decay: float = DEFAULT_DECAY) -> Session:
        """Starts a search in several turns, each of which adds to those before it.

        Parameters
        ----------
        decay : float, default=1
            How much of the strength of its prompts an earlier turn keeps with each further turn: from 0, which follows the last turn
            only, to 1.

        Returns
        -------
        Session
            Without turns.

        Raises
        ------
        OptionError
            `decay` is not a number from 0 to 1.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> session = mm.Retriever.open(mm.wardrobe.gallery_folder()).session()
        >>> ranking = session.search(reference_id="navy-checked-top-0218.png", prompt="in beige", k=3)
        >>> ranking = session.search(prompt="with zigzags")
        >>> [hit.id.rsplit("-", 1)[0] for hit in ranking]
        ['beige-zigzag-top', 'beige-zigzag-top', 'beige-zigzag-top']
        """
        return Session(self.search, decay=decay)

    @checks_keywords
    def axis(
        self,
        words: str | Sequence[str],
        opposite: str | Sequence[str] | None = None,
        *,
        high: Sequence[ImageLike] | None = None,
        low: Sequence[ImageLike] | None = None,
    ) -> Axis:
        """Makes an axis, such as "formal", along which `sort` orders items.

        Parameters
        ----------
        words : str or list of str
            What the high end is. Without an opposite and without examples, the axis goes from "not X" to "very X".
        opposite : str or list of str, optional
            What the low end is. Several words are averaged: ``["red", "orange"]`` and ``["blue", "teal"]``.
        high, low : list of str, Path, PIL image, array, bytes or open file, optional
            Examples of both ends, which then define the axis: items by their ids (text), and images. `words` is only its name.

        Returns
        -------
        Axis
            A unit direction, from the mean of one end to the mean of the other.

        Raises
        ------
        OptionError
            There are examples of one end only, or an opposite beside examples, or the encoder sees no difference between the words.
        VectorError
            The encoder sees no difference between the examples.
        ImageError, GalleryError
            An image cannot be read, or no item has this id.

        Source
        ------
        Linear Spaces of Meanings, arXiv 2302.14383

        Examples
        --------
        >>> import mmretrieve as mm
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> axis = retriever.axis("red", high=["red-checked-dress-1815.png"], low=["navy-checked-dress-1595.png"])
        >>> axis.name, axis.direction.shape
        ('red', (128,))
        """
        names = parse_words("words", words)
        if (high is None) != (low is None) or (high is not None and opposite is not None):
            raise OptionError("an axis needs words, or examples of both ends: give opposite, or both high and low, or neither")
        if high is None or low is None:
            return axis_from_words(self.encoder, names, () if opposite is None else parse_words("opposite", opposite))
        return Axis.between(", ".join(names), self._example_vectors("high", high), self._example_vectors("low", low))

    @checks_keywords
    def sort(self, axis: Axis, ranking: Ranking | None = None, *, k: int = DEFAULT_K, where: Where | None = None) -> Ranking:
        """Sorts the gallery, or the hits of a ranking, by an axis. A score is a position in standard deviations of the gallery: 0 is the
        average item.

        Parameters
        ----------
        axis : Axis
            What grows; ``-axis`` starts at the other end.
        ranking : Ranking, optional
            The hits to sort; all of them are returned, and `k` and `where` must be left out.
        k : int, default=10
            The number of items of the gallery.
        where : str, mapping or Expression, optional
            A condition on the fields of items, as in `search`.

        Returns
        -------
        Ranking
            The items at the high end first.

        Raises
        ------
        OptionError
            `axis` is no axis, or there is a ranking beside `k` or `where`.
        VectorError
            The axis has another dimension.
        GalleryError
            A hit of the ranking was deleted.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> axis = retriever.axis("with long sleeves", "without sleeves")
        >>> ranking = retriever.sort(axis, where="kind = 'sweater'", k=3)
        >>> [retriever.gallery.item(id_).fields["sleeves"] for id_ in ranking.ids]
        ['long sleeves', 'long sleeves', 'long sleeves']
        >>> retriever.sort(-axis, ranking).ids == ranking.ids[::-1]
        True
        """
        composition = self.weigh(check_axis(axis, self.gallery.dim).composition)
        if ranking is None:
            return self.gallery.search(composition, k, where=where)
        if where is not None or k != DEFAULT_K:
            raise OptionError(
                "sort takes a ranking, whose hits it sorts, or k and where, which choose items of the gallery; not both"
            )
        return sort_hits(ranking, composition, self.gallery.vectors(ranking.ids))

    def search_many(self, requests: Sequence[Mapping[str, Any]]) -> list[Ranking]:
        """Returns one ranking for each request.

        All images and texts are encoded together, and linear queries are one search of the index, so many requests take a
        fraction of the time of as many calls of `search`. Ids and order are the same, scores within 1e-6.

        Parameters
        ----------
        requests : list of mappings
            The keywords of `search`: ``[{"image": "a.jpg", "prompt": "in red"}, {"prompt": "a hat"}]``.

        Returns
        -------
        list of Ranking
            The rankings, in the order of the requests.

        Raises
        ------
        OptionError, ImageError, GalleryError
            As `search`. The message of a request that cannot be parsed begins with its number, from 1. No request is answered.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> rankings = retriever.search_many([{"prompt": "a red dress", "k": 1}, {"prompt": "a blue coat", "k": 2}])
        >>> [len(ranking) for ranking in rankings]
        [1, 2]
        """
        return self.search_requests(parse_requests(requests))

    def search_requests(self, requests: Sequence[SearchRequest]) -> list[Ranking]:
        """Returns one ranking for each parsed request; `search_many` parses and calls this.

        Parameters
        ----------
        requests : list of SearchRequest
            The requests.

        Returns
        -------
        list of Ranking
            The rankings, in the order of the requests.

        Raises
        ------
        OptionError, ImageError, GalleryError
            As `search`; no request is answered.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> from mmretrieve.request import SearchRequest
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> [len(ranking) for ranking in retriever.search_requests([SearchRequest.parse(prompt="a red dress", k=3)])]
        [3]
        """
        if others := [one for one in requests if not isinstance(one, SearchRequest)]:
            raise OptionError(f"expected requests of SearchRequest.parse, got {others[0]!r:.80}; search_many takes mappings")
        return self.search_compositions(self.compose_requests(requests), requests)

    def search_compositions(self, compositions: Sequence[Composition], requests: Sequence[SearchRequest]) -> list[Ranking]:
        """Returns the ranking of each composition under the weights of its request; the second half of `search_requests`.

        Parameters
        ----------
        compositions : list of Composition
            What `compose_requests` returned.
        requests : list of SearchRequest
            The requests; their weights and all that ends a ranking, from k to the judge, count.

        Returns
        -------
        list of Ranking
            The rankings, in the order of the requests.

        Raises
        ------
        OptionError, GalleryError
            As `search`.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> from mmretrieve.request import SearchRequest
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> requests = [SearchRequest.parse(prompt="a red dress", k=3)]
        >>> [len(ranking) for ranking in retriever.search_compositions(retriever.compose_requests(requests), requests)]
        [3]
        """
        hidden = self._excluded_references(requests)
        weighted = [self.weigh(one, **request.weighting) for one, request in zip(compositions, requests, strict=True)]
        options = [SearchOptions.of(request, ids) for request, ids in zip(requests, hidden, strict=True)]
        rankings = self.with_answerable(self.gallery.search_many(weighted, options), compositions)
        return [self.with_judge(ranking, request) for ranking, request in zip(rankings, requests, strict=True)]

    def compose_requests(self, requests: Sequence[SearchRequest]) -> list[Composition]:
        """Returns one composition for each parsed request. Requests with the same composer are composed together.

        Parameters
        ----------
        requests : list of SearchRequest
            The requests.

        Returns
        -------
        list of Composition
            As `compose` gives them, in the order of the requests.

        Raises
        ------
        OptionError, ImageError, GalleryError
            As `compose`.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> from mmretrieve.request import SearchRequest
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> [query.names for query in retriever.compose_requests([SearchRequest.parse(prompt="a red dress")])]
        [('prompt',)]
        """
        return self._request_composer.compose(requests)

    def ids_of_references(self, request: SearchRequest) -> list[str]:
        """Returns the items that a request has as references, and those with the same content.

        Parameters
        ----------
        request : SearchRequest
            A request with at least one reference.

        Returns
        -------
        list of str
            Ids of items. A file whose content is not in the gallery adds none; a file or an item with copies adds all of them.

        Raises
        ------
        OptionError
            The request has no reference, or one that is neither an item nor a file.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> from mmretrieve.request import SearchRequest
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> retriever.ids_of_references(SearchRequest.parse(image=mm.wardrobe.pictures_folder() / "red-checked-dress-1815.png"))
        ['red-checked-dress-1815.png']
        """
        return self._request_composer.references.ids([request])[0]

    def with_answerable(self, rankings: Sequence[Ranking], compositions: Sequence[Composition]) -> list[Ranking]:
        """Adds `answerable` to rankings: whether the gallery has what each query asks for. All vectors are read in one call.

        Parameters
        ----------
        rankings : list of Ranking
            Rankings of this gallery.
        compositions : list of Composition
            Their queries, as `compose` gives them.

        Returns
        -------
        list of Ranking
            The rankings with `answerable` from 0 (nothing fits) to 1; all unchanged if one of their best hits was deleted since.

        Source
        ------
        docs/guides/answerable.md

        Examples
        --------
        >>> import mmretrieve as mm
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> query = retriever.compose(prompt="a red dress")
        >>> ranking = retriever.gallery.search(retriever.weigh(query), 3)
        >>> ranking.answerable is None, 0 < retriever.with_answerable([ranking], [query])[0].answerable < 1
        (True, True)
        """
        best_ids = [ranking.ids[:JUDGED_HITS] for ranking in rankings]
        unique = list(dict.fromkeys(id_ for ids in best_ids for id_ in ids))
        try:
            vectors = dict(zip(unique, self.gallery.vectors(unique), strict=True))
        except MissingError:
            return list(rankings)
        best = [np.array([vectors[id_] for id_ in ids]) for ids in best_ids]
        answerable = self._answerability.of(compositions, self.gallery.spread, best)
        return [replace(ranking, answerable=value) for ranking, value in zip(rankings, answerable, strict=True)]

    def with_judge(self, ranking: Ranking, request: SearchRequest) -> Ranking:
        """Lets the judge of a request score the best hits.

        Parameters
        ----------
        ranking : Ranking
            A ranking of this gallery for the request, with `SearchOptions.of` the request: at least `judge_k` hits if as many match.
        request : SearchRequest
            The request.

        Returns
        -------
        Ranking
            The best k hits under the first stage and the judge. Unchanged if the request names no judge. If the judge fails, or has no
            image to look at, `note` says so, and the order is that of the first stage.

        Raises
        ------
        ImageError
            The reference image cannot be read.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> from mmretrieve.request import SearchRequest
        >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
        >>> request = SearchRequest.parse(prompt="a red dress", k=3)
        >>> ranking = retriever.search_requests([request])[0]
        >>> retriever.with_judge(ranking, request) is ranking
        True
        """
        if request.judge is None:
            return ranking
        query = judge_query(request, self._request_composer.references.first_picture(request))
        judge = self._judge(request.judge)
        return judge_hits(ranking, judge, request, query, self._documents(judge, ranking.ids[: request.judge_k]))

    @property
    def caches(self) -> dict[str, LruCache[Any]]:
        """What is remembered: vectors of reference images by content, and features of texts, if the encoder keeps them."""
        texts = getattr(self.encoder, "recent_texts", None)
        return {"images": self._request_composer.references.vectors} | ({"texts": texts} if isinstance(texts, LruCache) else {})

    @property
    def composers(self) -> tuple[str, ...]:
        """The names of the composers that combine a reference with a prompt, and whose parts this retriever has."""
        return tuple(name for name in COMPOSERS if self._request_composer.supports(name))

    @property
    def judges(self) -> tuple[str, ...]:
        """The names of the judges that can look at hits of this gallery, with its encoder. Each is made once."""
        return tuple(name for name in JUDGES if self._judges_by(name))

    def _documents(self, judge: Judge, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """What a judge gets of each item: its patches if it reads them and the gallery has them, else its image; None without both."""
        patches = self._patches(judge, ids)
        pictures = self.gallery.pictures([id_ for id_, rows in zip(ids, patches, strict=True) if rows is None])
        documents = [{"image": next(pictures)} if rows is None else {"patches": rows} for rows in patches]
        return [document if document.get("image", document) is not None else None for document in documents]

    def _patches(self, judge: Judge, ids: Sequence[str]) -> Sequence[Float32 | None]:
        if getattr(judge, "patch_encoder", None) != self.gallery.encoder_identity:
            return [None] * len(ids)
        try:
            return self.gallery.patches(ids)
        except Exception as error:  # of an encoder that others wrote; the judge gets images, and reports the same error
            logger.warning("patches cannot be read: %s", error)
            return [None] * len(ids)

    def _judge(self, judge: str | Judge) -> Judge:
        if not isinstance(judge, str):
            return judge
        if judge not in self._judges:
            self._judges[judge] = JUDGES.build(judge, self._request_composer.context)
        return self._judges[judge]

    def _judges_by(self, name: str) -> bool:
        try:
            return self._judge(name) is not None
        except MMRetrieveError:  # such as an encoder without patches
            return False

    def _example_vectors(self, end: str, examples: Sequence[ImageLike]) -> Float32:
        """(n, d) vectors of items, by their ids, and of images."""
        if not isinstance(examples, list | tuple) or not examples:
            raise OptionError(f"{end} must be a list of images and ids of items, got {examples!r:.80}")
        ids = [example for example in examples if isinstance(example, str)]
        images = [example for example in examples if not isinstance(example, str)]
        return self.compose(images, reference_id=ids).terms

    def _excluded_references(self, requests: Sequence[SearchRequest]) -> list[list[str]]:
        """The ids of the references of each request that leaves them out; [] for the others."""
        ids = iter(self._request_composer.references.ids([request for request in requests if request.exclude_reference]))
        return [next(ids) if request.exclude_reference else [] for request in requests]

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

    @cached_property
    def _answerability(self) -> Answerability:
        return Answerability(self.encoder)
