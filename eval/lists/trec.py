"""Runs and relevance judgments (qrels) in the form of TREC, which trec_eval, ir_measures and ranx read, too.

A line of a run is `query Q0 item rank score name`, one of qrels `query 0 item relevance`. Where the definitions agree, these tools give the
same numbers: MRR and nDCG everywhere, and recall@k as their success@k. They differ in map@k, which they divide by all targets instead of
min(targets, k), and in recall@k, which is a share of all targets there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark
from eval.lists.files import RankedLists, raise_first
from eval.metrics import UNRANKED, Floats, Ranks, average_precision_at, ndcg_at, recall_at, reciprocal_rank_at
from mmretrieve import MMRetrieveError
from mmretrieve.options import check_regular, is_number
from mmretrieve.ranking.trec import RUN_NAME, escape, falling, unescape

MEASURES: Mapping[str, tuple[Callable[[Ranks, int], Floats], int]] = {
    **{f"recall@{k}": (recall_at, k) for k in (1, 5, 10, 50)},
    "mrr": (reciprocal_rank_at, UNRANKED - 1),
    "ndcg@10": (ndcg_at, 10),
    "map@10": (average_precision_at, 10),
}


def is_run(path: Path) -> bool:
    """Whether a file of ranked lists is a run: it does not begin as JSON does."""
    return not _read(path).lstrip().startswith(("{", "["))


def read_run(path: str | Path) -> RankedLists:
    """Reads a run: for each query its items by falling score, equal ones by falling id, as trec_eval orders them.

    MMRetrieveError, naming the file and the line, for a line of another form, and naming the query for an item that occurs twice.
    """
    scored: dict[str, dict[str, float]] = {}
    repeated: list[tuple[str, str | None]] = []
    for number, (query, _, item, _, score, _) in _lines(path, 6, "query Q0 item rank score name"):
        items = scored.setdefault(unescape(query), {})
        if unescape(item) in items:
            repeated.append((query, f"{unescape(item)!r} occurs twice"))
        items[unescape(item)] = _number(path, number, score)
    raise_first(str(path), repeated)
    ordered = {query: sorted(items, key=lambda id_: (items[id_], id_), reverse=True) for query, items in scored.items()}
    return RankedLists(str(path), ordered)


def read_qrels(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Query id → its targets, the items of a relevance above 0. MMRetrieveError as in `read_run`, and for a query without targets."""
    targets: dict[str, list[str]] = {}
    for number, (query, _, item, relevance) in _lines(path, 4, "query 0 item relevance"):
        own = targets.setdefault(unescape(query), [])
        if _number(path, number, relevance) > 0:
            own.append(unescape(item))
    raise_first(str(path), ((query, None if own else "has no relevant item") for query, own in targets.items()))
    return {query: tuple(dict.fromkeys(own)) for query, own in targets.items()}


def qrels_lines(benchmark: Benchmark) -> Iterator[str]:
    """The lines of the targets of a split. MMRetrieveError where they are not public."""
    benchmark.check_public()
    for query in benchmark.queries:
        yield from (f"{escape(query.id)} 0 {escape(id_)} 1" for id_ in query.targets)


def run_lines(benchmark: Benchmark, scores: Iterable[NDArray[np.floating]], name: str = RUN_NAME) -> Iterator[str]:
    """The lines of a run: the ranking of each query down to the largest k, without the reference where the protocol does not rank it.

    scores: (items,) for each query.
    """
    for query, row in zip(benchmark.queries, scores, strict=True):
        best = benchmark.top_rows(query, np.asarray(row, np.float64), benchmark.depth)
        for rank, (item, score) in enumerate(zip(best, falling([float(row[i]) for i in best]), strict=True), start=1):
            yield f"{escape(query.id)} Q0 {escape(benchmark.gallery_ids[item])} {rank} {score:.9g} {name}"


def measure_run(run: RankedLists, qrels: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Measure → mean ×100 over the queries of the qrels; without those at a k that no list reaches.

    MMRetrieveError for a query of the run that the qrels have not, and for one that has no list.
    """
    other = [
        (query, None if query in qrels else "not a query of the qrels: do both files belong together?") for query in run.lists
    ]
    missing = [(query, None if query in run.lists else "has no list; it is a query of the qrels") for query in qrels]
    raise_first(run.where, [*other, *missing])
    ranks = [_ranks(run.lists[query], targets) for query, targets in qrels.items()]
    depth = max(len(ids) for ids in run.lists.values())
    return {
        name: float(np.mean([measure(own, k) for own in ranks]))
        for name, (measure, k) in MEASURES.items()
        if k <= depth or measure is reciprocal_rank_at
    }


def _ranks(ids: Iterable[str], targets: Iterable[str]) -> Ranks:
    """(targets,) ranks, best first; UNRANKED for those that are not in the list."""
    rank = {id_: at for at, id_ in enumerate(ids, start=1)}
    return np.sort([rank.get(target, UNRANKED) for target in targets])


def _lines(path: str | Path, count: int, form: str) -> Iterator[tuple[int, list[str]]]:
    """The words of each line that is not empty, with its number."""
    lines = [(number, words) for number, line in enumerate(_read(path).split("\n"), start=1) if (words := line.split())]
    if not lines:
        raise MMRetrieveError(f"{path}: it contains no lines; expected `{form}`")
    for number, words in lines:
        if len(words) != count:
            raise MMRetrieveError(f"{path}, line {number}: expected `{form}`, got {' '.join(words)!r:.80}")
        yield number, words


def _read(path: str | Path) -> str:
    try:
        return check_regular(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MMRetrieveError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _number(path: str | Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not is_number(value):
        raise MMRetrieveError(f"{path}, line {line}: {text!r:.40} is not a finite number")
    return value
