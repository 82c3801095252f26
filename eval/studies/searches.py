"""A benchmark through `Retriever.search`: what somebody gets who chooses nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eval.benchmarks.base import Benchmark, Ranker
from eval.metrics.ranks import list_ranks
from eval.runs.compositions import UNSAID
from mmretrieve import Encoder, Gallery, Ranking, Retriever
from mmretrieve.options import AUTO, BASE
from mmretrieve.vectors import Float32

DEFAULT = "default (`search`)"


@contextmanager
def retriever_of(benchmark: Benchmark, vectors: Float32, encoder: Encoder) -> Iterator[Retriever]:
    """A retriever over a gallery of the benchmark's pictures, with their fields, which is gone afterwards."""
    ids = benchmark.gallery_ids
    paths = [str(benchmark.image_path(id_)) for id_ in ids]
    fields = [{name: value for name, value in benchmark.fields.get(id_, {}).items() if value} for id_ in ids]
    with TemporaryDirectory() as folder:
        gallery = Gallery.create(Path(folder, "gallery"), encoder=encoder)
        gallery.add_vectors(ids, vectors, paths=paths, fields=fields)
        yield Retriever(gallery, encoder)


def searched(benchmark: Benchmark, retriever: Retriever) -> dict[str, dict[str, float]]:
    """Metrics of plain searches, and of the same under base weights."""
    return {name: benchmark.means(benchmark.measured(_rankers(benchmark, retriever, name))) for name in (BASE, AUTO)}


def _rankers(benchmark: Benchmark, retriever: Retriever, weights: str) -> list[Ranker]:
    """Where the targets of each query stand in its ranking."""
    asked: list[dict[str, Any]] = [
        {
            "reference_id": query.reference,
            "prompt": query.prompts[0].strip() or UNSAID,
            "k": benchmark.depth,
            "exclude_reference": not benchmark.protocol.keeps_reference,
        }
        for query in benchmark.queries
    ]
    if weights != AUTO:  # which is what a search without a word of weights takes
        asked = [{**request, "weights": weights} for request in asked]
    return [partial(list_ranks, _places(benchmark, ranking)) for ranking in retriever.search_many(asked)]


def _places(benchmark: Benchmark, ranking: Ranking) -> Sequence[int]:
    return [benchmark.place[id_] for id_ in ranking.ids]
