"""Who says the references of a benchmark in words: a tagger with one vocabulary or another, their fields, or the benchmark itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from eval.benchmarks import BenchmarkName
from eval.benchmarks.base import Benchmark
from eval.benchmarks.wardrobe import captions
from mmretrieve import Encoder, MMRetrieveError, Vocabulary
from mmretrieve.language.fields import caption_from_fields, vocabulary_from_fields
from mmretrieve.language.vocabulary import GENERAL, default_vocabulary
from mmretrieve.options import Choice


class CaptionSetup(Choice):
    """Where captions come from; the vocabulary of the swap rewriter is that of the source."""

    GENERAL = "tagged, general vocabulary"
    OWN = "tagged, own vocabulary"
    FIELDS = "from fields"
    GIVEN = "given"


@dataclass(frozen=True)
class CaptionedBenchmark:
    """A benchmark whose queries have captions, or none where a tagger makes them, and the vocabulary for tagger and rewriter."""

    benchmark: Benchmark
    vocabulary: Vocabulary


def captioned(benchmark: Benchmark, encoder: Encoder, source: CaptionSetup) -> CaptionedBenchmark:
    """MMRetrieveError where the benchmark has no fields, or no captions, to take."""
    match source:
        case CaptionSetup.GENERAL:
            return CaptionedBenchmark(_with(benchmark, {}), Vocabulary.read(GENERAL))
        case CaptionSetup.OWN:
            return CaptionedBenchmark(_with(benchmark, {}), own_vocabulary(benchmark, encoder))
        case CaptionSetup.FIELDS:
            vocabulary = vocabulary_from_fields(benchmark.fields.values())
            if vocabulary is None:
                raise MMRetrieveError(f"{benchmark.name}: its items have no fields to make captions from")
            said = {id_: caption_from_fields(fields, vocabulary) for id_, fields in benchmark.fields.items()}
            return CaptionedBenchmark(_with(benchmark, said), vocabulary)
        case CaptionSetup.GIVEN:
            return CaptionedBenchmark(_given(benchmark), own_vocabulary(benchmark, encoder))


def own_vocabulary(benchmark: Benchmark, encoder: Encoder) -> Vocabulary:
    """The words of the benchmark where it has some, else of its encoder."""
    return benchmark.vocabulary or default_vocabulary(encoder)


def _given(benchmark: Benchmark) -> Benchmark:
    given = _with(benchmark, captions()) if benchmark.name == BenchmarkName.WARDROBE else benchmark
    if any(query.caption is None for query in given.queries):
        raise MMRetrieveError(f"{benchmark.name}: some queries have no caption")
    return given


def _with(benchmark: Benchmark, said: Mapping[str, str | None]) -> Benchmark:
    """The benchmark with the captions of these references, and no others."""
    return replace(benchmark, queries=tuple(replace(query, caption=said.get(query.reference)) for query in benchmark.queries))
