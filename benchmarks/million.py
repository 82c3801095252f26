"""What a large gallery costs: flat float16, cells of 8 bits and cells of 1 bit, each with exact scores of what it proposes.

    python -m benchmarks.million [--sizes 10000 100000 1000000] [--out results]

The vectors are synthetic, not any model's: unit rows of 512 numbers in kinds within topics, with a common part and falling
variance as the vectors of pictures have. The queries are composed, off the manifold of the rows. Efforts are tuned on some
of them and measured on others. Each index is built and asked in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

import mmretrieve as mm
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.plan import FLAT, IndexPlan, SearchParams, cells_for
from mmretrieve.gallery.index.tuning import composed_queries, exact_best, recall, report, rescored, tune
from mmretrieve.vectors import Float32, unit

DIM = 512
BLOCK = 65_536
QUERIES = 300  # to tune with, and as many others to measure with
AIM = 0.992  # of tuning, so that other queries reach TARGET too
TARGET = 0.99
FILTERS = {"all": None, "one in ten": "n % 10 = 3", "one in a hundred": "n % 100 = 3", "one in ten thousand": "n % 10000 = 3"}
TOPICS, KINDS = 300, 40  # kinds in each topic
KINDS_OF_INDEX = {"flat float16": FLAT, "IVF, 8 bits": "IVF{cells},SQ8", "IVF, 1 bit (RaBitQ)": "IVF{cells},RaBitQ"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="rows of each gallery")
    parser.add_argument("--out", type=Path, help="folder for million.json and million.png")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "data": f"synthetic: {TOPICS} topics of {KINDS} kinds, {DIM} dimensions, {QUERIES} composed queries, k = 10",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, faiss {faiss.__version__}, one query runs on one thread",
        "sizes": {str(size): measured(size) for size in options.sizes},
        "as a gallery": as_a_gallery(max(options.sizes)),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "million.json").write_text(text + "\n")
        draw(result["sizes"], options.out / "million.png")


def table(result: dict[str, Any]) -> str:
    """What docs/gallery.md shows of it."""
    head = "| vectors | index | recall@10 | @100 | ms, p50 | p99 | among 100 | times flat | bytes a vector | built in | MB to build |"
    lines = [head, "| --- " * (head.count("|") - 1) + "|"]
    for size, kinds in result["sizes"].items():
        for name, one in kinds.items():
            speed, memory = one["times the speed of flat"]["one query"], one["memory of building, MB"]
            cells = (
                f"{int(size):,}",
                f"{name}: `{one['factory']}`",
                f"{one['recall_at_10']:.3f}",
                f"{one['recall_at_100']:.3f}",
                f"{one['p50_ms']:.2f}",
                f"{one['p99_ms']:.2f}",
                f"{one['batch_ms']:.2f}",
                f"{speed:.1f}",
                f"{one['bytes_per_vector']:.0f}",
                f"{one['build_seconds']:.1f} s",
                f"{memory['peak'] - memory['before']:.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measured(size: int) -> dict[str, Any]:
    """Every kind of index over one synthetic gallery of that size."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        alone(write_gallery, folder, size)
        found = {name: alone(one_index, folder, size, name) for name in KINDS_OF_INDEX}
    flat = found["flat float16"]
    for one in found.values():
        one["times the speed of flat"] = {
            "one query": flat["p50_ms"] / one["p50_ms"],
            "among 100": flat["batch_ms"] / one["batch_ms"],
            "at a recall of 0.99": one["recall_at_10"] >= TARGET,
        }
    return found


def as_a_gallery(size: int) -> dict[str, Any]:
    """The largest one as people use it: with a ledger, fields and filters, each step in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "g"
        return {"items": size, "adding": alone(fill, path, size), "building": alone(build, path), "using": alone(use, path)}


def fill(path: Path, size: int) -> dict[str, Any]:
    gallery = mm.Gallery.for_vectors(path, mm.EncoderIdentity("synthetic", "synthetic", "none"), DIM)
    spent = 0.0
    with peak_memory() as memory:
        for start in range(0, size, BLOCK):
            some = range(start, min(start + BLOCK, size))
            vectors, started = pictures(start, len(some)), time.perf_counter()
            gallery.add_vectors([f"{i:08}" for i in some], vectors, fields=[{"n": i} for i in some])
            spent += time.perf_counter() - started
    return {"seconds": spent, "bytes": gallery.info()["bytes"], "memory, MB": memory}


def build(path: Path) -> dict[str, Any]:
    gallery = mm.Gallery.open(path, device="cpu")
    started = time.perf_counter()
    with peak_memory() as memory:
        made = gallery.build_index()
    return {"seconds, tuning too": time.perf_counter() - started, "memory, MB": memory, **made}


def use(path: Path) -> dict[str, Any]:
    """Seconds to open it and to the first answer, then milliseconds of a search by what its filter keeps."""
    started = time.perf_counter()
    gallery = mm.Gallery.open(path, device="cpu")
    opened = time.perf_counter() - started
    queries = composed_queries(pictures(0, BLOCK), 100, seed=3)
    started = time.perf_counter()
    gallery.search(mm.Composition(("query",), queries[:1], (1.0,)), 10)
    found: dict[str, Any] = {"open, seconds": opened, "first search, seconds": time.perf_counter() - started}
    for name, where in FILTERS.items():
        started = time.perf_counter()
        gallery.search(mm.Composition(("query",), queries[:1], (1.0,)), 10, where=where)
        found[f"first search, {name}, ms"] = 1000 * (time.perf_counter() - started)
        spent = []
        for query in queries:
            started = time.perf_counter()
            gallery.search(mm.Composition(("query",), query[None], (1.0,)), 10, where=where)
            spent.append(1000 * (time.perf_counter() - started))
        found[f"search, {name}, ms"] = {"p50": float(np.median(spent)), "p99": float(np.percentile(spent, 99))}
    started = time.perf_counter()
    gallery.scores(queries[:3])
    return found | {"term scores of three terms, seconds": time.perf_counter() - started}


def alone(do: Callable[..., Any], *args: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # says so where the process dies
        return pool.submit(do, *args).result()


def write_gallery(folder: Path, size: int) -> None:
    """The rows, the queries to tune and to measure with, and what is true of them."""
    vectors = np.memmap(folder / "vectors.f16", np.float16, "w+", shape=(size, DIM))
    for start in range(0, size, BLOCK):
        vectors[start : start + BLOCK] = pictures(start, min(BLOCK, size - start))
    for seed, name in enumerate(("tuning", "measuring")):
        queries = composed_queries(vectors, QUERIES, seed=seed)
        np.save(folder / f"{name}.npy", queries)
        np.save(folder / f"{name}-truth.npy", exact_best(vectors, queries, 100))


def pictures(start: int, count: int) -> NDArray[np.float16]:
    """So many rows from that one on, the same in whatever gallery."""
    shared, own = np.random.default_rng(0), np.random.default_rng((1, start))
    spread = np.arange(1, DIM + 1) ** -0.5
    axes = np.linalg.qr(shared.normal(size=(DIM, DIM)))[0] * (spread / np.linalg.norm(spread))[:, None]
    common = unit(shared.normal(size=(1, DIM)))
    topics = shared.normal(size=(TOPICS, DIM))
    kinds = np.repeat(topics, KINDS, axis=0) + 0.8 * shared.normal(size=(TOPICS * KINDS, DIM))
    drawn = kinds[own.integers(len(kinds), size=count)] + own.standard_normal((count, DIM), dtype=np.float32)
    return unit(drawn @ axes + common).astype(np.float16)


def one_index(folder: Path, size: int, name: str) -> dict[str, Any]:
    """Builds, tunes and measures one kind of index."""
    vectors = np.memmap(folder / "vectors.f16", np.float16, "r", shape=(size, DIM))
    tuning, measuring, tuning_truth, truth = (
        np.load(folder / f"{part}.npy") for part in ("tuning", "measuring", "tuning-truth", "measuring-truth")
    )
    plan = IndexPlan(KINDS_OF_INDEX[name].format(cells=cells_for(size)), "measured")
    with peak_memory() as memory:
        started = time.perf_counter()
        index = FaissIndex.build(plan, vectors)
        seconds = time.perf_counter() - started
    tuned = tune(index, tuning_truth[:, :10], tuning, target=AIM)
    index = index.with_effort(tuned.effort)
    told = report(index, vectors, measuring, truth, build_seconds=seconds)
    return {
        "factory": plan.factory,
        "effort": asdict(tuned.effort),
        **asdict(told),
        "memory of building, MB": memory,
        "curve": list(curve(index, vectors, measuring, truth)),
    }


def curve(
    index: FaissIndex, vectors: NDArray[np.float16], queries: Float32, truth: NDArray[np.int64]
) -> Iterator[dict[str, float]]:
    """Recall and milliseconds of one query with fewer and more cells than were chosen."""
    probes = index.effort.probes
    for effort in [index.effort] if probes is None else [_probing(index, probes * 2**step // 16) for step in range(8)]:
        trying, spent = index.with_effort(effort), []
        for query in queries:
            started = time.perf_counter()
            rescored(vectors, query[None], trying.search(query[None], 10), 10)
            spent.append(1000 * (time.perf_counter() - started))
        found = recall(truth[:, :10], trying.search(queries, 10))
        yield {"probes": effort.probes or 0, "recall_at_10": found, "p50_ms": float(np.median(spent))}


def _probing(index: FaissIndex, probes: int) -> SearchParams:
    return replace(index.effort, probes=min(max(1, probes), index.cells or 1))


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Fills in the most memory of its own that the process has had within: without the mapped file, whose pages are the system's."""
    found, done = {"before": _own_memory(), "peak": 0.0}, threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            found["peak"] = max(found["peak"], _own_memory())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        done.set()
        watching.join()
        found["peak"] = max(found["peak"], _own_memory())


def _own_memory() -> float:
    """Anonymous memory in MB; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))


def draw(sizes: dict[str, Any], file: Path) -> None:
    """Cost against size, and at the largest size cost against recall."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (by_size, by_recall) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name in KINDS_OF_INDEX:
        counts = [int(size) for size in sizes]
        by_size.loglog(counts, [found[name]["p50_ms"] for found in sizes.values()], marker="o", label=f"{name}, one query")
        batch = [found[name]["batch_ms"] for found in sizes.values()]
        by_size.loglog(
            counts, batch, marker=".", linestyle=":", color=by_size.lines[-1].get_color(), label=f"{name}, among 100"
        )
        points = sizes[str(max(counts))][name]["curve"]
        by_recall.semilogy([p["recall_at_10"] for p in points], [p["p50_ms"] for p in points], marker="o", label=name)
    by_size.set(xlabel="vectors", ylabel="ms a query", title=f"at a recall@10 of {TARGET}")
    by_recall.set(xlabel="recall@10", ylabel="ms for one query", title=f"{max(counts):,} vectors")
    by_recall.axvline(TARGET, color="grey", linewidth=0.8)
    by_size.legend(fontsize=7)
    by_recall.legend(fontsize=7)
    figure.suptitle("Composed queries on synthetic vectors of 512 dimensions, proposals scored exactly", fontsize=10)
    figure.savefig(file, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
