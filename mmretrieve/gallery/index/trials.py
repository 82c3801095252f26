"""Tries each kind of index on a sample of a gallery, so that the fastest that reaches the recall on this machine is built.

Times are those of the processor in the searching thread, so that other work on the machine counts little.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.kinds import factory_of
from mmretrieve.gallery.index.plan import EXACT_FACTORIES, FLAT, IndexPlan
from mmretrieve.gallery.index.tuning import Clock, composed_queries, exact_best_with_ties, milliseconds, tune
from mmretrieve.vectors import Float32

SAMPLE_SIZE = 20_000  # rows of the sample; in a smaller gallery nothing is tried
N_TIMED_QUERIES = 100  # composed queries that tune and time an index
N_OVERHEAD_ROWS = 100  # a search of so few rows takes the time that does not depend on the number of rows
MIN_GAIN = 1.5  # an index that can miss items must be so many times as fast as a flat one, which misses none
SIMILAR = 1.1  # times of searches whose ratio is smaller are equal
MAX_GRAPH_SECONDS = 120  # a graph that would take longer to build is not chosen


@dataclass(frozen=True)
class Trial:
    """What an index of all rows costs: milliseconds of one search, recall@10, seconds to build. Predicted from a sample until it is measured."""

    factory: str
    ms: float
    recall: float
    build_seconds: float
    measured: bool = False

    @property
    def exact(self) -> bool:
        """Whether the index misses nothing."""
        return self.factory in EXACT_FACTORIES

    def is_worth_it(self, flat: Trial | None, target: float) -> bool:
        """Whether it reaches the target and is clearly faster than a flat index (None: that does not fit), and no graph that takes too long."""
        if self.factory.startswith("HNSW") and self.build_seconds > MAX_GRAPH_SECONDS:
            return False
        return self.recall >= target and (flat is None or MIN_GAIN * self.ms <= flat.ms)

    def __str__(self) -> str:
        recall = "exact" if self.exact else f"recall {self.recall:.3f}"
        build = f"built in {self.build_seconds:.0f} s" if self.measured else f"{self.build_seconds:.0f} s to build"
        return f"{self.factory} {self.ms:.1f} ms, {recall}, {build}"


def try_kinds(rows: NDArray[np.float16], target: float, kinds: Sequence[str], clock: Clock = time.thread_time) -> list[Trial]:
    """Predicts the trials of (n, d) rows from a sample of them, for each kind of index.

    Each index is tuned to the target recall, then all are timed in turns. `clock` returns seconds.
    """
    sample = _sample(rows)
    queries = composed_queries(sample, N_TIMED_QUERIES)
    truth = exact_best_with_ties(sample, queries, 10)
    indexes, recalls, build_seconds = [_flat(sample[:N_OVERHEAD_ROWS])], [], []
    for kind in kinds:
        started = time.perf_counter()
        index = FaissIndex.build(IndexPlan(factory_of(kind, *sample.shape), "tried on a sample"), sample)
        build_seconds.append(time.perf_counter() - started)
        tuned = tune(index, truth, queries, k=10, target=target)
        indexes.append(index.with_params(tuned.params))
        recalls.append(tuned.recall)
    overhead, *times = search_ms(indexes, sample, queries, clock)
    growth = len(rows) / len(sample)
    return [
        Trial(factory_of(kind, *rows.shape), _predict_ms(kind, ms, overhead, growth), recall, growth * seconds)
        for kind, ms, recall, seconds in zip(kinds, times, recalls, build_seconds, strict=True)
    ]


def rank_trials(trials: Sequence[Trial], target: float) -> list[Trial]:
    """Returns the trials whose index should be built: those that are worth it by time, then the flat one. The next is for one that disappoints.

    If no flat index fits and none is worth it, this is the most accurate one.
    """
    flat = flat_of(trials)
    remaining = [trial for trial in trials if trial != flat and trial.is_worth_it(flat, target)]
    ranked = list(_by_time(remaining)) + ([] if flat is None else [flat])
    return ranked or [most_accurate(trials)]


def most_accurate(trials: Sequence[Trial]) -> Trial:
    """Returns the trial with the highest recall, of several the first."""
    return max(trials, key=lambda trial: trial.recall)


def flat_of(trials: Sequence[Trial]) -> Trial | None:
    """Returns the trial of the exact index, None if it was not tried."""
    return next((trial for trial in trials if trial.exact), None)


def explain(built: Trial, trials: Sequence[Trial], target: float) -> str:
    """Returns the reason for an index that was built and measured, with what the trials of the others say."""
    result = "nothing is missed" if built.exact else f"recall {built.recall:.3f}"
    if built.recall < target:
        result += f", the most accurate that fits: none reaches {target:g}"
    others = "; ".join(str(trial) for trial in trials if trial.factory != built.factory)
    return f"{built.ms:.1f} ms a search, {result}" + (f"; estimated from a sample: {others}" if others else "")


def search_ms(
    indexes: Sequence[FaissIndex], rows: NDArray[np.float16], queries: Float32, clock: Clock = time.thread_time
) -> list[float]:
    """Returns the median milliseconds of one search of each index, with exact scores of its candidates. Each query is given to all in turn."""
    times = [[milliseconds(index, rows, query[None], clock) for index in indexes] for query in queries]
    return [float(ms) for ms in np.median(times, axis=0)]


def _by_time(trials: list[Trial]) -> Iterator[Trial]:
    """Yields the trials by time; of times that are similar to the least, the first in the order of KINDS."""
    while trials:
        least = min(trial.ms for trial in trials)
        best = next(trial for trial in trials if trial.ms <= SIMILAR * least)
        yield best
        trials = [trial for trial in trials if trial != best]


def _predict_ms(kind: str, ms: float, overhead: float, growth: float) -> float:
    """Returns the milliseconds with `growth` times as many rows. A flat search grows like the rows.

    One of cells grows like their root, as there are so many more cells. One of a graph does, too: its walk has to be broader for the same
    recall, not only longer.
    """
    return overhead + max(ms - overhead, 0.0) * (growth if kind == FLAT else growth**0.5)


def _flat(rows: NDArray[np.float16]) -> FaissIndex:
    return FaissIndex.build(IndexPlan(FLAT, "tried on a sample"), rows)


def _sample(rows: NDArray[np.float16]) -> NDArray[np.float16]:
    """Returns SAMPLE_SIZE rows in their order, always the same ones."""
    numbers = np.random.default_rng(0).choice(len(rows), min(SAMPLE_SIZE, len(rows)), replace=False)
    return rows[np.sort(numbers)]
