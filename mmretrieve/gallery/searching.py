"""What is asked of a gallery: from a weighted composition to a ranking, over the items of one moment."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmretrieve import scoring
from mmretrieve.composition import Composition
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.snapshot import Snapshot
from mmretrieve.ranking import Hit, Ranking
from mmretrieve.vectors import Float32

EXACT_ITEMS = 500_000  # up to here a rule that is not linear scores every item
POOL = 2_000  # candidates of each term beyond


@dataclass(frozen=True)
class Cut:
    """What ends a ranking: k, ids that are hidden, and a lowest score."""

    k: int
    exclude: Collection[str] = ()
    min_score: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", scoring.check_k(self.k))


def search(now: Snapshot, composition: Composition, cut: Cut) -> Ranking:
    """A linear rule is one search of the index; another scores every item, or beyond EXACT_ITEMS the best of each term."""
    now.check_dim(composition)
    if not composition.is_linear and len(now) <= EXACT_ITEMS:
        return rank(now, composition, now.term_scores(composition), cut)
    if composition.is_linear and not composition.direction.any():
        raise OptionError("the weighted terms cancel: nothing is left to search by")
    hidden = _hidden(now, cut)
    depth = cut.k if composition.is_linear else max(cut.k, POOL)
    queries = [composition.direction] if composition.is_linear else [composition.direction, *composition.terms]
    pool = now.candidates(queries, min(depth + len(hidden), len(now)))
    positions = pool[~np.isin(pool, hidden)]
    scores = scoring.term_scores(composition.terms, now.vectors_at(positions))
    return _ranking(now, composition, _Scored(positions, scores, whole=composition.is_linear), cut)


def rank(now: Snapshot, composition: Composition, scores_tn: Float32, cut: Cut) -> Ranking:
    """The same ranking, folded from the term scores of all items."""
    if scores_tn.shape != (len(composition.names), len(now)):
        raise GalleryError(
            f"term scores of shape {scores_tn.shape} do not fit {len(composition.names)} terms × {len(now)} items; the gallery has changed, score again"
        )
    positions = np.delete(np.arange(len(now)), _hidden(now, cut))
    return _ranking(now, composition, _Scored(positions, scores_tn[:, positions], whole=True), cut)


@dataclass(frozen=True)
class _Scored:
    """Positions with their (t, m) term scores; `whole` where no other item could come before the best of them."""

    positions: NDArray[np.int64]
    scores: Float32
    whole: bool


def _hidden(now: Snapshot, cut: Cut) -> list[int]:
    return sorted(set(now.positions(cut.exclude)))


def _ranking(now: Snapshot, composition: Composition, scored: _Scored, cut: Cut) -> Ranking:
    gave = composition.contributions(scored.scores)
    totals = gave.sum(axis=0)
    order = scoring.top_k(totals, cut.k) if len(totals) else np.empty(0, np.intp)
    kept = order if cut.min_score is None else order[totals[order] >= cut.min_score]
    hits = tuple(
        Hit(rank, item.id, float(totals[at]), dict(zip(composition.names, map(float, gave[:, at]), strict=True)), item.path)
        for rank, (item, at) in enumerate(zip(now.items_at(scored.positions[kept]), kept, strict=True), start=1)
    )
    hidden, pool = len(_hidden(now, cut)), None if scored.whole else len(scored.positions)
    notes = composition.remark, _pool_note(composition, pool), _shortfall(cut, len(hits), len(order), hidden)
    return Ranking(
        hits,
        cut.k,
        len(now) - hidden,
        composition.weighing,
        composition.words,
        "; ".join(filter(None, notes)) or None,
        composition.rule.name,
        pool,
    )


def _pool_note(composition: Composition, pool: int | None) -> str | None:
    if pool is None:
        return None
    return f"the {composition.rule.name.value} rule scored the {pool} best candidates of its terms, not the whole gallery"


def _shortfall(cut: Cut, found: int, above: int, hidden: int) -> str | None:
    if found >= cut.k:
        return None
    if found < above:
        return f"{found} of the {cut.k} asked for: the others score below {cut.min_score:g}"
    return f"{found} of the {cut.k} asked for: the gallery holds no more" + (f" ({hidden} excluded)" if hidden else "")
