"""Ranked lists, and the rules that they keep, whether they are to be measured or to be submitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from eval.benchmarks.base import Benchmark, BenchmarkQuery
from mmretrieve import MMRetrieveError

VERSION = "rc2"  # of CIRR's annotations: its files say so


class ListKind(StrEnum):
    """What a file of CIRR's ranks: the images of the split, or the members of each query's subset."""

    RECALL = "recall"
    SUBSET = "recall_subset"


@dataclass(frozen=True)
class RankedLists:
    """Ids by query id, best first, as they came; `where` is what an error calls them.

    metric: what the file says that they are for; where it does not say, they rank the gallery. references: of each query,
    where the file names it (FashionIQ's form does).
    """

    where: str
    lists: Mapping[str, Sequence[str]]
    metric: ListKind | None = None
    references: Mapping[str, str] = field(default_factory=dict)


def check_lists(benchmark: Benchmark, lists: RankedLists, *, exact: bool = False) -> None:
    """MMRetrieveError, naming the file, a query and how many others have the same trouble, where lists do not fit.

    Every query has a list, and nothing else has; the ids are the gallery's, or the query's own candidates where only those
    are ranked; none comes twice; without the reference, where it leaves the ranking, they reach down to the largest k.
    exact: as a server takes them, down to the largest k and no further, and with no reference to be taken out.
    """
    if lists.metric is not None and not benchmark.protocol.subset_recalls:
        raise MMRetrieveError(f'{lists.where}: says "metric": "{lists.metric}", as files for CIRR do, not {named(benchmark)}')
    _check_queries(benchmark, lists)
    pairs = [(query, lists.lists[query.id]) for query in benchmark.queries]
    rules = _Rules(benchmark, lists, narrow(benchmark, lists), exact)
    for wrong in (rules.other_reference, rules.unknown, rules.twice, rules.not_its_own, rules.reference, rules.length):
        refuse(lists.where, ((query.id, wrong(query, ids)) for query, ids in pairs))


def narrow(benchmark: Benchmark, lists: RankedLists) -> bool:
    """Whether lists rank the candidates of each query alone, not the gallery."""
    return benchmark.protocol.candidates_alone or lists.metric is ListKind.SUBSET


def named(benchmark: Benchmark) -> str:
    """What an error calls a benchmark: "cirr val"."""
    return f"{benchmark.name} {benchmark.split}"


def refuse(where: str, found: Iterable[tuple[str, str | None]]) -> None:
    """MMRetrieveError for the first query with something wrong, and how many others have the same trouble."""
    troubles = [(id_, wrong) for id_, wrong in found if wrong is not None]
    if not troubles:
        return
    (id_, wrong), others = troubles[0], len(troubles) - 1
    more = f" (as with {others} other{'s' if others > 1 else ''})" if others else ""
    raise MMRetrieveError(f"{where}, query {id_:.60}{more}: {wrong}")


@dataclass(frozen=True)
class _Rules:
    """What is wrong with the list of one query, or None. `narrow`: its candidates alone are ranked."""

    benchmark: Benchmark
    lists: RankedLists
    narrow: bool
    exact: bool

    def other_reference(self, query: BenchmarkQuery, _: Sequence[str]) -> str | None:
        given = self.lists.references.get(query.id, query.reference)
        said = f"the record's candidate is {given!r}, the query's reference {query.reference!r}"
        return None if given == query.reference else f"{said}: are the records in the order of the queries?"

    def unknown(self, _: BenchmarkQuery, ids: Sequence[str]) -> str | None:
        place, like = self.benchmark.place, self.benchmark.gallery_ids[0]
        strange = next((id_ for id_ in ids if id_ not in place), None)
        found = f"{strange!r:.60} is not in the gallery of {named(self.benchmark)}, whose ids are like {like!r}"
        return None if strange is None else found

    def twice(self, _: BenchmarkQuery, ids: Sequence[str]) -> str | None:
        if len(set(ids)) == len(ids):
            return None
        return f"{next(id_ for i, id_ in enumerate(ids) if id_ in ids[:i])!r} comes twice"

    def not_its_own(self, query: BenchmarkQuery, ids: Sequence[str]) -> str | None:
        own = {*(query.candidates or ())} if self._stays else {*(query.candidates or ()), query.reference}
        strange = [id_ for id_ in ids if self.narrow and id_ not in own]
        return f"{strange[0]!r} is not one of the query's own candidates" if strange else None

    def reference(self, query: BenchmarkQuery, ids: Sequence[str]) -> str | None:
        wrong = self.exact and not self._stays and query.reference in ids
        return f"the reference {query.reference!r} is in its own ranking" if wrong else None

    def length(self, query: BenchmarkQuery, ids: Sequence[str]) -> str | None:
        out = not self._stays and query.reference in ids
        found, depth = len(ids) - out, max(metric.k for metric in self.benchmark.metrics if metric.subset is self.narrow)
        places = len({*(query.candidates or ())}) if self.narrow else len(self.benchmark.gallery_ids) - (not self._stays)
        if found == depth or (found >= min(depth, places) and not self.exact):
            return None
        least = f"exactly {depth}" if self.exact else f"at least {min(depth, places)}"
        hint = f'; a file of subset rankings says "metric": "{ListKind.SUBSET}"' if self._like_subset(query, ids) else ""
        return f"expected {least} ids, found {found}{' besides the reference' if out else ''}{hint}"

    def _like_subset(self, query: BenchmarkQuery, ids: Sequence[str]) -> bool:
        possible = bool(ids and self.benchmark.protocol.subset_recalls) and not self.narrow
        return possible and {*ids} <= {*(query.candidates or ()), query.reference}

    @property
    def _stays(self) -> bool:
        return self.benchmark.protocol.keeps_reference


def _check_queries(benchmark: Benchmark, lists: RankedLists) -> None:
    asked = dict.fromkeys(query.id for query in benchmark.queries)
    unknown, missing = [id_ for id_ in lists.lists if id_ not in asked], [id_ for id_ in asked if id_ not in lists.lists]
    of = f"{named(benchmark)}, which has {len(asked)}"
    refuse(lists.where, ((id_, f"not a query of {of}: is this of another split or benchmark?") for id_ in unknown))
    refuse(
        lists.where,
        ((id_, f"has no list; it is a query of {of}: is the file cut short, or of another split?") for id_ in missing),
    )
