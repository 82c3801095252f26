"""What judges add to searches: recall with each weight of each built-in judge, the interval of the difference, and MulVec step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import compress, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks import Benchmark
from eval.report.bootstrap import paired_interval
from eval.runs.judging import BenchmarkJudge
from eval.studies.compare import ranking_values, search_requests
from eval.studies.inputs import held_out_queries
from mmretrieve import Parts, Ranking, Retriever
from mmretrieve.composers import ComposerContext
from mmretrieve.images import open_image
from mmretrieve.judges.base import Judge
from mmretrieve.judges.local import local_score
from mmretrieve.judges.reranking import rerank
from mmretrieve.options import BASE, DEFAULT_JUDGE_K, ComposerName, JudgeName
from mmretrieve.registry import JUDGES
from mmretrieve.scoring import term_scores

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
    rankings = _search(benchmark, retriever)
    before = ranking_values(benchmark, rankings)
    measured: dict[str, Any] = {}
    for name, judge in judges.items():
        logits = _judge(benchmark, rankings, judge)
        judged = {weight: ranking_values(benchmark, _rerank(rankings, logits, weight)) for weight in WEIGHTS}
        measured[name] = {weight: _compare(benchmark, values, before) for weight, values in judged.items()}
    return {
        "queries": len(rankings),
        "without": {"metrics": benchmark.mean_metrics(before)},
        "judges": measured,
        "ablation": _measure_ablation(benchmark, retriever, judges[JudgeName.LOCAL]),
    }


def measure_first_stage(benchmark: Benchmark, retriever: Retriever) -> dict[str, Any]:
    """Measures patches as a first stage: the prompt is compared with the best patch of each image of the gallery instead of its vector.

    The score of an item is its score with the reference plus its score with the prompt, each in standard deviations over the gallery.

    Parameters
    ----------
    benchmark : the queries, all of which count.
    retriever : its gallery has the images of the benchmark; its encoder also encodes patches.

    Returns
    -------
    "whole images" and "best patches" → metrics, and "gain" over the row before.
    """
    ids, encoder = benchmark.gallery_ids, retriever.encoder
    vectors_gd = retriever.gallery.vectors(ids)
    prompts_qd = encoder.encode_texts([query.prompts[0] for query in benchmark.queries])
    patches_gpd = encoder.encode_patches(open_image(benchmark.load_image(id_)) for id_ in ids)  # type: ignore[attr-defined]
    with_images_qg = term_scores(vectors_gd[[benchmark.id2row[query.reference] for query in benchmark.queries]], vectors_gd)
    with_prompts: dict[str, NDArray[Any]] = {
        "whole images": term_scores(prompts_qd, vectors_gd),
        "best patches": np.stack([local_score(patches_pd, prompts_qd, tau=0) for patches_pd in patches_gpd], axis=1),
    }
    values = {
        name: benchmark.measure_scores(iter(_standardized(with_images_qg) + _standardized(scores_qg)))
        for name, scores_qg in with_prompts.items()
    }
    compared = {after: _compare(benchmark, values[after], values[before]) for before, after in pairwise(values)}
    return {"whole images": {"metrics": benchmark.mean_metrics(values["whole images"])}, **compared}


def _standardized(scores_qg: NDArray[Any]) -> NDArray[np.float64]:
    """The scores of each query with the mean 0 and the standard deviation 1 over the gallery."""
    exact = np.asarray(scores_qg, np.float64)
    return np.asarray((exact - exact.mean(axis=1, keepdims=True)) / exact.std(axis=1, keepdims=True))


def _measure_ablation(benchmark: Benchmark, retriever: Retriever, local: Judge) -> dict[str, Any]:
    """The description of the target alone; with a term for each role; and with the vectors of patches."""
    of_roles = _search(benchmark, retriever, **ROLES)
    steps = {
        "global": _search(benchmark, retriever, **GLOBAL),
        "+ roles": of_roles,
        "+ local": _rerank(of_roles, _judge(benchmark, of_roles, local), "1"),
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


def _judge(benchmark: Benchmark, rankings: Sequence[Ranking], judge: Judge) -> list[NDArray[np.float64]]:
    """The logits of the first hits of each query."""
    own = BenchmarkJudge(judge)
    return [
        own.logits(benchmark, query, ranking.ids[: own.k]) for query, ranking in zip(benchmark.queries, rankings, strict=True)
    ]


def _rerank(rankings: Sequence[Ranking], logits: Sequence[NDArray[np.float64]], weight: str) -> list[Ranking]:
    return [rerank(ranking, own, float(weight)) for ranking, own in zip(rankings, logits, strict=True)]


def _compare(benchmark: Benchmark, values: NDArray[np.float64], before: NDArray[np.float64]) -> dict[str, Any]:
    """The metrics of (queries, metrics) values, and their gain in recall@1."""
    column = [metric.name for metric in benchmark.metrics].index(METRIC)
    gain = paired_interval(values[:, column], before[:, column])
    return {"metrics": benchmark.mean_metrics(values), "gain": asdict(gain)}
