"""Evaluation: benchmarks, metrics, and runs whose numbers can be quoted. `python -m eval --help`."""

from __future__ import annotations

from eval.benchmark import Benchmark, BenchmarkQuery
from eval.datasets import load_benchmark

__all__ = ["Benchmark", "BenchmarkQuery", "load_benchmark"]
