"""Scores ranked lists of any origin by a benchmark's own protocol."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark
from eval.lists.checks import check_lists, ranks_candidates
from eval.lists.files import ListKind, RankedLists
from eval.metrics import RankingTask, Ranks, list_ranks
from mmretrieve.errors import OptionError


def score_lists(benchmark: Benchmark, *lists: RankedLists) -> dict[str, float]:
    """Metric → mean ×100, of every metric that the lists determine. Raises what `measure_lists` raises."""
    return benchmark.mean_metrics(measure_lists(benchmark, *lists))


def measure_lists(benchmark: Benchmark, *lists: RankedLists) -> NDArray[np.float64]:
    """(queries, metrics) ×100; NaN where a query does not carry the aspect, and in metrics that the lists do not determine.

    CIRR takes two: rankings of the gallery, and of the subsets. Rankings of the gallery alone also determine
    `recall_subset@k`, if every list contains all candidates.

    Parameters
    ----------
    benchmark : a split with public targets.
    lists : one for each kind of ranking.

    Raises
    ------
    OptionError : there are no lists, or two of a kind.
    MMRetrieveError : the lists do not fit (see `check_lists`), or the targets are not public.
    """
    by_kind: dict[bool, RankedLists] = {}
    for one in lists:
        other = by_kind.setdefault(ranks_candidates(benchmark, one), one)
        if other is not one:
            expected = f"one each of {' and '.join(ListKind)}" if benchmark.protocol.subset_recalls else "one file"
            raise OptionError(
                f"{other.where} and {one.where} are for the same metrics of {benchmark.name}: expected {expected}"
            )
    if not by_kind:
        raise OptionError(f"there are no lists of {benchmark.name} to score")
    for one in by_kind.values():
        check_lists(benchmark, one)
    if True not in by_kind and all({*(q.candidates or ())} <= {*by_kind[False].lists[q.id]} for q in benchmark.queries):
        by_kind[True] = by_kind[False]
    return benchmark.rank_table(partial(_list_ranks, benchmark.id2row, query.id, by_kind) for query in benchmark.queries).values


def _list_ranks(
    id2row: Mapping[str, int], query_id: str, by_kind: Mapping[bool, RankedLists], task: RankingTask
) -> Ranks | None:
    lists = by_kind.get(task.distractors is not None)
    return None if lists is None else list_ranks([id2row[id_] for id_ in lists.lists[query_id]], task)
