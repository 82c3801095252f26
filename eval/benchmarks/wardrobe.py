"""The built-in benchmark: 500 queries over 2,000 drawings. The reference is not ranked."""

from __future__ import annotations

from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.files import digest
from mmretrieve import wardrobe
from mmretrieve.wardrobe.captions import caption

SPLITS = ("test",)


def load() -> Benchmark:
    """Loads the benchmark over the drawings that ship with the package."""
    queries = tuple(BenchmarkQuery(q.id, q.reference, (q.prompt,), q.targets, tags=q.changed) for q in wardrobe.queries())
    ids = tuple(drawing.id for drawing in wardrobe.drawings())
    protocol = Protocol(
        headline="map@10", recalls=(1, 5, 10), precisions=(10,), aspects=tuple(sorted({t for q in queries for t in q.tags}))
    )
    return Benchmark(
        "wardrobe",
        "test",
        ids,
        queries,
        lambda id_: wardrobe.pictures_folder() / id_,
        protocol,
        checksum=digest(repr(q).encode() for q in queries),
        fields={drawing.id: wardrobe.fields_of(drawing) for drawing in wardrobe.drawings()},
    )


def captions() -> dict[str, str]:
    """A correct caption of each drawing in plain words, by id."""
    return {drawing.id: caption(drawing.garment) for drawing in wardrobe.drawings()}
