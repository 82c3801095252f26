"""A ranking as HTML: pictures with their contributions, and how the query was read."""

from __future__ import annotations

from typing import Any

from mmretrieve import notebook
from mmretrieve.ranking.hits import Hit, Ranking


def ranking_html(ranking: Ranking, count: int) -> str:
    """A fragment of the first hits."""
    longest = max((abs(value) for hit in ranking for value in hit.contributions.values()), default=0.0) or 1.0
    cards = [_card(ranking, hit, longest) for hit in ranking[:count]]
    weights = ((name, f"× {weight:.3g}") for name, weight in ranking.weights.items() if weight)
    remarks = [
        f"{len(ranking):,} of {ranking.searched:,} items",
        None if ranking.has_match else "no good match",
        ranking.why,
        f"caption: {ranking.caption}" if ranking.caption else None,
        ranking.note,
        f"{len(ranking) - count:,} more are not shown" if len(ranking) > count else None,
    ]
    return notebook.fragment(notebook.legend(weights), cards, remarks)


def _card(ranking: Ranking, hit: Hit, longest: float) -> str:
    gallery = ranking.gallery
    bars = (notebook.bar(term, value, longest) for term, value in hit.contributions.items())
    lines = [notebook.line(f"{hit.rank} · {hit.score:.3f}"), *bars]
    return notebook.card(None if gallery is None else gallery.thumbnail, hit.id, _title(gallery, hit.id), lines)


def _title(gallery: Any, id_: str) -> str:
    try:
        return id_ if gallery is None else str(gallery.title(id_, gallery.item(id_).fields))
    except Exception:  # the item was deleted, or the gallery cannot be read any more: the rest is shown
        return id_
