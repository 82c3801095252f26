"""The whole PDV plane from one encoding pass: what every setting is worth, which is best, and how far to trust that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from eval.benchmarks.base import Benchmark, Ranker
from eval.metrics.plane_ranks import plane_ranks
from eval.metrics.rank_table import RankTable
from eval.runs.compositions import ScoredCompositions
from eval.runs.record import part_of
from eval.runs.run import EvalRun, RunPart
from eval.runs.weight_settings import published_name
from eval.sweep.plane import Plane
from mmretrieve import PDV, PUBLISHED, Composition, MMRetrieveError, Term
from mmretrieve.options import Choice

PDV_TERMS = (Term.IMAGE, Term.TEXT, Term.COMPOSED)
BASE, PUBLISHED_POINT, BEST = "base", "published", "best"


class Tuning(Choice):
    """On which queries the best point is chosen: on every other one, and reported on the rest; or on all that it is reported on."""

    HALVES = "halves"
    SAME = "same"

    @property
    def chosen(self) -> slice:
        return slice(None, None, 2) if self is Tuning.HALVES else slice(None)

    @property
    def reported(self) -> slice:
        return slice(1, None, 2) if self is Tuning.HALVES else slice(None)

    @property
    def said(self) -> dict[str, str]:
        on, reported = ("even queries", "odd queries") if self is Tuning.HALVES else ("all queries", "all queries")
        return {"tuned on": on, "reported on": reported}


def swept(run: EvalRun, plane: Plane, tuning: Tuning) -> dict[str, Any]:
    """The record of a sweep over all parts of a run: the mean over the parts at every point, and at the named ones."""
    if tuning is Tuning.HALVES and (short := [part.benchmark.name for part in run.parts if len(part.benchmark.queries) < 2]):
        raise MMRetrieveError(f"{short[0]} has a single query, which has no halves: tune on the same")
    first = run.parts[0].benchmark
    name = published_name(run.way.composer, run.family, run.encoder.identity.model)
    plane = replace(plane, named={BASE: PDV()} | ({PUBLISHED_POINT: PUBLISHED[name]} if name is not None else {}))
    with run.watch.on("measure"):
        placed = [sweep_ranks(part, plane) for part in run.parts]
        chosen, reported = (np.mean([one.means(on) for one in placed], axis=0) for on in (tuning.chosen, tuning.reported))
    best = int(chosen[: plane.size, first.headline].argmax())
    beta, gamma = np.unravel_index(best, plane.shape)
    found: dict[str, Any] = {
        point: {"beta": pdv.beta, "gamma": pdv.gamma, "metrics": first.by_name(reported[plane.size + i])}
        for i, (point, pdv) in enumerate(plane.named.items())
    }
    if name is not None:
        found[PUBLISHED_POINT]["setting"] = name
    at_best = {"beta": float(plane.betas[beta]), "gamma": float(plane.gammas[gamma])}
    found[BEST] = at_best | {"metrics": first.by_name(reported[best])}
    return run.head("sweep") | {
        "metric": first.protocol.headline,
        "queries": sum(len(part.benchmark.queries[tuning.reported]) for part in run.parts),
        "betas": plane.betas.tolist(),
        "gammas": plane.gammas.tolist(),
        "plane": {
            metric.name: reported[: plane.size, i].reshape(plane.shape).tolist()
            for i, metric in enumerate(first.metrics)
            if not np.isnan(reported[:, i]).any()
        },
        "points": found,
        "tuning": tuning.said,
        "parts": {part.benchmark.name: part_of(part.benchmark) for part in run.parts},
        "remarks": run.remarks({}),
        **run.tail(),
    }


def sweep_ranks(part: RunPart, plane: Plane) -> RankTable:
    """Ranks at all points of a plane."""
    return part.benchmark.placed(_rankers(part.benchmark, part.scored, plane))


def _rankers(benchmark: Benchmark, scored: ScoredCompositions, plane: Plane) -> Iterator[Ranker]:
    known: dict[tuple[object, ...], list[int]] = {}
    for composition, scores_tg in scored:
        kind = composition.names, composition.rule
        if kind not in known:
            _check(benchmark, composition)
            known[kind] = [composition.names.index(term) for term in PDV_TERMS]
        yield partial(plane_ranks, scores_tg[known[kind]], plane)


def _check(benchmark: Benchmark, composition: Composition) -> None:
    """MMRetrieveError where PDV's plane is not all that a ranking of this composition depends on."""
    if not composition.is_linear:
        raise MMRetrieveError(
            f"{benchmark.name}: the plane is of linear scores; the {str(composition.rule.name)!r} rule has others"
        )
    if set(composition.names) - set(Term) or not composition.supports_pdv:
        raise MMRetrieveError(
            f"{benchmark.name}: the plane weighs image, text and composed; these queries have {', '.join(composition.names)}"
        )
