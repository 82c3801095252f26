"""Evaluation: benchmarks, metrics, and runs whose numbers can be quoted. `python -m eval --help`."""

from __future__ import annotations

from eval.benchmarks import load_benchmark
from eval.benchmarks.base import Benchmark, BenchmarkQuery

__all__ = ["Benchmark", "BenchmarkQuery", "load_benchmark"]
