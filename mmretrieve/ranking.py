"""The result of a search: hits in order, each with its score and the contribution of every term."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, overload

from mmretrieve.options import NO_MATCH, RuleName


@dataclass(frozen=True)
class Hit:
    """One item of a ranking.

    Parameters
    ----------
    rank : int
        The position, from 1.
    id : str
        The id of the item.
    score : float
        Higher is better.
    contributions : mapping of str to float
        Term → its contribution to the score: weight × term score under a linear rule. The contributions sum to `score`.
    path : str, optional
        The file of the image; None if the item has none.

    Examples
    --------
    >>> from mmretrieve import Hit
    >>> Hit(rank=1, id="a.jpg", score=0.75, contributions={"image": 0.5, "prompt": 0.25})
    Hit(rank=1, id='a.jpg', score=0.75, path=None)
    """

    rank: int
    id: str
    score: float
    contributions: Mapping[str, float] = field(repr=False)
    path: str | None = None

    def __init__(self, rank: int, id: str, score: float, contributions: Mapping[str, float], path: str | None = None) -> None:
        values = self.__dict__  # a ranking may have thousands of hits, and a generated `__init__` takes twice as long
        values["rank"], values["id"], values["score"] = rank, id, score
        values["contributions"], values["path"] = contributions, path

    def to_dict(self) -> dict[str, Any]:
        """Returns the hit as JSON values.

        Returns
        -------
        dict of str to Any
            Every field by its name.

        Examples
        --------
        >>> from mmretrieve import Hit
        >>> Hit(rank=1, id="a.jpg", score=0.75, contributions={"image": 0.75}).to_dict()
        {'rank': 1, 'id': 'a.jpg', 'score': 0.75, 'contributions': {'image': 0.75}, 'path': None}
        """
        return {**vars(self), "contributions": dict(self.contributions)}


@dataclass(frozen=True)
class Ranking:
    """The best hits of a search, best first. It behaves like a sequence of `Hit`.

    Parameters
    ----------
    hits : tuple of Hit
        The hits, at most `k`.
    k : int
        The number of hits that was requested.
    searched : int
        The number of items that could appear.
    weights : mapping of str to float
        Term → its weight.
    words : mapping of str to str
        Term → the text it encodes, for terms of text.
    note : str, optional
        Remarks on the result, such as why there are fewer than `k` hits.
    rule : RuleName, default=RuleName.LINEAR
        The score rule.
    pool : int, optional
        The number of candidates that a non-linear rule scored; None if it scored every item or the rule is linear.
    hidden : mapping of str to int
        Reason → the number of items that it excluded.
    why : str, optional
        The automatic weights and the reason for them, in one line.
    answerable : float, optional
        How well the gallery matches the query, from 0 (no match) to 1. Comparable between queries.

    Examples
    --------
    >>> from mmretrieve import Hit, Ranking
    >>> ranking = Ranking((Hit(1, "a.jpg", 0.75, {"image": 0.75}),), k=10, searched=1, weights={"image": 1.0})
    >>> len(ranking), ranking.ids, ranking[0].score
    (1, ('a.jpg',), 0.75)
    """

    hits: tuple[Hit, ...]
    k: int
    searched: int
    weights: Mapping[str, float]
    words: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    rule: str = RuleName.LINEAR
    pool: int | None = None
    hidden: Mapping[str, int] = field(default_factory=dict)
    why: str | None = None
    answerable: float | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the hits, best first."""
        return tuple(hit.id for hit in self.hits)

    @property
    def caption(self) -> str | None:
        """The caption of the (first) reference image; None if the composer uses no caption."""
        return self.words.get("text")

    @property
    def has_match(self) -> bool:
        """False if no item of the gallery matches the query: `answerable` is below NO_MATCH."""
        return self.answerable is None or self.answerable >= NO_MATCH

    @property
    def query(self) -> dict[str, Any]:
        """How the query was interpreted and what was searched, as JSON values: `to_dict` without the hits."""
        return {
            "caption": self.caption,
            "words": dict(self.words),
            "weights": dict(self.weights),
            "why": self.why,
            "rule": str(self.rule),
            "k": self.k,
            "searched": self.searched,
            "pool": self.pool,
            "hidden": dict(self.hidden),
            "answerable": self.answerable,
            "has_match": self.has_match,
            "note": self.note,
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the ranking as JSON values. Shell, API, MCP and page take their fields from it.

        Returns
        -------
        dict of str to Any
            Every field by its name, `caption` and `has_match`; `hits` is a list of `Hit.to_dict`.

        Examples
        --------
        >>> from mmretrieve import Hit, Ranking
        >>> ranking = Ranking((Hit(1, "a.jpg", 0.75, {"image": 0.75}),), k=10, searched=1, weights={"image": 1.0})
        >>> [hit["id"] for hit in ranking.to_dict()["hits"]], ranking.to_dict()["rule"], ranking.to_dict()["has_match"]
        (['a.jpg'], 'linear', True)
        """
        return {"hits": [hit.to_dict() for hit in self.hits], **self.query}

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]
