"""Rules that choose the weights of a query without labels, beside what labels could choose: `python -m eval weights`.

Every rule sees the (t, items) term scores of one query, and statistics of the gallery; none sees a target. Ceilings do:
weights tuned on the even queries, and for each query the weights that are best for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.benchmark import Benchmark
from eval.composing import Scored
from mmretrieve import PUBLISHED, Composition
from mmretrieve.directions import PDV, plane_weights
from mmretrieve.rules import Product
from mmretrieve.vectors import Float32
from mmretrieve.weighting import FOUR, Spread, balanced

Floats = NDArray[np.float64]
BETAS, GAMMAS = np.linspace(0, 1, 11), np.linspace(-0.5, 3, 18)
PLANE = np.array([(*plane_weights(beta, gamma), 0.0) for beta in BETAS for gamma in GAMMAS])
STEPS = ((0, 0.25, 0.5, 0.75, 1, 1.5), (-0.75, -0.5, -0.25, 0), (0, 0.25, 0.5, 0.75, 1, 1.5), (0, 0.25, 0.5, 1, 1.5))
GRID = np.array([point for point in product(*STEPS) if point[0] or point[2] or point[3]])  # in units of each term's spread
NEXT = 9  # of the margin rule: how many hits the first one is held against


def weighings(scored: Scored, spread: Spread) -> dict[str, Iterator[Floats]]:
    """Rule → for each query its (items,) scores. Queries are those of a composer of image, text, composed and prompt."""

    def each(rule: Callable[[Composition, Float32], Floats]) -> Iterator[Floats]:
        return (rule(composition, scores) for composition, scores in scored)

    def by(weigh: Callable[[Composition], Composition]) -> Iterator[Floats]:
        return each(lambda composition, scores: weigh(composition).contributions(scores).sum(axis=0))

    def automatic(composition: Composition) -> Composition:
        return composition.with_pdv(PDV(alpha_image=composition.automatic_alpha_image(), alpha_text=1.2, beta=0.75))

    return {
        "base": by(lambda composition: composition),
        "PDV-F, as published": by(lambda composition: composition.with_pdv(PUBLISHED["cirevl"])),
        "image + prompt": by(lambda composition: composition.weighted({"image": 1, "prompt": 1})),
        "product": by(lambda composition: composition.with_rule(Product())),
        "automatic alpha_image, beta .75": by(automatic),
        "margin, on the PDV plane": each(lambda _, scores: _by_margin(PLANE, scores)),
        "margin, on four terms": each(lambda _, scores: _by_margin(GRID, scores / scores.std(axis=1, keepdims=True))),
        "standardised composed + prompt": each(lambda _, scores: _standardised(scores, (0, 0, 1, 1))),
        "standardised image + prompt": each(lambda _, scores: _standardised(scores, (1, 0, 0, 1))),
        "standardised image − text/2 + composed + prompt": each(lambda _, scores: _standardised(scores, (1, -0.5, 1, 1))),
        "image without its text, + composed + prompt": by(_orthogonal),
        "balanced": by(lambda composition: balanced(composition, spread)),
    }


def ceilings(benchmark: Benchmark, scored: Scored, spread: Spread) -> dict[str, Any]:
    """What labels give, by the benchmark's headline: the plane and four terms tuned on even queries, reported on odd ones; and the best of each query."""
    found = {}
    scales = np.array([[1 / spread.deviation(composition[term]) for term in FOUR] for composition in scored.compositions]).mean(
        axis=0
    )
    for name, points in (("PDV plane", PLANE), ("four terms", GRID * scales)):
        per_query = benchmark.per_query(points @ scores for _, scores in scored)[..., benchmark.headline]
        best = int(per_query[::2].mean(axis=0).argmax())
        found[f"{name}, tuned on the even queries, on the odd ones"] = float(per_query[1::2, best].mean())
        found[f"{name}, the best of all queries"] = float(per_query.mean(axis=0).max())
        found[f"{name}, the best of each query"] = float(per_query.max(axis=1).mean())
    return found


def compared(benchmark: Benchmark, scored: Scored, spread: Spread) -> dict[str, Any]:
    """Rule → metrics over all queries, and over the odd ones alone by the headline; and the ceilings."""
    rules = {}
    for name, scores in weighings(scored, spread).items():
        per_query = benchmark.per_query(scores)
        rules[name] = {**benchmark.means(per_query), "odd queries": float(per_query[1::2, benchmark.headline].mean())}
    return {"rules": rules, "ceilings": ceilings(benchmark, scored, spread)}


def _by_margin(points: Floats, scores_tn: Float32) -> Floats:
    """The scores under the point whose first hit stands furthest above the next nine, in units of that query's score spread."""
    folded = points @ scores_tn
    top = -np.partition(-folded, NEXT, axis=1)[:, : NEXT + 1]
    margins = (top.max(axis=1) - (top.sum(axis=1) - top.max(axis=1)) / NEXT) / folded.std(axis=1)
    return np.asarray(folded[int(margins.argmax())])


def _standardised(scores_tn: Float32, weights: tuple[float, ...]) -> Floats:
    scores = scores_tn.astype(np.float64)
    return np.asarray(np.array(weights) @ ((scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)))


def _orthogonal(composition: Composition) -> Composition:
    shared = float(composition["image"] @ composition["text"])
    return composition.weighted({"image": 1, "text": -shared, "composed": 1, "prompt": 1})
