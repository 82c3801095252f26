"""Every benchmark by name."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from eval.benchmark import Benchmark
from eval.datasets import catalogue, wardrobe
from mmretrieve import MMRetrieveError


class BenchmarkName(StrEnum):
    WARDROBE = "wardrobe"
    CATALOGUE = "catalogue"

    @classmethod
    def _missing_(cls, value: object) -> BenchmarkName:
        raise MMRetrieveError(f"unknown benchmark {value!r}; choose from: {', '.join(cls)}")


def load_benchmark(name: str, root: str | Path | None = None) -> Benchmark:
    """The benchmark of that name; `root` is its own folder (the wardrobe has none: it is built in)."""
    match BenchmarkName(name):
        case BenchmarkName.WARDROBE:
            return wardrobe.load()
        case BenchmarkName.CATALOGUE:
            if root is None:
                raise MMRetrieveError("the catalogue needs root: the folder with items.csv and queries.jsonl")
            return catalogue.load(Path(root))
