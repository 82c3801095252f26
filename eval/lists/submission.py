"""What the servers of CIRR and CIRCO take: rankings of their hidden splits, checked as a whole, then written.

Rules as the servers state them: CIRR two files, 50 names a query and 3 of its subset, at most 5 MB each; CIRCO one file,
50 unique ids a query.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark, BenchmarkQuery
from eval.lists.checks import VERSION, ListKind, RankedLists, check_lists, named
from mmretrieve import MMRetrieveError
from mmretrieve.errors import OptionError
from mmretrieve.scoring import top_k

Rankings = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class SubmissionServer:
    """The split that it scores, whether it asks for subset rankings too, how it writes an id, how many bytes a file may have."""

    split: str
    subsets: bool
    written: Callable[[str], str | int]
    most: int


SERVERS: Mapping[str, SubmissionServer] = {
    "cirr": SubmissionServer("test1", True, str, 5_000_000),
    "circo": SubmissionServer("test", False, int, 5_000_000),
}
"""By benchmark. CIRCO's states no size; its file has 0.4 MB."""


def submission_files(benchmark: Benchmark, rankings: Rankings, subset_rankings: Rankings | None = None) -> dict[str, str]:
    """Ids by query id, best first → file name → JSON text, all of them checked.

    CIRR: `cirr_test1_recall.json` and `cirr_test1_recall_subset.json`; CIRCO: `circo_test.json`. Raises OptionError where no
    server scores this split, or subset rankings are missing or too many; MMRetrieveError, naming the file and the query,
    where a rule is broken.
    """
    server = _server(benchmark)
    if server.subsets is (subset_rankings is None):
        raise OptionError(f"the server of {benchmark.name} takes {'a' if server.subsets else 'no'} ranking of the subsets")
    stem = f"{benchmark.name}_{benchmark.split}"
    files = [RankedLists(f"{stem}.json", rankings)]
    if subset_rankings is not None:
        both = ((ListKind.RECALL, rankings), (ListKind.SUBSET, subset_rankings))
        files = [RankedLists(f"{stem}_{metric}.json", lists, metric) for metric, lists in both]
    for file in files:
        check_lists(benchmark, file, exact=True)
    return {file.where: _text(benchmark, file, server) for file in files}


def write_submission(folder: str | Path, files: Mapping[str, str]) -> tuple[Path, ...]:
    """Writes all files under other names, then gives them theirs: what is there before stays whole until all are written.

    Returns their paths. Raises MMRetrieveError naming what cannot be written.
    """
    paths = [Path(folder) / name for name in files]
    partials = [path.with_name(f".{path.name}.{os.getpid()}.partial") for path in paths]
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if folders := [path for path in paths if path.is_dir()]:
            raise MMRetrieveError(f"{folders[0]}: is a folder, where a file is to be written")
        for partial, text in zip(partials, files.values(), strict=True):
            partial.write_text(text, encoding="utf-8")
        for partial, path in zip(partials, paths, strict=True):
            os.replace(partial, path)
    except OSError as error:
        raise MMRetrieveError(f"{folder}: the submission cannot be written ({error.strerror or error})") from error
    finally:
        for partial in partials:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    return tuple(paths)


def ranked(benchmark: Benchmark, query: BenchmarkQuery, scores: NDArray[np.floating]) -> list[str]:
    """(items,) scores → ids of the query's ranking, best first, down to the largest k; ties in the gallery's order.

    The reference is left out where the protocol takes it out. MMRetrieveError where scores do not fit the gallery.
    """
    return [benchmark.gallery_ids[row] for row in benchmark.best(query, _checked(benchmark, scores), benchmark.depth)]


def ranked_subset(benchmark: Benchmark, query: BenchmarkQuery, scores: NDArray[np.floating]) -> list[str]:
    """(items,) scores → ids of the query's candidates, best first, down to the largest k of `recall_subset@k`; ties as above.

    OptionError where the benchmark has no subsets.
    """
    if not (ks := benchmark.protocol.subset_recalls):
        raise OptionError(f"{named(benchmark)} has no subsets to rank")
    rows = sorted({benchmark.place[id_] for id_ in query.candidates or ()})
    best = top_k(_checked(benchmark, scores)[rows], max(ks))
    return [benchmark.gallery_ids[rows[i]] for i in best]


def _server(benchmark: Benchmark) -> SubmissionServer:
    server = SERVERS.get(benchmark.name)
    if server is None or server.split != benchmark.split:
        known = ", ".join(f"{name} {server.split}" for name, server in SERVERS.items())
        raise OptionError(f"no server scores {named(benchmark)}; there is one for: {known}")
    return server


def _text(benchmark: Benchmark, file: RankedLists, server: SubmissionServer) -> str:
    whole: dict[str, object] = {} if file.metric is None else {"version": VERSION, "metric": file.metric.value}
    whole |= {query.id: [server.written(id_) for id_ in file.lists[query.id]] for query in benchmark.queries}
    text = json.dumps(whole, separators=(",", ":"))
    if (size := len(text.encode())) > server.most:
        raise MMRetrieveError(f"{file.where}: {size:,} bytes, and the server takes {server.most:,}")
    return text


def _checked(benchmark: Benchmark, scores: NDArray[np.floating]) -> NDArray[np.floating]:
    if np.shape(scores) != (len(benchmark.gallery_ids),):
        raise MMRetrieveError(
            f"{named(benchmark)}: expected {len(benchmark.gallery_ids)} scores a query, got {np.shape(scores)}"
        )
    return np.asarray(scores)
