"""Reads the records that runs and sweeps write. Every file is checked, and an error is one line that names it.

The report may be passed on, so the paths of the machine that wrote a record are shortened to file names here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from eval.runs.records import (
    QueriesRecord,
    QueryResult,
    Record,
    RunRecord,
    SubmissionRecord,
    SweepRecord,
    read_queries,
    read_record,
)
from mmretrieve import MMRetrieveError
from mmretrieve.errors import OptionError

QUERIES, SWEEP = ".queries.json", ".sweep.json"
MEAN_TOLERANCE = 1e-6  # a record's headline equals the mean of its queries' values, up to the order of addition
PATH_IN_TEXT = re.compile(r"""(?<![\w./:~<])(?:~|\.{1,2}|[A-Za-z]:)?[\\/](?:[^\s\\/'"<>|,;]+[\\/])+([^\s\\/'"<>|,;]*)""")
WHOLE_PATH = re.compile(r"(?:~|\.{1,2}|[A-Za-z]:)?[\\/][^\n]*")


class EvaluatedRun(RunRecord):
    """A run with the results of its queries, which are stored in a file of their own."""

    queries_record: QueriesRecord

    @property
    def results(self) -> Mapping[str, tuple[QueryResult, ...]]:
        """The results of the queries by part, in query order."""
        return self.queries_record.parts

    def column(self, metric: str) -> int:
        """The index of a metric among the values of a result."""
        return self.queries_record.metrics.index(metric)

    @property
    def headline_column(self) -> int:
        """The index of the headline among the values of a result."""
        return self.column(self.headline)

    @property
    def headline_values(self) -> list[list[float]]:
        """The headline of each query by part, without the queries for which it is not defined."""
        column = self.headline_column
        return [[v for result in results if (v := result.values[column]) is not None] for results in self.results.values()]


@dataclass(frozen=True)
class LoadedRecords:
    """The records of a folder; `skipped` has file names and why they are not shown."""

    runs: tuple[EvaluatedRun, ...]
    sweeps: tuple[SweepRecord, ...]
    skipped: tuple[tuple[str, str], ...] = ()


R = TypeVar("R", bound=Record)


def read_records(source: str | Path | Iterable[str | Path]) -> LoadedRecords:
    """Every record of a folder, or of the files named: NAME.json of a run, NAME.sweep.json of a sweep.

    Submissions, runs without values (of a split with hidden targets) and other JSON files of a folder are skipped.

    Parameters
    ----------
    source : a folder, one file, or several files.

    Raises
    ------
    OptionError : there is no such folder.
    MMRetrieveError : no record is left, or a file is damaged; the message names it.
    """
    runs: dict[str, EvaluatedRun] = {}
    sweeps: dict[str, SweepRecord] = {}
    skipped: list[tuple[str, str]] = []
    for path, is_named in _list_files(source):
        match record := read_record(path):
            case None if is_named:
                raise MMRetrieveError(
                    f'{path}: expected the record of a run or a sweep, an object with "kind": "run" or "sweep"'
                )
            case None:
                skipped.append((path.name, "not the record of a run or a sweep"))
            case SweepRecord():
                _add(sweeps, hide_paths(record), path)
            case SubmissionRecord():
                skipped.append((path.name, "a submission, which its server scores"))
            case RunRecord() if not record.metrics:
                skipped.append((path.name, "no values, because the targets of its split are not public"))
            case RunRecord():
                _add(runs, _read_results(hide_paths(record), path), path)
    if not runs and not sweeps:
        reasons = "".join(f"; {name}: {why}" for name, why in skipped[:3])
        raise MMRetrieveError(
            f"{source}: no record with values: expected NAME.json beside NAME{QUERIES}, or NAME{SWEEP}, as `run` and `sweep` write them{reasons}"
        )
    return LoadedRecords(tuple(runs.values()), tuple(sweeps.values()), tuple(skipped))


def hide_paths(record: R) -> R:
    """The record with every path shortened to its last part."""
    return type(record).model_validate(shorten_paths(record.to_json()))


def shorten_paths(value: Any) -> Any:
    """A text, or any JSON value, with each path shortened to its last part.

    >>> shorten_paths(["read /data/cirr/a.json", "red and/or blue"])
    ['read a.json', 'red and/or blue']
    """
    if isinstance(value, str):
        if WHOLE_PATH.fullmatch(value) and ": " not in value:
            return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
        return PATH_IN_TEXT.sub(r"\1", value)
    if isinstance(value, Mapping):
        return {key: shorten_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shorten_paths(item) for item in value]
    return value


def _list_files(source: str | Path | Iterable[str | Path]) -> list[tuple[Path, bool]]:
    """Files that may be records, and whether each was named by the caller."""
    if not isinstance(source, str | Path):
        return [(Path(path), True) for path in source if not str(path).endswith(QUERIES)]
    folder = Path(source)
    if folder.is_file():
        return [(folder, True)]
    if not folder.is_dir():
        raise OptionError(f"{folder}: no such folder; expected one with records, as `run --out` and `sweep --out` write them")
    return [(path, False) for path in sorted(folder.glob("*.json")) if not path.name.endswith(QUERIES)]


def _add(records: dict[str, R], record: R, path: Path) -> None:
    if record.name in records:
        raise MMRetrieveError(f"{path}: the name {record.name!r} occurs twice; give each record a different name")
    records[record.name] = record


def _read_results(record: RunRecord, path: Path) -> EvaluatedRun:
    queries_path = path.with_name(path.name.removesuffix(".json") + QUERIES)
    queries = read_queries(queries_path)
    if record.headline not in record.metrics or record.headline not in queries.metrics:
        raise MMRetrieveError(f"{path}: the headline {record.headline!r} is not among its metrics: {', '.join(record.metrics)}")
    run = EvaluatedRun(**dict(record), queries_record=queries)
    if problem := _find_mismatch(run):
        raise MMRetrieveError(f"{path}: {queries_path.name} {problem}")
    return run


def _find_mismatch(run: EvaluatedRun) -> str | None:
    """Why the two files do not belong to one run: other parts, other counts, or a headline that is not the mean of the values."""
    counts = {name: len(results) for name, results in run.results.items()}
    if counts != {name: part.queries for name, part in run.parts.items()}:
        return f"belongs to another run: it has {counts} queries"
    parts = run.headline_values
    if not all(parts):
        return f"has no values of {run.headline}"
    mean = sum(sum(values) / len(values) for values in parts) / len(parts)
    if abs(mean - run.value) > MEAN_TOLERANCE * max(1.0, abs(mean)):
        return f"belongs to another run: its {run.headline} is {mean:.4f}, the record's {run.value:.4f}"
    return None
