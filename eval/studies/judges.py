"""What judges add to searches: recall with each weight of each built-in judge, the interval of the difference, and MulVec step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import compress, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.benchmarks import Benchmark
from eval.report.bootstrap import paired_interval
from eval.studies.compare import ranking_values, search_requests
from eval.studies.inputs import held_out_queries
from mmretrieve import Parts, Ranking, Retriever
from mmretrieve.composers import ComposerContext
from mmretrieve.concurrency import map_ahead
from mmretrieve.images import open_image
from mmretrieve.judges.base import Judge, judge_logits
from mmretrieve.judges.reranking import rerank
from mmretrieve.options import BASE, DEFAULT_JUDGE_K, ComposerName, JudgeName
from mmretrieve.registry import JUDGES

Load = Callable[[str], Image.Image]
WEIGHTS = ("0.25", "0.5", "1", "2", "inf")
METRIC = "recall@1"
GLOBAL = {"composer": ComposerName.CAPTIONS, "weights": BASE}
ROLES = {"composer": ComposerName.ROLES, "weights": BASE}


def measure_judges(benchmark: Benchmark, retriever: Retriever) -> dict[str, Any]:
    """Measures searches without a judge, and with each weight of each built-in judge.

    Only the held-out half of the queries counts, because the scale of "local" was chosen on the other one. Each judge sees the hits of a query
    once; the rankings with each weight are those of searches.

    Parameters
    ----------
    benchmark : the queries.
    retriever : searches the gallery of the benchmark.

    Returns
    -------
    "queries": their number; "without": metrics without a judge; "judges": judge → weight → metrics, and "gain": the difference that it makes to
    recall@1, in points with its 95 % interval; "ablation": the steps of MulVec → metrics, and "gain" over the step before.
    """
    benchmark = replace(benchmark, queries=tuple(compress(benchmark.queries, held_out_queries(benchmark))))
    judges = _make_judges(benchmark, retriever)
    load = cache(lambda id_: open_image(benchmark.load_image(id_)))  # the wardrobe draws
    rankings = _search(benchmark, retriever)
    before = ranking_values(benchmark, rankings)
    measured: dict[str, Any] = {}
    for name, judge in judges.items():
        logits = _judge(benchmark, rankings, judge, load)
        judged = {weight: ranking_values(benchmark, _rerank(rankings, logits, weight)) for weight in WEIGHTS}
        measured[name] = {weight: _compare(benchmark, values, before) for weight, values in judged.items()}
    return {
        "queries": len(rankings),
        "without": {"metrics": benchmark.mean_metrics(before)},
        "judges": measured,
        "ablation": _measure_ablation(benchmark, retriever, judges[JudgeName.LOCAL], load),
    }


def _measure_ablation(benchmark: Benchmark, retriever: Retriever, local: Judge, load: Load) -> dict[str, Any]:
    """The description of the target alone; with a term for each role; and with the vectors of patches."""
    of_roles = _search(benchmark, retriever, **ROLES)
    steps = {
        "global": _search(benchmark, retriever, **GLOBAL),
        "+ roles": of_roles,
        "+ local": _rerank(of_roles, _judge(benchmark, of_roles, local, load), "1"),
    }
    values = {name: ranking_values(benchmark, rankings) for name, rankings in steps.items()}
    compared = {after: _compare(benchmark, values[after], values[before]) for before, after in pairwise(values)}
    return {"global": {"metrics": benchmark.mean_metrics(values["global"])}, **compared}


def _make_judges(benchmark: Benchmark, retriever: Retriever) -> dict[str, Judge]:
    context = ComposerContext(retriever.encoder, Parts(vocabulary=benchmark.vocabulary))
    return {name.value: JUDGES.build(name, context) for name in JudgeName}


def _search(benchmark: Benchmark, retriever: Retriever, **options: Any) -> list[Ranking]:
    """The rankings of the queries, as deep as judges and metrics need."""
    depth = max(benchmark.depth, DEFAULT_JUDGE_K)
    return retriever.search_many([request | options | {"k": depth} for request in search_requests(benchmark)])


def _judge(benchmark: Benchmark, rankings: Sequence[Ranking], judge: Judge, load: Load) -> list[NDArray[np.float64]]:
    """The logits of the first hits of each query."""
    logits = []
    for query, ranking in zip(benchmark.queries, rankings, strict=True):
        ids = [query.reference, *ranking.ids[:DEFAULT_JUDGE_K]]
        reference, *candidates = map_ahead(load, ids, DEFAULT_JUDGE_K)
        documents = [{"image": candidate} for candidate in candidates]
        logits.append(judge_logits(judge, {"image": reference, "text": query.prompts[0]}, documents))
    return logits


def _rerank(rankings: Sequence[Ranking], logits: Sequence[NDArray[np.float64]], weight: str) -> list[Ranking]:
    return [rerank(ranking, own, float(weight)) for ranking, own in zip(rankings, logits, strict=True)]


def _compare(benchmark: Benchmark, values: NDArray[np.float64], before: NDArray[np.float64]) -> dict[str, Any]:
    """The metrics of (queries, metrics) values, and their gain in recall@1."""
    column = [metric.name for metric in benchmark.metrics].index(METRIC)
    gain = paired_interval(values[:, column], before[:, column])
    return {"metrics": benchmark.mean_metrics(values), "gain": asdict(gain)}
