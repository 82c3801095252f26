"""Compares methods on one benchmark: each with its own weights, with PDV-F, and with automatic weights; and plain searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from random import Random
from typing import Any

import numpy as np

from eval.benchmarks.base import Benchmark, Ranker
from eval.metrics import list_ranks
from eval.runs.compositions import EMPTY_PROMPT, ComposedBenchmark, compose
from eval.studies.inputs import METHODS, Method, method_parts
from eval.sweep.plane import Plane
from eval.sweep.sweep import Tuning, rank_plane
from mmretrieve import PDV, Composition, Encoder, MMRetrieveError, Parts, Ranking, Retriever
from mmretrieve.options import AUTO, BASE
from mmretrieve.vectors import Float32
from mmretrieve.wardrobe.attributes import Garment, garments, is_unseen, random_detail
from mmretrieve.wardrobe.captions import caption
from mmretrieve.wardrobe.draw import draw
from mmretrieve.weighting import automatic_weights

PLANE = Plane(np.linspace(0, 1, 21), np.linspace(-0.5, 3, 36), {"base": PDV()})
TUNED_METHOD = "captions, swap (CIReVL's shape)"
SEARCH_LABEL = "default (`search`)"
SAMPLE_SIZE = 400  # garments whose captions are searched


def compare_methods(
    benchmark: Benchmark,
    gallery: Float32,
    encoder: Encoder,
    parts: Parts | None = None,
    *,
    methods: Sequence[Method] = METHODS,
    report: Callable[[str], object] | None = None,
) -> dict[str, Any]:
    """Measures methods on one benchmark.

    Parameters
    ----------
    benchmark : the queries.
    gallery : (items, d) vectors of the benchmark's images.
    encoder : encodes texts.
    parts : captioner, rewriter and other parts of composers.
    methods : the rows of the table.
    report : called with each method's label before it is measured.

    Returns
    -------
    "methods": label → weights → metrics; "not run": label → error; "tuned": the tuned point of the plane.
    """
    result: dict[str, Any] = {"methods": {}, "not run": {}}
    for method in methods:
        if report is not None:
            report(method.label)
        try:
            composed = compose(benchmark, gallery, encoder, method.config, method_parts(method, encoder, parts or Parts()))
        except MMRetrieveError as error:
            result["not run"][method.label] = str(error)
            continue
        result["methods"][method.label] = measure_method(composed, method)
        if method.label == TUNED_METHOD:
            result["tuned"] = {"method": method.label, **tune_on_even_queries(composed)}
    return result


def measure_method(composed: ComposedBenchmark, method: Method) -> dict[str, Any]:
    """Metrics of a method with its own weights, with its published PDV-F setting, and with automatic weights, where it takes them."""

    def mean_metrics(weigh: Callable[[Composition], Composition]) -> dict[str, float]:
        return composed.benchmark.mean_metrics(composed.measure(weigh))

    metrics: dict[str, Any] = {BASE: mean_metrics(lambda composition: composition)}
    pdv = method.pdv
    if pdv is not None:
        metrics |= {"PDV-F": mean_metrics(lambda composition: composition.with_pdv(pdv)), "setting": asdict(pdv)}
    if method.takes_weights:
        metrics[AUTO] = mean_metrics(lambda composition: automatic_weights(composition, composed.spread))
    return metrics


def tune_on_even_queries(composed: ComposedBenchmark) -> dict[str, Any]:
    """The point of the PDV plane that is best on the even queries, and its metrics on the odd ones beside those of the base."""
    benchmark, halves = composed.benchmark, Tuning.HALVES
    table = rank_plane(composed, PLANE)
    chosen, reported = table.means(halves.chosen), table.means(halves.reported)
    best = int(chosen[:-1, benchmark.headline_column].argmax())
    beta, gamma = divmod(best, len(PLANE.gammas))
    return {
        "metric": benchmark.protocol.headline,
        "beta": float(PLANE.betas[beta]),
        "gamma": float(PLANE.gammas[gamma]),
        **halves.record.to_json(),
        "base": benchmark.name_metrics(reported[-1]),
        "tuned": benchmark.name_metrics(reported[best]),
    }


def measure_searches(benchmark: Benchmark, retriever: Retriever) -> dict[str, dict[str, float]]:
    """Metrics of `Retriever.search` without options (automatic weights), and with base weights."""
    requests = search_requests(benchmark)
    rankings = {
        BASE: retriever.search_many([{**request, "weights": BASE} for request in requests]),
        AUTO: retriever.search_many(requests),  # the default, so the option is left out
    }
    return {weights: benchmark.mean_metrics(ranking_values(benchmark, own)) for weights, own in rankings.items()}


def measure_text_to_image(encoder: Encoder, *, seed: int = 7) -> dict[str, float]:
    """How well the wardrobe's encoder reads: recall@1 ×100 of plain captions among one drawing each of 400 garments, for
    combinations of attributes that were held out in training and for those that were not.
    """
    return {
        "held-out combinations": _text_recall(encoder, [g for g in garments() if is_unseen(g)], Random(seed)),
        "seen combinations": _text_recall(encoder, [g for g in garments() if not is_unseen(g)], Random(seed)),
    }


def search_requests(benchmark: Benchmark) -> list[dict[str, Any]]:
    """A request of `Retriever.search_many` for each query."""
    return [
        {
            "reference_id": query.reference,
            "prompt": query.prompts[0].strip() or EMPTY_PROMPT,
            "k": benchmark.depth,
            "exclude_reference": not benchmark.protocol.keeps_reference,
        }
        for query in benchmark.queries
    ]


def ranking_values(benchmark: Benchmark, rankings: Sequence[Ranking]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(queries, metrics) values of a ranking for each query."""
    rows = ([benchmark.id2row[id_] for id_ in ranking.ids] for ranking in rankings)
    rankers: list[Ranker] = [partial(list_ranks, row) for row in rows]
    return benchmark.rank_table(rankers).values


def _text_recall(encoder: Encoder, choices: list[Garment], random: Random) -> float:
    sample = random.sample(choices, SAMPLE_SIZE)
    drawings = [draw(garment, random_detail(random), seed=random.randrange(1 << 30)) for garment in sample]
    scores_tg = encoder.encode_texts([caption(garment) for garment in sample]) @ encoder.encode_images(drawings).T
    own_scores = scores_tg.diagonal()[:, None]
    return float(100 * ((scores_tg >= own_scores).sum(axis=1) == 1).mean())
