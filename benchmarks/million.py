"""Speed, recall and memory of large galleries: flat float16, IVF with 8 bits, and IVF with 1 bit, rescored exactly.

    python -m benchmarks.million [--sizes 10000 100000 1000000] [--out results]

The vectors are synthetic: unit rows of 512 dimensions, clustered in kinds within topics, with a common component and decreasing
variance, like image vectors. The queries are composed, off the manifold of the rows; search parameters are tuned on one half of
them and measured on the other. Each index is built and searched in a separate process, so that its memory can be measured.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.script import make_parser, peak_memory, run_in_process, time_call, write_result
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.kinds import cells_for
from mmretrieve.gallery.index.plan import FLAT, IndexPlan, SearchParams
from mmretrieve.gallery.index.tuning import composed_queries, exact_best, recall, report, rescore, tune
from mmretrieve.vectors import Float32, unit

DIM = 512
ROW_BATCH_SIZE = 65_536
N_QUERIES = 300  # for tuning, and as many others for measuring
TUNING_RECALL = 0.992  # so that other queries reach MIN_RECALL
MIN_RECALL = 0.99
N_TOPICS, KINDS_PER_TOPIC = 300, 40
INDEX_FACTORIES = {"flat float16": FLAT, "IVF, 8 bits": "IVF{cells},SQ8", "IVF, 1 bit (RaBitQ)": "IVF{cells},RaBitQ"}


def main() -> None:
    parser = make_parser(__doc__, "million")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="rows of each gallery")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "data": f"synthetic: {N_TOPICS} topics of {KINDS_PER_TOPIC} kinds, {DIM} dimensions, {N_QUERIES} composed queries, k = 10",
        "sizes": {str(size): measure(size) for size in options.sizes},
    }
    write_result(result, options.out, "million")
    if options.out:
        draw(result["sizes"], options.out / "million.png")


def table(result: dict[str, Any]) -> str:
    """The table of docs/guides/gallery.md."""
    head = "| vectors | index | recall@10 | @100 | ms, p50 | p99 | among 100 | times flat | bytes a vector | built in | MB to build |"
    lines = [head, "| --- " * (head.count("|") - 1) + "|"]
    for size, kinds in result["sizes"].items():
        for name, entry in kinds.items():
            speed, memory = entry["times the speed of flat"]["one query"], entry["memory of building, MB"]
            cells = (
                f"{int(size):,}",
                f"{name}: `{entry['factory']}`",
                f"{entry['recall_at_10']:.3f}",
                f"{entry['recall_at_100']:.3f}",
                f"{entry['p50_ms']:.2f}",
                f"{entry['p99_ms']:.2f}",
                f"{entry['batch_ms']:.2f}",
                f"{speed:.1f}",
                f"{entry['bytes_per_vector']:.0f}",
                f"{entry['build_seconds']:.1f} s",
                f"{memory['peak'] - memory['before']:.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(size: int) -> dict[str, Any]:
    """Measures every index on a synthetic gallery of that size."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_in_process(write_gallery, folder, size)
        results = {name: run_in_process(measure_index, folder, size, name) for name in INDEX_FACTORIES}
    flat = results["flat float16"]
    for entry in results.values():
        entry["times the speed of flat"] = {
            "one query": flat["p50_ms"] / entry["p50_ms"],
            "among 100": flat["batch_ms"] / entry["batch_ms"],
            "at a recall of 0.99": entry["recall_at_10"] >= MIN_RECALL,
        }
    return results


def write_gallery(folder: Path, size: int) -> None:
    """Writes the rows, the queries for tuning and for measuring, and their ground truth."""
    vectors = np.memmap(folder / "vectors.f16", np.float16, "w+", shape=(size, DIM))
    for start in range(0, size, ROW_BATCH_SIZE):
        vectors[start : start + ROW_BATCH_SIZE] = synthetic_vectors(start, min(ROW_BATCH_SIZE, size - start))
    for seed, name in enumerate(("tuning", "measuring")):
        queries = composed_queries(vectors, N_QUERIES, seed=seed)
        np.save(folder / f"{name}.npy", queries)
        np.save(folder / f"{name}-truth.npy", exact_best(vectors, queries, 100))


def synthetic_vectors(start: int, count: int, dim: int = DIM) -> NDArray[np.float16]:
    """(count, dim) float16 rows from the row `start` on. They are the same in every gallery."""
    shared_rng, own_rng = np.random.default_rng(0), np.random.default_rng((1, start))
    spread = np.arange(1, dim + 1) ** -0.5
    axes = np.linalg.qr(shared_rng.normal(size=(dim, dim)))[0] * (spread / np.linalg.norm(spread))[:, None]
    common = unit(shared_rng.normal(size=(1, dim)))
    topics = shared_rng.normal(size=(N_TOPICS, dim))
    kinds = np.repeat(topics, KINDS_PER_TOPIC, axis=0) + 0.8 * shared_rng.normal(size=(N_TOPICS * KINDS_PER_TOPIC, dim))
    rows = kinds[own_rng.integers(len(kinds), size=count)] + own_rng.standard_normal((count, dim), dtype=np.float32)
    return unit(rows @ axes + common).astype(np.float16)


def measure_index(folder: Path, size: int, name: str) -> dict[str, Any]:
    """Builds, tunes and measures one index."""
    vectors = np.memmap(folder / "vectors.f16", np.float16, "r", shape=(size, DIM))
    tuning, measuring, tuning_truth, truth = (
        np.load(folder / f"{part}.npy") for part in ("tuning", "measuring", "tuning-truth", "measuring-truth")
    )
    plan = IndexPlan(INDEX_FACTORIES[name].format(cells=cells_for(size)), "measured")
    with peak_memory() as memory:
        seconds, index = time_call(FaissIndex.build, plan, vectors)
    tuned = tune(index, tuning_truth[:, :10], tuning, target=TUNING_RECALL)
    index = index.with_params(tuned.params)
    index_report = report(index, vectors, measuring, truth, build_seconds=seconds)
    return {
        "factory": plan.factory,
        "effort": tuned.params.to_dict(),
        **asdict(index_report),
        "memory of building, MB": memory,
        "curve": list(curve(index, vectors, measuring, truth)),
    }


def curve(
    index: FaissIndex, vectors: NDArray[np.float16], queries: Float32, truth: NDArray[np.int64]
) -> Iterator[dict[str, float]]:
    """Recall and milliseconds of one query for fewer and more cells than the tuned number."""
    nprobe = index.params.nprobe
    for params in [index.params] if nprobe is None else [_with_nprobe(index, nprobe * 2**step // 16) for step in range(8)]:
        tuned_index, times = index.with_params(params), []
        for query in queries:
            started = time.perf_counter()
            rescore(vectors, query[None], tuned_index.search(query[None], 10), 10)
            times.append(1000 * (time.perf_counter() - started))
        recall_at_10 = recall(truth[:, :10], tuned_index.search(queries, 10))
        yield {"probes": params.nprobe or 0, "recall_at_10": recall_at_10, "p50_ms": float(np.median(times))}


def _with_nprobe(index: FaissIndex, nprobe: int) -> SearchParams:
    return replace(index.params, nprobe=min(max(1, nprobe), index.cells or 1))


def draw(sizes: dict[str, Any], file: Path) -> None:
    """Plots time against size, and at the largest size time against recall."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (by_size, by_recall) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name in INDEX_FACTORIES:
        counts = [int(size) for size in sizes]
        by_size.loglog(
            counts, [by_index[name]["p50_ms"] for by_index in sizes.values()], marker="o", label=f"{name}, one query"
        )
        batch = [by_index[name]["batch_ms"] for by_index in sizes.values()]
        by_size.loglog(
            counts, batch, marker=".", linestyle=":", color=by_size.lines[-1].get_color(), label=f"{name}, among 100"
        )
        points = sizes[str(max(counts))][name]["curve"]
        by_recall.semilogy([p["recall_at_10"] for p in points], [p["p50_ms"] for p in points], marker="o", label=name)
    by_size.set(xlabel="vectors", ylabel="ms a query", title=f"at a recall@10 of {MIN_RECALL}")
    by_recall.set(xlabel="recall@10", ylabel="ms for one query", title=f"{max(counts):,} vectors")
    by_recall.axvline(MIN_RECALL, color="grey", linewidth=0.8)
    by_size.legend(fontsize=7)
    by_recall.legend(fontsize=7)
    figure.suptitle("Composed queries on synthetic vectors of 512 dimensions, proposals scored exactly", fontsize=10)
    figure.savefig(file, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
