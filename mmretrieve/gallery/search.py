"""Searches a view of a gallery: from a weighted composition to a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mmretrieve import scoring
from mmretrieve.composition import Composition
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.filters import Expression
from mmretrieve.gallery.store.records import Item
from mmretrieve.gallery.view import CandidateFilter, GalleryView, Rows, SearchOptions
from mmretrieve.ranking import Hit, Ranking
from mmretrieve.vectors import Float32

MAX_EXACT_ITEMS = 500_000  # in a larger gallery, a non-linear rule scores candidates only
POOL_SIZE = 2_000  # candidates of each term, for non-linear rules


def search_many(
    view: GalleryView, compositions: Sequence[Composition], options_of_each: Sequence[SearchOptions]
) -> list[Ranking]:
    """Returns a ranking for each composition, as `search` does. Linear ones with one filter share one search of the index."""
    rankings: dict[int, Ranking] = {}
    together: dict[Expression | None, list[int]] = {}
    for i, (composition, options) in enumerate(zip(compositions, options_of_each, strict=True)):
        if composition.is_linear:
            together.setdefault(options.where, []).append(i)
        else:
            rankings[i] = search(view, composition, options)
    for where, members in together.items():
        rankings |= zip(
            members,
            _search_linear(view, [compositions[i] for i in members], [options_of_each[i] for i in members], where),
            strict=True,
        )
    return [rankings[i] for i in range(len(compositions))]


def _search_linear(
    view: GalleryView, compositions: Sequence[Composition], options_of_each: Sequence[SearchOptions], where: Expression | None
) -> list[Ranking]:
    """Searches for all compositions at once. Each ranks all candidates that it may show by their exact scores."""
    for composition in compositions:
        if not composition.direction.any():
            raise OptionError("the weighted terms cancel: nothing is left to search by")
        check_dim(view, composition)
    wanted = max(options.k + len(options.exclude) for options in options_of_each)
    matching = view.allowed(SearchOptions(wanted, where=where))
    rows = view.candidates(np.stack([composition.direction for composition in compositions]), wanted, matching)
    ranked = []
    scores = np.split(
        view.scores(np.concatenate([c.terms for c in compositions]), rows), np.cumsum([len(c.terms) for c in compositions])[:-1]
    )
    for composition, options, scores_tn in zip(compositions, options_of_each, scores, strict=True):
        allowed = view.allowed(options) if len(options.exclude) else matching
        shown = ~np.isin(rows, view.rows_of(options.exclude)) if len(options.exclude) else np.ones(len(rows), bool)
        ranked.append(_ranked(composition, _Scored(rows[shown], scores_tn[:, shown], whole=True), allowed, options))
    return _rankings(view, ranked)


def search(view: GalleryView, composition: Composition, options: SearchOptions) -> Ranking:
    """Returns a ranking. A linear rule is one search of the index; another rule scores all items, or in a large gallery the best of each term."""
    if composition.is_linear:
        return _search_linear(view, [composition], [options], options.where)[0]
    check_dim(view, composition)
    allowed = view.allowed(options)
    if allowed.count > MAX_EXACT_ITEMS:
        rows = view.candidates(np.stack([composition.direction, *composition.terms]), max(options.k, POOL_SIZE), allowed)
    else:
        rows = view.rows_allowed(allowed)
    scored = _Scored(rows, view.scores(composition.terms, rows), whole=len(rows) == allowed.count)
    return _rankings(view, [_ranked(composition, scored, allowed, options)])[0]


def rank(view: GalleryView, composition: Composition, scores_tn: Float32, all_: Rows, options: SearchOptions) -> Ranking:
    """Combines the term scores of all rows into the ranking that `search` returns."""
    if scores_tn.shape != (len(composition.names), len(all_)):
        raise GalleryError(
            f"term scores of shape {scores_tn.shape} do not fit {len(composition.names)} terms × {len(all_)} items; the gallery has changed, score again"
        )
    allowed = view.allowed(options)
    rows = view.rows_allowed(allowed)
    scored = _Scored(rows, scores_tn[:, np.searchsorted(all_, rows)], whole=True)
    return _rankings(view, [_ranked(composition, scored, allowed, options)])[0]


def term_scores(view: GalleryView, composition: Composition, rows: Rows) -> Float32:
    """Returns (t, m) inner products of t terms and m rows."""
    check_dim(view, composition)
    return view.scores(composition.terms, rows)


def check_dim(view: GalleryView, composition: Composition) -> None:
    """Raises GalleryError if the terms have another dimension than the gallery."""
    if composition.terms.shape[1] != view.dim:
        raise GalleryError(f"{view.name}: holds vectors of {view.dim} dimensions, the query has {composition.terms.shape[1]}")


@dataclass(frozen=True)
class _Scored:
    """Rows with their (t, m) term scores. `whole`: no other item could rank before the best of them."""

    rows: Rows
    scores: Float32
    whole: bool


@dataclass(frozen=True)
class _Ranked:
    """The rows of a ranking, best first, with scores and contributions, before their items are read."""

    rows: Rows
    totals: NDArray[np.float64]
    contributions: NDArray[np.float64]
    ranking: Ranking

    def with_items(self, items: Sequence[Item]) -> Ranking:
        rows = zip(items, self.totals.tolist(), self.contributions.T.tolist(), strict=True)
        hits = (
            Hit(rank, item.id, total, dict(zip(self.ranking.weights, contributions, strict=True)), item.path)
            for rank, (item, total, contributions) in enumerate(rows, start=1)
        )
        return replace(self.ranking, hits=tuple(hits))


def _ranked(composition: Composition, scored: _Scored, allowed: CandidateFilter, options: SearchOptions) -> _Ranked:
    contributions = composition.contributions(scored.scores)
    totals = contributions.sum(axis=0)
    order = scoring.top_k(totals, options.k) if len(totals) else np.empty(0, np.intp)
    best = order if options.min_score is None else order[totals[order] >= options.min_score]
    pool = None if scored.whole else len(scored.rows)
    notes = composition.remark, _pool_note(composition, pool), _shortfall_note(options, len(best), len(order), allowed)
    ranking = Ranking(
        (),
        options.k,
        allowed.count,
        composition.term_weights,
        composition.words,
        "; ".join(filter(None, notes)) or None,
        composition.rule.name,
        pool,
        allowed.hidden,
        composition.why,
    )
    return _Ranked(scored.rows[best], totals[best], contributions[:, best], ranking)


def _rankings(view: GalleryView, ranked: Sequence[_Ranked]) -> list[Ranking]:
    """Reads the items of all rankings at once."""
    items = iter(view.items_of(np.concatenate([one.rows for one in ranked])))
    return [one.with_items(list(islice(items, len(one.rows)))) for one in ranked]


def _pool_note(composition: Composition, pool: int | None) -> str | None:
    if pool is None:
        return None
    return f"the {composition.rule.name} rule scored the {pool} best candidates of its terms, not the whole gallery"


def _shortfall_note(options: SearchOptions, n_hits: int, n_ranked: int, allowed: CandidateFilter) -> str | None:
    if n_hits >= options.k:
        return None
    if n_hits < n_ranked:
        return f"{n_hits} of the {options.k} asked for: the others score below {options.min_score:g}"
    hidden = ", ".join(f"{count} {why}" for why, count in allowed.hidden.items())
    return f"{n_hits} of the {options.k} asked for: " + (
        f"the gallery has no others ({hidden})" if hidden else "the gallery has no more"
    )
