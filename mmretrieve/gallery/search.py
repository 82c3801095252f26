"""Searches a view of a gallery: from a weighted composition to a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmretrieve import scoring
from mmretrieve.composition import Composition
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.filters import Expression
from mmretrieve.gallery.view import CandidateFilter, GalleryView, Rows, SearchOptions, check_ids, distinct, shown_rows
from mmretrieve.ranking import Hit, Ranking
from mmretrieve.vectors import Float32

MAX_EXACT_ITEMS = 2_000_000  # in a larger gallery, a non-linear rule scores candidates only
MARGIN = 64  # rows after the k best that also show how far off approximate scores are
ERROR_MARGIN = 16  # times the largest error that was seen
ROUNDING = 1e-6  # of a total in float32, relative to the largest: the least error that is assumed
POOL_SIZE = 2_000  # candidates of each term, for non-linear rules


def search(view: GalleryView, composition: Composition, options: SearchOptions) -> Ranking:
    """Returns a ranking. A linear rule is one search of the index; another rule scores all items, or in a large gallery the best of each term."""
    if composition.is_linear:
        return _search_linear(view, [composition], [options], options.where)[0]
    check_dim(view, composition)
    allowed = _allowed_items(view, options)
    if allowed.count > MAX_EXACT_ITEMS:
        queries = np.stack([composition.direction, *composition.terms])
        rows = distinct(np.concatenate(view.candidates(queries, max(options.n_hits, POOL_SIZE), allowed)))
    else:
        rows = view.rows_allowed(allowed)
    pool = None if len(rows) == allowed.count else len(rows)
    best = _decide(view, composition, rows, view.approximate_scores(composition.terms, rows), allowed, options, pool)
    return _read_hits(view, [best])[0]


def search_many(
    view: GalleryView, compositions: Sequence[Composition], options_of_each: Sequence[SearchOptions]
) -> list[Ranking]:
    """Returns a ranking for each composition, as `search` does. Linear ones with one filter and one k share a search of the index."""
    rankings: dict[int, Ranking] = {}
    linear_queries: dict[tuple[Expression | None, int], list[int]] = {}
    for i, (composition, options) in enumerate(zip(compositions, options_of_each, strict=True)):
        if composition.is_linear:
            linear_queries.setdefault((options.where, options.n_hits + len(options.exclude)), []).append(i)
        else:
            rankings[i] = search(view, composition, options)
    for (where, _), queries in linear_queries.items():
        results = _search_linear(view, [compositions[i] for i in queries], [options_of_each[i] for i in queries], where)
        rankings |= zip(queries, results, strict=True)
    return [rankings[i] for i in range(len(compositions))]


def rank(view: GalleryView, composition: Composition, scores_tn: Float32, all_rows: Rows, options: SearchOptions) -> Ranking:
    """Combines the term scores of all rows, which may be approximate, into the ranking that `search` returns."""
    if scores_tn.shape != (len(composition.names), len(all_rows)):
        raise GalleryError(
            f"term scores of shape {scores_tn.shape} do not fit {len(composition.names)} terms × {len(all_rows)} items; the gallery has changed, score again"
        )
    allowed = _allowed_items(view, options)
    rows = view.rows_allowed(allowed)
    scores_of_rows = scores_tn if len(rows) == len(all_rows) else scores_tn[:, np.searchsorted(all_rows, rows)]
    best = _decide(view, composition, rows, scores_of_rows, allowed, options)
    return _read_hits(view, [best])[0]


def term_scores(view: GalleryView, composition: Composition, rows: Rows, *, exact: bool = True) -> Float32:
    """Returns (t, m) inner products of t terms and m rows."""
    check_dim(view, composition)
    return (view.scores if exact else view.approximate_scores)(composition.terms, rows)


def check_dim(view: GalleryView, composition: Composition) -> None:
    """Raises GalleryError if the terms have another dimension than the gallery."""
    if composition.terms.shape[1] != view.dim:
        raise GalleryError(f"{view.name}: has vectors of {view.dim} dimensions, the query has {composition.terms.shape[1]}")


def _search_linear(
    view: GalleryView, compositions: Sequence[Composition], options_of_each: Sequence[SearchOptions], where: Expression | None
) -> list[Ranking]:
    """Searches for compositions that ask for equally many rows at once. The exact scores of its own candidates decide each ranking."""
    directions = [composition.direction for composition in compositions]
    for composition, direction in zip(compositions, directions, strict=True):
        if not direction.any():
            if any(composition.weights):
                raise OptionError(
                    "the weighted terms cancel each other, so nothing is left to search by; change one of the weights"
                )
            raise OptionError("all weights are 0, so there is nothing to search by; give one term a weight other than 0")
        check_dim(view, composition)
    n_asked = options_of_each[0].n_hits + len(options_of_each[0].exclude)
    matching = view.matching(where)
    excluded = list(dict.fromkeys(id_ for options in options_of_each for id_ in check_ids(options.exclude)))
    row_of = dict(zip(excluded, view.rows_of(excluded).tolist(), strict=True))
    candidates = view.candidates(np.array(directions), n_asked, matching)
    every = candidates[0] if len(candidates) == 1 else distinct(np.concatenate(candidates))
    scores = iter(view.scores(np.concatenate([composition.terms for composition in compositions]), every))
    best = []
    for composition, options, rows in zip(compositions, options_of_each, candidates, strict=True):
        scores_tn = np.array(list(islice(scores, len(composition.terms))))
        scores_tm = scores_tn if len(rows) == len(every) else scores_tn[:, np.searchsorted(every, rows)]
        if len(options.exclude):
            hidden = np.array([row_of[id_] for id_ in options.exclude])
            shown = shown_rows(rows, hidden)
            best.append(_select_best(composition, rows[shown], scores_tm[:, shown], view.without(matching, hidden), options))
        else:
            best.append(_select_best(composition, rows, scores_tm, matching, options))
    return _read_hits(view, best)


def _allowed_items(view: GalleryView, options: SearchOptions) -> CandidateFilter:
    allowed = view.matching(options.where)
    return view.without(allowed, view.rows_of(options.exclude)) if len(options.exclude) else allowed


@dataclass(frozen=True)
class _BestRows:
    """The rows of a ranking, best first, with their scores and (t, m) contributions, and the other fields of the ranking."""

    rows: Rows
    scores: NDArray[np.float64]
    contributions: NDArray[np.float64]
    fields: Mapping[str, Any]

    def with_hits(self, ids_and_paths: Sequence[tuple[str, str]]) -> Ranking:
        """Returns the ranking with a hit for each of its rows."""
        names, contributions = tuple(self.fields["weights"]), zip(*self.contributions.tolist(), strict=True)
        rows = zip(ids_and_paths, self.scores.tolist(), contributions, strict=True)
        hits = [
            Hit(rank, id_, score, dict(zip(names, values)), path)  # noqa: B905 - a check for each hit takes as long again
            for rank, ((id_, path), score, values) in enumerate(rows, start=1)
        ]
        return Ranking(tuple(hits), **self.fields)


def _decide(
    view: GalleryView,
    composition: Composition,
    rows: Rows,
    scores_tm: Float32,
    allowed: CandidateFilter,
    options: SearchOptions,
    pool: int | None = None,
) -> _BestRows:
    """Selects the best of m rows by their (t, m) term scores, which may be approximate: the exact scores of the best decide.

    The exact scores of the first rows show how far off the approximate totals are. Every row whose total comes that near to the k best,
    with a wide margin, is scored exactly.
    """
    totals, n_hits = composition.totals(scores_tm), options.n_hits
    first = _rows_above(totals, n_hits + MARGIN)
    exact = composition.contributions(view.scores(composition.terms, rows[first])).sum(axis=0)
    error = max(float(np.abs(exact - totals[first]).max(initial=0)), ROUNDING * float(np.abs(exact).max(initial=0)))
    lowest = np.partition(exact, -n_hits)[-n_hits] if len(exact) >= n_hits else -np.inf
    near = np.flatnonzero(totals >= lowest - ERROR_MARGIN * error)
    return _select_best(composition, rows[near], view.scores(composition.terms, rows[near]), allowed, options, pool)


def _rows_above(totals: Float32, count: int) -> NDArray[np.intp]:
    """Returns the positions of the highest totals, at least `count`."""
    if count >= len(totals):
        return np.arange(len(totals))
    return np.flatnonzero(totals >= np.partition(totals, -count)[-count])


def _select_best(
    composition: Composition,
    rows: Rows,
    scores_tm: Float32,
    allowed: CandidateFilter,
    options: SearchOptions,
    pool: int | None = None,
) -> _BestRows:
    """Selects the best of m rows by their (t, m) term scores. `pool` is m if items that are not among the rows could rank higher."""
    contributions = composition.contributions(scores_tm)
    scores = contributions.sum(axis=0)
    top = scoring.top_k(scores, options.n_hits) if len(scores) else np.empty(0, np.intp)
    best = top if options.min_score is None else top[scores[top] >= options.min_score]
    notes = (
        composition.remark,
        None if pool is None else _pool_note(composition, pool),
        _shortfall_note(options, len(best), len(top), allowed) if len(best) < options.k else None,
    )
    fields = {
        "k": options.k,
        "searched": allowed.count,
        "weights": composition.term_weights,
        "words": composition.words,
        "note": "; ".join(filter(None, notes)) or None,
        "rule": composition.rule.name,
        "pool": pool,
        "hidden": allowed.hidden,
        "why": composition.why,
    }
    return _BestRows(rows[best], scores[best], contributions[:, best], fields)


def _read_hits(view: GalleryView, best_of_each: Sequence[_BestRows]) -> list[Ranking]:
    """Reads the ids and paths of all rankings at once."""
    ids_and_paths = iter(view.ids_and_paths(np.concatenate([best.rows for best in best_of_each])))
    return [best.with_hits(list(islice(ids_and_paths, len(best.rows)))) for best in best_of_each]


def _pool_note(composition: Composition, pool: int) -> str:
    return f"the {composition.rule.name} rule scored the {pool} best candidates of its terms, not the whole gallery"


def _shortfall_note(options: SearchOptions, n_hits: int, n_ranked: int, allowed: CandidateFilter) -> str:
    if n_hits < n_ranked:
        return f"{n_hits} of the {options.k} asked for: the others score below {options.min_score:g}"
    hidden = ", ".join(f"{count} {why}" for why, count in allowed.hidden.items())
    return f"{n_hits} of the {options.k} asked for: " + (
        f"the gallery has no others ({hidden})" if hidden else "the gallery has no more"
    )
