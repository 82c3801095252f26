"""What the page does, without the page: plain functions from a look to what it shows, tested without a browser."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from random import Random
from threading import Lock
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from demo import exports, filters
from demo.state import Card, PageRequest, PageView, ResultColumn, Setting, WeightControls, caption_origin, column
from demo.suggestions import Suggester
from mmretrieve import PDV, PUBLISHED, Composition, Ranking
from mmretrieve.errors import GalleryError
from mmretrieve.request import SearchRequest
from mmretrieve.server.request_schemas import SearchBody
from mmretrieve.server.service import SearchService
from mmretrieve.vectors import Float32

T = TypeVar("T")
KEPT = 32  # questions whose term scores are remembered
FOLDED = 100_000  # items up to which they are; beyond, and on a server, every setting is a search of the index
NEAR = 0.98  # cosine from which a hit lies under an earlier one
WHOLE = 100_000  # hits of an export


@dataclass(frozen=True)
class ScoredQuery:
    """A question whose terms are scored: everything a slider needs. `ids` are the items that the scores are of.

    `weighing` is what `Retriever.search` gives `weigh` for this question where no weights are named.
    """

    composition: Composition
    weighing: Mapping[str, Any]
    hidden: list[str]
    scores: Float32 | None
    ids: tuple[str, ...]


class PageService:
    """One gallery behind the page."""

    def __init__(self, answers: SearchService) -> None:
        self.answers = answers
        self._kept: OrderedDict[str, ScoredQuery] = OrderedDict()
        self._lock, self._suggester = Lock(), Suggester(answers.retriever.encoder)

    def start(self) -> dict[str, Any]:
        """What the page must know before anything is asked: settings to choose from, and which fields can be filtered by."""
        setting = self.answers.gallery.setting or PDV()
        knobs = WeightControls(alpha_image=setting.alpha_image, alpha_text=setting.alpha_text, beta=setting.beta)
        seen = self.answers.gallery.listed(limit=filters.SEEN).items
        kinds = self.answers.info()["fields"]
        return {
            "total": len(self.answers.gallery),
            "base": WeightControls().model_dump(),
            "setting": knobs.model_dump(),
            "published": {name: asdict(setting) | {"prompt": 0.0} for name, setting in PUBLISHED.items()},
            "facets": [vars(facet) for facet in filters.facets(kinds, [item.fields for item in seen])],
        }

    def view(self, look: PageRequest) -> PageView:
        """What a look shows: a few items to begin with where nothing is asked, else the ranking, and a second one beside it."""
        started = perf_counter()
        if look.is_empty:
            return PageView(now=self._window(look), total=len(self.answers.gallery), seconds=perf_counter() - started)
        view = self._at_one_moment(look, lambda kept: self._ranked(kept, look))
        return view.model_copy(update={"seconds": perf_counter() - started})

    def suggestions(self, look: PageRequest) -> list[str]:
        """A few words that would change the first reference a little. None without a reference."""
        ask = SearchBody(**look.ask.model_dump(include={"image", "upload", "reference_id"}))
        if not (ask.image or ask.upload or ask.reference_id):
            return []
        composition = self.answers.retriever.compose(self.answers.images(ask) or None, None, **ask.question)
        return self._suggester.words(composition.terms[0])

    def export(self, look: PageRequest, form: exports.ExportFormat) -> exports.ExportFile:
        """The whole ranking of a look, as a file. OptionError where nothing is asked."""
        ranking = self._at_one_moment(look, lambda kept: self._ranking(kept, look, self._weighed(kept, look.knobs), WHOLE))
        return exports.export(ranking, self.answers.fields(ranking), form, self.answers.picture)

    def _ranked(self, kept: ScoredQuery, look: PageRequest) -> PageView:
        return PageView(
            now=self._column(kept, look, look.knobs),
            beside=None if look.beside is None else self._column(kept, look, look.beside),
            words=dict(kept.composition.words),
            **caption_origin(kept.composition),
            tunable=kept.composition.takes_pdv,
            total=len(self.answers.retriever.gallery),
        )

    def _at_one_moment(self, look: PageRequest, answer: Callable[[ScoredQuery], T]) -> T:
        """The answer from scores of the items that are there: asked again where others wrote between scoring and ranking."""
        while True:
            kept = self._scored(look.ask)
            try:
                found = answer(kept)
            except GalleryError:
                if self._holds(kept):
                    raise
                continue
            if self._holds(kept):
                return found

    def _holds(self, kept: ScoredQuery) -> bool:
        return kept.scores is None or self.answers.retriever.gallery.ids is kept.ids

    def _scored(self, ask: SearchBody) -> ScoredQuery:
        """The question composed and its terms scored, from memory where it was asked before of the same items."""
        key = json.dumps([ask.question, ask.prompt, ask.image, ask.upload, ask.exclude_reference])
        gallery = self.answers.gallery
        ids = gallery.ids if self._folds else ()
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept.ids is ids:
                self._kept.move_to_end(key)
                return kept
        kept = self._composed(ask, ids)
        with self._lock:
            self._kept[key] = kept
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return kept

    def _composed(self, ask: SearchBody, ids: tuple[str, ...]) -> ScoredQuery:
        retriever, images, prompt = self.answers.retriever, self.answers.images(ask) or None, ask.prompt or None
        composition = retriever.compose(images, prompt, **ask.question)
        hidden = retriever.ids_of_references(images, prompt, **ask.question) if ask.exclude_reference else []
        scores = retriever.gallery.term_scores(composition) if self._folds else None
        weighing = SearchRequest.read(images, prompt, {}, ask.question).weighing  # type: ignore[arg-type]  # checked there
        return ScoredQuery(composition, weighing, hidden, scores, ids)

    def _weighed(self, kept: ScoredQuery, setting: Setting) -> Composition:
        """Under these knobs where the question has the terms that they weigh; else as `Retriever.search` weighs it."""
        if isinstance(setting, WeightControls) and kept.composition.takes_pdv:
            return weighed(kept.composition, setting)
        return self.answers.retriever.weigh(kept.composition, **kept.weighing)

    @property
    def _folds(self) -> bool:
        gallery = self.answers.retriever.gallery
        return gallery.is_local and len(gallery) <= FOLDED

    def _ranking(self, kept: ScoredQuery, look: PageRequest, composition: Composition, k: int) -> Ranking:
        """Under these weights: folded from scores that exist, or where there are none searched with the same vector."""
        retriever, gallery = self.answers.retriever, self.answers.retriever.gallery
        where, lowest = filters.expression(look.filters, look.ask.where), look.ask.min_score
        exclude = [*look.ask.exclude, *kept.hidden]
        if kept.scores is None:
            ranking = gallery.search(composition, k, exclude=exclude, where=where, min_score=lowest)
        else:
            ranking = gallery.rank(composition, kept.scores, k, exclude=exclude, where=where, min_score=lowest)
        return retriever.judged(ranking, kept.composition)

    def _column(self, kept: ScoredQuery, look: PageRequest, setting: Setting) -> ResultColumn:
        composition = self._weighed(kept, setting)
        ranking = self._ranking(kept, look, composition, look.shown)
        cards = self._cards(ranking, self._floor(composition, ranking))
        shown = stacked(cards, self.answers.retriever.gallery.vectors(ranking.ids))
        return column(ranking, shown, WeightControls.of(composition))

    def _floor(self, composition: Composition, ranking: Ranking) -> float:
        """Below it a match is weak: half way between the best match and the average item of the gallery.

        Automatic scores count from that item, so it scores 0. Where no match is better than the average item, all are weak.
        """
        if not ranking.hits:
            return -np.inf
        mean = self.answers.retriever.gallery.spread.mean.astype(np.float32)
        average = float(composition.contributions((composition.terms @ mean)[:, None]).sum())
        best = ranking[0].score
        return (best + average) / 2 if best > average else np.inf

    def _cards(self, ranking: Ranking, floor: float) -> list[Card]:
        weighing = [name for name, weight in ranking.weights.items() if weight]
        return [
            Card(
                id=hit.id,
                name=name_of(hit.id),
                rank=hit.rank,
                score=hit.score,
                gave={name: hit.contributions[name] for name in weighing},
                fields=dict(fields),
                weak=hit.score < floor,
            )
            for hit, fields in zip(ranking, self.answers.fields(ranking), strict=True)
        ]

    def _window(self, look: PageRequest) -> ResultColumn:
        """A handful of items to start from, the same for the same seed."""
        random, where = Random(look.seed), filters.expression(look.filters, look.ask.where)
        total = self.answers.items(where, 0, 1).total
        found = self.answers.items(where, random.randrange(max(1, total - filters.SEEN + 1)), filters.SEEN).items
        items = random.sample(found, min(look.shown, len(found)))
        cards = [Card(id=item.id, name=name_of(item.id), fields=dict(item.fields)) for item in items]
        whole = len(self.answers.gallery)
        return ResultColumn(
            cards=cards, searched=total, hidden={"hidden by the filter": whole - total} if total < whole else {}
        )


def weighed(composition: Composition, knobs: WeightControls) -> Composition:
    """A composition with the terms of PDV under these knobs; what they weigh beside those counts where it is there."""
    return composition.with_weights({role: weight for role, weight in knobs.weights.items() if role in composition.roles})


def stacked(cards: Sequence[Card], vectors_nd: Float32) -> list[Card]:
    """The cards without those that are nearly an earlier one; each such earlier one names what lies under it."""
    shown: list[Card] = []
    rows: list[int] = []
    near = vectors_nd @ vectors_nd.T >= NEAR
    for row, card in enumerate(cards):
        above = next((at for at, other in enumerate(rows) if near[row, other]), None)
        if above is None:
            shown.append(card)
            rows.append(row)
        else:
            shown[above].copies.append(card.id)
    return shown


def name_of(id_: str) -> str:
    """An item's id as a person would say it: `"summer/red-dress-7.png"` → `"red dress 7"`."""
    return " ".join(PurePosixPath(id_).stem.replace("-", " ").replace("_", " ").split()) or id_
