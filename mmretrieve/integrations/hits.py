"""What every framework shows of a hit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmretrieve.ranking import Hit, Ranking
from mmretrieve.ranking.columns import free_name
from mmretrieve.retriever import Retriever


def described(retriever: Retriever, ranking: Ranking) -> Iterator[tuple[Hit, str, dict[str, Any]]]:
    """The hits of a ranking with their titles and metadata: id, title, score, contributions, path, and the fields of the item.

    A field that has the name of one of the others is called "field NAME".
    """
    gallery = retriever.gallery
    for hit, item in zip(ranking, gallery.items(ranking.ids), strict=True):
        title, contributions = gallery.title(hit.id, item.fields), dict(hit.contributions)
        metadata = {"id": hit.id, "title": title, "score": hit.score, "contributions": contributions, "path": hit.path}
        for name in sorted(item.fields):
            metadata[free_name(name, metadata)] = item.fields[name]
        yield hit, title, metadata
