"""What the page does, without a browser: plain functions from a `PageRequest` to what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from random import Random
from time import perf_counter
from typing import Any

import numpy as np

from demo import exports
from demo.filters import expression
from demo.state import Card, PageRequest, PageView, ResultColumn, Setting, WeightControls, caption_origin, column
from demo.suggestions import Suggester
from mmretrieve import PDV, PUBLISHED, Composition, Ranking
from mmretrieve.request import SearchRequest
from mmretrieve.server.context import AppContext
from mmretrieve.service import ScoredQuery
from mmretrieve.vectors import Float32

MIN_COPY_SCORE = 0.98  # cosine from which a hit is shown under an earlier one
MAX_EXPORTED = 100_000  # hits of an export
SAMPLED_ITEMS = 2_000  # items that the first view draws from


class PageService:
    """One gallery behind the page."""

    def __init__(self, context: AppContext) -> None:
        self.service, self.uploads = context.service, context.uploads
        self._suggester = Suggester(self.service.retriever.encoder)

    def start(self) -> dict[str, Any]:
        """What the page needs before the first request: settings to choose from, and fields to filter by."""
        setting = self.service.gallery.setting or PDV()
        controls = WeightControls(alpha_image=setting.alpha_image, alpha_text=setting.alpha_text, beta=setting.beta)
        return {
            "total": len(self.service.gallery),
            "base": WeightControls().model_dump(),
            "setting": controls.model_dump(),
            "published": {name: asdict(setting) | {"prompt": 0.0} for name, setting in PUBLISHED.items()},
            "facets": [vars(facet) for facet in self.service.facets()],
        }

    def view(self, page: PageRequest) -> PageView:
        """The ranking, and a second one beside it if asked for; a few items to begin with if nothing is searched for."""
        started = perf_counter()
        request = self._request(page, page.shown)
        if request.is_empty:
            sample = self._sample(request, page.seed)
            return PageView(now=sample, total=len(self.service.gallery), seconds=perf_counter() - started)
        view = self.service.with_scores(request, lambda scored: self._view(scored, request, page))
        return view.model_copy(update={"seconds": perf_counter() - started})

    def suggestions(self, page: PageRequest) -> list[str]:
        """A few words that would change the first reference a little. None without a reference."""
        request = page.ask.to_request(self.uploads)
        if not request.reference_count:
            return []
        reference = SearchRequest.parse(image=request.image, reference_id=request.reference_id)
        composition = self.service.retriever.compose_requests([reference])[0]
        return self._suggester.words(composition.terms[0])

    def export(self, page: PageRequest, form: exports.ExportFormat) -> exports.ExportFile:
        """The whole ranking as a file. Raises OptionError if nothing is searched for."""
        request = self._request(page, MAX_EXPORTED)
        ranking = self.service.with_scores(
            request, lambda scored: self.service.rank(scored, self._weigh(scored, request, page.knobs), request)
        )
        return exports.export(ranking, self.service.fields(ranking), form, self.service.picture)

    def _request(self, page: PageRequest, k: int) -> SearchRequest:
        request = page.ask.to_request(self.uploads, k=k)
        return replace(request, where=expression(page.filters, request.where))

    def _view(self, scored: ScoredQuery, request: SearchRequest, page: PageRequest) -> PageView:
        return PageView(
            now=self._column(scored, request, page.knobs),
            beside=None if page.beside is None else self._column(scored, request, page.beside),
            words=dict(scored.composition.words),
            **caption_origin(scored.composition),
            tunable=scored.composition.supports_pdv,
            total=len(self.service.retriever.gallery),
        )

    def _weigh(self, scored: ScoredQuery, request: SearchRequest, setting: Setting) -> Composition:
        """Under the controls if the query has the terms that they weigh, else as `Retriever.search` weighs the request."""
        if isinstance(setting, WeightControls) and scored.composition.supports_pdv:
            return weigh_by_controls(scored.composition, setting)
        return self.service.weigh(scored, request)

    def _column(self, scored: ScoredQuery, request: SearchRequest, setting: Setting) -> ResultColumn:
        weighted = self._weigh(scored, request, setting)
        ranking = self.service.rank(scored, weighted, request)
        cards = self._cards(ranking, self._weak_below(weighted, ranking))
        shown = stack_copies(cards, self.service.retriever.gallery.vectors(ranking.ids))
        return column(ranking, shown, WeightControls.of(weighted))

    def _weak_below(self, composition: Composition, ranking: Ranking) -> float:
        """The score below which a match is weak: half way between the best match and the average item of the gallery.

        Automatic scores count from that item, so it scores 0. If no match is better than the average item, all are weak.
        """
        if not ranking.hits:
            return -np.inf
        mean = self.service.retriever.gallery.spread.mean.astype(np.float32)
        average = float(composition.contributions((composition.terms @ mean)[:, None]).sum())
        best = ranking[0].score
        return (best + average) / 2 if best > average else np.inf

    def _cards(self, ranking: Ranking, weak_below: float) -> list[Card]:
        weighted = [name for name, weight in ranking.weights.items() if weight]
        return [
            Card(
                id=hit.id,
                name=readable_name(hit.id),
                rank=hit.rank,
                score=hit.score,
                gave={name: hit.contributions[name] for name in weighted},
                fields=dict(fields),
                weak=hit.score < weak_below,
            )
            for hit, fields in zip(ranking, self.service.fields(ranking), strict=True)
        ]

    def _sample(self, request: SearchRequest, seed: int) -> ResultColumn:
        """A few items to start from, the same for the same seed."""
        random = Random(seed)
        total = self.service.items(request.where, 0, 1).total
        items = self.service.items(request.where, random.randrange(max(1, total - SAMPLED_ITEMS + 1)), SAMPLED_ITEMS).items
        cards = [
            Card(id=item.id, name=readable_name(item.id), fields=dict(item.fields))
            for item in random.sample(items, min(request.k, len(items)))
        ]
        filtered = len(self.service.gallery) - total
        return ResultColumn(cards=cards, searched=total, hidden={"hidden by the filter": filtered} if filtered > 0 else {})


def weigh_by_controls(composition: Composition, controls: WeightControls) -> Composition:
    """A composition with the terms of PDV under these controls; roles that they weigh beside those count if it has them."""
    return composition.with_weights({role: weight for role, weight in controls.weights.items() if role in composition.roles})


def stack_copies(cards: Sequence[Card], vectors_nd: Float32) -> list[Card]:
    """The cards without those that are nearly an earlier one; each such earlier one names its copies."""
    shown: list[Card] = []
    rows: list[int] = []
    is_copy = vectors_nd @ vectors_nd.T >= MIN_COPY_SCORE
    for row, card in enumerate(cards):
        above = next((at for at, other in enumerate(rows) if is_copy[row, other]), None)
        if above is None:
            shown.append(card)
            rows.append(row)
        else:
            shown[above].copies.append(card.id)
    return shown


def readable_name(id_: str) -> str:
    """An item's id as a person reads it: `"summer/red-dress-7.png"` → `"red dress 7"`."""
    return " ".join(PurePosixPath(id_).stem.replace("-", " ").replace("_", " ").split()) or id_
