"""What the benchmark scripts share: their options, their output with machine and versions, timing, memory, and measuring in a process of its own."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_run

QUANTILES = {"median": 0.5, "p10": 0.1, "p90": 0.9, "p99": 0.99}


def make_parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """A parser that has --out. doc: the docstring of the script, whose first line is the help; name: of the JSON file."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help=f"folder for {name}.json")
    return parser


def write_result(result: Mapping[str, Any], folder: Path | None, name: str) -> None:
    """Prints a result and what it was measured with as JSON, and writes it to `name`.json in the folder, if there is one."""
    text = json.dumps({**result, **describe_run()}, indent=1)
    print(text)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def summarize(values: Sequence[float]) -> dict[str, float]:
    """The median of a list of measurements, and how far they spread.

    >>> summarize([5.0, 1.0, 3.0])["median"]
    3.0
    """
    return {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}


def time_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[float, Any]:
    """The seconds and the result of a call."""
    started = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - started, result


def run_in_process(function: Callable[..., Any], *args: Any) -> Any:
    """The result of the function in a new process."""
    # unlike multiprocessing.Pool, this raises an error if the process dies
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Records the peak memory of the process within the block, without memory-mapped files."""
    memory, finished = {"before": _anonymous_memory(), "peak": 0.0}, threading.Event()

    def record_peak() -> None:
        while not finished.wait(0.01):
            memory["peak"] = max(memory["peak"], _anonymous_memory())

    watcher = threading.Thread(target=record_peak)
    watcher.start()
    try:
        yield memory
    finally:
        finished.set()
        watcher.join()
        memory["peak"] = max(memory["peak"], _anonymous_memory())


def _anonymous_memory() -> float:
    """The anonymous memory of the process in MB; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))
