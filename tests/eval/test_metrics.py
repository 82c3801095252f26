"""Metrics by hand, and against a slow implementation of the protocols that shares no code with `eval.metrics`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from math import isnan
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.benchmarks.base import ASPECT_K, Benchmark, BenchmarkQuery, Protocol
from eval.metrics import (
    UNRANKED,
    Metric,
    RankingTask,
    RankTable,
    average_precision_at,
    check_depth,
    list_ranks,
    recall_at,
    target_ranks,
)
from mmretrieve.errors import MMRetrieveError

ITEMS = tuple(f"i{n}" for n in range(30))
CASES = 1200
CIRR = Protocol(headline="recall@1", recalls=(1, 5, 10, 25), subset_recalls=(1, 2, 3))
FASHIONIQ = Protocol(headline="recall@10", recalls=(10, 25), keeps_reference=True)
CIRCO = Protocol(
    headline="map@5", recalls=(5, 25), precisions=(5, 10, 25), aspects=("x", "y"), keeps_reference=True, first_target_alone=True
)
CIRCO_WITHOUT = Protocol(headline="map@5", recalls=(5, 25), precisions=(5, 10), aspects=("x", "y"), first_target_alone=True)
GENECIS = Protocol(headline="recall@1", recalls=(1, 2, 3), keeps_reference=True, candidates_alone=True)
SHOP = Protocol(headline="map@10", recalls=(1, 5, 10), precisions=(10,), aspects=("x",))


def test_ranks_by_hand() -> None:
    assert target_ranks(np.array([3, 5, 3]), RankingTask([0])).tolist() == [3]  # 5 above, the other 3 before it
    assert target_ranks(np.array([9, 5, 3, 8]), RankingTask([2, 0], hidden=[3])).tolist() == [1, 3]
    assert target_ranks(np.array([[9, 5], [5, 9]]), RankingTask([0])).tolist() == [[1], [2]]
    assert target_ranks(np.array([9, 5, 3, 8]), RankingTask([2], distractors=[1, 2])).tolist() == [
        3
    ]  # a distractor is a copy of the target
    assert target_ranks(np.array([7, 7, 7, 1]), RankingTask([0, 1])).tolist() == [2, 3]  # the third 7 first, targets after it
    assert target_ranks(np.array([7, 7, 1]), RankingTask([1], hidden=[0])).tolist() == [1]  # what is hidden ties with nobody


def test_ranks_of_a_list_by_hand() -> None:
    assert list_ranks([4, 2, 0], RankingTask([0, 4])).tolist() == [1, 3]
    assert list_ranks([4, 2, 0], RankingTask([0], hidden=[4])).tolist() == [2]
    assert list_ranks([4, 2, 0, 1], RankingTask([1], distractors=[0, 3])).tolist() == [
        2
    ]  # only 0 and 1 of these are in the task
    assert list_ranks([4, 2], RankingTask([2, 1])).tolist() == [2, UNRANKED]


def test_the_length_of_a_ranking_by_hand() -> None:
    assert RankingTask([0], hidden=[3, 4]).size(10) == 10 - 2
    assert RankingTask([0, 3], hidden=[3]).size(10) == 10  # a target is always ranked
    assert RankingTask([0], distractors=[5, 6], hidden=[3]).size(10) == 3
    check_depth(8, 8)
    with pytest.raises(MMRetrieveError, match="k = 9 is larger than the ranking of 8 items"):
        check_depth(9, 8)


def test_values_of_a_table_by_hand() -> None:
    """Three queries on a plane of 2 × 1 points: two have one target, one has two; the second task knows only one query."""
    one, other = np.array([[[1]], [[2]]]), np.array([[[3]], [[1]]])
    two = np.array([[[1, 2]], [[1, 3]]])
    recall, precision = Metric("recall@1", 1, recall_at), Metric("map@2", 2, average_precision_at)
    tagged, subset = Metric("recall@1 x", 1, recall_at, tag="x"), Metric("recall_subset@1", 1, recall_at, subset=True)
    tags = [("x",), (), ("x", "y")]
    table = RankTable(
        [recall, precision, tagged, subset],
        tags,
        {(False, False): [one, two, other], (True, False): [None, one, None]},
    )
    nan = math.nan
    np.testing.assert_array_equal(table.value(recall), [[[100], [0]], [[100], [100]], [[0], [100]]])
    np.testing.assert_array_equal(table.value(precision), [[[100], [50]], [[100], [50]], [[0], [100]]])
    np.testing.assert_array_equal(table.value(tagged), [[[100], [0]], [[nan], [nan]], [[0], [100]]])
    np.testing.assert_array_equal(table.value(subset), [[[nan], [nan]], [[100], [0]], [[nan], [nan]]])
    assert table.values.shape == (3, 2, 1, 4)
    np.testing.assert_array_equal(table.means()[:, 0], [[200 / 3, 200 / 3, 50, 100], [200 / 3, 200 / 3, 50, 0]])
    alone = RankTable([recall, subset], [()], {(False, False): [one], (True, False): [None]})
    np.testing.assert_array_equal(alone.value(recall), [[[100], [0]]])
    np.testing.assert_array_equal(alone.value(subset), [[[nan], [nan]]])  # of the shape of the other task
    assert alone.value(recall).dtype == np.float64
    np.testing.assert_array_equal(alone.means(), [[[100, nan]], [[0, nan]]])
    mixed = RankTable([recall], [(), ()], {(False, False): [one, two]})  # two groups, of which none has all queries
    np.testing.assert_array_equal(mixed.value(recall), [[[100], [0]], [[100], [100]]])
    unknown = RankTable([recall], [()], {(False, False): [None]})
    np.testing.assert_array_equal(unknown.value(recall), [nan])
    assert np.isnan(unknown.means()).all()
    pair = RankTable([recall, tagged], [("x",), ()], {(False, False): [np.array([1]), np.array([2])]})
    np.testing.assert_array_equal(pair.values, [[100, 100], [0, nan]])
    np.testing.assert_array_equal(pair.means(), [50, 100])
    np.testing.assert_array_equal(pair.means(slice(1, 2)), [0, nan])
    single = RankTable([recall], [(), ()], {(False, False): [np.array([1]), None]})
    np.testing.assert_array_equal(single.value(recall), [100, nan])


def test_metrics_by_formula() -> None:
    ranks = np.array([1, 3, 12])
    assert recall_at(ranks, 1) == 100
    assert recall_at(ranks + 1, 1) == 0
    assert average_precision_at(ranks, 10) == pytest.approx(100 * (1 / 1 + 2 / 3) / 3)
    assert average_precision_at(ranks, 12) == pytest.approx(100 * (1 / 1 + 2 / 3 + 3 / 12) / 3)
    assert average_precision_at(ranks, 2) == pytest.approx(100 * (1 / 1) / 2)  # no more than two can be found among two
    assert average_precision_at(np.array([2]), 5) == pytest.approx(100 * (1 / 2) / 1)
    assert average_precision_at(np.array([4, UNRANKED]), 5) == pytest.approx(100 * (1 / 4) / 2)
    both = average_precision_at(np.array([[1, 2], [2, 4]]), 5)
    assert both == pytest.approx([100, 100 * (1 / 2 + 2 / 4) / 2])


def slow(protocol: Protocol, query: BenchmarkQuery, score: Callable[[str], float]) -> list[float]:
    """Every metric of one query, in the order of the protocol: rankings are written out and read rank by rank."""

    def ranking(targets: tuple[str, ...], entrants: list[tuple[str, bool]] | None = None) -> list[bool]:
        """Whether the right answer stands at each place, best first; who ties with it stands before it."""
        if entrants is None:
            entrants = [(item, item in targets) for item in ITEMS if protocol.keeps_reference or item != query.reference]
        return [right for _, right in sorted(entrants, key=lambda entrant: (-score(entrant[0]), entrant[1]))]

    def recall(places: list[bool], k: int) -> float:
        return 100.0 if True in places[:k] else 0.0

    def precision(places: list[bool], k: int) -> float:
        total, result = 0.0, 0
        for i in range(k):
            if places[i]:
                result += 1
                total += result / (i + 1)
        return 100.0 * total / (k if k < len(query.targets) else len(query.targets))

    members = list(query.candidates or ())
    entrants = [(member, member in query.targets) for member in members]
    if protocol.candidates_alone:  # the first candidate is the target, the others are not, whatever they show
        entrants = [(member, i == 0) for i, member in enumerate(members)]
    everything = ranking(query.targets, entrants if protocol.candidates_alone else None)
    single = everything
    if protocol.first_target_alone:
        single = ranking(query.targets[:1])
    values = [recall(single, k) for k in protocol.recalls]
    values += [recall(ranking(query.targets, entrants), k) for k in protocol.subset_recalls]
    values += [precision(everything, k) for k in protocol.precisions]
    return values + [precision(everything, 10) if tag in query.tags else float("nan") for tag in protocol.aspects]


def case(protocol: Protocol, random: Random) -> BenchmarkQuery:
    """A query with one to fourteen targets, or one where the benchmark has one; its reference is never a target."""
    items = random.sample(ITEMS, len(ITEMS))
    many = protocol.precisions and not protocol.subset_recalls
    targets = tuple(items[1 : 1 + (random.randint(1, 14) if many else 1)])
    candidates = None
    if protocol.subset_recalls:
        candidates = tuple(random.sample([*targets, *items[20:24]], 5))
    if protocol.candidates_alone:
        candidates = (*targets, *items[10:19], *(targets if random.random() < 0.2 else items[19:20]))
    tags = tuple(tag for tag in protocol.aspects if random.random() < 0.5)
    return BenchmarkQuery("q", items[0], ("",), targets, tags=tags, candidates=candidates)


def of_one(protocol: Protocol, query: BenchmarkQuery) -> Benchmark:
    return Benchmark("random", "test", ITEMS, (query,), Path, protocol)


@pytest.mark.parametrize("protocol", [CIRR, FASHIONIQ, CIRCO, CIRCO_WITHOUT, GENECIS, SHOP])
def test_every_metric_equals_a_slow_implementation(protocol: Protocol) -> None:
    assert ASPECT_K == 10
    random = Random(7)
    distinct: set[tuple[float, ...]] = set()
    for _ in range(CASES):
        query = case(protocol, random)
        levels = random.choice([2, 6, 1000])  # nearly all tie, many tie, hardly any tie
        scores = [float(random.randrange(levels)) for _ in ITEMS]
        expected = slow(protocol, query, lambda item, scores=scores: scores[ITEMS.index(item)])
        result = of_one(protocol, query).measure_scores([np.array(scores)])[0]
        assert result.tolist() == pytest.approx(expected, nan_ok=True), (query, scores)
        distinct.add(tuple(value for value in expected if not isnan(value)))
    assert len(distinct) > (100 if protocol.precisions else len(protocol.recalls))  # the cases differ


@pytest.mark.parametrize("protocol", [CIRR, FASHIONIQ, CIRCO, CIRCO_WITHOUT, GENECIS, SHOP])
def test_a_ranked_list_agrees_with_scores_without_ties(protocol: Protocol) -> None:
    random = Random(8)
    for _ in range(CASES // 4):
        query = case(protocol, random)
        benchmark = of_one(protocol, query)
        ranking = random.sample(range(len(ITEMS)), len(ITEMS))
        scores = np.zeros(len(ITEMS))
        scores[ranking] = np.arange(len(ITEMS), 0, -1)
        by_list = benchmark.rank_table([partial(list_ranks, ranking)]).values
        if len(set(query.candidates or ())) == len(query.candidates or ()):
            np.testing.assert_array_equal(by_list, benchmark.measure_scores([scores]))
        if not protocol.subset_recalls and not protocol.candidates_alone:  # all that the largest k asks for is enough
            cut = ranking[: benchmark.depth + (not protocol.keeps_reference)]
            np.testing.assert_array_equal(benchmark.rank_table([partial(list_ranks, cut)]).values, by_list)


def test_a_target_that_is_a_distractor_too_ties_with_itself_by_scores_and_in_a_list() -> None:
    benchmark = of_one(GENECIS, BenchmarkQuery("q", "i9", ("",), ("i0",), candidates=("i0", "i1", "i0", "i2")))
    scores = np.zeros(len(ITEMS))
    scores[[0, 1, 2]] = [3, 2, 1]
    assert benchmark.measure_scores([scores]).tolist() == [[0, 100, 100]]  # its other self stands before it
    assert benchmark.rank_table([partial(list_ranks, [0, 1, 2])]).values.tolist() == [[0, 100, 100]]
    assert benchmark.rank_table([partial(list_ranks, [1, 2, 0])]).values.tolist() == [[0, 0, 0]]


@settings(max_examples=200)
@given(st.integers(0, 2**31), st.sampled_from([CIRR, FASHIONIQ, CIRCO, GENECIS, SHOP]))
def test_laws(seed: int, protocol: Protocol) -> None:
    random = Random(seed)
    query = case(protocol, random)
    scores = np.array([float(random.randrange(9)) for _ in ITEMS])
    values = of_one(protocol, query).measure_scores([scores])
    recalls = values[0, : len(protocol.recalls)]
    assert (np.diff(recalls) >= 0).all(), "recall falls with k"
    order = random.sample(range(len(ITEMS)), len(ITEMS))
    shuffled = Benchmark("random", "test", tuple(ITEMS[i] for i in order), (query,), Path, protocol)
    np.testing.assert_array_equal(shuffled.measure_scores([scores[order]]), values)
    better = scores + [100.0 * (item in query.targets) for item in ITEMS]
    if len(set(query.candidates or ())) == len(query.candidates or ()):
        first = of_one(protocol, query).measure_scores([better])[0, 0 if not protocol.precisions else len(protocol.recalls)]
        assert first == pytest.approx(100), "all targets come first, and it is not worth 100"
    np.testing.assert_array_equal(of_one(protocol, query).measure_scores([np.stack([scores, better])])[0, 0], values[0])
