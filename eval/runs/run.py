"""One way to compose, one weighing, one encoder, on a benchmark and its parts: the metrics, and how each query fared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark, BenchmarkQuery, Ranker
from eval.metrics.ranks import target_ranks
from eval.runs.compositions import UNSAID, MethodConfig, ScoredCompositions
from eval.runs.record import DIGITS, StageTimer, encoder_of, part_of, provenance
from eval.runs.weight_settings import WeightSetting
from mmretrieve import Composition, Encoder
from mmretrieve.options import RuleName
from mmretrieve.weighting import Spread

SHOWN = 6  # best hits of each query that a record keeps
REMARKS = 5  # different remarks of compositions that a record repeats


@dataclass(frozen=True)
class RunPart:
    """A part of a benchmark, encoded and composed."""

    benchmark: Benchmark
    scored: ScoredCompositions


@dataclass
class EvalRun:
    """What was chosen, and the parts it was chosen for; `record` and `queries` say what came of it."""

    name: str
    family: str
    encoder: Encoder
    way: MethodConfig
    weighing: WeightSetting
    parts: Sequence[RunPart]
    options: Mapping[str, Any]
    watch: StageTimer = field(default_factory=StageTimer)

    def measure(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The record of the run, and that of its queries (see `report.records`)."""
        queries: dict[str, list[dict[str, Any]]] = {}
        means: dict[str, dict[str, float]] = {}
        remarks: Counter[str] = Counter()
        for part in self.parts:
            with self.watch.on("measure"):
                spread = Spread.of(part.scored.gallery)
                weigh = partial(self._weighed, spread=spread)
                values, queries[part.benchmark.name] = _fared(part, weigh)
            means[part.benchmark.name] = part.benchmark.means(values)
            remarks.update(c.remark for c in part.scored.compositions if c.remark)
        record = self.head("run") | {
            "weighing": self.weighing.label,
            "metrics": mean_of_parts(list(means.values())),
            "parts": {
                part.benchmark.name: {"metrics": means[part.benchmark.name], **part_of(part.benchmark)} for part in self.parts
            },
            "remarks": self.remarks(remarks),
            **self.tail(),
        }
        names = [metric.name for metric in self.parts[0].benchmark.metrics]
        return record, {"name": self.name, "metrics": names, "parts": queries}

    def _weighed(self, composition: Composition, *, spread: Spread) -> Composition:
        return self.weighing.weigh(composition, spread)

    def head(self, kind: str) -> dict[str, Any]:
        rule = self.way.rule
        return {
            "kind": kind,
            "name": self.name,
            "benchmark": self.family,
            "split": self.parts[0].benchmark.split,
            "label": self.label,
            "composer": self.way.composer.value,
            "rule": (rule or RuleName.LINEAR).value,
            "headline": self.parts[0].benchmark.protocol.headline,
        }

    def tail(self) -> dict[str, Any]:
        return {
            "options": dict(self.options),
            "encoder": encoder_of(self.encoder),
            "provenance": provenance(self.encoder, self.watch.seconds),
        }

    @property
    def label(self) -> str:
        rule = self.way.rule
        method = self.way.composer.value if rule is None else f"{self.way.composer.value}, {rule.value} rule"
        return method if self.weighing.label == "base" else f"{method} + {self.weighing.label}"

    def remarks(self, composed: Mapping[str, int]) -> list[str]:
        """What a reader of the numbers must know."""
        found = [part.benchmark.remark for part in self.parts if part.benchmark.remark]
        for part in self.parts:
            empty = sum(not query.prompts[0].strip() for query in part.benchmark.queries)
            if empty:
                found.append(f"{part.benchmark.name}: {empty} empty prompt said as {UNSAID!r}")
        counts = Counter(composed).most_common(REMARKS)
        return found + [f"{count:,} queries: {remark}" for remark, count in counts]


def mean_of_parts(means: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metric → unweighted mean over the parts; a metric that a part does not have is left out."""
    return {name: float(np.mean([part[name] for part in means])) for name in means[0] if all(name in part for part in means)}


def _fared(part: RunPart, weigh: Callable[[Composition], Composition]) -> tuple[NDArray[np.float64], list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []

    def rankers() -> Iterator[Ranker]:
        for query, (composition, scores_tg) in zip(part.benchmark.queries, part.scored, strict=True):
            weighed = weigh(composition)
            gave_tn = weighed.contributions(scores_tg)
            scores = gave_tn.sum(axis=0)
            yield partial(target_ranks, scores)
            told.append(_told(part.benchmark, query, weighed, gave_tn, scores))

    values = part.benchmark.measured(rankers())
    for one, row in zip(told, values, strict=True):
        one["values"] = [None if np.isnan(value) else round(float(value), DIGITS) for value in row]
    return values, told


def _told(
    benchmark: Benchmark,
    query: BenchmarkQuery,
    composition: Composition,
    gave_tn: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> dict[str, Any]:
    """How one query fared: its best hits, its best target, and what each term gave to them."""

    def hit(row: int) -> dict[str, Any]:
        gave = {
            name: round(float(value), DIGITS) for name, value in zip(composition.names, gave_tn[:, row], strict=True) if value
        }
        return {"id": benchmark.gallery_ids[row], "score": round(float(scores[row]), DIGITS), "contributions": gave}

    contest = benchmark.contest(query, subset=benchmark.protocol.candidates_alone)
    best = max(contest.targets, key=lambda row: scores[row])
    return {
        "id": query.id,
        "reference": query.reference,
        "prompt": query.prompts[0],
        "targets": list(query.targets),
        "words": dict(composition.words),
        "target": hit(best) | {"rank": int(target_ranks(scores, contest)[0])},
        "hits": [hit(row) for row in benchmark.best(query, scores, SHOWN)],
    }
