"""The whole PDV plane from one encoding pass: what every setting is worth, which is best, and how far to trust that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.benchmark import Benchmark, Ranker
from eval.composing import Scored
from eval.metrics import Contest, Ranks, target_ranks
from eval.plane import Plane, plane_ranks
from eval.record import part_of
from eval.run import Part, Run, mean_of_parts
from eval.settings import published_name
from mmretrieve import PDV, PUBLISHED, Composition, MMRetrieveError, Term
from mmretrieve.errors import unknown
from mmretrieve.vectors import Float32

Floats = NDArray[np.float64]
PDV_TERMS = (Term.IMAGE, Term.TEXT, Term.COMPOSED)
BASE, PUBLISHED_POINT, BEST = "base", "published", "best"


class Tuning(StrEnum):
    """On which queries the best point is chosen: on every other one, and reported on the rest; or on all that it is reported on."""

    HALVES = "halves"
    SAME = "same"

    @classmethod
    def _missing_(cls, value: object) -> Tuning:
        raise unknown("tuning", value, cls)

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


@dataclass(frozen=True)
class Points:
    """Named settings, measured one by one beside the plane's grid, on which they need not lie."""

    settings: Mapping[str, PDV]

    def ranks(self, composition: Composition, scores_tg: Float32, contest: Contest) -> Ranks:
        """(points, targets) as a run under that setting gives."""
        folded = [composition.with_pdv(pdv).contributions(scores_tg).sum(axis=0) for pdv in self.settings.values()]
        return target_ranks(np.stack(folded), contest)


def swept(run: Run, plane: Plane, tuning: Tuning) -> dict[str, Any]:
    """The record of a sweep over all parts of a run: the mean over the parts at every point, and at the named ones."""
    first = run.parts[0].benchmark
    name = published_name(run.way.composer, run.family, run.encoder.identity.model)
    points = Points({BASE: PDV()} | ({PUBLISHED_POINT: PUBLISHED[name]} if name is not None else {}))
    with run.watch.on("measure"):
        values = [sweep_values(part, plane, points) for part in run.parts]
    grid = len(plane.betas) * len(plane.gammas)
    chosen = _mean([one[tuning.chosen, :grid] for one in values])[:, first.headline]
    best = int(chosen.argmax())
    reported = _mean([one[tuning.reported] for one in values])
    shape = len(plane.betas), len(plane.gammas)
    metrics = [metric.name for metric in first.metrics]
    beta, gamma = float(plane.betas[best // shape[1]]), float(plane.gammas[best % shape[1]])
    found: dict[str, Any] = {
        point: {"beta": pdv.beta, "gamma": pdv.gamma, "metrics": _by_metric(run.parts, values, tuning, grid + i)}
        for i, (point, pdv) in enumerate(points.settings.items())
    }
    if name is not None:
        found[PUBLISHED_POINT]["setting"] = name
    found[BEST] = {"beta": beta, "gamma": gamma, "metrics": _by_metric(run.parts, values, tuning, best)}
    return run.head("sweep") | {
        "metric": first.protocol.headline,
        "queries": sum(len(one[tuning.reported]) for one in values),
        "betas": plane.betas.tolist(),
        "gammas": plane.gammas.tolist(),
        "plane": {
            metric: reported[:grid, i].reshape(shape).tolist()
            for i, metric in enumerate(metrics)
            if not np.isnan(reported[:, i]).any()
        },
        "points": found,
        "tuning": tuning.said,
        "parts": {part.benchmark.name: part_of(part.benchmark) for part in run.parts},
        "remarks": run.remarks({}),
        **run.tail(),
    }


def sweep_values(part: Part, plane: Plane, points: Points) -> Floats:
    """(queries, b · g + points, metrics) ×100: the plane's grid row by row, then the named points."""
    return part.benchmark.measured(_rankers(part.benchmark, part.scored, plane, points))


def _rankers(benchmark: Benchmark, scored: Scored, plane: Plane, points: Points) -> Iterator[Ranker]:
    for composition, scores_tg in scored:
        _check(benchmark, composition)
        yield partial(_ranks, plane, points, composition, scores_tg)


def _ranks(plane: Plane, points: Points, composition: Composition, scores_tg: Float32, contest: Contest) -> Ranks:
    three = scores_tg[[composition.names.index(term) for term in PDV_TERMS]]
    grid = plane_ranks(three, plane, contest)
    return np.concatenate([grid.reshape(-1, grid.shape[-1]), points.ranks(composition, scores_tg, contest)])


def _check(benchmark: Benchmark, composition: Composition) -> None:
    """MMRetrieveError where PDV's plane is not all that a ranking of this composition depends on."""
    if not composition.is_linear:
        raise MMRetrieveError(
            f"{benchmark.name}: the plane is of linear scores; the {composition.rule.name.value!r} rule has others"
        )
    if set(composition.names) - set(Term) or not composition.takes_pdv:
        raise MMRetrieveError(
            f"{benchmark.name}: the plane weighs image, text and composed; these queries have {', '.join(composition.names)}"
        )


def _mean(parts: Sequence[Floats]) -> Floats:
    """(queries, points, metrics) of each part → (points, metrics): means over queries, then over parts; NaN where nothing is defined."""
    return np.asarray(np.mean([_mean_of_queries(one) for one in parts], axis=0))


def _mean_of_queries(values: Floats) -> Floats:
    defined = ~np.isnan(values[:, 0])  # by query and metric: an aspect is the query's at every point
    if defined.all():
        return np.asarray(values.mean(axis=0))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(values, axis=0) / defined.sum(axis=0))


def _by_metric(parts: Sequence[Part], values: Sequence[Floats], tuning: Tuning, point: int) -> dict[str, float]:
    return mean_of_parts([part.benchmark.means(one[tuning.reported, point]) for part, one in zip(parts, values, strict=True)])
