"""Every method on one benchmark, from one encoding pass: what each is worth alone, with PDV-F, and under automatic weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.benchmarks.base import Benchmark
from eval.runs.compositions import ScoredCompositions, compose
from eval.runs.methods import METHODS, Method, parts_for
from eval.runs.run import RunPart
from eval.sweep.plane import Plane
from eval.sweep.sweep import Tuning, sweep_ranks
from mmretrieve import PDV, Composition, Encoder, MMRetrieveError, Parts
from mmretrieve.options import AUTO
from mmretrieve.vectors import Float32
from mmretrieve.weighting import Spread, automatic_weights

PLANE = Plane(np.linspace(0, 1, 21), np.linspace(-0.5, 3, 36), {"base": PDV()})
TUNED_ON = "captions, swap (CIReVL's shape)"


def compare(
    benchmark: Benchmark,
    gallery: Float32,
    encoder: Encoder,
    parts: Parts | None = None,
    *,
    methods: Sequence[Method] = METHODS,
    report: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Method → metrics of its base, and of other weights on it; what could not be run, and why; the tuned plane point.

    gallery: the (items, d) vectors of the benchmark's pictures. `report` is told of each method before it is run.
    """
    spread = Spread.of(gallery)
    result: dict[str, Any] = {"methods": {}, "not run": {}}
    for method in methods:
        if report is not None:
            report(method.label)
        try:
            scored = compose(benchmark, gallery, encoder, method.way, parts_for(method, encoder, parts or Parts()))
        except MMRetrieveError as error:
            result["not run"][method.label] = str(error)
            continue
        result["methods"][method.label] = measured(benchmark, scored, method, spread)
        if method.label == TUNED_ON:
            result["tuned"] = {"method": method.label, **tuned(benchmark, scored)}
    return result


def measured(benchmark: Benchmark, scored: ScoredCompositions, method: Method, spread: Spread) -> dict[str, Any]:
    """Metrics of the method as it is, with its published PDV-F where it takes one, and under automatic weights."""

    def means(weigh: Callable[[Composition], Composition]) -> dict[str, float]:
        return benchmark.means(benchmark.per_query(scored.ranked_by(weigh)))

    found: dict[str, Any] = {"base": means(lambda composition: composition)}
    setting = method.pdv
    if setting is not None:
        found |= {"PDV-F": means(lambda composition: composition.with_pdv(setting)), "setting": asdict(setting)}
    if method.weighs:
        found[AUTO] = means(lambda composition: automatic_weights(composition, spread))
    return found


def tuned(benchmark: Benchmark, scored: ScoredCompositions) -> dict[str, Any]:
    """The best point of the PDV plane on the even queries, reported on the odd ones beside the base there."""
    halves = Tuning.HALVES
    placed = sweep_ranks(RunPart(benchmark, scored), PLANE)
    chosen, reported = placed.means(halves.chosen), placed.means(halves.reported)
    best = int(chosen[:-1, benchmark.headline].argmax())
    beta, gamma = divmod(best, len(PLANE.gammas))
    return {
        "metric": benchmark.protocol.headline,
        "beta": float(PLANE.betas[beta]),
        "gamma": float(PLANE.gammas[gamma]),
        **halves.said,
        "base": benchmark.by_name(reported[-1]),
        "tuned": benchmark.by_name(reported[best]),
    }
