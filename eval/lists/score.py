"""The rules that ranked lists must obey, whether they are scored here or submitted to a server, and their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark, BenchmarkQuery
from eval.lists.files import ListKind, RankedLists, raise_first
from eval.metrics import RankingTask, Ranks, list_ranks
from mmretrieve import MMRetrieveError
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


def check_lists(benchmark: Benchmark, lists: RankedLists, *, exact: bool = False) -> None:
    """Checks that lists fit a benchmark.

    There is one list for each query and no other; its ids are in the gallery, or among the query's candidates where only those
    are ranked; no id occurs twice; without the reference, where it is not ranked, the list reaches the largest k.

    Parameters
    ----------
    benchmark : the split that was ranked.
    lists : ids by query.
    exact : the stricter rules of a server: exactly as many ids as the largest k, and no reference that would have to be removed.

    Raises
    ------
    MMRetrieveError : a rule is broken. Names the file, a query, and how many others have the same problem.
    """
    if lists.metric is not None and not benchmark.protocol.subset_recalls:
        raise MMRetrieveError(
            f'{lists.where} has "metric": "{lists.metric}", as files for CIRR do, but was given for {describe(benchmark)}'
        )
    _check_query_ids(benchmark, lists)
    pairs = [(query, lists.lists[query.id]) for query in benchmark.queries]
    rules = _Rules(benchmark, lists, ranks_candidates(benchmark, lists), exact)
    for check in (
        rules.reference_matches,
        rules.in_gallery,
        rules.no_duplicates,
        rules.in_candidates,
        rules.no_reference,
        rules.length,
    ):
        raise_first(lists.where, ((query.id, check(query, ids)) for query, ids in pairs))


def ranks_candidates(benchmark: Benchmark, lists: RankedLists) -> bool:
    """Whether lists rank the candidates of each query instead of the gallery."""
    return benchmark.protocol.candidates_alone or lists.metric is ListKind.SUBSET


def describe(benchmark: Benchmark) -> str:
    """The name of a benchmark in errors: "cirr val"."""
    return f"{benchmark.name} {benchmark.split}"


@dataclass(frozen=True)
class _Rules:
    """Each rule returns what is wrong with the list of a query, or None."""

    benchmark: Benchmark
    lists: RankedLists
    of_candidates: bool
    exact: bool

    def reference_matches(self, query: BenchmarkQuery, _: Sequence[str]) -> str | None:
        candidate = self.lists.references.get(query.id, query.reference)
        if candidate == query.reference:
            return None
        return f"the record's candidate is {candidate!r}, the query's reference {query.reference!r}: are the records in the order of the queries?"

    def in_gallery(self, _: BenchmarkQuery, ids: Sequence[str]) -> str | None:
        unknown = next((id_ for id_ in ids if id_ not in self.benchmark.id2row), None)
        if unknown is None:
            return None
        return f"{unknown!r:.60} is not in the gallery of {describe(self.benchmark)}, whose ids look like {self.benchmark.gallery_ids[0]!r}"

    def no_duplicates(self, _: BenchmarkQuery, ids: Sequence[str]) -> str | None:
        if len(set(ids)) == len(ids):
            return None
        return f"{next(id_ for i, id_ in enumerate(ids) if id_ in ids[:i])!r} occurs twice"

    def in_candidates(self, query: BenchmarkQuery, ids: Sequence[str]) -> str | None:
        allowed = {*(query.candidates or ())} if self._keeps_reference else {*(query.candidates or ()), query.reference}
        outside = [id_ for id_ in ids if self.of_candidates and id_ not in allowed]
        return f"{outside[0]!r} is not one of the query's candidates" if outside else None

    def no_reference(self, query: BenchmarkQuery, ids: Sequence[str]) -> str | None:
        wrong = self.exact and not self._keeps_reference and query.reference in ids
        return f"the reference {query.reference!r} is in its own ranking" if wrong else None

    def length(self, query: BenchmarkQuery, ids: Sequence[str]) -> str | None:
        removed = not self._keeps_reference and query.reference in ids
        count = len(ids) - removed
        depth = max(metric.k for metric in self.benchmark.metrics if metric.subset is self.of_candidates)
        if self.of_candidates:
            available = len({*(query.candidates or ())})
        else:
            available = len(self.benchmark.gallery_ids) - (not self._keeps_reference)
        if count == depth or (count >= min(depth, available) and not self.exact):
            return None
        expected = f"exactly {depth}" if self.exact else f"at least {min(depth, available)}"
        hint = f'; a file of subset rankings has "metric": "{ListKind.SUBSET}"' if self._looks_like_subset(query, ids) else ""
        return f"expected {expected} ids, got {count}{' besides the reference' if removed else ''}{hint}"

    def _looks_like_subset(self, query: BenchmarkQuery, ids: Sequence[str]) -> bool:
        possible = bool(ids and self.benchmark.protocol.subset_recalls) and not self.of_candidates
        return possible and {*ids} <= {*(query.candidates or ()), query.reference}

    @property
    def _keeps_reference(self) -> bool:
        return self.benchmark.protocol.keeps_reference


def _check_query_ids(benchmark: Benchmark, lists: RankedLists) -> None:
    query_ids = dict.fromkeys(query.id for query in benchmark.queries)
    unknown = [id_ for id_ in lists.lists if id_ not in query_ids]
    missing = [id_ for id_ in query_ids if id_ not in lists.lists]
    of = f"{describe(benchmark)}, which has {len(query_ids)}"
    raise_first(
        lists.where, ((id_, f"not a query of {of}: does the file belong to another split or benchmark?") for id_ in unknown)
    )
    raise_first(
        lists.where,
        ((id_, f"has no list; it is a query of {of}: is the file incomplete, or of another split?") for id_ in missing),
    )


def _list_ranks(
    id2row: Mapping[str, int], query_id: str, by_kind: Mapping[bool, RankedLists], task: RankingTask
) -> Ranks | None:
    lists = by_kind.get(task.distractors is not None)
    return None if lists is None else list_ranks([id2row[id_] for id_ in lists.lists[query_id]], task)
