"""What a judge adds to searches: recall with each weight of the judge "attributes", and the interval of the difference."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eval.benchmarks import Benchmark
from eval.report.bootstrap import paired_interval
from eval.studies.compare import search_values
from mmretrieve import Retriever
from mmretrieve.options import JudgeName

WITHOUT = "no judge"
WEIGHTS = ("0.25", "0.5", "1", "2", "inf")
METRIC = "recall@1"


def measure_judge(benchmark: Benchmark, retriever: Retriever) -> dict[str, Any]:
    """Weight of the judge → its metrics, and the difference that it makes to recall@1, in points with its 95 % interval."""
    before = search_values(benchmark, retriever)
    column = [metric.name for metric in benchmark.metrics].index(METRIC)
    measured: dict[str, Any] = {WITHOUT: {"metrics": benchmark.mean_metrics(before)}}
    for weight in WEIGHTS:
        values = search_values(benchmark, retriever, judge=JudgeName.ATTRIBUTES, judge_weight=float(weight))
        gain = paired_interval(values[:, column], before[:, column])
        measured[weight] = {"metrics": benchmark.mean_metrics(values), "gain": asdict(gain)}
    return measured
