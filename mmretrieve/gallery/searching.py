"""What is asked of a gallery: from a weighted composition to a ranking, over the items of one moment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mmretrieve import scoring
from mmretrieve.composition import Composition
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.proposing import proposals
from mmretrieve.gallery.snapshot import Rows, Snapshot
from mmretrieve.ranking import Hit, Ranking
from mmretrieve.vectors import Float32

EXACT_ITEMS = 500_000  # up to here a rule that is not linear scores every item
POOL = 2_000  # candidates of each term beyond


@dataclass(frozen=True)
class Cut:
    """What ends a ranking: k, ids that are hidden, an SQL expression that items must fulfil, and a lowest score."""

    k: int
    exclude: Collection[str] = ()
    min_score: float | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", scoring.check_k(self.k))


@dataclass(frozen=True)
class Allowed:
    """The rows that may appear, in order, and how many items were hidden, by what hid them."""

    rows: Rows
    hidden: Mapping[str, int]

    @classmethod
    def by(cls, now: Snapshot, cut: Cut) -> Allowed:
        matching = now.rows if cut.where is None else now.matching(cut.where)
        rows = np.setdiff1d(matching, now.rows_of(cut.exclude), assume_unique=True) if len(cut.exclude) else matching
        hidden = {"excluded": len(matching) - len(rows), "hidden by the filter": len(now) - len(matching)}
        return cls(rows, {why: count for why, count in hidden.items() if count})


def search(now: Snapshot, composition: Composition, cut: Cut) -> Ranking:
    """A linear rule is one search of the index; another scores every item, or beyond EXACT_ITEMS the best of each term."""
    now.check_dim(composition)
    if composition.is_linear and not composition.direction.any():
        raise OptionError("the weighted terms cancel: nothing is left to search by")
    allowed = Allowed.by(now, cut)
    rows = allowed.rows
    if composition.is_linear:
        rows = proposals(now, composition.direction[None], cut.k, rows)
    elif len(rows) > EXACT_ITEMS:
        rows = proposals(now, np.stack([composition.direction, *composition.terms]), max(cut.k, POOL), rows)
    whole = composition.is_linear or len(rows) == len(allowed.rows)
    return _ranking(now, composition, _Scored(rows, now.term_scores(composition, rows), whole), allowed, cut)


def rank(now: Snapshot, composition: Composition, scores_tn: Float32, cut: Cut) -> Ranking:
    """The same ranking, folded from the term scores of all items."""
    if scores_tn.shape != (len(composition.names), len(now)):
        raise GalleryError(
            f"term scores of shape {scores_tn.shape} do not fit {len(composition.names)} terms × {len(now)} items; the gallery has changed, score again"
        )
    allowed = Allowed.by(now, cut)
    positions = np.searchsorted(now.rows, allowed.rows)
    return _ranking(now, composition, _Scored(allowed.rows, scores_tn[:, positions], whole=True), allowed, cut)


@dataclass(frozen=True)
class _Scored:
    """Rows with their (t, m) term scores; `whole` where no other item could come before the best of them."""

    rows: Rows
    scores: Float32
    whole: bool


def _ranking(now: Snapshot, composition: Composition, scored: _Scored, allowed: Allowed, cut: Cut) -> Ranking:
    gave = composition.contributions(scored.scores)
    totals = gave.sum(axis=0)
    order = scoring.top_k(totals, cut.k) if len(totals) else np.empty(0, np.intp)
    kept = order if cut.min_score is None else order[totals[order] >= cut.min_score]
    hits = tuple(
        Hit(rank, item.id, float(totals[at]), dict(zip(composition.names, map(float, gave[:, at]), strict=True)), item.path)
        for rank, (item, at) in enumerate(zip(now.items_of(scored.rows[kept]), kept, strict=True), start=1)
    )
    pool = None if scored.whole else len(scored.rows)
    notes = composition.remark, _pool_note(composition, pool), _shortfall(cut, len(hits), len(order), allowed)
    return Ranking(
        hits,
        cut.k,
        len(allowed.rows),
        composition.weighing,
        composition.words,
        "; ".join(filter(None, notes)) or None,
        composition.rule.name,
        pool,
        allowed.hidden,
    )


def _pool_note(composition: Composition, pool: int | None) -> str | None:
    if pool is None:
        return None
    return f"the {composition.rule.name.value} rule scored the {pool} best candidates of its terms, not the whole gallery"


def _shortfall(cut: Cut, found: int, above: int, allowed: Allowed) -> str | None:
    if found >= cut.k:
        return None
    if found < above:
        return f"{found} of the {cut.k} asked for: the others score below {cut.min_score:g}"
    hidden = ", ".join(f"{count} {why}" for why, count in allowed.hidden.items())
    return f"{found} of the {cut.k} asked for: the gallery holds no more" + (f" ({hidden})" if hidden else "")
