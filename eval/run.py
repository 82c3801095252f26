"""Runs every composer and PDV setting on a benchmark, from one encoding pass, and says what each is worth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.benchmark import Benchmark
from mmretrieve import PDV, PUBLISHED, ComposerName, Composition, Encoder
from mmretrieve.composers import make_composer
from mmretrieve.query import Query
from mmretrieve.directions import Term, plane_weights
from mmretrieve.encoders.base import Progress
from mmretrieve.scoring import term_scores
from mmretrieve.vectors import Float32

# alpha_image / alpha_text / beta: PDV-T and PDV-I alone, and PDV-F as published for CIReVL on CIRR and CIRCO
SETTINGS = {
    "PDV-T": PDV(alpha_text=1.2, beta=1.0),
    "PDV-I": PDV(alpha_image=1.4, beta=0.0),
    "PDV-F": PUBLISHED["cirevl"],
}
BETAS = np.linspace(0, 1, 21)
GAMMAS = np.linspace(-0.5, 3, 36)


@dataclass(frozen=True)
class Scored:
    """The (t, items) term scores of every query, beside the compositions that gave the terms."""

    compositions: list[Composition]
    scores: list[Float32]

    def folded(self, weighings: Iterable[ArrayLike]) -> Iterator[NDArray[np.float64]]:
        """For each query its (…, t) weights → (…, items) linear scores."""
        for scores_tg, weights in zip(self.scores, weighings, strict=True):
            yield np.asarray(weights, dtype=np.float64) @ scores_tg


def compose(benchmark: Benchmark, gallery: Float32, encoder: Encoder, name: ComposerName) -> Scored:
    """Composes all queries of a benchmark with one composer; references are taken from the gallery's vectors."""
    place = {id_: i for i, id_ in enumerate(benchmark.gallery_ids)}
    queries = [Query(gallery[place[q.reference]], q.prompts[0], q.caption) for q in benchmark.queries]
    compositions = make_composer(name, encoder).compose(queries)
    return Scored(compositions, [term_scores(composition.terms, gallery) for composition in compositions])


def run(benchmark: Benchmark, encoder: Encoder, progress: Progress | None = None) -> dict[str, Any]:
    """Method → metrics, for each composer under its base weights and PDV on captions; with the tuned plane point."""
    gallery = encoder.encode_images([benchmark.image_path(id_) for id_ in benchmark.gallery_ids], progress)
    methods: dict[str, dict[str, float]] = {}
    for name in ComposerName:
        scored = compose(benchmark, gallery, encoder, name)
        base = benchmark.per_query(scored.folded([c.weights for c in scored.compositions]))
        methods[name] = benchmark.means(base)
    for label, setting in SETTINGS.items():
        weights = [c.with_pdv(setting).weights for c in scored.compositions]
        methods[f"captions + {label}"] = benchmark.means(benchmark.per_query(scored.folded(weights)))
    return {"methods": methods, "tuned": tuned(benchmark, scored)}


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
