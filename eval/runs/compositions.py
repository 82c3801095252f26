"""Composes the queries of a benchmark, and scores the gallery for them one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark, BenchmarkQuery
from eval.runs.judging import BenchmarkJudge
from mmretrieve import Composition, Encoder, MMRetrieveError, Parts, RuleName
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers import ComposerContext, make_composer
from mmretrieve.errors import OptionError
from mmretrieve.judges.reranking import JUDGE
from mmretrieve.language.base import Paraphraser
from mmretrieve.language.paraphrases import make_paraphraser, paraphrase_prompts
from mmretrieve.language.vocabulary import default_vocabulary
from mmretrieve.options import DEFAULT_JUDGE_K, OptionEnum
from mmretrieve.registry import COMPOSERS, JUDGES
from mmretrieve.rules import make_rule
from mmretrieve.scoring import term_scores
from mmretrieve.vectors import Float32, unit
from mmretrieve.weighting import Spread

TERM_BATCH_SIZE = 128  # terms scored at once; bounds the memory that the scores of a large gallery take
EMPTY_PROMPT = "."  # replaces an empty prompt; CIRR has one in test1


class PromptOrder(OptionEnum):
    """Which wordings of a prompt count: the first, or the mean of all (FashionIQ's two captions in both orders)."""

    FIRST = "first"
    BOTH = "both"


@dataclass(frozen=True)
class MethodConfig:
    """How queries are composed.

    Parameters
    ----------
    composer : a name in `COMPOSERS`, registered ones included.
    rule : a name in `RULES`; None means the composer's own rule.
    benchmark_captions : whether captions that the benchmark provides are used. Composers with `makes_captions` never get them.
    concept : whether CIRCO's shared concept is used as the caption, which departs from the protocol.
    orders : None means both orders for methods that put the prompt into a sentence of their own, as in the published evaluators,
        and the first order for methods with captions.
    paraphrases : wordings of each prompt, its own included, over which the composer takes the mean.
    judge : a name in `JUDGES`, registered ones included; None for none.
    judge_k, judge_weight : how many items the judge sees, and its weight, as in `Retriever.search`.
    """

    composer: str
    rule: str | None = None
    benchmark_captions: bool = True
    concept: bool = False
    orders: PromptOrder | None = None
    paraphrases: int = 1
    judge: str | None = None
    judge_k: int = DEFAULT_JUDGE_K
    judge_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.paraphrases > 1 and not COMPOSERS[self.composer].reads_paraphrases:
            raise OptionError(f"{str(self.composer)!r} takes each prompt in one wording: leave out --paraphrases")

    @property
    def prompt_orders(self) -> PromptOrder:
        """`orders`, or the default of the composer."""
        if self.orders is not None:
            return self.orders
        entry = COMPOSERS[self.composer]
        return PromptOrder.BOTH if entry.learned_words or entry.averages_prompts else PromptOrder.FIRST

    def caption(self, query: BenchmarkQuery) -> str | None:
        """The caption of a query's reference; None where the composer has to make one."""
        if self.concept:
            return query.concept
        return query.caption if self.benchmark_captions and not COMPOSERS[self.composer].makes_captions else None


@dataclass(frozen=True)
class ComposedBenchmark:
    """A benchmark with the compositions of its queries, the (items, d) vectors of its gallery, and the judge of its best items, if any."""

    benchmark: Benchmark
    compositions: Sequence[Composition]
    gallery: Float32
    judge: BenchmarkJudge | None = None

    @cached_property
    def spread(self) -> Spread:
        """The spread of the gallery, on which automatic weights depend."""
        return Spread.of(self.gallery)

    def __iter__(self) -> Iterator[tuple[Composition, Float32]]:
        """Each composition with its (t, items) term scores. Every iteration scores again: only one batch is in memory."""
        batch: list[Composition] = []
        terms = 0
        for composition in self.compositions:
            batch.append(composition)
            terms += len(composition.terms)
            if terms >= TERM_BATCH_SIZE:
                yield from self._score(batch)
                batch, terms = [], 0
        yield from self._score(batch)

    def weighed(
        self, weigh: Callable[[Composition], Composition]
    ) -> Iterator[tuple[Composition, dict[str, NDArray[np.float64]]]]:
        """For each query its composition under the weights that `weigh` gives it, and the (items,) contributions of each term and of the judge."""
        for query, (composition, scores_tg) in zip(self.benchmark.queries, self, strict=True):
            own = weigh(composition)
            contributions = dict(zip(own.names, own.contributions(scores_tg), strict=True))
            if self.judge is not None:
                scores_g = np.sum(list(contributions.values()), axis=0)
                contributions[JUDGE] = self.judge.contributions(self.benchmark, query, scores_g)
            yield own, contributions

    def item_scores(self, weigh: Callable[[Composition], Composition]) -> Iterator[NDArray[np.float64]]:
        """For each query the (items,) scores of its composition under the weights that `weigh` gives it and under its rule, and of the judge."""
        return (np.sum(list(contributions.values()), axis=0) for _, contributions in self.weighed(weigh))

    def measure(self, weigh: Callable[[Composition], Composition]) -> NDArray[np.float64]:
        """(queries, metrics) ×100 under the weights that `weigh` gives to each composition."""
        return self.benchmark.measure_scores(self.item_scores(weigh))

    def _score(self, compositions: Sequence[Composition]) -> Iterator[tuple[Composition, Float32]]:
        if compositions:
            ends = np.cumsum([len(composition.terms) for composition in compositions])
            scores = term_scores(np.concatenate([composition.terms for composition in compositions]), self.gallery)
            yield from zip(compositions, np.split(scores, ends[:-1]), strict=True)


def compose(benchmark: Benchmark, gallery: Float32, encoder: Encoder, config: MethodConfig, parts: Parts) -> ComposedBenchmark:
    """Composes all queries of a benchmark; the vectors of references are those of the gallery.

    Parameters
    ----------
    benchmark : its queries are composed.
    gallery : (items, d) float32 unit rows, in the order of the benchmark's ids.
    encoder : encodes texts.
    config : the method.
    parts : captioner, rewriter and other parts of the composer.

    Raises
    ------
    MMRetrieveError : the method needs a part or a concept that is missing.
    """

    def score(vectors: Float32) -> Float32:
        return term_scores(vectors, gallery)

    composer = make_composer(config.composer, encoder, parts, score=score, rule=config.rule or RuleName.LINEAR)
    wordings = max(len(query.prompts) for query in benchmark.queries) if config.prompt_orders is PromptOrder.BOTH else 1
    paraphraser = make_paraphraser(parts.paraphraser, parts.vocabulary or default_vocabulary(encoder))
    by_wording = [
        composer.compose(_with_paraphrases(_composer_inputs(benchmark, gallery, config, i), paraphraser, config.paraphrases))
        for i in range(wordings)
    ]
    compositions = [average_compositions(several) for several in zip(*by_wording, strict=True)]
    if config.rule is not None:
        rule = make_rule(config.rule, learned_words=COMPOSERS[config.composer].learned_words)
        compositions = [composition.with_rule(rule) for composition in compositions]
    judge = config.judge and JUDGES.build(config.judge, ComposerContext(encoder, parts, score))
    return ComposedBenchmark(
        benchmark, compositions, gallery, BenchmarkJudge(judge, config.judge_k, config.judge_weight) if judge else None
    )


def average_compositions(compositions: Sequence[Composition]) -> Composition:
    """One query in several wordings: each term is the normalized mean of its unit vectors; texts and weights are the first one's.

    MMRetrieveError where the wordings have different terms, as can happen with roles.
    """
    first = compositions[0]
    if len(compositions) == 1:
        return first
    if other := next((composition.names for composition in compositions if composition.names != first.names), None):
        raise MMRetrieveError(
            f"one order of a prompt has the terms {', '.join(first.names)}, another {', '.join(other)}: "
            "they cannot be averaged; use --prompt-orders first"
        )
    mean = np.mean([composition.terms for composition in compositions], axis=0, dtype=np.float64)
    return replace(first, terms=unit(mean, "the mean of several wordings"))


def _with_paraphrases(inputs: Sequence[ComposerInput], paraphraser: Paraphraser, count: int) -> Sequence[ComposerInput]:
    """The inputs with `count` - 1 paraphrases of each prompt, as far as there are so many."""
    if count == 1:
        return inputs
    texts = paraphrase_prompts(paraphraser, [one.required_prompt() for one in inputs], count - 1)
    return [
        replace(one, paraphrases=tuple(replace(one, prompt=text) for text in own))
        for one, own in zip(inputs, texts, strict=True)
    ]


def _composer_inputs(benchmark: Benchmark, gallery: Float32, config: MethodConfig, wording: int) -> list[ComposerInput]:
    if config.concept and any(query.concept is None for query in benchmark.queries):
        raise MMRetrieveError(f"{benchmark.name} has no shared concepts: leave --concept out")
    return [
        ComposerInput(
            gallery[benchmark.id2row[query.reference]],
            query.prompts[min(wording, len(query.prompts) - 1)].strip() or EMPTY_PROMPT,
            config.caption(query),
            benchmark.load_image(query.reference),
            query.reference,
        )
        for query in benchmark.queries
    ]
