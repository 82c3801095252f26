"""What is measured of one system, each phase in a process of its own on one core."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.systems.base import Float32, Rows, System
from benchmarks.systems.registry import make_system

K = 10
N_BUCKETS = 1_000
FILTERS = {"all": None, "10 %": 100, "0.5 %": 5}  # share of the items that pass → the bucket below which they lie
N_WARM_UP, N_DELETED = 20, 5
ROUNDING = 1e-6  # of a score in float32


class Data(NamedTuple):
    """A folder with vectors, buckets, queries and the scores that their ten best items reach, as `benchmarks.peers` writes it."""

    folder: Path

    def read(self, name: str) -> Any:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")


def on_one_core(phase: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Calls a phase and keeps all threads of this process on one core, also those of packages that let nobody choose their number."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return phase(*args)


def build(name: str, folder: Path, data: Data) -> dict[str, Any]:
    """Indexes all vectors: seconds, bytes on disk, memory."""
    folder.mkdir()
    cost, _ = _spend(make_system(name, folder).build, data.read("vectors"), data.read("buckets"))
    return {"ms": cost, "bytes": folder_bytes(folder), "peak memory, MB": peak_memory()}


def tune(name: str, folder: Path, data: Data, target: float) -> dict[str, Any]:
    """Finds the first effort that reaches a recall, or else the last one."""
    system, vectors = _open(name, folder), data.read("vectors")
    queries, thresholds = data.read("tuning"), data.read("tuning all")
    for effort in system.efforts:
        system.set_effort(effort)
        reached = recall(vectors, queries, [system.search(query, K) for query in queries], thresholds)
        if reached >= target:
            break
    return {
        "index": system.describe(),
        "knob": system.knob,
        "effort": effort,
        "recall of tuning": reached,
        "bytes": folder_bytes(folder),
    }


def search(name: str, folder: Path, data: Data, effort: Any, n_filtered: int) -> dict[str, Any]:
    """Searches with the tuned effort, without and with filters: recall, and the milliseconds of every query."""
    open_cost, system = _spend(_open, name, folder)
    system.set_effort(effort)
    vectors, buckets, queries = data.read("vectors"), np.asarray(data.read("buckets")), np.asarray(data.read("measuring"))
    for query in data.read("tuning")[:N_WARM_UP]:
        system.search(query, K)
    results: dict[str, Any] = {}
    for filter_name, below in FILTERS.items():
        count = len(queries) if below is None else n_filtered
        first, _ = _spend(system.search, queries[0], K, below)
        costs, found = zip(*(_spend(system.search, query, K, below) for query in queries[:count]), strict=True)
        passing = [rows if below is None else rows[buckets[rows] < below] for rows in found]
        results[filter_name] = {
            "recall_at_10": recall(vectors, queries[:count], passing, data.read(f"measuring {filter_name}")[:count]),
            "first": first,
            "ms": [cost["wall"] for cost in costs],
            "CPU ms": [cost["CPU"] for cost in costs],
        }
    return {"open, ms": open_cost, "searches": results, "peak memory, MB": peak_memory()}


def write(name: str, folder: Path, data: Data, effort: Any) -> dict[str, Any]:
    """Adds items, then deletes some of the first, one by one. Each write counts until it is on the disk."""
    system, new = _open(name, folder), np.asarray(data.read("new"))
    system.set_effort(effort)
    first = len(data.read("vectors"))
    rows = np.arange(first, first + len(new))
    add, _ = _spend(system.add, rows, new, np.zeros(len(new), np.int64))
    save, _ = _spend(system.save)
    found = sum(row in system.search(vector, K) for row, vector in zip(rows[:N_WARM_UP], new, strict=False))
    result = {"items": len(new), "add": add, "save": save, "share of added items found": found / min(len(rows), N_WARM_UP)}
    try:
        deletions = [_spend(_delete, system, row)[0] for row in range(N_DELETED)]
    except NotImplementedError as error:
        return result | {"delete one": str(error)}
    gone = all(row not in system.search(data.read("vectors")[row], K) for row in range(N_DELETED))
    return result | {
        "delete one": {key: float(np.median([cost[key] for cost in deletions])) for key in add},
        "deleted items are gone": gone,
    }


def recall(vectors_nd: Float32, queries_qd: Float32, found: list[Rows], thresholds_q2: Float32) -> float:
    """The share of the K best items that was found. An item with the score of the last of them is as good as it.

    `thresholds_q2` has the score of the last of them and how many there are, fewer than K if few items pass a filter.
    """
    shares = []
    for query, rows, (threshold, possible) in zip(queries_qd, found, thresholds_q2, strict=True):
        scores = vectors_nd[np.unique(rows)] @ query
        shares.append(min((scores >= threshold - ROUNDING).sum() / possible, 1.0))
    return float(np.mean(shares))


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def peak_memory() -> float:
    """The most memory that this process had, in MB, with the pages of files that it had mapped; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _open(name: str, folder: Path) -> System:
    system = make_system(name, folder)
    system.open()
    return system


def _delete(system: System, row: int) -> None:
    system.delete(row)
    system.save()


def _spend(function: Callable[..., Any], *args: Any) -> tuple[dict[str, float], Any]:
    """The milliseconds of a call, by the clock and of the processor, and its result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = function(*args)
    return {"wall": 1000 * (time.perf_counter() - wall), "CPU": 1000 * (time.process_time() - processor)}, result
