"""The cost of evaluation: a sweep of the PDV plane compared with a single evaluation, and scoring at the size of CIRCO.

    python -m benchmarks.evaluation [--points 40] [--out results]

The vectors are random, with the structure of CLIP vectors: images in clusters, texts in a separate cone, and prompts that point
towards the target. Each size runs in a separate process, so that its peak memory can be measured; most of it is libraries.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.script import make_parser, run_in_process, time_call, write_result
from eval.benchmarks import circo, cirr
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.runs.compositions import ComposedBenchmark, MethodConfig
from eval.runs.run import EvalRun
from eval.runs.weight_settings import WeightSetting
from eval.sweep.plane import Plane
from eval.sweep.sweep import Tuning, rank_plane, sweep_plane
from mmretrieve import PDV, ComposerName, Composition, Encoder, Term, load_encoder
from mmretrieve.vectors import Float32, unit

DIM = 512
PLANE = Plane(np.linspace(0, 1, 21), np.linspace(-0.5, 3, 31), {"base": PDV()})
SETTING = PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75)
CIRCO_TARGETS = 4  # per query, about as many as in CIRCO


def main() -> None:
    parser = make_parser(__doc__, "evaluation")
    parser.add_argument(
        "--points", type=int, default=40, help="points of the plane that are also evaluated separately and compared"
    )
    options = parser.parse_args()
    result = {
        "CIRR val: 4181 queries x 2297 images x 512, 21 x 31 points": run_in_process(measure_cirr, options.points),
        "CIRCO test: 800 queries x 123403 images x 512": run_in_process(measure_circo),
    }
    write_result(result, options.out, "evaluation")


def measure_cirr(points: int) -> dict[str, Any]:
    """Times one setting and the whole plane, and compares their metrics at some points."""
    part, encoder = cirr_part(), load_encoder("wardrobe")
    setting = WeightSetting("PDV-F", lambda composition, _: composition.with_pdv(SETTING))
    vectors = np.stack([composition.with_pdv(SETTING).vector for composition in part.compositions])
    functions: dict[str, Callable[[], Any]] = {
        "one setting: the record of a run, with every query's hits": lambda: _run(part, encoder, setting).evaluate(
            single_terms=False
        ),
        "all settings: the record of a sweep": lambda: sweep_plane(_run(part, encoder, setting), PLANE, Tuning.HALVES),
        "one setting: metrics alone": lambda: part.benchmark.mean_metrics(evaluate_setting(part, SETTING)),
        "all settings: metrics alone": lambda: rank_plane(part, PLANE).means(),
        "one vector a query: score": lambda: part.benchmark.score(vectors, part.gallery),
    }
    before = peak_memory()
    seconds, results = time_in_turns(functions)
    records, metrics = list(seconds.values())[:2], list(seconds.values())[2:4]
    return {
        "seconds": seconds,
        "ratio of the records": records[1] / records[0],
        "ratio of the metrics alone": metrics[1] / metrics[0],
        "metrics of the one setting": results["one setting: metrics alone"],
        **_compare_with_runs(part, results["all settings: metrics alone"], points),
        "memory, MB": {"before": before, "peak": peak_memory()},
    }


def measure_circo() -> dict[str, Any]:
    """Times the largest split of CIRCO, with random targets: the real ones are only on a server."""
    part, before = circo_part(), peak_memory()
    seconds, results = time_in_turns(
        {"one setting": lambda: part.benchmark.mean_metrics(evaluate_setting(part, SETTING))}, times=1
    )
    return {
        "seconds": seconds,
        "map@5": results["one setting"]["map@5"],
        "memory, MB": {"before": before, "peak": peak_memory()},
    }


def time_in_turns(functions: dict[str, Callable[[], Any]], times: int = 5) -> tuple[dict[str, float], dict[str, Any]]:
    """The minimum seconds and the result of each function. They run in turns, so that a slow machine affects all of them."""
    seconds, results = dict.fromkeys(functions, float("inf")), {}
    for _ in range(times):
        for name, function in functions.items():
            spent, results[name] = time_call(function)
            seconds[name] = min(seconds[name], spent)
    return seconds, results


def _compare_with_runs(part: ComposedBenchmark, means: NDArray[np.float64], points: int) -> dict[str, float]:
    """The largest difference over all metrics between points of the plane and separate evaluations."""
    grid = [(float(beta), float(gamma)) for beta in PLANE.betas for gamma in PLANE.gammas]
    points_of_plane = np.random.default_rng(1).permutation(len(grid))[:points]
    separate_runs = [
        evaluate_setting(part, PDV(alpha_image=grid[i][1], alpha_text=grid[i][1], beta=grid[i][0])).mean(axis=0)
        for i in points_of_plane
    ]
    return {
        "points run separately": len(separate_runs),
        "largest difference": float(np.abs(means[points_of_plane] - separate_runs).max()),
    }


def _run(part: ComposedBenchmark, encoder: Encoder, setting: WeightSetting) -> EvalRun:
    return EvalRun("benchmark", "cirr", encoder, MethodConfig(ComposerName.CAPTIONS), setting, [part], {})


def evaluate_setting(part: ComposedBenchmark, pdv: PDV) -> NDArray[np.float64]:
    return part.measure(lambda composition: composition.with_pdv(pdv))


def cirr_part() -> ComposedBenchmark:
    gallery, rng = synthetic_vectors(2297), np.random.default_rng(2)
    references = rng.integers(len(gallery), size=4181)
    targets = (references + rng.integers(1, len(gallery), size=4181)) % len(gallery)
    queries = [_cirr_query(i, int(a), int(b), rng) for i, (a, b) in enumerate(zip(references, targets, strict=True))]
    return _part("cirr", queries, gallery, references, targets, cirr.PROTOCOL)


def circo_part() -> ComposedBenchmark:
    gallery, rng = synthetic_vectors(123_403), np.random.default_rng(3)
    rows_of_queries = rng.permutation(len(gallery))[: 800 * (1 + CIRCO_TARGETS)].reshape(800, -1)
    queries = [BenchmarkQuery(str(i), str(row[0]), ("",), tuple(map(str, row[1:]))) for i, row in enumerate(rows_of_queries)]
    return _part("circo", queries, gallery, rows_of_queries[:, 0], rows_of_queries[:, 1], circo.PROTOCOL)


def synthetic_vectors(count: int) -> Float32:
    rng = np.random.default_rng(0)
    centers = 1.2 * rng.normal(size=DIM) + rng.normal(size=(200, DIM))  # with a common component, like image vectors
    rows = rng.standard_normal((count, DIM), dtype=np.float32)
    rows += centers.astype(np.float32)[rng.integers(len(centers), size=count)]
    return unit(rows)


def _part(
    name: str,
    queries: list[BenchmarkQuery],
    gallery: Float32,
    references: NDArray[np.integer],
    targets: NDArray[np.integer],
    protocol: Protocol,
) -> ComposedBenchmark:
    rng = np.random.default_rng(4)
    image, target = gallery[references], gallery[targets]
    cone = 3 * rng.normal(size=DIM) / np.sqrt(DIM)
    text = unit(image + cone + 0.03 * rng.normal(size=image.shape))
    composed = unit(text + 0.17 * (target - image) + 0.02 * rng.normal(size=image.shape))
    names = (Term.IMAGE, Term.TEXT, Term.COMPOSED)
    terms = zip(image, text, composed, strict=True)
    compositions = [Composition(names, np.stack(rows), (0.0, 0.0, 1.0)) for rows in terms]
    ids = tuple(map(str, range(len(gallery))))
    return ComposedBenchmark(Benchmark(name, "synthetic", ids, tuple(queries), Path, protocol), compositions, gallery)


def _cirr_query(number: int, reference: int, target: int, rng: np.random.Generator) -> BenchmarkQuery:
    others = [int(place) for place in rng.permutation(2297)[:6] if place not in (reference, target)][:4]
    return BenchmarkQuery(str(number), str(reference), ("",), (str(target),), candidates=tuple(map(str, (target, *others))))


def peak_memory() -> int:
    """The peak memory of this process in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20))


if __name__ == "__main__":
    main()
