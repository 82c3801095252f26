"""Benchmarks: their data, their queries and their protocols."""

from __future__ import annotations

from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.benchmarks.registry import BenchmarkName, load_benchmark, load_suite

__all__ = ["Benchmark", "BenchmarkName", "BenchmarkQuery", "Protocol", "load_benchmark", "load_suite"]
