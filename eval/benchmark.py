"""A benchmark: gallery ids, queries with their targets, and the metrics that its own protocol asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.metrics import average_precision_at, check_depth, recall_at, target_ranks
from mmretrieve import MMRetrieveError, Vocabulary
from mmretrieve.vectors import unit


@dataclass(frozen=True)
class BenchmarkQuery:
    """One composed query: ids of the reference and of all targets; `caption` where the benchmark gives one."""

    id: str
    reference: str
    prompts: tuple[str, ...]
    targets: tuple[str, ...]
    caption: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """`gallery_ids` is the order of gallery vectors, `queries` the order of query vectors. `image_path` finds a picture.

    `vocabulary` is what a tagger may say of these pictures, where the benchmark knows better than the encoder's own.
    """

    name: str
    gallery_ids: tuple[str, ...]
    queries: tuple[BenchmarkQuery, ...]
    image_path: Callable[[str], Path]
    recalls: tuple[int, ...] = (1, 5, 10)
    precisions: tuple[int, ...] = (10,)
    keeps_reference: bool = False
    vocabulary: Vocabulary | None = None
    _place: Mapping[str, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        place = {id_: i for i, id_ in enumerate(self.gallery_ids)}
        if len(place) != len(self.gallery_ids):
            raise MMRetrieveError(f"{self.name}: an id comes twice in the gallery")
        for query in self.queries:
            if missing := [id_ for id_ in (query.reference, *query.targets) if id_ not in place]:
                raise MMRetrieveError(f"{self.name}: query {query.id} names {missing[0]!r}, which is not in the gallery")
        object.__setattr__(self, "_place", place)

    @property
    def metrics(self) -> tuple[str, ...]:
        return (*(f"recall@{k}" for k in self.recalls), *(f"map@{k}" for k in self.precisions))

    def score(self, query_vectors: ArrayLike, gallery_vectors: ArrayLike) -> dict[str, float]:
        """(queries, d) and (items, d) → metric → mean ×100. Rows are normalised first, as every evaluator does."""
        queries, gallery = unit(query_vectors, "query vectors"), unit(gallery_vectors, "gallery vectors")
        if len(queries) != len(self.queries) or len(gallery) != len(self.gallery_ids):
            raise MMRetrieveError(
                f"{self.name}: expected {len(self.queries)} query and {len(self.gallery_ids)} gallery vectors, got {len(queries)} and {len(gallery)}"
            )
        return self.means(self.per_query(row @ gallery.T for row in queries))

    def per_query(self, scores: Iterable[NDArray[np.floating]]) -> NDArray[np.float64]:
        """Item scores, (…, items) for each query → (queries, …, metrics)."""
        return np.array([self._measure(query, row) for query, row in zip(self.queries, scores, strict=True)])

    def means(self, per_query: NDArray[np.float64]) -> dict[str, float]:
        """(queries, metrics) → metric → mean."""
        return dict(zip(self.metrics, map(float, per_query.mean(axis=0)), strict=True))

    def _measure(self, query: BenchmarkQuery, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        hidden = [] if self.keeps_reference else [self._place[query.reference]]
        check_depth(max(self.recalls + self.precisions), len(self.gallery_ids) - len(hidden))
        ranks = target_ranks(scores, [self._place[id_] for id_ in query.targets], hidden)
        recalls = [recall_at(ranks, k) for k in self.recalls]
        return np.stack([*recalls, *(average_precision_at(ranks, k) for k in self.precisions)], axis=-1)
