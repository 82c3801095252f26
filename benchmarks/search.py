"""What a gallery adds to FAISS: searches with the same index, recall and threads, and scores of all items, in one run.

    python -m benchmarks.search [--sizes 200000 1000000] [--kinds flat IVF graph] [--folder F] [--out results]

The vectors and queries are those of `benchmarks.million`. Plain FAISS searches the same index in memory with the same parameters, and numpy
computes the exact cosines of the rows that it returns. A whole search also reads the id and the path of each hit, and its score and
contributions are read. Ways are compared query by query; each has its own queries, so nothing is found in a cache. All times are milliseconds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mmretrieve as mm
from benchmarks.growth import fill
from benchmarks.million import DIM
from benchmarks.script import make_parser, run_in_process, write_result
from mmretrieve.gallery.index.factory import limit_threads, parameters
from mmretrieve.gallery.index.faiss_index import MARGIN
from mmretrieve.gallery.index.kinds import cells_for
from mmretrieve.gallery.index.plan import FLAT
from mmretrieve.gallery.index.tuning import composed_queries, exact_best, recall
from mmretrieve.gallery.local_view import LocalView
from mmretrieve.ranking import Ranking
from mmretrieve.rules import make_rule
from mmretrieve.scoring import top_k
from mmretrieve.vectors import Float32

FACTORIES = {"flat": FLAT, "IVF": "IVF{cells},SQ8", "graph": "HNSW32,SQfp16"}
N_QUERIES, N_MOVES, N_SCANS = 200, 100, 9  # searches, moves of a slider, and scores of all items that are timed
COUNTS = (10, 1_000)  # hits
Rows = NDArray[np.int64]


def main() -> None:
    parser = make_parser(__doc__, "search")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200_000], help="items of each gallery")
    parser.add_argument("--kinds", choices=FACTORIES, nargs="+", default=list(FACTORIES), help="indexes that are built")
    parser.add_argument("--folder", type=Path, help="where the galleries are made (default: a temporary folder)")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "data": f"synthetic, {DIM} dimensions; {N_QUERIES} composed queries, {N_MOVES} moves of a slider; in milliseconds",
        "sizes": {str(size): measure(size, options.kinds, options.folder) for size in options.sizes},
    }
    write_result(result, options.out, "search")


def measure(size: int, kinds: list[str], folder: Path | None = None) -> dict[str, Any]:
    """Makes a gallery of that many items and measures it, with each index in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "g"
        run_in_process(fill, path, size, DIM)
        all_items = run_in_process(measure_all_items, path)
        return {"indexes": {kind: run_in_process(measure_index, path, kind) for kind in kinds}, "all items": all_items}


def measure_index(path: Path, kind: str) -> dict[str, Any]:
    """Builds an index and compares it with itself in plain FAISS."""
    gallery = mm.Gallery.open(path, device="cpu")
    built = gallery.build_index(FACTORIES[kind].format(cells=cells_for(len(gallery))))
    result: dict[str, Any] = {"factory": built["factory"], "hits": {}}
    for k in COUNTS:
        result["hits"][str(k)] = compare_searches(gallery, min(k, len(gallery)))
    few, many = (result["hits"][str(k)]["whole search"]["median"] for k in COUNTS)
    return result | {"1,000 hits over 10 hits, ms": many - few, "recall@10": measure_recall(gallery)}


def compare_searches(gallery: mm.Gallery, k: int) -> dict[str, Any]:
    """Times of k hits from plain FAISS, of exact scores of our candidates, and of a whole search."""
    view: LocalView = gallery._view
    ways: dict[str, Callable[[Float32], object]] = {
        "plain FAISS": lambda query: search_plain(view, query, k),
        "candidates": lambda query: search_candidates(view, query, k),
        "whole search": lambda query: read(gallery.search(composition_of(query), k)),
    }
    queries = composed_queries(view.float16_rows, N_QUERIES * len(ways), seed=3).reshape(len(ways), N_QUERIES, DIM)
    times = {name: np.zeros((N_QUERIES, 2)) for name in ways}
    for i in range(-3, N_QUERIES):  # the first three warm up
        for way, (name, search) in enumerate(ways.items()):
            times[name][i] = time_call(search, queries[way, i])
    plain = times["plain FAISS"]
    return {
        name: summary(taken)
        | {
            "times plain FAISS": ratio(taken, plain),
            "ms over plain FAISS": float(np.median(taken[:, 0]) - np.median(plain[:, 0])),
        }
        for name, taken in times.items()
    }


def search_plain(view: LocalView, query: Float32, k: int) -> Rows:
    """What a program without this library does: FAISS, then exact cosines of as many stored rows as `FaissIndex.search` has."""
    index = view.index
    fetch_k = min(len(index), round(k * index.params.overfetch) + max(MARGIN, k // 8))
    with limit_threads(1):
        _, found = index._index.search(query[None], fetch_k, params=parameters(index._index, index.params))
    rows = np.sort(found[0][found[0] >= 0])
    stored = view.float16_rows[rows].astype(np.float64)
    scores = stored @ query.astype(np.float64) / np.linalg.norm(stored, axis=1)
    return np.asarray(rows[np.argsort(-scores, kind="stable")[:k]])


def search_candidates(view: LocalView, query: Float32, k: int) -> Rows:
    """The index and the exact scores of its candidates, as a search uses them."""
    (rows,) = view.candidates(query[None], k, view.matching(None))
    return np.asarray(rows[top_k(view.scores(query[None], rows)[0], k)])


def measure_recall(gallery: mm.Gallery) -> dict[str, float]:
    """The share of the ten best that each way finds."""
    view: LocalView = gallery._view
    queries = composed_queries(view.float16_rows, N_QUERIES, seed=4)
    truth = exact_best(view.float16_rows, queries, min(10, len(view)))
    return {
        "plain FAISS": recall(truth, [search_plain(view, query, 10) for query in queries]),
        "candidates": recall(truth, [search_candidates(view, query, 10) for query in queries]),
    }


def measure_all_items(path: Path) -> dict[str, Any]:
    """Times of what needs the scores of all items: rules that are not linear, and sliders."""
    gallery = mm.Gallery.open(path, device="cpu")
    terms = composed_queries(gallery._view.float16_rows, 3, seed=5)
    linear = mm.Composition(("image", "text", "composed"), terms, (0.5, -0.5, 1.0))
    hinge = linear.with_rule(make_rule("hinge"))
    product = mm.Composition(("image", "prompt"), terms[:2], (1.0, 1.0), rule=make_rule("product"))
    scores = gallery.approximate_term_scores(linear)
    scans: dict[str, Callable[[], object]] = {
        "term scores of three terms": lambda: gallery.approximate_term_scores(linear),
        "exact term scores of three terms": lambda: gallery.term_scores(linear),
        "product rule": lambda: read(gallery.search(product)),
        "first move of a slider": lambda: read(gallery.rank(linear, gallery.approximate_term_scores(linear))),
    }
    times = {name: np.array([time_call(scan) for _ in range(N_SCANS)]) for name, scan in scans.items()}
    for name, query in (("next moves of a slider, linear", linear), ("next moves of a slider, hinge", hinge)):
        moves = [query.weighted({"image": 0.5, "text": -beta, "composed": 1.0}) for beta in np.linspace(0, 1, N_MOVES)]
        times[name] = np.array([time_call(lambda moved: read(gallery.rank(moved, scores)), moved) for moved in moves])
    return {name: summary(taken) for name, taken in times.items()}


def composition_of(query: Float32) -> mm.Composition:
    return mm.Composition(("query",), query[None], (1.0,))


def read(ranking: Ranking) -> list[tuple[str, float, Mapping[str, float]]]:
    """Reads what a program shows of the hits."""
    return [(hit.id, hit.score, hit.contributions) for hit in ranking]


def time_call(function: Callable[..., object], *args: object) -> tuple[float, float]:
    """The milliseconds of a call, and those of the processor."""
    started, used = time.perf_counter(), time.process_time()
    function(*args)
    return 1000 * (time.perf_counter() - started), 1000 * (time.process_time() - used)


def summary(times: NDArray[np.float64]) -> dict[str, float]:
    """(n, 2) times of calls, and of the processor."""
    p10, median, p90, p99 = np.percentile(times[:, 0], [10, 50, 90, 99])
    return {
        "median": float(median),
        "p10": float(p10),
        "p90": float(p90),
        "p99": float(p99),
        "CPU": float(np.median(times[:, 1])),
    }


def ratio(times: NDArray[np.float64], plain: NDArray[np.float64]) -> dict[str, float]:
    """How many times as much time of the processor was used."""
    p10, median, p90 = np.percentile(times[:, 1] / plain[:, 1], [10, 50, 90])
    return {"median": float(median), "p10": float(p10), "p90": float(p90)}


if __name__ == "__main__":
    main()
