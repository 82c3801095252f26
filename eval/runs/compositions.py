"""From a benchmark's queries to terms, and from terms to the scores of every item, a block of queries at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark, BenchmarkQuery
from mmretrieve import ComposerName, Composition, Encoder, MMRetrieveError, Parts, RuleName
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers import make_composer
from mmretrieve.options import Choice
from mmretrieve.registry import COMPOSERS
from mmretrieve.rules import make_rule
from mmretrieve.scoring import term_scores
from mmretrieve.vectors import Float32, unit

ROWS = 128  # terms scored at once: bounds the memory that a large gallery takes
UNSAID = "."  # stands for an empty prompt: CIRR has one in test1
ENSEMBLES = frozenset({ComposerName.LDRE, ComposerName.SEIZE})


class PromptOrder(Choice):
    """Which sayings of a prompt count: the first alone, or the mean of all (FashionIQ's two captions in both orders)."""

    FIRST = "first"
    BOTH = "both"


@dataclass(frozen=True)
class MethodConfig:
    """How queries are composed. `given` takes the captions that a benchmark brings; ensembles make their own.

    concept: CIRCO's shared concept is taken for the caption, which is another protocol. orders: by default both for methods
    that put the prompt into a sentence of theirs, as in the published evaluators, and the first for those of captions.
    """

    composer: ComposerName
    rule: RuleName | None = None
    given: bool = True
    concept: bool = False
    orders: PromptOrder | None = None

    @property
    def prompt_orders(self) -> PromptOrder:
        if self.orders is not None:
            return self.orders
        averaged = COMPOSERS[self.composer].learned_words or self.composer in (ComposerName.PROMPT, ComposerName.SUM)
        return PromptOrder.BOTH if averaged else PromptOrder.FIRST

    def caption(self, query: BenchmarkQuery) -> str | None:
        if self.concept:
            return query.concept
        return query.caption if self.given and self.composer not in ENSEMBLES else None


@dataclass(frozen=True)
class ScoredCompositions:
    """The compositions of a benchmark's queries, and the (items, d) gallery that scores them."""

    compositions: Sequence[Composition]
    gallery: Float32

    def __iter__(self) -> Iterator[tuple[Composition, Float32]]:
        """Each composition with its (t, items) term scores. Scored anew each time: a block is in memory, never all."""
        waiting: list[Composition] = []
        rows = 0
        for composition in self.compositions:
            waiting.append(composition)
            rows += len(composition.terms)
            if rows >= ROWS:
                yield from self._block(waiting)
                waiting, rows = [], 0
        yield from self._block(waiting)

    def ranked_by(self, weigh: Callable[[Composition], Composition]) -> Iterator[NDArray[np.float64]]:
        """For each query the (items,) scores of its composition, weighed anew, under its rule."""
        return (weigh(composition).contributions(scores_tg).sum(axis=0) for composition, scores_tg in self)

    def _block(self, compositions: Sequence[Composition]) -> Iterator[tuple[Composition, Float32]]:
        if compositions:
            ends = np.cumsum([len(composition.terms) for composition in compositions])
            scores = term_scores(np.concatenate([composition.terms for composition in compositions]), self.gallery)
            yield from zip(compositions, np.split(scores, ends[:-1]), strict=True)


def compose(benchmark: Benchmark, gallery: Float32, encoder: Encoder, way: MethodConfig, parts: Parts) -> ScoredCompositions:
    """Composes all queries of a benchmark in one way; the vectors of references are taken from the gallery's.

    gallery: (items, d), in the order of the benchmark's ids. Raises MMRetrieveError where the way needs a part that is not there.
    """

    def score(vectors: Float32) -> Float32:
        return term_scores(vectors, gallery)

    rule = way.rule or RuleName.LINEAR
    composer = make_composer(way.composer, encoder, parts, score=score, rule=rule)
    sayings = max(len(query.prompts) for query in benchmark.queries) if way.prompt_orders is PromptOrder.BOTH else 1
    said = [composer.compose(_queries(benchmark, gallery, way, i)) for i in range(sayings)]
    compositions = [mean_of(several) for several in zip(*said, strict=True)]
    if way.rule is not None:
        folding = make_rule(way.rule, learned_words=COMPOSERS[way.composer].learned_words)
        compositions = [composition.with_rule(folding) for composition in compositions]
    return ScoredCompositions(compositions, gallery)


def mean_of(compositions: Sequence[Composition]) -> Composition:
    """One query said in several ways: each term is the mean of its unit vectors, normalised; the words are the first's.

    MMRetrieveError where one way gives other terms than another, as roles may.
    """
    first = compositions[0]
    if len(compositions) == 1:
        return first
    if other := next((one.names for one in compositions if one.names != first.names), None):
        raise MMRetrieveError(
            f"one order of a prompt gives {', '.join(first.names)}, another {', '.join(other)}: "
            "these have no mean, so take the first order alone"
        )
    mean = np.mean([composition.terms for composition in compositions], axis=0, dtype=np.float64)
    return replace(first, terms=unit(mean, "the mean of several sayings"))


def _queries(benchmark: Benchmark, gallery: Float32, way: MethodConfig, saying: int) -> list[ComposerInput]:
    if way.concept and any(query.concept is None for query in benchmark.queries):
        raise MMRetrieveError(f"{benchmark.name} has no shared concepts: leave the option out")
    return [
        ComposerInput(
            gallery[benchmark.place[query.reference]],
            query.prompts[min(saying, len(query.prompts) - 1)].strip() or UNSAID,
            way.caption(query),
            benchmark.picture(query.reference),
            query.reference,
        )
        for query in benchmark.queries
    ]
