"""What every framework shows of a hit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmretrieve.ranking import Hit, Ranking
from mmretrieve.retriever import Retriever


def described(retriever: Retriever, ranking: Ranking) -> Iterator[tuple[Hit, str, dict[str, Any]]]:
    """The hits of a ranking with their titles, and with their fields, score and contributions as metadata."""
    gallery = retriever.gallery
    for hit, item in zip(ranking, gallery.items(ranking.ids), strict=True):
        more = {"id": hit.id, "score": hit.score, "contributions": dict(hit.contributions), "path": hit.path}
        yield hit, gallery.title(hit.id, item.fields), {**item.fields, **more}
