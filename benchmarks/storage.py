"""What vectors keep in fewer bytes: the recall of composed queries before and after exact scores, and the time of an index.

    python -m benchmarks.storage [--root CATALOGUE] [--size 200000] [--out results]

The queries are those of the wardrobe and of a catalogue under automatic weights, and composed ones of synthetic vectors (see
`benchmarks.million`). A storage scores all vectors, so that nothing but its rounding counts. An index is tuned to a recall@10 and timed.
Milliseconds are those of the processor, with exact scores.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.million import ROW_BATCH_SIZE, TUNING_RECALL, synthetic_vectors
from benchmarks.script import make_parser, write_result
from eval.benchmarks import Benchmark, load_benchmark
from eval.runs.compositions import MethodConfig, compose
from eval.runs.features import encode_gallery
from eval.runs.weight_settings import make_weight_setting
from mmretrieve import ComposerName, load_encoder
from mmretrieve.composers import parts_from
from mmretrieve.gallery.index.builder import build_index
from mmretrieve.gallery.index.factory import index_bytes
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.kinds import KINDS, factory_of
from mmretrieve.gallery.index.plan import FLAT, IndexPlan, SearchParams
from mmretrieve.gallery.index.trials import search_ms
from mmretrieve.gallery.index.tuning import composed_queries, exact_best, exact_best_with_ties, recall, rescore
from mmretrieve.language.options import LanguageOptions
from mmretrieve.options import AUTO
from mmretrieve.vectors import Float32, unit

Float16Rows = NDArray[np.float16]
Propose = Callable[[Float32, int], list[NDArray[np.int64]]]
"""(q, d) queries and k → k rows of each, best first."""
STORAGES = {  # name → FAISS factory string; {half} and {quarter} of the dimensions
    "float16": FLAT,
    "bfloat16": "SQbf16",
    "int8": "SQ8",
    "6 bits": "SQ6",
    "4 bits": "SQ4",
    "RaBitQ, 4 bits": "RaBitQ4",
    "RaBitQ, 2 bits": "RaBitQ2",
    "RaBitQ, 1 bit": "RaBitQ",
    "TurboQuant, 2 bits": "SQtqmse2",
    "PCA 1/2, float16": "PCA{half},SQfp16",
    "PCA 1/2, int8": "PCAR{half},SQ8",
    "PCA 1/2, 4 bits": "PCAR{half},SQ4",
    "PCA 1/2, RaBitQ, 2 bits": "PCAR{half},RaBitQ2",
    "PCA 1/2, RaBitQ, 1 bit": "PCAR{half},RaBitQ",
    "PCA 1/4, int8": "PCAR{quarter},SQ8",
    "PCA 1/4, 4 bits": "PCAR{quarter},SQ4",
}
CENTERED = "PCA 1/2 of centered rows, int8"  # as FAISS trains it, and `train_index` does not
FLOAT8 = {"float8, e4m3": torch.float8_e4m3fn, "float8, e5m2": torch.float8_e5m2}  # no index of FAISS has them
OTHER_KINDS = ("IVF{cells},SQ4", "IVF{cells},RaBitQ4", "PCA{half},IVF{cells},SQ8", "PCAR{half},IVF{cells},RaBitQ2")
METRICS, RESCORED = ("recall@10", "map@10"), " of rescored candidates"
N_CANDIDATES = 100
N_QUERIES = 100
MANY = 1_000_000  # vectors, over which the bytes of projections and codebooks are distributed


@dataclass(frozen=True)
class StoredVectors:
    """(n, d) rows, (q, d) unit queries, and the benchmark whose queries they are, if they have targets."""

    rows: Float16Rows
    queries: Float32
    benchmark: Benchmark | None = None

    def mean_precision(self, rankings: list[NDArray[np.int64]]) -> float | None:
        """map@10 of the rows of each query, best first."""
        if self.benchmark is None:
            return None
        scores = np.zeros((len(rankings), len(self.rows)))
        for row, ranking in zip(scores, rankings, strict=True):
            row[ranking] = 1 / np.arange(1, len(ranking) + 1)
        return self.benchmark.mean_metrics(self.benchmark.measure_scores(scores))["map@10"]


def main() -> None:
    parser = make_parser(__doc__, "storage")
    parser.add_argument("--root", type=Path, help="folder of a catalogue (default: none is measured)")
    parser.add_argument("--encoder", help="encoder of the catalogue (default: its folder model)")
    parser.add_argument("--size", type=int, default=200_000, help="synthetic vectors")
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    data = {"wardrobe": benchmark_data("wardrobe", None, "wardrobe")}
    if options.root is not None:
        data["catalogue"] = benchmark_data("catalogue", options.root, options.encoder or str(options.root / "model"))
    data["synthetic"] = synthetic_data(options.size)
    result: dict[str, Any] = {
        "data": {
            name: f"{len(part.rows):,} × {part.rows.shape[1]}, {len(part.queries)} queries" for name, part in data.items()
        },
        "storages": {name: dict(measure_storages(part)) for name, part in data.items()},
        "indexes": measure_indexes(data["synthetic"]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, faiss {faiss.__version__}, torch {torch.__version__}, one thread",
    }
    write_result(result, options.out, "storage")
    if options.out:
        draw(result["storages"], options.out / "storage.png")


def table(result: dict[str, Any]) -> str:
    """The table of storages of docs/guides/gallery.md."""
    parts = result["storages"]
    shown = [(part, metric) for part in parts for metric in METRICS if parts[part]["float16"][metric] is not None]
    head = ["storage", "bytes", "fewer than float32", *(f"{part}: {metric}" for part, metric in shown), "ms"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for name, entry in parts["synthetic"].items():
        pairs = [(parts[part][name][metric], parts[part][name][f"{metric}{RESCORED}"]) for part, metric in shown]
        measured = [" → ".join(f"{value:.3f}" if value <= 1 else f"{value:.1f}" for value in pair) for pair in pairs]
        cells = [name, f"{entry['bytes']:.0f}", f"{entry['times fewer bytes']:.1f} ×", *measured, f"{entry['ms']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def index_table(result: dict[str, Any]) -> str:
    """The table of indexes of docs/guides/gallery.md."""
    head = ["index", "bytes", "recall@10", "ms", "cells", "candidates"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for factory, entry in sorted(result["indexes"].items(), key=lambda item: -item[1]["bytes"]):
        cells = (
            f"`{factory}`",
            f"{entry['bytes']:.0f}",
            f"{entry['recall@10']:.3f}",
            f"{entry['ms']:.2f}",
            f"{entry['probes'] or '–'}",
            f"{10 * entry['overfetch']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def benchmark_data(name: str, root: Path | None, model: str) -> StoredVectors:
    """The vectors of a benchmark's images, and its queries under automatic weights."""
    encoder = load_encoder(model, device="cpu", dtype="float32")
    benchmark, vectors = encode_gallery(load_benchmark(name, root), encoder)
    parts = parts_from(LanguageOptions(), encoder, vocabulary=benchmark.vocabulary)
    composed = compose(benchmark, vectors, encoder, MethodConfig(ComposerName.CAPTIONS), parts)
    setting = make_weight_setting(None, AUTO, composer="captions", benchmark=name, model=encoder.identity.model)
    queries = np.stack([setting.weigh(composition, composed.spread).vector for composition in composed.compositions])
    return StoredVectors(vectors.astype(np.float16), unit(queries), benchmark)


def synthetic_data(size: int) -> StoredVectors:
    starts = range(0, size, ROW_BATCH_SIZE)
    rows = np.concatenate([synthetic_vectors(start, min(ROW_BATCH_SIZE, size - start)) for start in starts])
    return StoredVectors(rows, composed_queries(rows, N_QUERIES, seed=2))


def measure_storages(data: StoredVectors) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Yields the name of each storage and what it keeps."""
    truth = exact_best(data.rows, data.queries, 10)
    for name, propose, vector_bytes in storages(data.rows):
        started = time.process_time()
        proposals = [propose(query[None], N_CANDIDATES)[0][:N_CANDIDATES] for query in data.queries]
        rescored = rescore(data.rows, data.queries, proposals, N_CANDIDATES)
        ms = 1000 * (time.process_time() - started) / len(proposals)
        yield (
            name,
            {
                "bytes": vector_bytes,
                "times fewer bytes": 4 * data.rows.shape[1] / vector_bytes,
                "recall@10": recall(truth, [rows[:10] for rows in proposals]),
                f"recall@10{RESCORED}": recall(truth, [rows[:10] for rows in rescored]),
                "map@10": data.mean_precision(proposals),
                f"map@10{RESCORED}": data.mean_precision(rescored),
                "ms": ms,
            },
        )


def storages(rows: Float16Rows) -> Iterator[tuple[str, Propose, float]]:
    """Yields name, search and bytes of a vector of each storage."""
    dim, once = rows.shape[1], SearchParams(overfetch=1)
    for name, template in STORAGES.items():
        plan = IndexPlan(template.format(half=dim // 2, quarter=dim // 4), name)
        yield name, FaissIndex.build(plan, rows).with_params(once).search, index_bytes(plan.factory, MANY, dim) / MANY
    factory = STORAGES["PCA 1/2, int8"].format(half=dim // 2)
    centered = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    centered.train(rows[:ROW_BATCH_SIZE].astype(np.float32))
    index = FaissIndex(centered, IndexPlan(factory, CENTERED), once)
    index.extend(rows)
    yield CENTERED, index.search, index_bytes(factory, MANY, dim) / MANY
    for name, dtype in FLOAT8.items():
        yield name, search_float8(torch.from_numpy(rows).to(dtype)), dim


def search_float8(stored: torch.Tensor) -> Propose:
    """A search of float8 rows, which are converted to float32 for each query."""

    def search(queries: Float32, k: int) -> list[NDArray[np.int64]]:
        scores = torch.cat([torch.from_numpy(queries) @ part.float().T for part in torch.split(stored, 1024)], dim=1)
        return list(scores.topk(min(k, len(stored))).indices.numpy())

    return search


def measure_indexes(data: StoredVectors) -> dict[str, dict[str, Any]]:
    """The cost of each index of a kind, tuned to a recall@10: factory string → measurements on other queries."""
    kinds = (kind for kind in (*KINDS, *OTHER_KINDS) if "HNSW" not in kind)  # a graph takes more bytes than the rows
    factories = [factory_of(kind, *data.rows.shape) for kind in kinds]
    built = [build_index(data.rows, IndexPlan(factory, "measured"), TUNING_RECALL) for factory in factories]
    indexes = [one.index.with_params(one.tuned.params) for one in built]
    times = search_ms(indexes, data.rows, data.queries, time.thread_time)
    truth = exact_best_with_ties(data.rows, data.queries, 10)
    return {
        one.plan.factory: {
            "bytes": index.size / len(index),
            "recall@10": recall(truth, index.search(data.queries, 10), 10),
            "ms": ms,
            **index.params.to_dict(),
        }
        for one, index, ms in zip(built, indexes, times, strict=True)
    }


def draw(storages: dict[str, dict[str, Any]], file: Path) -> None:
    """Plots recall against bytes, before and after exact scores."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(storages), figsize=(5.5 * len(storages), 4.5), layout="constrained", squeeze=False)
    for (name, entries), axis in zip(storages.items(), axes[0], strict=True):
        sizes = [entry["bytes"] for entry in entries.values()]
        for key, marker in (("recall@10", "o"), (f"recall@10{RESCORED}", "x")):
            axis.plot(sizes, [entry[key] for entry in entries.values()], marker, label=key)
        for storage, entry in entries.items():
            axis.annotate(storage, (entry["bytes"], entry["recall@10"]), fontsize=6, rotation=-20, va="top")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set(xlabel="bytes of a vector", ylabel="recall@10 of composed queries", title=name)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(file, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
