"""A benchmark: gallery ids, queries with their targets, and the metrics that its own protocol asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from eval.metrics.rank_table import Metric, RankTable
from eval.metrics.ranks import RankingTask, Ranks, average_precision_at, check_depth, recall_at, target_ranks
from mmretrieve import MMRetrieveError, Vocabulary
from mmretrieve.images import ImageLike, open_image
from mmretrieve.scoring import term_scores, top_k
from mmretrieve.vectors import unit

Ranker = Callable[[RankingTask], Ranks | None]
"""Ranks of the targets of a contest, however they are known: from scores, from a ranked list, on the PDV plane. None: not known."""
AT_ONCE = 64  # queries scored at once: bounds the scores of a large gallery
ASPECT_K = 10


@dataclass(frozen=True)
class BenchmarkQuery:
    """One composed query: ids of the reference and of all targets (none where a server keeps them).

    `prompts`: the prompt, then other ways to say the same (FashionIQ's other order). `caption`: the reference in words,
    and `concept`: what reference and targets share, where the benchmark says so. `tags`: semantic aspects. `candidates`:
    the ids of its subset, target included, reference not (CIRR's members, GeneCIS's gallery); an id may come twice.
    """

    id: str
    reference: str
    prompts: tuple[str, ...]
    targets: tuple[str, ...] = ()
    caption: str | None = None
    concept: str | None = None
    tags: tuple[str, ...] = ()
    candidates: tuple[str, ...] | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """Every id that it names."""
        return (self.reference, *self.targets, *(self.candidates or ()))


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a benchmark measures, and on which ranking.

    recalls, precisions: every k of `recall@k` and `map@k`. subset_recalls: of `recall_subset@k`, among a query's candidates.
    aspects: tags, each with its own `map@10/<tag>` over the queries that carry it. headline: the metric to compare by.
    keeps_reference: whether the reference stays in the ranking. first_target_alone: recall looks for the first target only.
    candidates_alone: the gallery of a query is its candidates.
    """

    headline: str
    recalls: tuple[int, ...] = ()
    precisions: tuple[int, ...] = ()
    subset_recalls: tuple[int, ...] = ()
    aspects: tuple[str, ...] = ()
    keeps_reference: bool = False
    first_target_alone: bool = False
    candidates_alone: bool = False


@dataclass(frozen=True)
class Benchmark:
    """`gallery_ids` is the order of gallery vectors, `queries` the order of query vectors. `image_path` finds the file of an image.

    `crop` cuts the image of an id out of its file, where it is not the whole.
    `vocabulary` is what a tagger may say of these pictures, where the benchmark knows better than the encoder's own.
    `fields` is what the benchmark says of an item by id, where it does: its colour, say.
    `checksum` is over the annotation files. `remark` is what a reader of any result must know (other counts than the
    released files have, say). Raises MMRetrieveError where an id comes twice or a query names one that is not there.
    """

    name: str
    split: str
    gallery_ids: tuple[str, ...]
    queries: tuple[BenchmarkQuery, ...]
    image_path: Callable[[str], Path]
    protocol: Protocol
    checksum: str = ""
    vocabulary: Vocabulary | None = None
    crop: Callable[[Image.Image, str], Image.Image] | None = None
    remark: str | None = None
    fields: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    place: Mapping[str, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", {id_: i for i, id_ in enumerate(self.gallery_ids)})
        if len(self.place) != len(self.gallery_ids):
            twice = next(id_ for i, id_ in enumerate(self.gallery_ids) if self.place[id_] != i)
            raise MMRetrieveError(f"{self.name}: {twice!r} comes twice in the gallery")
        if not self.queries:
            raise MMRetrieveError(f"{self.name} {self.split} has no queries")
        asked: set[str] = set()
        for query in self.queries:
            if query.id in asked:
                raise MMRetrieveError(f"{self.name}: the query {query.id} comes twice")
            asked.add(query.id)
            if missing := [id_ for id_ in query.named if id_ not in self.place]:
                raise MMRetrieveError(f"{self.name}: query {query.id} names {missing[0]!r}, which is not in the gallery")

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Every number of the protocol, in the order of `per_query`'s last axis."""
        protocol = self.protocol
        only, first = protocol.candidates_alone, protocol.first_target_alone
        return (
            *(Metric(f"recall@{k}", k, recall_at, only, first) for k in protocol.recalls),
            *(Metric(f"recall_subset@{k}", k, recall_at, True) for k in protocol.subset_recalls),
            *(Metric(f"map@{k}", k, average_precision_at, only) for k in protocol.precisions),
            *(Metric(f"map@{ASPECT_K}/{tag}", ASPECT_K, average_precision_at, only, tag=tag) for tag in protocol.aspects),
        )

    @cached_property
    def depths(self) -> dict[tuple[bool, bool], int]:
        """The largest k of each contest that is measured: (subset, first)."""
        return {m.contest: m.k for m in sorted(self.metrics, key=lambda m: m.k)}

    @property
    def headline(self) -> int:
        """The place of the protocol's headline among the metrics."""
        return [metric.name for metric in self.metrics].index(self.protocol.headline)

    @property
    def depth(self) -> int:
        """The largest k of a ranking of the whole gallery."""
        return max((k for (subset, _), k in self.depths.items() if not subset), default=0)

    def picture(self, id_: str) -> ImageLike:
        """The image of an id: its file, or what is cut out of it. ImageError where it cannot be read."""
        path = self.image_path(id_)
        return path if self.crop is None else self.crop(open_image(path), id_)

    def score(self, query_vectors: ArrayLike, gallery_vectors: ArrayLike) -> dict[str, float]:
        """(queries, d) and (items, d) → metric → mean ×100. Rows are normalised first, as every evaluator does.

        MMRetrieveError where rows are missing, or the split's targets are not public.
        """
        queries, gallery = unit(query_vectors, "query vectors"), unit(gallery_vectors, "gallery vectors")
        if len(queries) != len(self.queries) or len(gallery) != len(self.gallery_ids):
            raise MMRetrieveError(
                f"{self.name}: expected {len(self.queries)} query and {len(self.gallery_ids)} gallery vectors, got {len(queries)} and {len(gallery)}"
            )
        if queries.shape[1] != gallery.shape[1]:
            raise MMRetrieveError(
                f"{self.name}: query vectors have {queries.shape[1]} columns and gallery vectors {gallery.shape[1]}"
            )
        blocks = (term_scores(queries[i : i + AT_ONCE], gallery) for i in range(0, len(queries), AT_ONCE))
        return self.means(self.per_query(row for block in blocks for row in block))

    def per_query(self, scores: Iterable[NDArray[np.floating]]) -> NDArray[np.float64]:
        """Item scores, (…, items) for each query → (queries, …, metrics); NaN where a query does not carry the aspect."""
        return self.measured(partial(target_ranks, row) for row in scores)

    def measured(self, rankers: Iterable[Ranker]) -> NDArray[np.float64]:
        """A ranker for each query → (queries, …, metrics); NaN also where a ranker does not know the ranks."""
        return self.placed(rankers).values

    def placed(self, rankers: Iterable[Ranker]) -> RankTable:
        """A ranker for each query → where its targets stand.

        MMRetrieveError where targets are not public, or a ranking is too short for its metrics.
        """
        known: dict[tuple[bool, bool], list[Ranks | None]] = {kind: [] for kind in self.depths}
        for query, rank in zip(self.queries, rankers, strict=True):
            for (subset, first), ranks in known.items():
                contest = self.contest(query, subset=subset, first=first)
                check_depth(self.depths[subset, first], contest.size(len(self.gallery_ids)))
                ranks.append(rank(contest))
        return RankTable.of(self.metrics, [query.tags for query in self.queries], known)

    def means(self, per_query: NDArray[np.float64]) -> dict[str, float]:
        """(queries, metrics) → metric → mean over the queries it is defined for; a metric of none of them is left out."""
        columns = [column[~np.isnan(column)] for column in np.atleast_2d(per_query).T]
        return self.by_name([column.mean() if len(column) else np.nan for column in columns])

    def by_name(self, means: Iterable[float]) -> dict[str, float]:
        """(metrics,) means → metric → mean; one that is NaN is left out."""
        return {m.name: float(mean) for m, mean in zip(self.metrics, means, strict=True) if not np.isnan(mean)}

    def without(self, ids: Collection[str]) -> Benchmark:
        """The benchmark without these items, and without every query that names one; its remark says so."""
        gone = frozenset(ids)
        kept = tuple(query for query in self.queries if gone.isdisjoint(query.named))
        lost = (
            f"{self.name}: {len(gone):,} of {len(self.gallery_ids):,} pictures were missing and "
            f"{len(self.queries) - len(kept):,} of {len(self.queries):,} queries left out: not comparable with other results"
        )
        if not kept:
            raise MMRetrieveError(f"{lost}; there is nothing left to measure")
        return replace(
            self,
            gallery_ids=tuple(id_ for id_ in self.gallery_ids if id_ not in gone),
            queries=kept,
            remark="; ".join(filter(None, (self.remark, lost))),
        )

    def contest(self, query: BenchmarkQuery, *, subset: bool = False, first: bool = False) -> RankingTask:
        """Whose ranks count in a ranking of the whole gallery, or of the query's candidates.

        MMRetrieveError where the targets are not public.
        """
        self._check_public(query)
        targets = query.targets[:1] if first else query.targets
        rows, depth = [self.place[id_] for id_ in targets], self.depths.get((subset, first))
        if subset:
            rivals = [self.place[id_] for id_ in query.candidates or ()]
            for row in rows:
                rivals.remove(row)  # once: GeneCIS names a target twice
            return RankingTask(rows, rivals, depth=depth)
        return RankingTask(rows, hidden=self._hidden(query), depth=depth)

    def check_public(self) -> None:
        """MMRetrieveError where the targets are not public: nothing can be measured then."""
        for query in self.queries:
            self._check_public(query)

    def _check_public(self, query: BenchmarkQuery) -> None:
        if not query.targets:
            raise MMRetrieveError(
                f"the targets of {self.name} {self.split} are not public: `submit` writes what its server scores"
            )

    def _hidden(self, query: BenchmarkQuery) -> tuple[int, ...]:
        return () if self.protocol.keeps_reference else (self.place[query.reference],)

    def best(self, query: BenchmarkQuery, scores: NDArray[np.floating], k: int) -> list[int]:
        """(items,) scores → places of the query's best k, best first: of its candidates where the protocol ranks those alone."""
        if self.protocol.candidates_alone:
            rows = sorted({self.place[id_] for id_ in query.candidates or ()})
            return [rows[i] for i in top_k(scores[rows], k)]
        hidden = self._hidden(query)
        return [int(row) for row in top_k(scores, k + len(hidden)) if row not in hidden][:k]
