"""What is asked of a gallery: from a weighted composition to a ranking, over the items of one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mmretrieve import scoring
from mmretrieve.composition import Composition
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.store.records import Item
from mmretrieve.gallery.view import CandidateFilter, GalleryView, Rows, SearchOptions
from mmretrieve.ranking import Hit, Ranking
from mmretrieve.vectors import Float32

EXACT_ITEMS = 500_000  # up to here a rule that is not linear scores every item
POOL = 2_000  # candidates of each term beyond


def search_many(now: GalleryView, compositions: Sequence[Composition], cuts: Sequence[SearchOptions]) -> list[Ranking]:
    """A ranking for each composition, the same as `search` gives; linear ones under one filter are one search of the index."""
    rankings: dict[int, Ranking] = {}
    together: dict[str | None, list[int]] = {}
    for i, (composition, cut) in enumerate(zip(compositions, cuts, strict=True)):
        if composition.is_linear:
            together.setdefault(cut.where, []).append(i)
        else:
            rankings[i] = search(now, composition, cut)
    for where, members in together.items():
        rankings |= zip(
            members, _search_linear(now, [compositions[i] for i in members], [cuts[i] for i in members], where), strict=True
        )
    return [rankings[i] for i in range(len(compositions))]


def _search_linear(
    now: GalleryView, compositions: Sequence[Composition], cuts: Sequence[SearchOptions], where: str | None
) -> list[Ranking]:
    """All of them propose candidates at once, and each ranks all candidates that it may show: exact scores decide."""
    for composition in compositions:
        if not composition.direction.any():
            raise OptionError("the weighted terms cancel: nothing is left to search by")
        check_dim(now, composition)
    wanted = max(cut.k + len(cut.exclude) for cut in cuts)
    matching = now.allowed(SearchOptions(wanted, where=where))
    rows = now.proposals(np.stack([composition.direction for composition in compositions]), wanted, matching)
    ranked = []
    scores = np.split(
        now.scores(np.concatenate([c.terms for c in compositions]), rows), np.cumsum([len(c.terms) for c in compositions])[:-1]
    )
    for composition, cut, scores_tn in zip(compositions, cuts, scores, strict=True):
        allowed = now.allowed(cut) if len(cut.exclude) else matching
        shown = ~np.isin(rows, now.rows_of(cut.exclude)) if len(cut.exclude) else np.ones(len(rows), bool)
        ranked.append(_ranked(composition, _Scored(rows[shown], scores_tn[:, shown], whole=True), allowed, cut))
    return _rankings(now, ranked)


def search(now: GalleryView, composition: Composition, cut: SearchOptions) -> Ranking:
    """A linear rule is one search of the index; another scores every item, or beyond EXACT_ITEMS the best of each term."""
    if composition.is_linear:
        return _search_linear(now, [composition], [cut], cut.where)[0]
    check_dim(now, composition)
    allowed = now.allowed(cut)
    if allowed.count > EXACT_ITEMS:
        rows = now.proposals(np.stack([composition.direction, *composition.terms]), max(cut.k, POOL), allowed)
    else:
        rows = now.rows_allowed(allowed)
    scored = _Scored(rows, now.scores(composition.terms, rows), whole=len(rows) == allowed.count)
    return _rankings(now, [_ranked(composition, scored, allowed, cut)])[0]


def rank(now: GalleryView, composition: Composition, scores_tn: Float32, all_: Rows, cut: SearchOptions) -> Ranking:
    """The same ranking, folded from the term scores of all rows."""
    if scores_tn.shape != (len(composition.names), len(all_)):
        raise GalleryError(
            f"term scores of shape {scores_tn.shape} do not fit {len(composition.names)} terms × {len(all_)} items; the gallery has changed, score again"
        )
    allowed = now.allowed(cut)
    rows = now.rows_allowed(allowed)
    scored = _Scored(rows, scores_tn[:, np.searchsorted(all_, rows)], whole=True)
    return _rankings(now, [_ranked(composition, scored, allowed, cut)])[0]


def term_scores(now: GalleryView, composition: Composition, rows: Rows) -> Float32:
    """(t, m) inner product of every term with every one of those rows."""
    check_dim(now, composition)
    return now.scores(composition.terms, rows)


def check_dim(now: GalleryView, composition: Composition) -> None:
    if composition.terms.shape[1] != now.dim:
        raise GalleryError(f"{now.name}: holds vectors of {now.dim} dimensions, the query has {composition.terms.shape[1]}")


@dataclass(frozen=True)
class _Scored:
    """Rows with their (t, m) term scores; `whole` where no other item could come before the best of them."""

    rows: Rows
    scores: Float32
    whole: bool


@dataclass(frozen=True)
class _Ranked:
    """The rows of a ranking, best first, their scores and what each term gives them: all but what is known of the items."""

    rows: Rows
    totals: NDArray[np.float64]
    gave: NDArray[np.float64]
    ranking: Ranking

    def with_items(self, items: Sequence[Item]) -> Ranking:
        parts = zip(items, self.totals.tolist(), self.gave.T.tolist(), strict=True)
        hits = (
            Hit(rank, item.id, total, dict(zip(self.ranking.weights, gave, strict=True)), item.path)
            for rank, (item, total, gave) in enumerate(parts, start=1)
        )
        return replace(self.ranking, hits=tuple(hits))


def _ranked(composition: Composition, scored: _Scored, allowed: CandidateFilter, cut: SearchOptions) -> _Ranked:
    gave = composition.contributions(scored.scores)
    totals = gave.sum(axis=0)
    order = scoring.top_k(totals, cut.k) if len(totals) else np.empty(0, np.intp)
    kept = order if cut.min_score is None else order[totals[order] >= cut.min_score]
    pool = None if scored.whole else len(scored.rows)
    notes = composition.remark, _pool_note(composition, pool), _shortfall(cut, len(kept), len(order), allowed)
    ranking = Ranking(
        (),
        cut.k,
        allowed.count,
        composition.weighing,
        composition.words,
        "; ".join(filter(None, notes)) or None,
        composition.rule.name,
        pool,
        allowed.hidden,
        composition.why,
    )
    return _Ranked(scored.rows[kept], totals[kept], gave[:, kept], ranking)


def _rankings(now: GalleryView, ranked: Sequence[_Ranked]) -> list[Ranking]:
    """What is known of the items of all rankings is read at once."""
    items = iter(now.items_of(np.concatenate([one.rows for one in ranked])))
    return [one.with_items(list(islice(items, len(one.rows)))) for one in ranked]


def _pool_note(composition: Composition, pool: int | None) -> str | None:
    if pool is None:
        return None
    return f"the {composition.rule.name.value} rule scored the {pool} best candidates of its terms, not the whole gallery"


def _shortfall(cut: SearchOptions, found: int, above: int, allowed: CandidateFilter) -> str | None:
    if found >= cut.k:
        return None
    if found < above:
        return f"{found} of the {cut.k} asked for: the others score below {cut.min_score:g}"
    hidden = ", ".join(f"{count} {why}" for why, count in allowed.hidden.items())
    return f"{found} of the {cut.k} asked for: the gallery holds no more" + (f" ({hidden})" if hidden else "")
