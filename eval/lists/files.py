"""Files of ranked lists, read and written by the same model: those of CIRR and CIRCO, and the records of FashionIQ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, StrictInt, StrictStr, ValidationError

from eval.benchmarks.annotations import JsonRecord
from eval.files import read_json
from eval.runs.records import Model
from mmretrieve import MMRetrieveError

CIRR_VERSION = "rc2"
CIRR_KEYS = ("version", "metric")
FORMS = 'expected {query id: [ids, best first]}, or a list of records {"candidate": …, "ranking": [ids]}'


class ListKind(StrEnum):
    """What a CIRR file ranks: the images of the split, or the members of each query's subset."""

    RECALL = "recall"
    SUBSET = "recall_subset"


@dataclass(frozen=True)
class RankedLists:
    """Ids by query id, best first.

    Parameters
    ----------
    where : the name of the lists in errors.
    lists : query id → ids, best first.
    metric : what the file ranks; None, where it does not tell, means the gallery.
    references : query id → reference, where the file names it, as FashionIQ's form does.
    """

    where: str
    lists: Mapping[str, Sequence[str]]
    metric: ListKind | None = None
    references: Mapping[str, str] = field(default_factory=dict)


class RankingsFile(Model):
    """`{"0": [271520, 8], …}`: for each query id its ids, best first. CIRR's files also have "version" and "metric"."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, tuple[StrictStr | StrictInt, ...]]

    version: Literal["rc2"] | None = None
    metric: ListKind | None = None

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """Query id → ids as texts."""
        return {query_id: tuple(map(str, ids)) for query_id, ids in self.__pydantic_extra__.items()}


def read_lists(path: str | Path) -> RankedLists:
    """Reads ranked lists in the form of CIRR, CIRCO or FashionIQ; a number is taken as the text of that number.

    FashionIQ's form is `[{"candidate": …, "captions": …, "ranking": […]}, …]`, one record for each query, in their order.

    MMRetrieveError, naming the file and the query, where the file has another form.
    """
    where, content = str(path), read_json(Path(path))
    if isinstance(content, list) and content and all(isinstance(item, dict) for item in content):
        file = _parse_lists(where, {str(i): record.get("ranking") for i, record in enumerate(content)})
        references = (JsonRecord(f"{where}, record {i}", record).text("candidate") for i, record in enumerate(content, start=1))
        return RankedLists(where, file.lists, None, {str(i): reference for i, reference in enumerate(references)})
    if not isinstance(content, dict):
        raise MMRetrieveError(f"{where}: {FORMS}, not {content!r:.60}")
    file = _parse_lists(where, content)
    if file.metric is None and not content.keys().isdisjoint(CIRR_KEYS):
        raise _metric_error(where, None)
    return RankedLists(where, file.lists, file.metric)


def raise_first(where: str, problems: Iterable[tuple[str, str | None]]) -> None:
    """MMRetrieveError for the first query with a problem, with the number of other queries that have the same kind of problem."""
    failing = [(query_id, problem) for query_id, problem in problems if problem is not None]
    if not failing:
        return
    (query_id, problem), others = failing[0], len(failing) - 1
    more = f" (as with {others} other{'s' if others > 1 else ''})" if others else ""
    raise MMRetrieveError(f"{where}, query {query_id:.60}{more}: {problem}")


def _parse_lists(where: str, content: Mapping[str, object]) -> RankingsFile:
    if not content.keys() - set(CIRR_KEYS):
        raise MMRetrieveError(f"{where}: it contains no lists; {FORMS}")
    try:
        return RankingsFile.model_validate(content)
    except ValidationError as error:
        problems: dict[str, Any] = {}
        for problem in error.errors():
            problems.setdefault(str(problem["loc"][0]), problem)
        for key in CIRR_KEYS:
            if (problem := problems.pop(key, None)) is not None and not problems:
                raise (_version_error if key == "version" else _metric_error)(where, problem["input"]) from error
        raise_first(where, ((query_id, _describe(problem)) for query_id, problem in problems.items()))
        raise


def _describe(problem: Any) -> str:
    if len(problem["loc"]) == 1:
        return f"expected a list of ids, best first, not {problem['input']!r:.60}"
    return f"expected ids (texts or whole numbers), not {problem['input']!r:.60}"


def _version_error(where: str, value: object) -> MMRetrieveError:
    return MMRetrieveError(f'{where}: "version" should be "{CIRR_VERSION}", not {value!r:.60}')


def _metric_error(where: str, value: object) -> MMRetrieveError:
    return MMRetrieveError(f'{where}: "metric" should be one of {", ".join(ListKind)}, not {value!r:.60}')
