"""Reads what runs and sweeps leave behind: NAME.json with NAME.queries.json beside it, and NAME.sweep.json.

Every file is checked on its way in, and an error is one line that names it. No path of the machine that made a record
goes further than this room.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from eval.benchmarks.json_files import JsonRecord, read_json
from eval.report.paths import without_paths
from eval.report.query_answers import number, numbers, read_answers
from eval.report.records import EncoderRecord, PartRecord, RunRecord, SweepRecord
from mmretrieve import MMRetrieveError
from mmretrieve.errors import OptionError

QUERIES, SWEEP = ".queries.json", ".sweep.json"
KINDS = ("run", "sweep", "submission")
CLOSE = 1e-6  # a record's headline is the mean of its queries' values, up to the order of adding


@dataclass(frozen=True)
class LoadedRecords:
    """What was found; `left_out` says by file name what is not shown, and why."""

    runs: tuple[RunRecord, ...]
    sweeps: tuple[SweepRecord, ...]
    left_out: tuple[tuple[str, str], ...] = ()


R = TypeVar("R", RunRecord, SweepRecord)


def read_records(source: str | Path | Iterable[str | Path]) -> LoadedRecords:
    """Every record of a folder, or of the files named: NAME.json of a run, NAME.sweep.json of a sweep.

    Submissions and runs without values (of a split whose targets are hidden) are left out, and so is any other JSON of a folder. Raises
    OptionError where there is no such folder, MMRetrieveError where nothing is left, or naming the file that cannot be read.
    """
    runs: dict[str, RunRecord] = {}
    sweeps: dict[str, SweepRecord] = {}
    left_out: list[tuple[str, str]] = []
    for path, chosen in _files(source):
        record = _record(path)
        if record is None and chosen:
            raise MMRetrieveError(f'{path}: expected the record of a run or a sweep, an object with "kind": "run" or "sweep"')
        if record is None:
            left_out.append((path.name, "not the record of a run or a sweep"))
        elif record.fields["kind"] == "sweep":
            _keep(sweeps, _sweep(record), path)
        elif record.fields["kind"] == "submission":
            left_out.append((path.name, "a submission, which its server scores"))
        elif not record.part("metrics").fields:
            left_out.append((path.name, "no values, for the targets of its split are not public"))
        else:
            _keep(runs, _run(record, path), path)
    if not runs and not sweeps:
        said = "".join(f"; {name}: {why}" for name, why in left_out[:3])
        raise MMRetrieveError(
            f"{source}: no record with values: expected NAME.json beside NAME{QUERIES}, or NAME{SWEEP}, as `run` and `sweep` write them{said}"
        )
    return LoadedRecords(tuple(runs.values()), tuple(sweeps.values()), tuple(left_out))


def _files(source: str | Path | Iterable[str | Path]) -> list[tuple[Path, bool]]:
    """Files that may be records, and whether a person has chosen each by name."""
    if not isinstance(source, str | Path):
        return [(Path(path), True) for path in source if not str(path).endswith(QUERIES)]
    folder = Path(source)
    if folder.is_file():
        return [(folder, True)]
    if not folder.is_dir():
        raise OptionError(f"{folder}: no such folder; expected one with records, as `run --out` and `sweep --out` write them")
    return [(path, False) for path in sorted(folder.glob("*.json")) if not path.name.endswith(QUERIES)]


def _record(path: Path) -> JsonRecord | None:
    whole = read_json(path)
    known = isinstance(whole, dict) and whole.get("kind") in KINDS
    return JsonRecord(str(path), whole) if known else None  # type: ignore[arg-type]


def _keep(known: dict[str, R], new: R, path: Path) -> None:
    if new.name in known:
        raise MMRetrieveError(f"{path}: its name {new.name!r} comes twice; give each record a name of its own")
    known[new.name] = new


def _run(record: JsonRecord, path: Path) -> RunRecord:
    beside = path.with_name(path.name.removesuffix(".json") + QUERIES)
    measured, answers = read_answers(beside)
    headline, metrics = record.text("headline"), numbers(record.part("metrics"))
    if headline not in metrics or headline not in measured:
        raise record.error(f"the headline {headline!r} is not among its metrics: {', '.join(metrics)}")
    run = RunRecord(
        **_source(record),
        rule=record.text("rule"),
        weighing=record.text("weighing"),
        headline=headline,
        metrics=metrics,
        measured=measured,
        answers=answers,
    )
    _check_belongs(run, record, beside)
    return run


def _check_belongs(run: RunRecord, record: JsonRecord, beside: Path) -> None:
    """That both files are of one run: same parts, as many queries, and a headline that is the mean of the values."""
    counts = {name: len(answers) for name, answers in run.answers.items()}
    if counts != {name: part.queries for name, part in run.parts.items()}:
        raise record.error(f"{beside.name} is of another run: it holds {counts} queries")
    column = run.measured.index(run.headline)
    defined = [[v for a in answers if (v := a.values[column]) is not None] for answers in run.answers.values()]
    if not all(defined):
        raise record.error(f"{beside.name} has no values of {run.headline}")
    mean = sum(sum(values) / len(values) for values in defined) / len(defined)
    if abs(mean - run.value) > CLOSE * max(1.0, abs(mean)):
        raise record.error(f"{beside.name} is of another run: its {run.headline} is {mean:.4f}, the record's {run.value:.4f}")


def _sweep(record: JsonRecord) -> SweepRecord:
    tuning, points = record.part("tuning"), record.part("points")
    metric = record.text("metric")
    for name in points.fields:
        point = points.part(name)
        number(point, "beta"), number(point, "gamma"), number(point.part("metrics"), metric)
    for axis in ("betas", "gammas"):
        axis_numbers = record.fields.get(axis)
        if not isinstance(axis_numbers, list) or not axis_numbers:
            raise record.error(f"{axis!r} should be a list of numbers, not {axis_numbers!r:.60}")
        numbers(JsonRecord(record.where, {f"{axis}[{i}]": value for i, value in enumerate(axis_numbers)}))
    record.part("plane"), record.number("queries")
    whole = {**without_paths(dict(record.fields)), "name": record.text("name")}
    return SweepRecord(
        **_source(record), metric=metric, record=whole, tuned_on=tuning.text("tuned on"), reported_on=tuning.text("reported on")
    )


def _source(record: JsonRecord) -> dict[str, Any]:
    encoder, parts = record.part("encoder"), record.part("parts")
    model = without_paths(encoder.text("model"))
    return {
        "name": record.text("name"),
        "benchmark": record.text("benchmark"),
        "split": record.text("split"),
        "label": without_paths(record.text("label")),
        "composer": record.text("composer"),
        "encoder": EncoderRecord(model, encoder.text("weights"), encoder.text("preprocessing")),
        "parts": {name: _part(parts.part(name)) for name in parts.fields},
        "remarks": tuple(without_paths(list(record.texts("remarks")))),
        "options": without_paths(dict(record.part("options").fields)),
        "provenance": without_paths(dict(record.part("provenance").fields)),
    }


def _part(record: JsonRecord) -> PartRecord:
    remark, keeps = record.fields.get("remark"), record.fields.get("reference in the ranking")
    return PartRecord(
        record.number("queries"),
        record.number("gallery"),
        None if keeps is None else bool(keeps),
        record.text("checksum"),
        None if remark is None else without_paths(record.text("remark")),
        numbers(record.part("metrics")) if "metrics" in record.fields else {},
    )
