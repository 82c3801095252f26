"""What a judge adds to searches: recall with each weight of the judge "attributes", and the interval of the difference."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eval.benchmarks import Benchmark
from eval.report.bootstrap import paired_interval
from eval.studies.compare import ranking_values, search_requests
from mmretrieve import Retriever
from mmretrieve.concurrency import map_ahead
from mmretrieve.images import open_image
from mmretrieve.judges.attributes import AttributeJudge
from mmretrieve.judges.base import judge_logits
from mmretrieve.judges.reranking import rerank
from mmretrieve.language.vocabulary import default_vocabulary
from mmretrieve.options import DEFAULT_JUDGE_K

WITHOUT = "no judge"
WEIGHTS = ("0.25", "0.5", "1", "2", "inf")
METRIC = "recall@1"


def measure_judge(benchmark: Benchmark, retriever: Retriever) -> dict[str, Any]:
    """Weight of the judge → its metrics, and the difference that it makes to recall@1, in points with its 95 % interval.

    Each query is judged once; the rankings with each weight are those of searches.
    """
    judge = AttributeJudge(retriever.encoder, benchmark.vocabulary or default_vocabulary(retriever.encoder))
    depth = max(benchmark.depth, DEFAULT_JUDGE_K)
    rankings = retriever.search_many([request | {"k": depth} for request in search_requests(benchmark)])
    logits = []
    for query, ranking in zip(benchmark.queries, rankings, strict=True):
        ids = [query.reference, *ranking.ids[:DEFAULT_JUDGE_K]]
        reference, *candidates = map_ahead(lambda id_: open_image(benchmark.load_image(id_)), ids, DEFAULT_JUDGE_K)
        documents = [{"image": candidate} for candidate in candidates]
        logits.append(judge_logits(judge, {"image": reference, "text": query.prompts[0]}, documents))
    before = ranking_values(benchmark, rankings)
    column = [metric.name for metric in benchmark.metrics].index(METRIC)
    measured: dict[str, Any] = {WITHOUT: {"metrics": benchmark.mean_metrics(before)}}
    for weight in WEIGHTS:
        judged = [rerank(ranking, own, float(weight)) for ranking, own in zip(rankings, logits, strict=True)]
        values = ranking_values(benchmark, judged)
        gain = paired_interval(values[:, column], before[:, column])
        measured[weight] = {"metrics": benchmark.mean_metrics(values), "gain": asdict(gain)}
    return measured
