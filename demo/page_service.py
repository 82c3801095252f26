"""The functions of the page without a browser: from a `PageRequest` to a `PageView`, suggestions or a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from random import Random
from time import perf_counter
from typing import Any

import numpy as np

from demo.schemas import Card, PageRequest, PageView, ResultColumn, Setting, WeightControls, caption_origin, combine_filters
from demo.suggestions import Suggestions
from mmretrieve import PDV, PUBLISHED, Composition, Ranking
from mmretrieve.gallery.view import FILTERED
from mmretrieve.options import BUILT_IN
from mmretrieve.ranking import files
from mmretrieve.request import SearchRequest
from mmretrieve.server.context import AppContext
from mmretrieve.service import ScoredQuery
from mmretrieve.vectors import Float32

MIN_COPY_SCORE = 0.98  # cosine from which a result is a near-duplicate of one above it
MAX_EXPORTED = 100_000  # results of an export
MAX_SAMPLED = 2_000  # consecutive items that a sample is drawn from


class PageService:
    """The page of one gallery."""

    def __init__(self, context: AppContext) -> None:
        self.service, self.uploads = context.service, context.uploads
        self._suggestions = Suggestions(self.service)

    def start(self) -> dict[str, Any]:
        """What the page needs before the first request: the size of the gallery, settings, help texts, and fields to filter by."""
        setting = self.service.gallery.setting or PDV()
        controls = WeightControls(alpha_image=setting.alpha_image, alpha_text=setting.alpha_text, beta=setting.beta)
        return {
            "total": len(self.service.gallery),
            "built_in_model": self.service.retriever.encoder.identity.model == BUILT_IN,
            "base": WeightControls().model_dump(),
            "setting": controls.model_dump(),
            "published": {name: asdict(setting) | {"prompt": 0.0} for name, setting in PUBLISHED.items()},
            **self.service.choices,
            "help": {name: field.description for name, field in WeightControls.model_fields.items()},
            "facets": [vars(facet) for facet in self.service.facets()],
        }

    def view(self, page: PageRequest) -> PageView:
        """The ranking, and that of the comparison if there is one; sample items if the query is empty."""
        started = perf_counter()
        request = self._request(page)
        if request.is_empty:
            sample = self._sample(request, page.seed)
            return PageView(results=sample, total=len(self.service.gallery), seconds=perf_counter() - started)
        view = self.service.with_scores(request, lambda scored: self._view(scored, request, page))
        return view.model_copy(update={"seconds": perf_counter() - started})

    def suggestions(self, page: PageRequest) -> list[str]:
        """A few words to try as prompts."""
        return self._suggestions.suggest(page.to_request(self.uploads), page.seed)

    def export(self, page: PageRequest, form: files.ExportFormat) -> files.ExportFile:
        """The whole ranking as a file. Raises OptionError if the query is empty."""
        request = replace(self._request(page), k=MAX_EXPORTED)
        ranking = self.service.with_scores(
            request, lambda scored: self.service.rank(scored, self._weigh(scored, request, page.controls), request)
        )
        return files.export(ranking, self.service.fields([ranking])[0], form, self.service.picture)

    def _request(self, page: PageRequest) -> SearchRequest:
        request = page.to_request(self.uploads)
        if not (request.reference_count and request.prompt):  # the chosen method waits for something to compose
            request = replace(request, composer=None, rule=None)
        exclude = (*request.exclude, *request.less_like)  # what one does not want is not shown
        return replace(request, where=combine_filters(page.filters, request.where), exclude=exclude)

    def _view(self, scored: ScoredQuery, request: SearchRequest, page: PageRequest) -> PageView:
        return PageView(
            results=self._column(scored, request, page.controls),
            comparison=None if page.comparison is None else self._column(scored, request, page.comparison),
            words=dict(scored.composition.words),
            **caption_origin(scored.composition),
            adjustable=scored.composition.supports_pdv,
            total=len(self.service.retriever.gallery),
        )

    def _weigh(self, scored: ScoredQuery, request: SearchRequest, setting: Setting) -> Composition:
        """Weighted by the controls if they apply to the query, else as `Retriever.search` weights the request."""
        if isinstance(setting, WeightControls) and scored.composition.supports_pdv:
            return weigh_by_controls(scored.composition, setting)
        return self.service.weigh(scored, request)

    def _column(self, scored: ScoredQuery, request: SearchRequest, setting: Setting) -> ResultColumn:
        weighted = self._weigh(scored, request, setting)
        ranking = self.service.rank(scored, weighted, request)
        cards = self._cards(ranking, self._weak_below(weighted, ranking))
        shown = stack_copies(cards, self.service.retriever.gallery.vectors(ranking.ids))
        return ResultColumn.of(ranking, shown, WeightControls.of(weighted))

    def _weak_below(self, composition: Composition, ranking: Ranking) -> float:
        """The score below which a match is weak: the mean of the best score and the score of the average item of the gallery.

        With automatic weights the average item scores 0. If no match scores above the average item, all are weak.
        """
        if not ranking.hits:
            return -np.inf
        mean = self.service.retriever.gallery.spread.mean.astype(np.float32)
        average = float(composition.contributions((composition.terms @ mean)[:, None]).sum())
        best = ranking[0].score
        return (best + average) / 2 if best > average else np.inf

    def _cards(self, ranking: Ranking, weak_below: float) -> list[Card]:
        gallery, unused = self.service.gallery, {name for name, weight in ranking.weights.items() if not weight}
        return [
            Card(
                id=hit.id,
                title=gallery.title(hit.id, fields),
                rank=hit.rank,
                score=hit.score,
                contributions={name: value for name, value in hit.contributions.items() if name not in unused},
                fields=dict(fields),
                weak=hit.score < weak_below,
            )
            for hit, fields in zip(ranking, self.service.fields([ranking])[0], strict=True)
        ]

    def _sample(self, request: SearchRequest, seed: int) -> ResultColumn:
        """A random sample of items, the same for the same seed."""
        random = Random(seed)
        total = self.service.items(request.where, 0, 1).total
        items = self.service.items(request.where, random.randrange(max(1, total - MAX_SAMPLED + 1)), MAX_SAMPLED).items
        cards = [
            Card(id=item.id, title=self.service.gallery.title(item.id, item.fields), fields=dict(item.fields))
            for item in random.sample(items, min(request.k, len(items)))
        ]
        filtered = len(self.service.gallery) - total
        hidden = {FILTERED: filtered} if filtered > 0 else {}
        return ResultColumn.of(Ranking((), k=request.k, searched=total, weights={}, hidden=hidden), cards)


def weigh_by_controls(composition: Composition, controls: WeightControls) -> Composition:
    """A composition with the terms of PDV, weighted by these controls. Weights of roles that it does not have are ignored."""
    return composition.with_weights({role: weight for role, weight in controls.weights.items() if role in composition.roles})


def stack_copies(cards: Sequence[Card], vectors_nd: Float32) -> list[Card]:
    """The cards without near-duplicates of earlier cards; the earlier card lists them as its copies."""
    shown: list[Card] = []
    rows: list[int] = []
    is_copy = vectors_nd @ vectors_nd.T >= MIN_COPY_SCORE
    for row, card in enumerate(cards):
        original = next((at for at, other in enumerate(rows) if is_copy[row, other]), None)
        if original is None:
            shown.append(card)
            rows.append(row)
        else:
            shown[original].copies.append(card.id)
    return shown
