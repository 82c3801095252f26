"""What every front end asks of a gallery: search, weigh a scored query again, items, images, facets. No protocol is in it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from time import monotonic, perf_counter
from typing import Any, TypeVar

from PIL import Image

from mmretrieve.composition import Composition
from mmretrieve.concurrency import LruCache
from mmretrieve.errors import GalleryError, ImageError
from mmretrieve.filters import Where
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.store.records import FieldType, Item
from mmretrieve.gallery.view import NO_ROWS, ItemPage, Rows, SearchOptions
from mmretrieve.ranking import Ranking
from mmretrieve.ranking.columns import read_fields
from mmretrieve.registry import RULES
from mmretrieve.request import QUERY_FIELDS, SearchRequest
from mmretrieve.retriever import Retriever
from mmretrieve.vectors import Float32

T = TypeVar("T")
REFRESH_SECONDS = 1.0  # how old the view of the gallery may be, to which other processes may write
MAX_SCORED_QUERIES = 32  # queries whose term scores are kept
MAX_SCORED_NUMBERS = 6_400_000  # items × queries that are kept
MIN_SCORED_QUERIES = 4
MAX_SCORED_ITEMS = 2_000_000  # items of a gallery whose term scores are kept; a larger one is searched for every setting
MAX_ATTEMPTS = 8  # at an answer during which the gallery does not change
IMAGE_SIDE = 2_048  # pixels of an image that is served: enough for any screen
FACET_ITEMS = 20_000  # items that are read for the facets
FACET_CHOICES = 100  # values of a text field that are offered, the most frequent first
FEW_CHOICES = 24  # distinct values of a text field that are always offered
MAX_DISTINCT_SHARE = 0.5  # distinct values per item of a text field with more


@dataclass(frozen=True)
class ScoredQuery:
    """A query whose terms are scored: other weights need no encoding and no search.

    composition: the query under the own weights of its composer. hidden: ids that are left out as references. scores: (terms,
    items) float32 in the order of `rows`; None for a gallery that is too large, or on a server, which is searched instead.
    """

    composition: Composition
    hidden: tuple[str, ...]
    scores: Float32 | None
    rows: Rows


@dataclass(frozen=True)
class Facet:
    """The values of a field among the items that were read: texts with their counts, or the range of numbers."""

    field: str
    choices: tuple[tuple[str, int], ...] = ()
    lowest: float | None = None
    highest: float | None = None


class SearchService:
    """One gallery, as front ends ask it. Safe to use from several threads.

    on_stage: called with the name and the seconds of each stage of searches: "compose" and "search".
    """

    def __init__(self, retriever: Retriever) -> None:
        self.retriever = retriever
        self._refreshed, self._refreshing = monotonic(), Lock()
        fitting = MAX_SCORED_NUMBERS // max(1, len(retriever.gallery))
        self._scored = LruCache[ScoredQuery](min(MAX_SCORED_QUERIES, max(MIN_SCORED_QUERIES, fitting)))
        self.on_stage: Callable[[str, float], object] = lambda _stage, _seconds: None

    @property
    def gallery(self) -> GalleryBase[Any]:
        """The gallery as it was at most REFRESH_SECONDS ago."""
        if monotonic() - self._refreshed > REFRESH_SECONDS and self._refreshing.acquire(blocking=False):
            try:
                self.retriever.gallery.refresh()
                self._refreshed = monotonic()
            finally:
                self._refreshing.release()
        return self.retriever.gallery

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """The names that a request may give as composer, rule and judge; composers are those that combine a reference with a prompt."""
        return {"composers": self.retriever.composers, "rules": RULES.names, "judges": self.retriever.judges}

    def info(self) -> dict[str, Any]:
        """What `Gallery.info` returns, and `choices`."""
        return self.gallery.info() | self.choices

    @property
    def caches(self) -> dict[str, LruCache[Any]]:
        """What is remembered, by name."""
        return self.retriever.caches | {"queries": self._scored}

    def search(self, requests: Sequence[SearchRequest]) -> list[Ranking]:
        """The rankings of `Retriever.search_requests`."""
        _ = self.gallery  # refreshed
        with self._stage("compose"):
            compositions = self.retriever.compose_requests(requests)
        with self._stage("search"):
            return self.retriever.search_compositions(compositions, requests)

    def score(self, request: SearchRequest) -> ScoredQuery:
        """The terms of a request and their scores, from the cache if the same query was scored for the same items.

        Image files of requests must not change; uploads are named by their content.
        """
        gallery = self.gallery
        rows, key = gallery.rows if self._keeps_scores else NO_ROWS, _query_key(request)
        if (cached := self._scored.get(key)) is not None and cached.rows is rows:
            return cached
        composition = self.retriever.compose_requests([request])[0]
        hidden = self.retriever.ids_of_references(request) if request.exclude_reference else ()
        scores = self.retriever.gallery.approximate_term_scores(composition) if self._keeps_scores else None
        scored = ScoredQuery(composition, tuple(hidden), scores, rows)
        if key is not None:
            self._scored.put(key, scored)
        return scored

    def weigh(self, scored: ScoredQuery, request: SearchRequest) -> Composition:
        """The query under the weights of a request, as `Retriever.search` weighs it."""
        return self.retriever.weigh(scored.composition, **request.weighting)

    def rank(self, scored: ScoredQuery, weighted: Composition, request: SearchRequest) -> Ranking:
        """The ranking under other weights of the same terms: the same, to the last digit, as a search with these weights.

        request: its k, min_score, where and exclude end the ranking.
        """
        gallery, options = self.retriever.gallery, SearchOptions.of(request, scored.hidden)
        if scored.scores is None:
            ranking = gallery.search_many([weighted], [options])[0]
        else:
            ranking = gallery.rank(weighted, scored.scores, options)
        ranking = self.retriever.with_answerable([ranking], [scored.composition])[0]
        return self.retriever.with_judge(ranking, request)

    def with_scores(self, request: SearchRequest, answer: Callable[[ScoredQuery], T]) -> T:
        """An answer made of scores of the items that exist; made again if the gallery changed between scoring and ranking.

        Raises GalleryError if it changed during each of MAX_ATTEMPTS attempts.
        """
        for _ in range(MAX_ATTEMPTS):
            scored = self.score(request)
            try:
                result = answer(scored)
            except GalleryError:
                if self._is_current(scored):
                    raise
                continue
            if self._is_current(scored):
                return result
        raise GalleryError(f"the gallery changed during each of {MAX_ATTEMPTS} attempts to answer; try again")

    def item(self, id_: str) -> Item:
        """One item. Raises MissingError for an unknown id."""
        return self.gallery.item(id_)

    def items(self, where: Where | None = None, offset: int = 0, limit: int = 50) -> ItemPage:
        """Some items in insertion order. Raises OptionError for a filter that cannot be read."""
        return self.gallery.list_items(where=where, offset=offset, limit=limit)

    def fields(self, rankings: Sequence[Ranking]) -> list[list[Mapping[str, Any]]]:
        """The fields of each hit of each ranking, read in one call; none for a hit that was deleted since."""
        fields = read_fields(self.retriever.gallery, list(dict.fromkeys(id_ for ranking in rankings for id_ in ranking.ids)))
        return [[fields[id_] for id_ in ranking.ids] for ranking in rankings]

    def thumbnail(self, id_: str) -> bytes:
        """A small JPEG. Raises MissingError for an unknown id, ImageError if the image is gone."""
        try:
            return self.gallery.thumbnail(id_)
        except ImageError as error:
            raise ImageError(f"the image of {id_!r} cannot be read any more; restore its file, or add it again") from error

    def picture(self, id_: str) -> bytes:
        """The image of an item as JPEG, upright and without metadata. Raises as `thumbnail`, and if the file was changed."""
        if not self.gallery.item(id_).path:  # added from memory: all there is
            return self.thumbnail(id_)
        try:
            picture = self.gallery.picture(id_)
        except ImageError as error:
            raise ImageError(
                f"the image of {id_!r} cannot be read any more, or was changed; restore its file, or add it again"
            ) from error
        picture.thumbnail((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    def facets(self) -> list[Facet]:
        """One facet for each field that divides the items, from the first FACET_ITEMS items.

        Fields with one value, and text fields with nearly one value an item, such as titles, are left out.
        """
        fields = [item.fields for item in self.gallery.list_items(limit=FACET_ITEMS).items]
        kinds = self.gallery.manifest.fields
        values = {name: [of[name] for of in fields if of.get(name) is not None] for name in kinds}
        return [_facet(name, kind, values[name]) for name, kind in kinds.items() if _divides(kind, values[name])]

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = perf_counter()
        yield
        self.on_stage(name, perf_counter() - started)

    @property
    def _keeps_scores(self) -> bool:
        gallery = self.retriever.gallery
        return gallery.is_local and len(gallery) <= MAX_SCORED_ITEMS

    def _is_current(self, scored: ScoredQuery) -> bool:
        return scored.scores is None or self.retriever.gallery.rows is scored.rows


def _query_key(request: SearchRequest) -> Hashable:
    """Equal for requests with equal terms; None for images that are not files, which are not kept."""
    if not all(isinstance(image, str | Path) for image in request.image):
        return None
    query = tuple(getattr(request, name) for name in QUERY_FIELDS)
    return query, request.reads_negations, request.exclude_reference


def _divides(kind: FieldType, values: Sequence[object]) -> bool:
    """Whether a field has several values that a person can choose from."""
    distinct = len(set(values))
    is_choice = distinct <= FEW_CHOICES or distinct <= MAX_DISTINCT_SHARE * len(values)
    return distinct > 1 and (kind is FieldType.NUMBER or is_choice)


def _facet(name: str, kind: FieldType, values: Sequence[object]) -> Facet:
    if kind is FieldType.NUMBER:
        numbers = [float(value) for value in values if isinstance(value, int | float)]
        return Facet(name, lowest=min(numbers, default=None), highest=max(numbers, default=None))
    return Facet(name, tuple(Counter(map(str, values)).most_common(FACET_CHOICES)))
