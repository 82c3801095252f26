"""The ranks of the targets of all queries, and every metric that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.metrics.ranks import Floats, Ranks

TaskKey = tuple[bool, bool]
"""(subset, first): whether only a query's candidates are ranked, and whether only its first target counts."""


@dataclass(frozen=True)
class Metric:
    """One number of a protocol: `measure` of the ranks at `k`, averaged over the queries that carry `tag` (None: all)."""

    name: str
    k: int
    measure: Callable[[Ranks, int], Floats]
    subset: bool = False
    first: bool = False
    tag: str | None = None

    @property
    def task_key(self) -> TaskKey:
        """The ranking task that this metric reads."""
        return self.subset, self.first


@dataclass(frozen=True)
class RankGroup:
    """Queries with the same number of targets: their (q,) rows among all queries, and (q, …, targets) ranks."""

    rows: NDArray[np.intp]
    ranks: Ranks


@dataclass(frozen=True)
class RankTable:
    """The ranks of all queries' targets by ranking task, and the `tags` of each query.

    Metrics are computed on request: those of all points of a PDV plane would need too much memory.
    """

    metrics: Sequence[Metric]
    tags: Sequence[tuple[str, ...]]
    ranks: Mapping[TaskKey, Sequence[RankGroup]]

    @classmethod
    def build(
        cls,
        metrics: Sequence[Metric],
        tags: Sequence[tuple[str, ...]],
        ranks: Mapping[TaskKey, Sequence[Ranks | None]],
    ) -> RankTable:
        """From the (…, targets) ranks of each query; None where they are not known."""
        return cls(metrics, tags, {key: _group_by_targets(query_ranks) for key, query_ranks in ranks.items()})

    @property
    def values(self) -> NDArray[np.float64]:
        """(queries, …, metrics) ×100; NaN where a query does not carry the aspect, or its ranks are not known."""
        return np.stack([self.value(metric) for metric in self.metrics], axis=-1)

    def means(self, queries: slice = slice(None)) -> NDArray[np.float64]:
        """(…, metrics) means over those of the selected queries that have a value; NaN where there are none."""
        return np.stack([_mean_of_defined(self.value(metric)[queries]) for metric in self.metrics], axis=-1)

    def value(self, metric: Metric) -> NDArray[np.float64]:
        """(queries, …) of one metric."""
        groups = self.ranks[metric.task_key]
        shape = next((group.ranks.shape[1:-1] for others in self.ranks.values() for group in others), ())
        if len(groups) == 1 and len(groups[0].rows) == len(self.tags):
            values = np.asarray(metric.measure(groups[0].ranks, metric.k), dtype=np.float64)
        else:
            values = np.full((len(self.tags), *shape), np.nan)
            for group in groups:
                values[group.rows] = metric.measure(group.ranks, metric.k)
        if metric.tag is not None:
            values[[metric.tag not in tags for tags in self.tags]] = np.nan
        return values


def _group_by_targets(query_ranks: Sequence[Ranks | None]) -> list[RankGroup]:
    rows: dict[int, list[int]] = {}
    for i, ranks in enumerate(query_ranks):
        if ranks is not None:
            rows.setdefault(ranks.shape[-1], []).append(i)
    return [
        RankGroup(np.array(group), np.stack([ranks for i in group if (ranks := query_ranks[i]) is not None]))
        for group in rows.values()
    ]


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(queries, …) → (…); a query is NaN at every point or at none."""
    defined = ~np.isnan(values.reshape(len(values), -1)[:, :1]).any(axis=1)
    if not defined.any():
        return np.full(values.shape[1:], np.nan)
    return np.asarray((values if defined.all() else values[defined]).mean(axis=0))
