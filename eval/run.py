"""Runs every method on a benchmark, from one encoding pass, and says what each is worth, alone and with PDV-F."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.benchmark import Benchmark
from eval.methods import METHODS, Method, parts_for
from mmretrieve import Composition, Encoder, MMRetrieveError, Parts, Term
from mmretrieve.balance import Spread, balanced
from mmretrieve.composers import make_composer
from mmretrieve.directions import plane_weights
from mmretrieve.encoders.base import Progress
from mmretrieve.options import LEARNED_WORDS, RuleName
from mmretrieve.query import Query
from mmretrieve.rules import make_rule
from mmretrieve.scoring import term_scores
from mmretrieve.vectors import Float32

BETAS = np.linspace(0, 1, 21)
GAMMAS = np.linspace(-0.5, 3, 36)
TUNED_ON = "captions, swap (CIReVL's shape)"


@dataclass(frozen=True)
class Scored:
    """The (t, items) term scores of every query, beside the compositions that gave the terms."""

    compositions: list[Composition]
    scores: list[Float32]

    def ranked_by(self, weigh: Callable[[Composition], Composition]) -> Iterator[NDArray[np.float64]]:
        """For each query the (items,) scores of its composition, weighed anew, under its rule."""
        for composition, scores_tg in zip(self.compositions, self.scores, strict=True):
            yield weigh(composition).contributions(scores_tg).sum(axis=0)

    def folded(self, weighings: Iterable[ArrayLike]) -> Iterator[NDArray[np.float64]]:
        """For each query its (…, t) weights → (…, items) linear scores."""
        for scores_tg, weights in zip(self.scores, weighings, strict=True):
            yield np.asarray(weights, dtype=np.float64) @ scores_tg


def compose(benchmark: Benchmark, gallery: Float32, encoder: Encoder, method: Method, parts: Parts) -> Scored:
    """Composes all queries of a benchmark by one method; references are taken from the gallery's vectors."""
    place = {id_: i for i, id_ in enumerate(benchmark.gallery_ids)}
    queries = [
        Query(
            gallery[place[q.reference]],
            q.prompts[0],
            q.caption if method.given else None,
            benchmark.image_path(q.reference),
            q.reference,
        )
        for q in benchmark.queries
    ]

    def score(vectors: Float32) -> Float32:
        return term_scores(vectors, gallery)

    rule = method.rule or RuleName.LINEAR
    composer = make_composer(method.composer, encoder, parts_for(method, encoder, parts), score=score, rule=rule)
    compositions = composer.compose(queries)
    if method.rule is not None:
        folding = make_rule(method.rule, learned_words=method.composer in LEARNED_WORDS)
        compositions = [composition.with_rule(folding) for composition in compositions]
    return Scored(compositions, [score(composition.terms) for composition in compositions])


def run(
    benchmark: Benchmark,
    encoder: Encoder,
    parts: Parts | None = None,
    *,
    methods: Sequence[Method] = METHODS,
    progress: Progress | None = None,
    report: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Method → metrics of its base, and of PDV-F on it; what could not be run, and why; the tuned plane point.

    `report` is told of each method before it is run.
    """
    gallery = encoder.encode_images([benchmark.image_path(id_) for id_ in benchmark.gallery_ids], progress)
    spread = Spread.of(gallery)
    result: dict[str, Any] = {"methods": {}, "not run": {}}
    for method in methods:
        if report is not None:
            report(method.label)
        try:
            scored = compose(benchmark, gallery, encoder, method, parts or Parts())
        except MMRetrieveError as error:
            result["not run"][method.label] = str(error)
            continue
        result["methods"][method.label] = measured(benchmark, scored, method, spread)
        if method.label == TUNED_ON:
            result["tuned"] = {"method": method.label, **tuned(benchmark, scored)}
    return result


def measured(benchmark: Benchmark, scored: Scored, method: Method, spread: Spread) -> dict[str, Any]:
    """Metrics of the method as it is, with its published PDV-F where it takes one, and under balanced weights."""

    def means(weigh: Callable[[Composition], Composition]) -> dict[str, float]:
        return benchmark.means(benchmark.per_query(scored.ranked_by(weigh)))

    found: dict[str, Any] = {"base": means(lambda composition: composition)}
    setting = method.pdv
    if setting is not None:
        found |= {"PDV-F": means(lambda composition: composition.with_pdv(setting)), "setting": asdict(setting)}
    if method.balanced:
        found["balanced"] = means(lambda composition: balanced(composition, spread))
    return found


def tuned(benchmark: Benchmark, scored: Scored) -> dict[str, Any]:
    """The best point of the PDV plane on the even queries, reported on the odd ones beside the base there; metric: the last."""
    names = scored.compositions[0].names
    plane = [(float(beta), float(gamma)) for beta in BETAS for gamma in GAMMAS]
    points = [dict(zip((Term.IMAGE, Term.TEXT, Term.COMPOSED), plane_weights(*point), strict=True)) for point in plane]
    weights = np.array([[point.get(Term(name), 0.0) for name in names] for point in [*points, {Term.COMPOSED: 1.0}]])
    per_query = benchmark.per_query(scored.folded([weights] * len(scored.scores)))
    best = int(per_query[::2, :-1, -1].mean(axis=0).argmax())
    return {
        "metric": benchmark.metrics[-1],
        "beta": plane[best][0],
        "gamma": plane[best][1],
        "tuned on": "even queries",
        "reported on": "odd queries",
        "base": benchmark.means(per_query[1::2, -1]),
        "tuned": benchmark.means(per_query[1::2, best]),
    }
