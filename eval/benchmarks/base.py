"""A benchmark: gallery ids, queries with their targets, and the metrics of its protocol."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from eval.metrics import (
    WHOLE_RANKING,
    Metric,
    RankingTask,
    Ranks,
    RankTable,
    TaskKey,
    average_precision_at,
    check_depth,
    recall_at,
    target_ranks,
    trapezoidal_precision_at,
)
from mmretrieve import MMRetrieveError, Vocabulary
from mmretrieve.images import ImageLike, open_image
from mmretrieve.options import Colors
from mmretrieve.scoring import term_scores, top_k
from mmretrieve.vectors import unit

Ranker = Callable[[RankingTask], Ranks | None]
"""Computes the ranks of a task's targets, from scores, a ranked list or the PDV plane. None: the ranks are not known."""
QUERY_BATCH_SIZE = 64  # bounds the memory that the scores of a large gallery take
ASPECT_K = 10


@dataclass(frozen=True)
class BenchmarkQuery:
    """One composed query.

    Parameters
    ----------
    id : unique in the benchmark.
    reference : id of the reference image.
    prompts : the prompt, then alternative wordings (FashionIQ's captions in the other order).
    targets : ids of all right answers; none where they are kept on a server.
    caption : a description of the reference, where the benchmark provides one.
    concept : what reference and targets have in common, where the benchmark says so (CIRCO).
    tags : semantic aspects.
    candidates : ids of the query's subset, with the target and without the reference (CIRR's members, GeneCIS's gallery). An
        id may occur twice.
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
    def image_ids(self) -> tuple[str, ...]:
        """The ids of all images that the query mentions."""
        return (self.reference, *self.targets, *(self.candidates or ()))


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which metrics a benchmark reports, and on which ranking.

    Parameters
    ----------
    headline : the metric by which runs are compared.
    recalls : every k of `recall@k`.
    precisions : every k of `map@k`.
    subset_recalls : every k of `recall_subset@k`, measured among a query's candidates.
    aspects : tags; each has a `map@10/<tag>` over the queries that carry it.
    keeps_reference : whether the reference stays in the ranking.
    first_target_alone : whether recall counts the first target only.
    candidates_alone : whether a query ranks its candidates instead of the gallery.
    whole_precision : whether `map` is reported, the trapezoidal average precision over the whole ranking.
    """

    headline: str
    recalls: tuple[int, ...] = ()
    precisions: tuple[int, ...] = ()
    subset_recalls: tuple[int, ...] = ()
    aspects: tuple[str, ...] = ()
    keeps_reference: bool = False
    first_target_alone: bool = False
    candidates_alone: bool = False
    whole_precision: bool = False


@dataclass(frozen=True)
class Benchmark:
    """One split of a data set, with its protocol.

    Parameters
    ----------
    name, split : as in `load_benchmark`.
    gallery_ids : ids in the order of gallery vectors.
    queries : in the order of query vectors.
    image_path : id → image file.
    protocol : what is measured.
    checksum : of the annotation files.
    vocabulary : the tagger's words, where the benchmark knows better ones than the encoder's.
    crop : (image, id) → image, where an id is a part of its file.
    remark : what a reader of a result must know, such as counts that differ from the released files.
    fields : id → what the benchmark says about an item, such as its color.

    Raises
    ------
    MMRetrieveError : an id occurs twice, there are no queries, or a query mentions an id that is not in the gallery.
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
    id2row: Mapping[str, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id2row", {id_: row for row, id_ in enumerate(self.gallery_ids)})
        if len(self.id2row) != len(self.gallery_ids):
            duplicate = next(id_ for row, id_ in enumerate(self.gallery_ids) if self.id2row[id_] != row)
            raise MMRetrieveError(f"{self.name}: {duplicate!r} occurs twice in the gallery")
        if not self.queries:
            raise MMRetrieveError(f"{self.name} {self.split} has no queries")
        query_ids: set[str] = set()
        for query in self.queries:
            if query.id in query_ids:
                raise MMRetrieveError(f"{self.name}: query id {query.id!r} occurs twice")
            query_ids.add(query.id)
            if missing := [id_ for id_ in query.image_ids if id_ not in self.id2row]:
                raise MMRetrieveError(f"{self.name}: query {query.id} mentions {missing[0]!r}, which is not in the gallery")

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Every metric of the protocol, in the order of the last axis of `measure_scores`."""
        protocol = self.protocol
        only, first = protocol.candidates_alone, protocol.first_target_alone
        return (
            *(Metric(f"recall@{k}", k, recall_at, only, first) for k in protocol.recalls),
            *(Metric(f"recall_subset@{k}", k, recall_at, True) for k in protocol.subset_recalls),
            *(Metric(f"map@{k}", k, average_precision_at, only) for k in protocol.precisions),
            *(Metric("map", WHOLE_RANKING, trapezoidal_precision_at, only) for _ in range(protocol.whole_precision)),
            *(Metric(f"map@{ASPECT_K}/{tag}", ASPECT_K, average_precision_at, only, tag=tag) for tag in protocol.aspects),
        )

    @cached_property
    def depths(self) -> dict[TaskKey, int]:
        """The largest k of each ranking task that is measured."""
        return {metric.task_key: metric.k for metric in sorted(self.metrics, key=lambda metric: metric.k)}

    @property
    def headline_column(self) -> int:
        """The index of the protocol's headline among the metrics."""
        return [metric.name for metric in self.metrics].index(self.protocol.headline)

    @property
    def depth(self) -> int:
        """The largest k of a ranking of the whole gallery."""
        return max((k for (subset, _), k in self.depths.items() if not subset), default=0)

    def load_image(self, id_: str) -> ImageLike:
        """The image of an id: its file, or the part cut out of it. ImageError where it cannot be read."""
        path = self.image_path(id_)
        return path if self.crop is None else self.crop(open_image(path, colors=Colors.RAW), id_)

    def score(self, query_vectors: ArrayLike, gallery_vectors: ArrayLike) -> dict[str, float]:
        """Metric → mean ×100. Rows are normalized first, as every released evaluator does.

        Parameters
        ----------
        query_vectors : (queries, d), in the order of `queries`.
        gallery_vectors : (items, d), in the order of `gallery_ids`.

        Raises
        ------
        MMRetrieveError : the shapes do not fit, or the targets of the split are not public.
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
        starts = range(0, len(queries), QUERY_BATCH_SIZE)
        batches = (term_scores(queries[start : start + QUERY_BATCH_SIZE], gallery) for start in starts)
        return self.mean_metrics(self.measure_scores(row for batch in batches for row in batch))

    def measure_scores(self, scores: Iterable[NDArray[np.floating]]) -> NDArray[np.float64]:
        """(…, items) scores for each query → (queries, …, metrics) ×100; NaN where a query does not carry the aspect."""
        return self.rank_table(partial(target_ranks, row) for row in scores).values

    def rank_table(self, rankers: Iterable[Ranker]) -> RankTable:
        """A ranker for each query → the ranks of all targets.

        MMRetrieveError where targets are not public, or a ranking is shorter than the k of a metric.
        """
        ranks: dict[TaskKey, list[Ranks | None]] = {key: [] for key in self.depths}
        for query, rank in zip(self.queries, rankers, strict=True):
            for (subset, first), query_ranks in ranks.items():
                task = self.ranking_task(query, subset=subset, first=first)
                check_depth(self.depths[subset, first], task.size(len(self.gallery_ids)))
                query_ranks.append(rank(task))
        return RankTable(self.metrics, [query.tags for query in self.queries], ranks)

    def mean_metrics(self, values: NDArray[np.float64]) -> dict[str, float]:
        """(queries, metrics) → metric → mean over the queries that have a value; a metric without any is left out."""
        columns = [column[~np.isnan(column)] for column in np.atleast_2d(values).T]
        return self.name_metrics([column.mean() if len(column) else np.nan for column in columns])

    def name_metrics(self, means: Iterable[float]) -> dict[str, float]:
        """(metrics,) means → metric → mean; NaN values are left out."""
        return {m.name: float(mean) for m, mean in zip(self.metrics, means, strict=True) if not np.isnan(mean)}

    def drop_images(self, ids: Collection[str]) -> Benchmark:
        """The benchmark without these images and without every query that mentions one; its remark says so."""
        dropped = frozenset(ids)
        queries = tuple(query for query in self.queries if dropped.isdisjoint(query.image_ids))
        loss = (
            f"{self.name}: {len(dropped):,} of {len(self.gallery_ids):,} images were missing and "
            f"{len(self.queries) - len(queries):,} of {len(self.queries):,} queries left out: not comparable with other results"
        )
        if not queries:
            raise MMRetrieveError(f"{loss}; no query is left to measure")
        return replace(
            self,
            gallery_ids=tuple(id_ for id_ in self.gallery_ids if id_ not in dropped),
            queries=queries,
            remark="; ".join(filter(None, (self.remark, loss))),
        )

    def ranking_task(self, query: BenchmarkQuery, *, subset: bool = False, first: bool = False) -> RankingTask:
        """The targets and distractors of a query in the gallery, or among its candidates where `subset` is set.

        first: only the first target counts. MMRetrieveError where the targets are not public.
        """
        self._check_public(query)
        targets = query.targets[:1] if first else query.targets
        rows, depth = [self.id2row[id_] for id_ in targets], self.depths.get((subset, first))
        if not subset:
            return RankingTask(rows, hidden=self._hidden_rows(query), depth=depth)
        distractors = [self.id2row[id_] for id_ in query.candidates or ()]
        for row in rows:
            distractors.remove(row)  # one copy only: GeneCIS may contain a target twice
        return RankingTask(rows, distractors, depth=depth)

    def top_rows(self, query: BenchmarkQuery, scores: NDArray[np.floating], k: int) -> list[int]:
        """(items,) scores → gallery rows of the query's best k, best first; only candidates where the protocol ranks those."""
        if self.protocol.candidates_alone:
            rows = sorted({self.id2row[id_] for id_ in query.candidates or ()})
            return [rows[i] for i in top_k(scores[rows], k)]
        hidden = self._hidden_rows(query)
        return [int(row) for row in top_k(scores, k + len(hidden)) if row not in hidden][:k]

    def check_public(self) -> None:
        """MMRetrieveError where the targets are not public, so that nothing can be measured."""
        for query in self.queries:
            self._check_public(query)

    def _check_public(self, query: BenchmarkQuery) -> None:
        if not query.targets:
            raise MMRetrieveError(
                f"the targets of {self.name} {self.split} are not public: `submit` writes the file that its server scores"
            )

    def _hidden_rows(self, query: BenchmarkQuery) -> tuple[int, ...]:
        return () if self.protocol.keeps_reference else (self.id2row[query.reference],)
