"""What a report is made of: runs and sweeps, as `reading` finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.report.query_answers import QueryAnswer

BASE, LINEAR = "base", "linear"


@dataclass(frozen=True)
class PartRecord:
    """One benchmark of a suite: how many queries and gallery images, and the checksum of its annotation files.

    `keeps_reference`: whether the reference stays in the ranking; None where the record does not say.
    """

    queries: int
    gallery: int
    keeps_reference: bool | None
    checksum: str
    remark: str | None
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class EncoderRecord:
    """Which encoder made the vectors: its model, the hash of its weights, and how pictures were prepared for it."""

    model: str
    weights: str
    preprocessing: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceRecord:
    """What a run and a sweep have in common; parts are in the order of the record."""

    name: str
    benchmark: str
    split: str
    label: str
    composer: str
    encoder: EncoderRecord
    parts: Mapping[str, PartRecord]
    remarks: tuple[str, ...]
    options: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def queries(self) -> int:
        return sum(part.queries for part in self.parts.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class RunRecord(SourceRecord):
    """`metrics` are means over the parts; `measured` names the values of each answer; `answers` are by part, in query order."""

    rule: str
    weighing: str
    headline: str
    metrics: Mapping[str, float]
    measured: tuple[str, ...]
    answers: Mapping[str, tuple[QueryAnswer, ...]]

    @property
    def is_base(self) -> bool:
        """Whether it is a method as it comes: what others of its composer are measured against."""
        return self.weighing == BASE and self.rule == LINEAR

    @property
    def value(self) -> float:
        """The headline metric."""
        return self.metrics[self.headline]


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepRecord(SourceRecord):
    """`record` is what `heatmap` draws; `metric` is the one that it was tuned for."""

    metric: str
    record: Mapping[str, Any]
    tuned_on: str
    reported_on: str

    @property
    def same_queries(self) -> bool:
        """Whether the best point was chosen on the very queries that it is reported on."""
        return self.tuned_on == self.reported_on

    @property
    def points(self) -> Mapping[str, Mapping[str, Any]]:
        """ "base", "published", "best" → beta, gamma and metrics, on the queries reported on."""
        found: Mapping[str, Mapping[str, Any]] = self.record["points"]
        return found
