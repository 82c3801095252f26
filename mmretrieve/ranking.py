"""What a search gives back: hits in order, each with its score and what every term gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import overload

from mmretrieve.options import RuleName


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
    the items that could not appear, by what hid them.
    """

    hits: tuple[Hit, ...]
    asked: int
    searched: int
    weights: Mapping[str, float]
    words: Mapping[str, str] = field(default_factory=dict)
    note: str | None = None
    rule: RuleName = RuleName.LINEAR
    pool: int | None = None
    hidden: Mapping[str, int] = field(default_factory=dict)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(hit.id for hit in self.hits)

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
