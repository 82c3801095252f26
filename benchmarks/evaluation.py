"""What evaluation costs: a sweep of the PDV plane against one evaluation, and scoring at CIRCO's size. One run, ratios in it.

    python -m benchmarks.evaluation [--points 40] [--out results]

The vectors are random but shaped like those of CLIP: pictures in clusters, texts in a cone of their own, and prompts that
lead towards the target. Each size has a process of its own, so that its
peak memory is its own, most of which is the libraries.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eval.benchmarks import circo, cirr
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.runs.compositions import MethodConfig, ScoredCompositions
from eval.runs.run import EvalRun, RunPart
from eval.runs.weight_settings import WeightSetting
from eval.sweep.plane import Plane
from eval.sweep.sweep import Tuning, rank_plane, sweep_plane
from mmretrieve import PDV, ComposerName, Composition, Encoder, Term, load_encoder
from mmretrieve.vectors import Float32, unit

DIM = 512
PLANE = Plane(np.linspace(0, 1, 21), np.linspace(-0.5, 3, 31), {"base": PDV()})
SETTING = PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75)
CIRCO_TARGETS = 4  # of a query, about as many as CIRCO has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--points", type=int, default=40, help="points of the plane that are run separately and compared")
    parser.add_argument("--out", type=Path, help="folder for evaluation.json")
    options = parser.parse_args()
    result = {
        "CIRR val: 4181 queries x 2297 images x 512, 21 x 31 points": alone(cirr_sized, options.points),
        "CIRCO test: 800 queries x 123403 images x 512": alone(circo_sized),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, numpy {np.__version__}",
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "evaluation.json").write_text(text + "\n")


def alone(measure: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What `measure` finds in a process of its own, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, args)


def cirr_sized(points: int) -> dict[str, Any]:
    """One setting and the whole plane, in turns: the fewest seconds of each, and how they compare at some points."""
    part, encoder = cirr_part(), load_encoder("wardrobe")
    told = WeightSetting("PDV-F", lambda composition, _: composition.with_pdv(SETTING), SETTING)
    vectors = np.stack([composition.with_pdv(SETTING).vector for composition in part.scored.compositions])
    work: dict[str, Callable[[], Any]] = {
        "one setting: the record of a run, with every query's hits": lambda: _run(part, encoder, told).evaluate(),
        "all settings: the record of a sweep": lambda: sweep_plane(_run(part, encoder, told), PLANE, Tuning.HALVES),
        "one setting: metrics alone": lambda: part.benchmark.mean_metrics(separate(part, SETTING)),
        "all settings: metrics alone": lambda: rank_plane(part, PLANE).means(),
        "one vector a query: score": lambda: part.benchmark.score(vectors, part.scored.gallery),
    }
    before = peak_memory()
    seconds, found = in_turns(work)
    records, metrics = list(seconds.values())[:2], list(seconds.values())[2:4]
    return {
        "seconds": seconds,
        "ratio of the records": records[1] / records[0],
        "ratio of the metrics alone": metrics[1] / metrics[0],
        "metrics of the one setting": found["one setting: metrics alone"],
        **_compared(part, found["all settings: metrics alone"], points),
        "memory, MB": {"before": before, "peak": peak_memory()},
    }


def circo_sized() -> dict[str, Any]:
    """CIRCO's largest split, with targets made up: its own are on a server."""
    part, before = circo_part(), peak_memory()
    seconds, found = in_turns({"one setting": lambda: part.benchmark.mean_metrics(separate(part, SETTING))}, times=1)
    return {"seconds": seconds, "map@5": found["one setting"]["map@5"], "memory, MB": {"before": before, "peak": peak_memory()}}


def in_turns(work: dict[str, Callable[[], Any]], times: int = 5) -> tuple[dict[str, float], dict[str, Any]]:
    """The fewest seconds of each, taken in turns so that a slow moment of the machine hits all; and what each gave."""
    seconds, found = dict.fromkeys(work, float("inf")), {}
    for _ in range(times):
        for name, do in work.items():
            started = time.perf_counter()
            found[name] = do()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds, found


def _compared(part: RunPart, means: NDArray[np.float64], points: int) -> dict[str, float]:
    """The largest difference, over all metrics, between so many points of the plane and runs of their own."""
    grid = [(float(beta), float(gamma)) for beta in PLANE.betas for gamma in PLANE.gammas]
    chosen = np.random.default_rng(1).permutation(len(grid))[:points]
    own = [separate(part, PDV(alpha_image=grid[i][1], alpha_text=grid[i][1], beta=grid[i][0])).mean(axis=0) for i in chosen]
    return {"points run separately": len(own), "largest difference": float(np.abs(means[chosen] - own).max())}


def _run(part: RunPart, encoder: Encoder, told: WeightSetting) -> EvalRun:
    return EvalRun("benchmark", "cirr", encoder, MethodConfig(ComposerName.CAPTIONS), told, [part], {})


def separate(part: RunPart, pdv: PDV) -> NDArray[np.float64]:
    return part.benchmark.measure_scores(part.scored.item_scores(lambda composition: composition.with_pdv(pdv)))


def cirr_part() -> RunPart:
    gallery, rng = pictures(2297), np.random.default_rng(2)
    references = rng.integers(len(gallery), size=4181)
    targets = (references + rng.integers(1, len(gallery), size=4181)) % len(gallery)
    queries = [_cirr_query(i, int(a), int(b), rng) for i, (a, b) in enumerate(zip(references, targets, strict=True))]
    return _part("cirr", queries, gallery, references, targets, cirr.PROTOCOL)


def circo_part() -> RunPart:
    gallery, rng = pictures(123_403), np.random.default_rng(3)
    places = rng.permutation(len(gallery))[: 800 * (1 + CIRCO_TARGETS)].reshape(800, -1)
    queries = [BenchmarkQuery(str(i), str(row[0]), ("",), tuple(map(str, row[1:]))) for i, row in enumerate(places)]
    return _part("circo", queries, gallery, places[:, 0], places[:, 1], circo.PROTOCOL)


def pictures(count: int) -> Float32:
    rng = np.random.default_rng(0)
    centres = 1.2 * rng.normal(size=DIM) + rng.normal(size=(200, DIM))  # with a common part, as pictures have
    rows = rng.standard_normal((count, DIM), dtype=np.float32)
    rows += centres.astype(np.float32)[rng.integers(len(centres), size=count)]
    return unit(rows)


def _part(
    name: str,
    queries: list[BenchmarkQuery],
    gallery: Float32,
    references: NDArray[np.integer],
    targets: NDArray[np.integer],
    protocol: Protocol,
) -> RunPart:
    rng = np.random.default_rng(4)
    image, goal = gallery[references], gallery[targets]
    cone = 3 * rng.normal(size=DIM) / np.sqrt(DIM)
    text = unit(image + cone + 0.03 * rng.normal(size=image.shape))
    composed = unit(text + 0.17 * (goal - image) + 0.02 * rng.normal(size=image.shape))
    names = (Term.IMAGE, Term.TEXT, Term.COMPOSED)
    terms = zip(image, text, composed, strict=True)
    compositions = [Composition(names, np.stack(three), (0.0, 0.0, 1.0)) for three in terms]
    ids = tuple(map(str, range(len(gallery))))
    return RunPart(Benchmark(name, "made up", ids, tuple(queries), Path, protocol), ScoredCompositions(compositions, gallery))


def _cirr_query(number: int, reference: int, target: int, rng: np.random.Generator) -> BenchmarkQuery:
    others = [int(place) for place in rng.permutation(2297)[:6] if place not in (reference, target)][:4]
    return BenchmarkQuery(str(number), str(reference), ("",), (str(target),), candidates=tuple(map(str, (target, *others))))


def peak_memory() -> int:
    """The most memory that this process has had so far, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20))


if __name__ == "__main__":
    main()
