"""The JSON files of runs, sweeps and submissions, written and read by the same models.

NAME.json holds a run, NAME.queries.json beside it the results of each query, and NAME.sweep.json a sweep. Fields that were never
set are not written, so a file that is read and written again keeps its keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from eval.files import read_json, write_atomic
from mmretrieve import EncoderIdentity, MMRetrieveError, RuleName
from mmretrieve.options import BASE

Number = Annotated[float, Strict(), AllowInfNan(False)]
REFERENCE_KEY = "reference in the ranking"
SCORE_DIGITS = 6  # decimals of scores in a record: the precision of float32 term scores


class Model(BaseModel):
    """Immutable; keys in JSON are the aliases of fields; unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    def to_json(self) -> dict[str, Any]:
        """The values to write, by key, in the order of the fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class PartRecord(Model):
    """One benchmark of a suite: its counts, and the checksum of its annotation files.

    `metrics` are means ×100, in runs only. `keeps_reference` is None in records that do not say whether the reference is ranked.
    """

    metrics: dict[str, Number] = Field(default_factory=dict)
    queries: StrictInt
    gallery: StrictInt
    keeps_reference: StrictBool | None = Field(default=None, validation_alias=REFERENCE_KEY, serialization_alias=REFERENCE_KEY)
    checksum: str
    remark: str | None = None


class Record(Model):
    """What runs, sweeps and submissions have in common. `benchmark` is the family; `parts` are in the order of the suite."""

    kind: str
    name: str
    benchmark: str
    split: str
    label: str
    composer: str
    rule: str = RuleName.LINEAR.value
    parts: dict[str, PartRecord]
    remarks: tuple[str, ...]
    options: dict[str, Any]
    encoder: EncoderIdentity
    provenance: dict[str, Any]

    @property
    def queries_total(self) -> int:
        """The number of queries in all parts."""
        return sum(part.queries for part in self.parts.values())


class RunRecord(Record):
    """A run. `metrics` are means over the parts, ×100; `weighing` is the label of the weights."""

    kind: Literal["run"]
    rule: str
    headline: str
    weighing: str
    metrics: dict[str, Number]

    @property
    def is_base(self) -> bool:
        """Whether the method ran as it is published: with its own weights and the linear rule."""
        return self.weighing == BASE and self.rule == RuleName.LINEAR

    @property
    def value(self) -> float:
        """The headline metric."""
        return self.metrics[self.headline]


class PlanePoint(Model):
    """A setting of a sweep and its metrics on the queries that are reported on. `setting`: its name, where it was published."""

    beta: Number
    gamma: Number
    metrics: dict[str, Number]
    setting: str | None = None


class TuningRecord(Model):
    """On which queries the best point was chosen, and on which metrics are reported."""

    tuned_on: str = Field(validation_alias="tuned on", serialization_alias="tuned on")
    reported_on: str = Field(validation_alias="reported on", serialization_alias="reported on")

    @property
    def is_same(self) -> bool:
        """Whether the best point was chosen on the queries that it is reported on."""
        return self.tuned_on == self.reported_on


class SweepRecord(Record):
    """A sweep of the PDV plane, tuned for `metric`. `queries` is the number of queries that are reported on.

    `plane`: metric → (betas, gammas) means ×100. `points`: "base", "published" and "best".
    """

    kind: Literal["sweep"]
    headline: str = ""
    metric: str
    queries: StrictInt
    betas: tuple[Number, ...] = Field(min_length=1)
    gammas: tuple[Number, ...] = Field(min_length=1)
    plane: dict[str, tuple[tuple[Number, ...], ...]]
    points: dict[str, PlanePoint]
    tuning: TuningRecord

    @model_validator(mode="after")
    def _check_shape(self) -> SweepRecord:
        expected = len(self.betas), len(self.gammas)
        for metric, rows in self.plane.items():
            if len(rows) != expected[0] or any(len(row) != expected[1] for row in rows):
                shape = len(rows), len(rows[0]) if rows else 0
                raise ValueError(f"the plane of {metric!r} is {shape}, expected (betas, gammas) = {expected}")
        for name, point in self.points.items():
            if self.metric not in point.metrics:
                raise ValueError(f"points, {name}, metrics: there is no field {self.metric!r}")
        return self


class SubmissionRecord(Record):
    """How the ranked lists of a submission were made; the server that scores them keeps the targets."""

    kind: Literal["submission"]
    weighing: str


class ScoredItem(Model):
    """An image of the gallery, its score, and the contribution of each term to it."""

    id: str
    score: Number
    contributions: dict[str, Number]


class RankedTarget(ScoredItem):
    """The best-ranked target of a query; ranks start at 1."""

    rank: StrictInt


class SingleTermResult(Model):
    """A query searched with one term alone: the rank of its best target, the ids of its best hits, and its `values` ×100 by metric."""

    rank: StrictInt
    hits: tuple[str, ...]
    values: tuple[Number | None, ...]


class QueryResult(Model):
    """One query of a run: the texts of its terms, its best target, its best hits, and its `values` ×100 by metric.

    `target` is None where targets are hidden; a value is None where the metric is not defined for the query. `single_terms`:
    what the terms `image` and `prompt` reach alone; empty in records that do not say.
    """

    id: str
    reference: str
    prompt: str
    targets: tuple[str, ...]
    words: dict[str, str]
    target: RankedTarget | None = None
    hits: tuple[ScoredItem, ...]
    values: tuple[Number | None, ...]
    single_terms: dict[str, SingleTermResult] = Field(default_factory=dict)


class QueriesRecord(Model):
    """The results of all queries of a run, by part; `metrics` names the values of each."""

    name: str
    metrics: tuple[str, ...]
    parts: dict[str, tuple[QueryResult, ...]]

    @model_validator(mode="after")
    def _check_values(self) -> QueriesRecord:
        for part, results in self.parts.items():
            for i, result in enumerate(results):
                if len(result.values) != len(self.metrics):
                    raise ValueError(
                        f"parts, {part}[{i}]: 'values' should be a list, one for each of the {len(self.metrics)} metrics, "
                        f"not {list(result.values)!r:.60}"
                    )
                for term, single in result.single_terms.items():
                    if len(single.values) != len(self.metrics):
                        raise ValueError(
                            f"parts, {part}[{i}], single_terms, {term}: 'values' should be a list, one for each of the "
                            f"{len(self.metrics)} metrics, not {list(single.values)!r:.60}"
                        )
        return self


M = TypeVar("M", bound=Model)
EXPECTED = {  # by type of pydantic's error
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "too_short": "a list of numbers",
    "dict_type": "an object",
    "model_type": "an object",
    "dataclass_type": "an object",
}


def write_record(path: Path, record: Model | Mapping[str, Any], *, indent: int | None = 1) -> Path:
    """Writes a record as JSON, completely or not at all. Returns `path`."""
    values = record.to_json() if isinstance(record, Model) else record
    return write_atomic(path, json.dumps(values, indent=indent, ensure_ascii=False) + "\n")


def read_record(path: Path) -> RunRecord | SweepRecord | SubmissionRecord | None:
    """The record in a JSON file; None where the file is JSON but not a record.

    MMRetrieveError, naming the file and the field, where it is damaged.
    """
    values = read_json(path)
    match values.get("kind") if isinstance(values, dict) else None:
        case "run":
            return parse(RunRecord, values, path)
        case "sweep":
            return parse(SweepRecord, values, path)
        case "submission":
            return parse(SubmissionRecord, values, path)
        case _:
            return None


def read_queries(path: Path) -> QueriesRecord:
    """The results of a run's queries. MMRetrieveError, naming the file and the field, where it is damaged."""
    return parse(QueriesRecord, read_json(path), path)


def check_replaceable(path: Path, options: Mapping[str, Any], encoder: EncoderIdentity) -> None:
    """MMRetrieveError where `path` exists and is not a record of the same options and encoder."""
    if not path.exists():
        return
    try:
        record = read_record(path)
    except MMRetrieveError:
        record = None
    if record is None or record.options != options or record.encoder != encoder:
        raise MMRetrieveError(f"{path} exists and belongs to another run: choose another --name or --out")


def parse(model: type[M], values: object, path: Path) -> M:
    """The values of a file as a model. The first problem is an MMRetrieveError of one line, naming the file and the field."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "value_error":
            raise MMRetrieveError(f"{path}: {problem['ctx']['error']}") from error
        *outer, field = _merge_indices(problem["loc"]) or [""]
        raise MMRetrieveError(f"{', '.join([str(path), *outer])}: {_describe(problem, field)}") from error


def _describe(problem: Any, field: str) -> str:
    if problem["type"] == "missing":
        return f"there is no field {field!r}"
    if (expected := EXPECTED.get(problem["type"])) is None:
        return f"{field!r}: {problem['msg']}"
    name = f"{field!r} " if field else ""
    return f"{name}should be {expected}, not {problem['input']!r:.60}"


def _merge_indices(location: tuple[str | int, ...]) -> list[str]:
    """("parts", "cirr", 3, "id") → ["parts", "cirr[3]", "id"]."""
    names: list[str] = []
    for step in location:
        if isinstance(step, int) and names:
            names[-1] += f"[{step}]"
        else:
            names.append(str(step))
    return names
