"""The files that the servers of CIRR and CIRCO take: rankings of their hidden splits, checked as a whole, then written.

Rules of the servers: CIRR takes two files, with 50 names for each query and 3 of its subset, at most 5 MB each; CIRCO takes one
file with 50 different ids for each query.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark, BenchmarkQuery
from eval.lists.files import CIRR_VERSION, ListKind, RankedLists, RankingsFile
from eval.lists.score import check_lists, describe
from mmretrieve import MMRetrieveError
from mmretrieve.errors import OptionError
from mmretrieve.scoring import top_k

Rankings = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class SubmissionServer:
    """What a server takes.

    Parameters
    ----------
    split : the split that it scores.
    subsets : whether it also takes rankings of the subsets.
    write_id : how it writes an id.
    max_bytes : the size limit of a file.
    """

    split: str
    subsets: bool
    write_id: Callable[[str], str | int]
    max_bytes: int


SERVERS: Mapping[str, SubmissionServer] = {
    "cirr": SubmissionServer("test1", True, str, 5_000_000),
    "circo": SubmissionServer("test", False, int, 5_000_000),
}
"""By benchmark. CIRCO's server states no size limit; a valid file has 0.4 MB."""


def submission_files(benchmark: Benchmark, rankings: Rankings, subset_rankings: Rankings | None = None) -> dict[str, str]:
    """Checks rankings and writes them as texts.

    Parameters
    ----------
    benchmark : a split that a server scores.
    rankings : query id → ids, best first.
    subset_rankings : the same for CIRR's subsets.

    Returns
    -------
    File name → JSON text: `cirr_test1_recall.json` and `cirr_test1_recall_subset.json`, or `circo_test.json`.

    Raises
    ------
    OptionError : no server scores this split, or subset rankings are missing or not wanted.
    MMRetrieveError : a rule is broken; the message names the file and the query.
    """
    server = _find_server(benchmark)
    if server.subsets is (subset_rankings is None):
        raise OptionError(f"the server of {benchmark.name} takes {'a' if server.subsets else 'no'} ranking of the subsets")
    stem = f"{benchmark.name}_{benchmark.split}"
    files = [RankedLists(f"{stem}.json", rankings)]
    if subset_rankings is not None:
        both = ((ListKind.RECALL, rankings), (ListKind.SUBSET, subset_rankings))
        files = [RankedLists(f"{stem}_{metric}.json", lists, metric) for metric, lists in both]
    for file in files:
        check_lists(benchmark, file, exact=True)
    return {file.where: _to_text(benchmark, file, server) for file in files}


def write_submission(folder: str | Path, files: Mapping[str, str]) -> tuple[Path, ...]:
    """Writes all files under temporary names, then renames them: existing files stay intact until all are written.

    Returns their paths. MMRetrieveError naming what cannot be written.
    """
    paths = [Path(folder) / name for name in files]
    partials = [path.with_name(f".{path.name}.{os.getpid()}.partial") for path in paths]
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if folders := [path for path in paths if path.is_dir()]:
            raise MMRetrieveError(f"{folders[0]} is a folder; a file of that name is to be written")
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


def rank_ids(benchmark: Benchmark, query: BenchmarkQuery, scores: NDArray[np.floating]) -> list[str]:
    """(items,) scores → ids of the query's ranking, best first, down to the largest k; ties in the gallery's order.

    The reference is left out where the protocol does not rank it. MMRetrieveError where the scores do not fit the gallery.
    """
    return [benchmark.gallery_ids[row] for row in benchmark.top_rows(query, _check_scores(benchmark, scores), benchmark.depth)]


def rank_candidate_ids(benchmark: Benchmark, query: BenchmarkQuery, scores: NDArray[np.floating]) -> list[str]:
    """(items,) scores → ids of the query's candidates, best first, down to the largest k of `recall_subset@k`; ties as above.

    OptionError where the benchmark has no subsets.
    """
    if not (ks := benchmark.protocol.subset_recalls):
        raise OptionError(f"{describe(benchmark)} has no subsets to rank")
    rows = sorted({benchmark.id2row[id_] for id_ in query.candidates or ()})
    best = top_k(_check_scores(benchmark, scores)[rows], max(ks))
    return [benchmark.gallery_ids[rows[i]] for i in best]


def _find_server(benchmark: Benchmark) -> SubmissionServer:
    server = SERVERS.get(benchmark.name)
    if server is None or server.split != benchmark.split:
        choices = ", ".join(f"{name} {server.split}" for name, server in SERVERS.items())
        raise OptionError(f"no server scores {describe(benchmark)}; there is one for: {choices}")
    return server


def _to_text(benchmark: Benchmark, file: RankedLists, server: SubmissionServer) -> str:
    head: dict[str, Any] = {} if file.metric is None else {"version": CIRR_VERSION, "metric": file.metric}
    lists = {query.id: [server.write_id(id_) for id_ in file.lists[query.id]] for query in benchmark.queries}
    text = json.dumps(RankingsFile.model_validate(head | lists).to_json(), separators=(",", ":"))
    if (size := len(text.encode())) > server.max_bytes:
        raise MMRetrieveError(f"{file.where}: {size:,} bytes; the server takes at most {server.max_bytes:,}")
    return text


def _check_scores(benchmark: Benchmark, scores: NDArray[np.floating]) -> NDArray[np.floating]:
    if np.shape(scores) != (len(benchmark.gallery_ids),):
        raise MMRetrieveError(
            f"{describe(benchmark)}: expected {len(benchmark.gallery_ids)} scores for each query, got {np.shape(scores)}"
        )
    return np.asarray(scores)
