"""Builds an index of all rows of a gallery and tunes it: the one that was requested, or the fastest that reaches the recall."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmretrieve.encoders.base import Progress
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.gpu import resolve_device
from mmretrieve.gallery.index.kinds import choose, fitting_kinds
from mmretrieve.gallery.index.plan import FLAT, Device, IndexPlan
from mmretrieve.gallery.index.trials import (
    N_TIMED_QUERIES,
    SAMPLE_SIZE,
    Trial,
    explain,
    flat_of,
    most_accurate,
    rank_trials,
    search_ms,
    try_kinds,
)
from mmretrieve.gallery.index.tuning import TuningResult, composed_queries, exact_best_with_ties, tune

N_QUERIES = 200  # composed queries for tuning, and as many others for the report
TUNING_K = 10  # recall@10 has to reach the target
Float16Rows = NDArray[np.float16]


@dataclass(frozen=True)
class BuiltIndex:
    """An index of all rows, its plan, the parameters that reach the recall, and the seconds of building."""

    index: FaissIndex
    plan: IndexPlan
    tuned: TuningResult
    seconds: float

    def measure(self, rows: Float16Rows) -> Trial:
        """Measures the searches of the tuned index."""
        queries = composed_queries(rows, N_TIMED_QUERIES, seed=1)
        (ms,) = search_ms([self.index.with_params(self.tuned.params)], rows, queries)
        return Trial(self.plan.factory, ms, self.tuned.recall, self.seconds, measured=True)


def build_index(rows: Float16Rows, plan: IndexPlan, target: float, progress: Progress | None = None) -> BuiltIndex:
    """Builds the index of a plan and tunes it to a recall@10. Raises OptionError for a plan that cannot be carried out."""
    started = time.perf_counter()
    index = FaissIndex.build(plan, rows, progress=progress)
    seconds = time.perf_counter() - started
    return BuiltIndex(index, plan, tune_index(index, rows, target), seconds)


def build_fastest(
    rows: Float16Rows, target: float, progress: Progress | None = None, *, memory: int | None = None
) -> BuiltIndex:
    """Builds the fastest index within the memory that reaches a recall@10, as trials on a sample tell and as it is then measured.

    If none reaches it, the most accurate one is built. Nothing is tried where a flat index fits and the gallery is small or the recall 1,
    or on a machine with GPUs, which do not support every kind of index. Raises OptionError if no index fits into a memory that was given.
    """
    items, dim = rows.shape
    kinds = fitting_kinds(items, dim, memory)
    is_tried = (items >= SAMPLE_SIZE and target < 1) or FLAT not in kinds
    if not is_tried or resolve_device(Device.AUTO) is not Device.CPU:
        return build_index(rows, choose(items, dim, kinds, recall=target), target, progress)
    trials = try_kinds(rows, target, kinds)
    return _build_best(rows, trials, rank_trials(trials, target), target, progress)


def tune_index(index: FaissIndex, rows: Float16Rows, target: float) -> TuningResult:
    """Finds the cheapest parameters that reach the target for composed queries."""
    queries = composed_queries(rows, N_QUERIES)
    k = min(TUNING_K, len(rows))
    return tune(index, exact_best_with_ties(rows, queries, k), queries, k=k, target=target)


def _build_best(
    rows: Float16Rows, trials: Sequence[Trial], ranked: Sequence[Trial], target: float, progress: Progress | None
) -> BuiltIndex:
    """Builds the first of the ranked trials. If it is not worth it when measured, the next one is built in its place.

    If none is worth it, that is the most accurate one.
    """
    best, *others = ranked
    built = build_index(rows, IndexPlan(best.factory, "tried on a sample"), target, progress)
    measured = built.measure(rows)
    trials = [measured if trial.factory == best.factory else trial for trial in trials]
    others = others or [trial for trial in (most_accurate(trials),) if trial != measured]
    if others and not measured.is_worth_it(flat_of(trials), target):
        del built  # two large indexes need not fit into memory
        return _build_best(rows, trials, others, target, None)
    return replace(built, plan=IndexPlan(best.factory, explain(measured, trials, target)))
