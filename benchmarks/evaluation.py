"""What evaluation costs: a sweep of the PDV plane against one evaluation, and scoring at CIRCO's size. One run, ratios in it.

    python benchmarks/evaluation.py [--points 40] [--out results]

The vectors are random but shaped like those of CLIP: pictures in clusters, texts in a cone of their own, and prompts that
lead towards the target. Each measurement has a process of its own, so that its peak memory is its own.
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

from eval.benchmark import Benchmark, BenchmarkQuery, Protocol
from eval.composing import Scored, Way
from eval.datasets import circo, cirr
from eval.plane import Plane
from eval.run import Part, Run
from eval.settings import Weighing
from eval.sweep import Points, Tuning, sweep_ranks, swept
from mmretrieve import PDV, ComposerName, Composition, Term, load_encoder
from mmretrieve.vectors import Float32, unit

DIM = 512
PLANE = Plane(np.linspace(0, 1, 21), np.linspace(-0.5, 3, 31))
SETTING = PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75)
WAY = Way(ComposerName.CAPTIONS)
RECORD, METRICS = "seconds, record with hits or plane", "seconds, metrics alone"
CIRCO_TARGETS = 4  # of a query, about as many as CIRCO has


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--points", type=int, default=40, help="points of the plane that are run separately and compared")
    parser.add_argument("--out", type=Path, help="folder for evaluation.json")
    options = parser.parse_args()
    one, plane = alone(one_evaluation), alone(sweep, options.points)
    ratios = {f"ratio of the sweep to one, {what}": plane[what] / one[what] for what in (RECORD, METRICS)}
    result = {
        "CIRR val: 4181 queries x 2297 images x 512": {"one": one, "sweep of 21 x 31 points": plane, **ratios},
        "CIRCO test: 800 queries x 123403 images x 512": alone(large),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, numpy {np.__version__}",
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "evaluation.json").write_text(text + "\n")


def alone(measure: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What `measure` finds in a process of its own, and the most memory that this took."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_with_memory, (measure, *args))


def one_evaluation() -> dict[str, Any]:
    """One setting: the record that `eval run` writes, its metrics alone, and those where a query is a single vector."""
    part, encoder = cirr_part(), load_encoder("wardrobe")
    told = Weighing("PDV-F", lambda composition, _: composition.with_pdv(SETTING), SETTING)
    whole, (record, _) = best(Run("one", "cirr", encoder, WAY, told, [part], {}).measure)
    metrics, values = best(lambda: separate(part, SETTING))
    vectors = np.stack([composition.with_pdv(SETTING).vector for composition in part.scored.compositions])
    single, _ = best(lambda: part.benchmark.score(vectors, part.scored.gallery))
    found = part.benchmark.means(values)
    assert found == record["metrics"]
    return {RECORD: whole, METRICS: metrics, "seconds through score, one vector a query": single, "found": found}


def sweep(points: int) -> dict[str, Any]:
    """The plane: its record, its metrics alone, and the largest difference to so many points of it that are run separately."""
    part, encoder = cirr_part(), load_encoder("wardrobe")
    base = Weighing("base", lambda composition, _: composition)
    whole, _ = best(lambda: swept(Run("plane", "cirr", encoder, WAY, base, [part], {}), PLANE, Tuning.HALVES))
    metrics, means = best(lambda: sweep_ranks(part, PLANE, Points({"base": PDV()})).means())
    grid = [(float(beta), float(gamma)) for beta in PLANE.betas for gamma in PLANE.gammas]
    chosen = np.random.default_rng(1).permutation(len(grid))[:points]
    differences = []
    for place in chosen:
        beta, gamma = grid[place]
        own = separate(part, PDV(alpha_image=gamma, alpha_text=gamma, beta=beta))
        differences.append(float(np.abs(means[place] - own.mean(axis=0)).max()))
    compared = {"points run separately": len(chosen), "largest difference": max(differences, default=0.0)}
    return {RECORD: whole, METRICS: metrics, **compared}


def large() -> dict[str, Any]:
    """CIRCO's largest split, with targets made up: its own are on a server."""
    part = circo_part()
    seconds, values = best(lambda: separate(part, SETTING), 1)
    return {METRICS: seconds, "found": {"map@5": part.benchmark.means(values)["map@5"]}}


def separate(part: Part, pdv: PDV) -> NDArray[np.float64]:
    return part.benchmark.per_query(part.scored.ranked_by(lambda composition: composition.with_pdv(pdv)))


def cirr_part() -> Part:
    gallery, rng = pictures(2297), np.random.default_rng(2)
    references = rng.integers(len(gallery), size=4181)
    targets = (references + rng.integers(1, len(gallery), size=4181)) % len(gallery)
    queries = [_cirr_query(i, int(a), int(b), rng) for i, (a, b) in enumerate(zip(references, targets, strict=True))]
    return _part("cirr", queries, gallery, references, targets, cirr.PROTOCOL)


def circo_part() -> Part:
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
) -> Part:
    rng = np.random.default_rng(4)
    image, goal = gallery[references], gallery[targets]
    cone = 3 * rng.normal(size=DIM) / np.sqrt(DIM)
    text = unit(image + cone + 0.03 * rng.normal(size=image.shape))
    composed = unit(text + 0.17 * (goal - image) + 0.02 * rng.normal(size=image.shape))
    names = (Term.IMAGE, Term.TEXT, Term.COMPOSED)
    terms = zip(image, text, composed, strict=True)
    compositions = [Composition(names, np.stack(three), (0.0, 0.0, 1.0)) for three in terms]
    ids = tuple(map(str, range(len(gallery))))
    return Part(Benchmark(name, "made up", ids, tuple(queries), Path, protocol), Scored(compositions, gallery))


def _cirr_query(number: int, reference: int, target: int, rng: np.random.Generator) -> BenchmarkQuery:
    others = [int(place) for place in rng.permutation(2297)[:6] if place not in (reference, target)][:4]
    return BenchmarkQuery(str(number), str(reference), ("",), (str(target),), candidates=tuple(map(str, (target, *others))))


def best(work: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """The fewest seconds of several goes, and what the last one gave."""
    seconds, found = [], None
    for _ in range(times):
        started = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - started)
    return min(seconds), found


def _with_memory(measure: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    found = measure(*args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
    return found | {"peak memory, MB": round(peak)}


if __name__ == "__main__":
    main()
