"""Where the targets of all queries stand, and every metric that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.metrics.ranks import Floats, Ranks


@dataclass(frozen=True)
class Metric:
    """One number of a protocol: `measure` of the ranks at `k`, over the queries with the `tag`; `subset` and `first` choose the contest."""

    name: str
    k: int
    measure: Callable[[Ranks, int], Floats]
    subset: bool = False
    first: bool = False
    tag: str | None = None

    @property
    def contest(self) -> tuple[bool, bool]:
        return self.subset, self.first


@dataclass(frozen=True)
class RankGroup:
    """Queries with as many targets: their (q,) places among all, and (q, …, targets) ranks."""

    places: NDArray[np.intp]
    ranks: Ranks


@dataclass(frozen=True)
class RankTable:
    """The ranks of all queries' targets, by contest; `tags` of each query. Metrics are worked out when asked for: a plane is large."""

    metrics: Sequence[Metric]
    tags: Sequence[tuple[str, ...]]
    ranks: Mapping[tuple[bool, bool], Sequence[RankGroup]]

    @classmethod
    def of(
        cls,
        metrics: Sequence[Metric],
        tags: Sequence[tuple[str, ...]],
        ranks: Mapping[tuple[bool, bool], Sequence[Ranks | None]],
    ) -> RankTable:
        """From the (…, targets) ranks of each query; None where they are not known."""
        return cls(metrics, tags, {contest: _by_targets(known) for contest, known in ranks.items()})

    @property
    def values(self) -> NDArray[np.float64]:
        """(queries, …, metrics) ×100; NaN where a query does not carry the aspect, or its ranks are not known."""
        return np.stack([self.value(metric) for metric in self.metrics], axis=-1)

    def means(self, which: slice = slice(None)) -> NDArray[np.float64]:
        """(…, metrics) means over those of the queries that are among `which`; NaN where there are none."""
        return np.stack([_mean(self.value(metric)[which]) for metric in self.metrics], axis=-1)

    def value(self, metric: Metric) -> NDArray[np.float64]:
        """(queries, …) of one metric."""
        groups = self.ranks[metric.contest]
        shape = next((alike.ranks.shape[1:-1] for own in self.ranks.values() for alike in own), ())
        if len(groups) == 1 and len(groups[0].places) == len(self.tags):
            whole = np.asarray(metric.measure(groups[0].ranks, metric.k), dtype=np.float64)
        else:
            whole = np.full((len(self.tags), *shape), np.nan)
            for alike in groups:
                whole[alike.places] = metric.measure(alike.ranks, metric.k)
        if metric.tag is not None:
            whole[[metric.tag not in tags for tags in self.tags]] = np.nan
        return whole


def _by_targets(ranks: Sequence[Ranks | None]) -> list[RankGroup]:
    places: dict[int, list[int]] = {}
    for i, one in enumerate(ranks):
        if one is not None:
            places.setdefault(one.shape[-1], []).append(i)
    return [
        RankGroup(np.array(own), np.stack([one for one in map(ranks.__getitem__, own) if one is not None]))
        for own in places.values()
    ]


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(queries, …) → (…); a query is NaN everywhere or nowhere."""
    defined = ~np.isnan(values.reshape(len(values), -1)[:, :1]).any(axis=1)
    if not defined.any():
        return np.full(values.shape[1:], np.nan)
    return np.asarray((values if defined.all() else values[defined]).mean(axis=0))
