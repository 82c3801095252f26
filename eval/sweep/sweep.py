"""The whole PDV plane from one encoding pass: the metrics of every setting, the best setting, and how it was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from eval.benchmarks.base import Benchmark, Ranker
from eval.metrics import RankTable
from eval.runs.compositions import ComposedBenchmark
from eval.runs.records import PlanePoint, SweepRecord, TuningRecord
from eval.runs.run import EvalRun, describe_part
from eval.runs.weight_settings import published_name
from eval.sweep.plane import Plane, plane_ranks
from mmretrieve import PDV, PUBLISHED, Composition, MMRetrieveError, Term
from mmretrieve.options import OptionEnum

PDV_TERMS = (Term.IMAGE, Term.TEXT, Term.COMPOSED)
BASE_POINT, PUBLISHED_POINT, BEST_POINT = "base", "published", "best"


class Tuning(OptionEnum):
    """On which queries the best point is chosen: on the even ones, and reported on the odd ones; or on all, and reported on all."""

    HALVES = "halves"
    SAME = "same"

    @property
    def chosen(self) -> slice:
        """The queries on which the best point is chosen."""
        return slice(None, None, 2) if self is Tuning.HALVES else slice(None)

    @property
    def reported(self) -> slice:
        """The queries on which metrics are reported."""
        return slice(1, None, 2) if self is Tuning.HALVES else slice(None)

    @property
    def record(self) -> TuningRecord:
        """Both in words."""
        tuned, reported = ("even queries", "odd queries") if self is Tuning.HALVES else ("all queries", "all queries")
        return TuningRecord(tuned_on=tuned, reported_on=reported)


def sweep_plane(run: EvalRun, plane: Plane, tuning: Tuning) -> SweepRecord:
    """The record of a sweep over all parts of a run: means over the parts at every grid point and at the named points.

    Parameters
    ----------
    run : method and parts; its own weight setting is not used.
    plane : the grid. Its named settings are replaced by the base and, where there is one, the published setting.
    tuning : on which queries the best point is chosen and reported.

    Raises
    ------
    MMRetrieveError : a part has too few queries for halves, or a ranking depends on more than the plane.
    """
    if tuning is Tuning.HALVES and (short := [part.benchmark.name for part in run.parts if len(part.benchmark.queries) < 2]):
        raise MMRetrieveError(f"{short[0]} has a single query, which cannot be split into halves: use --tune same")
    first = run.parts[0].benchmark
    name = published_name(run.config.composer, run.family, run.encoder.identity.model)
    plane = replace(plane, named={BASE_POINT: PDV()} | ({PUBLISHED_POINT: PUBLISHED[name]} if name is not None else {}))
    with run.timer.measure("measure"):
        tables = [rank_plane(part, plane) for part in run.parts]
        chosen, reported = (np.mean([table.means(on) for table in tables], axis=0) for on in (tuning.chosen, tuning.reported))
    best = int(chosen[: plane.size, first.headline_column].argmax())
    beta, gamma = np.unravel_index(best, plane.shape)
    points = {}
    for i, (point, pdv) in enumerate(plane.named.items(), start=plane.size):
        setting = {"setting": name} if point == PUBLISHED_POINT else {}
        points[point] = PlanePoint(beta=pdv.beta, gamma=pdv.gamma, metrics=first.name_metrics(reported[i]), **setting)
    points[BEST_POINT] = PlanePoint(
        beta=float(plane.betas[beta]), gamma=float(plane.gammas[gamma]), metrics=first.name_metrics(reported[best])
    )
    return SweepRecord(
        kind="sweep",
        headline=first.protocol.headline,
        metric=first.protocol.headline,
        queries=sum(len(part.benchmark.queries[tuning.reported]) for part in run.parts),
        betas=tuple(plane.betas.tolist()),
        gammas=tuple(plane.gammas.tolist()),
        plane={
            metric.name: reported[: plane.size, i].reshape(plane.shape).tolist()
            for i, metric in enumerate(first.metrics)
            if not np.isnan(reported[:, i]).any()
        },
        points=points,
        tuning=tuning.record,
        parts={part.benchmark.name: describe_part(part.benchmark) for part in run.parts},
        remarks=tuple(run.list_remarks()),
        **run.record_fields(),
    )


def rank_plane(part: ComposedBenchmark, plane: Plane) -> RankTable:
    """The ranks of all targets at all points of a plane. MMRetrieveError where a ranking depends on more than the plane."""
    return part.benchmark.rank_table(_rankers(part, plane))


def _rankers(part: ComposedBenchmark, plane: Plane) -> Iterator[Ranker]:
    if part.judge is not None:
        raise MMRetrieveError(
            f"{part.benchmark.name}: a judge sees other items at each point of the plane: sweep without --judge"
        )
    rows_of: dict[tuple[object, ...], list[int]] = {}
    for composition, scores_tg in part:
        form = composition.names, composition.rule
        if form not in rows_of:
            _check_on_plane(part.benchmark, composition)
            rows_of[form] = [composition.names.index(term) for term in PDV_TERMS]
        yield partial(plane_ranks, scores_tg[rows_of[form]], plane)


def _check_on_plane(benchmark: Benchmark, composition: Composition) -> None:
    """MMRetrieveError where the ranking of a composition depends on more than the point of the plane."""
    if not composition.is_linear:
        raise MMRetrieveError(
            f"{benchmark.name}: a sweep needs the linear rule; the scores of the {str(composition.rule.name)!r} rule are not linear"
        )
    if set(composition.names) - set(Term) or not composition.supports_pdv:
        raise MMRetrieveError(
            f"{benchmark.name}: the PDV plane weighs image, text and composed; these queries have {', '.join(composition.names)}"
        )
