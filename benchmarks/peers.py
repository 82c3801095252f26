"""mmretrieve beside other systems: indexing, searches, filters, writes, bytes and memory, on the same vectors and queries.

    make peers
    .peers/bin/python -m benchmarks.peers [--sizes 100000] [--galleries PATH …] [--systems NAME …] [--out results]

The vectors are synthetic (`benchmarks.million`), or those of galleries; the queries are composed. Each system searches with the first
effort that finds 99 % of the ten best items. Every phase of every system is a process of its own on one core; searches take turns, in
several rounds, so that a busy machine slows all systems alike. A system that is not installed is skipped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers_report import draw, tables
from benchmarks.script import make_parser, run_in_process, summarize, write_result
from benchmarks.systems import phases
from benchmarks.systems.base import Float32
from benchmarks.systems.phases import FILTERS, N_BUCKETS, Data, K
from benchmarks.systems.registry import SYSTEMS

TARGET_RECALL = 0.99
N_NEW = 1_000  # items that are added
MIN_ROWS = 1_000
MAX_NEW_SHARE = 0.1  # of the vectors
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS", "LANCE_CPU_THREADS",
)  # fmt: skip


def main() -> None:
    parser = make_parser(__doc__, "peers")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000], help="numbers of synthetic vectors")
    parser.add_argument("--galleries", type=Path, nargs="*", default=[], help="galleries whose vectors are measured, too")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="NAME", help=", ".join(SYSTEMS))
    parser.add_argument("--queries", type=int, default=300, help="queries for tuning, and as many others for measuring")
    parser.add_argument("--rounds", type=int, default=3, help="times that all systems answer all queries")
    options = parser.parse_args()
    os.environ |= dict.fromkeys(THREAD_VARIABLES, "1")
    names = list(installed(options.systems))
    sources = [f"{size:,} synthetic" for size in options.sizes] + [path.stem for path in options.galleries]
    result = {
        "systems": {name: SYSTEMS[name].version for name in names},
        "skipped": [name for name in options.systems if name not in names],
        "queries": options.queries,
        "rounds": options.rounds,
        "data": {
            source: measure(names, origin, options.queries, options.rounds)
            for source, origin in zip(sources, [*options.sizes, *options.galleries], strict=True)
        },
    }
    write_result(result, options.out, "peers")
    for source in sources:
        print(f"\n{source}\n\n{tables(result['data'][source])}")
        if options.out:
            draw(result["data"][source], source, options.out)


def installed(names: Sequence[str]) -> Iterator[str]:
    """Yields the systems that can be measured here, and names the others."""
    for name in names:
        if SYSTEMS[name].is_installed:
            yield name
        else:
            print(f"SKIPPED {name}: {SYSTEMS[name].package} is not installed here; run `make peers`", file=sys.stderr)


@dataclass
class Contestant:
    """A system in a folder, and what was measured of it so far. After an error nothing more is measured."""

    name: str
    folder: Path
    data: Data
    result: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def effort(self) -> Any:
        return self.result["tune"]["effort"]

    @property
    def has_failed(self) -> bool:
        return "error" in self.result

    def run(self, phase: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
        """Measures a phase in a process of its own. A failure is reported, and kept in the result."""
        name = phase.__name__
        print(f"{self.name}: {name}", file=sys.stderr)
        try:
            result: dict[str, Any] = run_in_process(phases.on_one_core, phase, self.name, self.folder, self.data, *args)
            return result
        except Exception as error:
            self.result["error"] = f"{name}: {type(error).__name__}: {error}"
            print(f"FAILED {self.name}: {self.result['error']}", file=sys.stderr)
            return {}


def measure(names: Sequence[str], origin: int | Path, n_queries: int, rounds: int) -> dict[str, Any]:
    """All systems on one set of vectors. They search in turns; one that fails does not stop the others."""
    with tempfile.TemporaryDirectory() as temporary:
        data = Data(Path(temporary))
        description: dict[str, Any] = run_in_process(write_data, data, origin, n_queries)
        systems = [Contestant(name, Path(temporary, f"system {i}"), data) for i, name in enumerate(names)]
        for system in systems:
            system.result["build"] = system.run(phases.build)
            if not system.has_failed:
                system.result["tune"] = system.run(phases.tune, TARGET_RECALL)
        for _ in range(rounds):
            for system in systems:
                if not system.has_failed:
                    system.rounds.append(system.run(phases.search, system.effort, max(1, n_queries // 3)))
        for system in systems:
            if not system.has_failed:
                system.result |= summarize_rounds(system.rounds)
                system.result["write"] = system.run(phases.write, system.effort)
    return description | {"systems": {system.name: system.result for system in systems}}


def summarize_rounds(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One system: medians and spread over the queries of all rounds, and the median of each round."""

    def all_of(name: str, key: str) -> list[float]:
        return [value for one in rounds for value in one["searches"][name][key]]

    searches = {
        name: {
            "recall_at_10": rounds[0]["searches"][name]["recall_at_10"],
            "ms": summarize(all_of(name, "ms")),
            "CPU ms": summarize(all_of(name, "CPU ms")),
            "CPU ms of the rounds": [summarize(one["searches"][name]["CPU ms"])["median"] for one in rounds],
            "first CPU ms": summarize([one["searches"][name]["first"]["CPU"] for one in rounds])["median"],
        }
        for name in FILTERS
    }
    return {
        "open, CPU ms": summarize([one["open, ms"]["CPU"] for one in rounds])["median"],
        "search": searches,
        "peak memory of searching, MB": max(one["peak memory, MB"] for one in rounds),
    }


def write_data(data: Data, origin: int | Path, n_queries: int) -> dict[str, Any]:
    """Writes vectors, the ones to add later, buckets, queries, and what the best items of each query score."""
    from mmretrieve.gallery.index.tuning import composed_queries

    vectors, new = read_rows(origin)
    if len(vectors) < MIN_ROWS:
        raise SystemExit(
            f"{origin}: {len(vectors):,} vectors are too few, at least {MIN_ROWS:,} are needed so that every filter passes some"
        )
    buckets = np.random.default_rng(5).permutation(len(vectors)) * N_BUCKETS // len(vectors)
    arrays: dict[str, NDArray[Any]] = {"vectors": vectors, "new": new, "buckets": buckets}
    for seed, name in enumerate(("tuning", "measuring")):
        arrays[name] = composed_queries(vectors.astype(np.float16), n_queries, seed=seed)
        for filter_name, below in FILTERS.items():
            passing = vectors if below is None else vectors[buckets < below]
            arrays[f"{name} {filter_name}"] = thresholds(passing, arrays[name])
    for name, array in arrays.items():
        np.save(data.folder / f"{name}.npy", array)
    return {"vectors": len(vectors), "dim": vectors.shape[1], "added": len(new)}


def read_rows(origin: int | Path) -> tuple[Float32, Float32]:
    """Returns unit rows and those to add later: so many synthetic ones and others, or those of a gallery without its last ones."""
    from benchmarks.million import ROW_BATCH_SIZE, synthetic_vectors
    from mmretrieve import Gallery
    from mmretrieve.vectors import unit

    if isinstance(origin, Path):
        rows = unit(Gallery.open(origin, device="cpu").vectors())
        end = len(rows) - min(N_NEW, int(MAX_NEW_SHARE * len(rows)))
    else:
        end, total = origin, origin + min(N_NEW, int(MAX_NEW_SHARE * origin))
        starts = range(0, total, ROW_BATCH_SIZE)
        rows = unit(np.concatenate([synthetic_vectors(start, min(ROW_BATCH_SIZE, total - start)) for start in starts]))
    return rows[:end], rows[end:]


def thresholds(vectors_nd: Float32, queries_qd: Float32) -> Float32:
    """(q, 2) the exact score of the last of the K best items of each query, or of all items if there are fewer, and their number."""
    count = min(K, len(vectors_nd))
    scores = [np.partition(vectors_nd @ query, -count)[-count] for query in queries_qd]
    return np.stack([np.array(scores, np.float32), np.full(len(queries_qd), count, np.float32)], axis=1)


if __name__ == "__main__":
    main()
