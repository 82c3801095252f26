"""The built-in benchmark: 500 queries over 2,000 drawings. The reference leaves the ranking."""

from __future__ import annotations

from eval.benchmark import Benchmark, BenchmarkQuery
from mmretrieve import wardrobe


def load() -> Benchmark:
    queries = tuple(BenchmarkQuery(q.id, q.reference, (q.prompt,), q.targets, tags=q.changed) for q in wardrobe.queries())
    ids = tuple(drawing.id for drawing in wardrobe.drawings())
    return Benchmark("wardrobe", ids, queries, lambda id_: wardrobe.pictures_folder() / id_)
