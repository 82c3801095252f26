"""What a search gives back: hits in order, each with its score and what every term gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, overload

from mmretrieve.options import NO_MATCH, RuleName


@dataclass(frozen=True)
class Hit:
    """One item of a ranking. `rank` starts at 1; `contributions` (term → weight × term score) sum to `score`."""

    rank: int
    id: str
    score: float
    contributions: Mapping[str, float] = field(repr=False)
    path: str | None = None


@dataclass(frozen=True)
class Ranking:
    """The best hits of `searched` items, best first.

    `asked` is the k that was asked for, and `note` says why there are fewer, and whatever else a reader should know.
    `weights` and `words` tell the weight of each term, and the sentence behind it where it has one. `rule` folded the
    scores; `pool` is how many candidates it scored, None where it was every item or the index answers for them. `hidden` counts
    the items that could not appear, by what hid them. `why` says in one line which weights were chosen and why, where they were.
    `answerable` is how far the gallery has what was asked for, from 0 (nothing fits) to 1, comparable between queries.
    """

    hits: tuple[Hit, ...]
    asked: int
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
        return tuple(hit.id for hit in self.hits)

    @property
    def caption(self) -> str | None:
        """The words in which the (first) reference was said, None where the method says it in none."""
        return self.words.get("text")

    @property
    def has_match(self) -> bool:
        """False where nothing in the gallery fits: `answerable` below NO_MATCH."""
        return self.answerable is None or self.answerable >= NO_MATCH

    @property
    def query(self) -> dict[str, Any]:
        """What was understood and chosen, as JSON carries it: caption, words, weights, why, answerable, note."""
        return {
            "caption": self.caption,
            "words": dict(self.words),
            "weights": dict(self.weights),
            "why": self.why,
            "answerable": self.answerable,
            "note": self.note,
        }

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
