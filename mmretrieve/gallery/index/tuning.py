"""Measures the recall of an index and finds the cheapest search parameters that reach a target.

The queries are *composed*: a prompt moves the vector of an image off the manifold of images, and an index that finds the neighbors of
images need not find those of such a query.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmretrieve.gallery.index.faiss_index import MARGIN, FaissIndex
from mmretrieve.gallery.index.plan import SearchParams
from mmretrieve.scoring import ROW_BATCH_SIZE, term_scores, top_k
from mmretrieve.vectors import Float32, unit

Clock = Callable[[], float]
ALPHAS = 0.3, 0.9  # the difference of two images is about twice that of a prompt
OVERFETCHES = 1, 2, 5, 10, 20, 50
RESCORING_COST = 20  # rows that the index scans in the time of one exact score
QUERY_BATCH_SIZE = 100  # queries of a batch


@dataclass(frozen=True)
class TuningResult:
    """The cheapest parameters that reached the target, or, where none did, the best ones; `recall` is what they reached."""

    params: SearchParams
    recall: float
    target: float

    @property
    def reached(self) -> bool:
        """Whether the recall reached the target."""
        return self.recall >= self.target


@dataclass(frozen=True)
class IndexReport:
    """The recall and the cost of an index with exact scores of its candidates. Milliseconds of a single query, and of one in a batch."""

    recall_at_10: float
    recall_at_100: float
    p50_ms: float
    p99_ms: float
    batch_ms: float
    bytes_per_vector: float
    build_seconds: float


def composed_queries(vectors: NDArray[np.float16], count: int, *, seed: int = 0) -> Float32:
    """Makes (count, d) unit queries from (n, d) rows, n ≥ 1: image + alpha · (difference of two others).

    alpha is uniform in ALPHAS. Equal seeds give equal queries.
    """
    rng = np.random.default_rng(seed)
    image, one, other = (np.asarray(vectors[rng.integers(len(vectors), size=count)], dtype=np.float64) for _ in range(3))
    alpha = rng.uniform(*ALPHAS, size=(count, 1))
    noise = 1e-6 * rng.normal(size=image.shape)  # so that no query is zero
    return unit(image + alpha * (one - other) + noise, "composed queries")


def exact_best(vectors: NDArray[np.float16], queries: Float32, k: int) -> NDArray[np.int64]:
    """The specification: for (n, d) rows and (q, d) queries, (q, min(k, n)) rows by descending exact score; of equal scores the lower row first."""
    return np.stack([rows[:k] for rows in exact_best_with_ties(vectors, queries, k)])


def exact_best_with_ties(vectors: NDArray[np.float16], queries: Float32, k: int) -> list[NDArray[np.int64]]:
    """Returns for each query the rows of `exact_best`, followed by all that have the score of the last of them."""
    best = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
    for start in range(0, len(vectors), ROW_BATCH_SIZE):
        scores = term_scores(queries, unit(vectors[start : start + ROW_BATCH_SIZE]))
        rows = np.arange(start, start + scores.shape[1])
        best = [_merge_best(previous, row, rows, k) for previous, row in zip(best, scores, strict=True)]
    return [rows for _, rows in best]


def rescore(
    vectors: NDArray[np.float16], queries: Float32, proposals: Iterable[NDArray[np.int64]], k: int
) -> list[NDArray[np.int64]]:
    """Returns for each of (q, d) queries the k best of its candidate rows by exact score."""
    return [_best_of(vectors, query, np.sort(rows), k) for query, rows in zip(queries, proposals, strict=True)]


Truth = Sequence[NDArray[np.int64]] | NDArray[np.int64]
"""The true best rows of each query, with or without those that equal the last of them."""


def recall(truth: Truth, results: Iterable[NDArray[np.int64]], k: int | None = None) -> float:
    """Returns the share of the k best rows that are among the rows found for the same query. An equal row is as good as a true one.

    By default k is the number of true rows.
    """
    shares = [
        min(np.isin(best, rows).sum() / min(k or len(best), len(best)), 1) for best, rows in zip(truth, results, strict=True)
    ]
    return float(np.mean(shares))


def tune(index: FaissIndex, truth: Truth, queries: Float32, *, k: int | None = None, target: float = 0.99) -> TuningResult:
    """Finds the cheapest parameters whose candidates contain a share `target` of the k true best rows of (q, d) queries.

    Exact scores decide among candidates, so every true candidate is found. Deleted rows may be left out of `truth`.
    """
    at, best, least = k or len(truth[0]), None, float("inf")
    nearest = TuningResult(index.params, -1.0, target)
    for params, scanned in _ladder(index):
        if best is not None and (not scanned or scanned >= least):
            break
        for tuned in _try_overfetches(index, params, truth, queries, at, target):
            nearest = max(nearest, tuned, key=lambda one: one.recall)
            cost = scanned + RESCORING_COST * (at * tuned.params.overfetch + MARGIN)
            if tuned.reached and cost < least:
                best, least = tuned, cost
    return best or nearest


def report(
    index: FaissIndex, vectors: NDArray[np.float16], queries: Float32, truth: Truth, *, build_seconds: float
) -> IndexReport:
    """Measures an index over (n, d) rows: search, then exact scores of the candidates.

    `truth` is `exact_best_with_ties` of (q, d) queries and k = 100. `build_seconds` is copied into the report.
    """
    single_ms = [milliseconds(index, vectors, query[None], time.perf_counter) for query in queries]
    batches = [queries[start : start + QUERY_BATCH_SIZE] for start in range(0, len(queries), QUERY_BATCH_SIZE)]
    batch_ms = min(milliseconds(index, vectors, batch, time.perf_counter) / len(batch) for batch in batches)
    return IndexReport(
        _recall_at(10, vectors, queries, truth, index),
        _recall_at(100, vectors, queries, truth, index),
        float(np.percentile(single_ms, 50)),
        float(np.percentile(single_ms, 99)),
        batch_ms,
        index.size / max(1, len(index)),
        build_seconds,
    )


def milliseconds(index: FaissIndex, vectors: NDArray[np.float16], queries: Float32, clock: Clock) -> float:
    """Returns the milliseconds of a clock (in seconds) that the ten best of all these queries take, by exact score."""
    started = clock()
    rescore(vectors, queries, index.search(queries, 10), 10)
    return 1000 * (clock() - started)


def _recall_at(k: int, vectors: NDArray[np.float16], queries: Float32, truth: Truth, index: FaissIndex) -> float:
    best = [_tied_best_of(vectors, query, rows, k) for query, rows in zip(queries, truth, strict=True)]
    return recall(best, rescore(vectors, queries, index.search(queries, k), k), k)


def _ladder(index: FaissIndex) -> Iterator[tuple[SearchParams, float]]:
    """Yields growing parameters, without overfetch, and the rows that a search scans: 0 if unknown, then the first that reach the target are best.

    These are 1, 2, 3, 4, 6, 8, 12 and more cells, or a breadth of 16, 32 and more.
    """
    if index.cells is not None:
        steps = sorted({step for i in range(20) for step in (2**i, 3 * 2**i)})
        for nprobe in (*(step for step in steps if step < index.cells), index.cells):
            yield SearchParams(nprobe=nprobe), len(index) * nprobe / index.cells
    elif "HNSW" in index.plan.factory:
        yield from ((SearchParams(ef=ef), 0.0) for ef in (16, 32, 64, 128, 256, 512))
    else:
        yield SearchParams(), len(index)


def _try_overfetches(
    index: FaissIndex, params: SearchParams, truth: Truth, queries: Float32, at: int, target: float
) -> Iterator[TuningResult]:
    """Yields the result with each overfetch. One search with the largest is enough; smaller ones use the first of its candidates."""
    overfetches = (1,) if index.plan.exact else OVERFETCHES
    proposals = index.with_params(replace(params, overfetch=overfetches[-1])).search(queries, at)
    for overfetch in overfetches:
        reached = recall(truth, [rows[: at * overfetch + MARGIN] for rows in proposals], at)
        yield TuningResult(replace(params, overfetch=overfetch), reached, target)


def _merge_best(
    previous: tuple[Float32, NDArray[np.int64]], scores: Float32, rows: NDArray[np.int64], k: int
) -> tuple[Float32, NDArray[np.int64]]:
    """Returns the k best of the best so far and of later rows, and their ties. Equal scores stay in row order."""
    all_scores, all_rows = np.concatenate([previous[0], scores]), np.concatenate([previous[1], rows])
    order = _top_k_with_ties(all_scores, k)
    return all_scores[order], all_rows[order]


def _top_k_with_ties(scores: Float32, k: int) -> NDArray[np.intp]:
    """The positions of `top_k`, followed by all that have the score of the last of them."""
    least = scores[top_k(scores, k)[-1]]
    return top_k(scores, int((scores >= least).sum()))


def _tied_best_of(vectors: NDArray[np.float16], query: Float32, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    return rows[_top_k_with_ties(term_scores(query[None], unit(vectors[rows]))[0], k)]


def _best_of(vectors: NDArray[np.float16], query: Float32, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    return rows[top_k(term_scores(query[None], unit(vectors[rows]))[0], k)]
