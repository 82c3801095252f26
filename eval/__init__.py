"""Evaluation: benchmarks, metrics and runs whose numbers can be quoted. `python -m eval --help` lists the commands."""

from __future__ import annotations

from eval.benchmarks import Benchmark, BenchmarkQuery, load_benchmark

__all__ = ["Benchmark", "BenchmarkQuery", "load_benchmark"]
