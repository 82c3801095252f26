"""`Benchmark`: scores by its protocol, and errors for vectors that do not fit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from eval import load_benchmark
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.metrics import RankingTask, Ranks, list_ranks
from mmretrieve.errors import OptionError

PROTOCOL = Protocol(headline="recall@1", recalls=(1, 2), precisions=(3,))


def tiny(gallery_ids: tuple[str, ...] = ("a", "b", "c", "d"), **protocol: Any) -> Benchmark:
    queries = (BenchmarkQuery("q", "a", ("in red",), ("b",)), BenchmarkQuery("r", "b", ("x",), ("c", "d")))
    return Benchmark("tiny", "test", gallery_ids, queries, Path, replace(PROTOCOL, **protocol))


def test_score_excludes_the_reference() -> None:
    gallery = np.eye(4)
    queries = np.array([[5, 3, 2, 1], [0.1, 9, 0.5, 0.5]])  # each best fits its own reference
    assert tiny().score(queries, gallery) == pytest.approx({"recall@1": 100, "recall@2": 100, "map@3": 100})
    kept = tiny(keeps_reference=True).score(queries, gallery)
    assert kept["recall@1"] == 0
    assert kept["map@3"] == pytest.approx(100 * (1 / 2 + (1 / 2 + 2 / 3) / 2) / 2)


def test_vectors_of_any_length_score_the_same() -> None:
    rng = np.random.default_rng(1)
    queries, gallery = rng.normal(size=(2, 5)), rng.normal(size=(4, 5))
    assert tiny().score(queries * [[7], [0.01]], gallery * [[3], [1], [9], [0.5]]) == tiny().score(queries, gallery)


def test_recall_of_the_first_target_only() -> None:
    queries, gallery = np.array([[1, 9, 0, 0], [0, 1, 2, 9]]), np.eye(4)  # of the second its other target comes first
    assert tiny().score(queries, gallery)["recall@1"] == 100
    first = tiny(first_target_alone=True).score(queries, gallery)
    assert (first["recall@1"], first["recall@2"]) == (50, 100)
    assert first["map@3"] == tiny().score(queries, gallery)["map@3"] == 100


def test_an_aspect_is_the_mean_over_the_queries_that_carry_it() -> None:
    bench = tiny(gallery_ids=tuple("abcdefghijkl"), aspects=("size", "colour", "shape"))
    first, second = bench.queries
    bench = replace(bench, queries=(replace(first, tags=("size", "colour")), replace(second, tags=("size",))))
    queries = np.zeros((2, 12))
    queries[0, [4, 1]] = [3, 2]  # "b" comes second
    queries[1, [2, 3]] = [3, 2]  # "c" and "d" come first
    result = bench.score(queries, np.eye(12))
    assert result["map@10/size"] == pytest.approx(100 * (1 / 2 + 1) / 2)
    assert result["map@10/colour"] == pytest.approx(100 * (1 / 2))
    assert "map@10/shape" not in result  # no query carries it


def test_unknown_ranks_are_left_out() -> None:
    bench = tiny(subset_recalls=(1,))
    bench = replace(bench, queries=tuple(replace(query, candidates=(*query.targets, "a")) for query in bench.queries[1:]))

    def rank(task: RankingTask) -> Ranks | None:
        return None if task.distractors is not None else list_ranks([2, 0, 3], task)

    result = bench.rank_table([rank]).values
    assert result.shape == (1, 4)
    assert bench.mean_metrics(result) == pytest.approx({"recall@1": 100, "recall@2": 100, "map@3": 100 * (1 + 2 / 3) / 2})
    list_metrics = bench.mean_metrics(bench.rank_table([partial(list_ranks, [2, 0, 3])]).values)
    assert list_metrics == bench.mean_metrics(result) | {"recall_subset@1": 100}


def test_vectors_of_other_shapes_are_refused() -> None:
    with pytest.raises(mm.MMRetrieveError, match="expected 2 query and 4 gallery vectors, got 1 and 4"):
        tiny().score(np.ones((1, 4)), np.eye(4))
    with pytest.raises(mm.MMRetrieveError, match="expected 2 query and 4 gallery vectors, got 2 and 3"):
        tiny().score(np.ones((2, 4)), np.eye(4)[:3])
    with pytest.raises(mm.MMRetrieveError, match="'a' occurs twice in the gallery"):
        tiny(gallery_ids=("a", "a", "b", "c", "d"))
    with pytest.raises(mm.MMRetrieveError, match="query r mentions 'd', which is not in the gallery"):
        tiny(gallery_ids=("a", "b", "c"))
    with pytest.raises(mm.MMRetrieveError, match="query id 'q' occurs twice"):
        replace(tiny(), queries=tiny().queries[:1] * 2)
    with pytest.raises(mm.MMRetrieveError, match="k = 5 is larger than the ranking of 3 items"):
        tiny(recalls=(5,)).score(np.ones((2, 4)), np.eye(4))
    hidden = replace(tiny(), queries=tuple(replace(query, targets=()) for query in tiny().queries))
    with pytest.raises(mm.MMRetrieveError, match="the targets of tiny test are not public"):
        hidden.score(np.ones((2, 4)), np.eye(4))


def test_unknown_names_are_option_errors() -> None:
    for name, message in {
        "imagenet": "unknown benchmark 'imagenet'; choose from: cirr, fashioniq, circo, genecis, icir, lasco, wardrobe, catalogue",
        "catalogue": "catalogue needs its folder: give --root FOLDER with items.csv",
        "fashioniq": "fashioniq has parts: choose from fashioniq:dress, fashioniq:shirt, fashioniq:toptee",
        "fashioniq:shoes": "unknown part of fashioniq 'shoes'",
    }.items():
        with pytest.raises(OptionError, match=message):
            load_benchmark(name)
    with pytest.raises(OptionError, match="unknown split of circo 'train'; choose from: val, test"):
        load_benchmark("circo", ".", split="train")
