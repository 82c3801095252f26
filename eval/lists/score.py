"""Ranked lists of any origin: read from a file, checked against a benchmark, measured by its own protocol."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark
from eval.benchmarks.json_files import JsonRecord, read_json
from eval.lists.checks import VERSION, ListKind, RankedLists, check_lists, narrow, refuse
from eval.metrics.ranks import RankingTask, Ranks, list_ranks
from mmretrieve import MMRetrieveError
from mmretrieve.errors import OptionError

MARKS = ("version", "metric")
FORMS = 'expected {query id: [ids, best first]}, or a list of records {"candidate": …, "ranking": [ids]}'


def read_lists(path: str | Path) -> RankedLists:
    """A JSON file of ranked lists. MMRetrieveError, naming the file and the query, where it holds something else.

    `{"0": [271520, 8], …}`: for each query id its ids, best first; a number is the text of that number. CIRR's files say
    besides `"version": "rc2"` and `"metric": "recall"` or `"recall_subset"`. FashionIQ's form is
    `[{"candidate": …, "captions": …, "ranking": […]}, …]`: a record for each query, in the order of the queries.
    """
    where, whole = str(path), read_json(Path(path))
    if isinstance(whole, list) and whole and all(isinstance(item, dict) for item in whole):
        records = [JsonRecord(f"{where}, record {number}", item) for number, item in enumerate(whole, start=1)]
        references = {str(i): record.text("candidate") for i, record in enumerate(records)}
        return RankedLists(where, _ids(where, {str(i): item.get("ranking") for i, item in enumerate(whole)}), None, references)
    if not isinstance(whole, dict):
        raise MMRetrieveError(f"{where}: {FORMS}, not {whole!r:.60}")
    return RankedLists(where, _ids(where, {k: v for k, v in whole.items() if k not in MARKS}), _metric(where, whole))


def measure_lists(benchmark: Benchmark, *lists: RankedLists) -> NDArray[np.float64]:
    """(queries, metrics) ×100; NaN where a query does not carry the aspect, and in metrics that the lists cannot tell.

    Of CIRR two may come: a ranking of the gallery, and one of the subsets. A ranking of the gallery alone tells
    `recall_subset@k` as well if every one of its lists names all candidates. Raises what `check_lists` raises, OptionError
    for no lists or two of a kind, and MMRetrieveError where the targets are not public.
    """
    known: dict[bool, RankedLists] = {}
    for one in lists:
        other = known.setdefault(narrow(benchmark, one), one)
        if other is not one:
            both = f"one each of {' and '.join(ListKind)}" if benchmark.protocol.subset_recalls else "one file"
            raise OptionError(f"{other.where} and {one.where} are for the same metrics of {benchmark.name}: expected {both}")
    if not known:
        raise OptionError(f"there are no lists of {benchmark.name} to measure")
    for one in known.values():
        check_lists(benchmark, one)
    if True not in known and all({*(query.candidates or ())} <= {*known[False].lists[query.id]} for query in benchmark.queries):
        known[True] = known[False]
    return benchmark.measured(partial(_ranks, benchmark.place, query.id, known) for query in benchmark.queries)


def score_lists(benchmark: Benchmark, *lists: RankedLists) -> dict[str, float]:
    """Metric → mean ×100, of every metric that the lists tell. Raises what `measure_lists` raises."""
    return benchmark.means(measure_lists(benchmark, *lists))


def _ranks(place: Mapping[str, int], query_id: str, known: Mapping[bool, RankedLists], contest: RankingTask) -> Ranks | None:
    lists = known.get(contest.rivals is not None)
    return None if lists is None else list_ranks([place[id_] for id_ in lists.lists[query_id]], contest)


def _ids(where: str, rankings: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    if not rankings:
        raise MMRetrieveError(f"{where}: there is no list in it; {FORMS}")
    refuse(where, ((id_, _no_list(ids)) for id_, ids in rankings.items()))
    return {id_: tuple(map(str, ids)) for id_, ids in rankings.items() if isinstance(ids, list)}


def _no_list(ids: object) -> str | None:
    if not isinstance(ids, list):
        return f"expected a list of ids, best first, not {ids!r:.60}"
    strange = [item for item in ids if type(item) not in (str, int)]  # True is an int, and no id
    return f"expected ids (texts or whole numbers), not {strange[0]!r:.60}" if strange else None


def _metric(where: str, whole: Mapping[str, object]) -> ListKind | None:
    """What the keys of CIRR's files say, if they are there."""
    if whole.get("version", VERSION) != VERSION:
        raise MMRetrieveError(f'{where}: "version" should be "{VERSION}", not {whole["version"]!r:.60}')
    if not any(mark in whole for mark in MARKS):
        return None
    said = whole.get("metric")
    if not isinstance(said, str) or said not in list(ListKind):
        raise MMRetrieveError(f'{where}: "metric" should be one of {", ".join(ListKind)}, not {said!r:.60}')
    return ListKind(said)
