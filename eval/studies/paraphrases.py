"""How much a search depends on the wording of its prompt: six wordings of each prompt, alone and as means of two, three and six."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from eval.benchmarks import Benchmark
from eval.studies.compare import ranking_values, search_requests
from mmretrieve import Composition, Retriever
from mmretrieve.composers.paraphrased import mean_composition
from mmretrieve.language.base import Paraphraser
from mmretrieve.language.paraphrases import TemplateParaphraser, paraphrase_prompts
from mmretrieve.options import MAX_PARAPHRASES
from mmretrieve.request import SearchRequest

SIZES = (1, 2, 3, MAX_PARAPHRASES)  # wordings in a mean; the six are divided into groups of that size
METRIC = "recall@1"


def measure_paraphrases(benchmark: Benchmark, retriever: Retriever, paraphraser: Paraphraser | None = None) -> dict[str, Any]:
    """The numbers of queries, and for each size of a group its metrics and the variances between the groups of a query.

    Queries whose prompts have fewer than six wordings are left out. The wordings of each query are in random order. They come from
    templates unless a paraphraser is given.
    """
    wordings = {
        i: texts
        for i, texts in enumerate(_list_wordings(benchmark, paraphraser or TemplateParaphraser()))
        if len(texts) == MAX_PARAPHRASES
    }
    kept = replace(benchmark, queries=tuple(benchmark.queries[i] for i in wordings))
    requests = search_requests(kept)
    composed = [
        retriever.compose_requests(
            [
                SearchRequest.parse(**request | {"prompt": texts[j]})
                for request, texts in zip(requests, wordings.values(), strict=True)
            ]
        )
        for j in range(MAX_PARAPHRASES)
    ]
    parsed = [SearchRequest.parse(**request) for request in requests]
    return {
        "queries": {"measured": len(kept.queries), "all": len(benchmark.queries)},
        "wordings": {str(size): _measure_size(size, composed, kept, parsed, retriever) for size in SIZES},
    }


def _measure_size(
    size: int,
    composed: Sequence[Sequence[Composition]],
    benchmark: Benchmark,
    requests: Sequence[SearchRequest],
    retriever: Retriever,
) -> dict[str, Any]:
    """The metrics of means over `size` wordings, and the variances of query vectors and of recall between the groups."""
    column = [metric.name for metric in benchmark.metrics].index(METRIC)
    vectors, values = [], []
    for start in range(0, len(composed), size):
        means = [mean_composition(own) for own in zip(*composed[start : start + size], strict=True)]
        vectors.append([retriever.weigh(one).direction for one in means])
        values.append(ranking_values(benchmark, retriever.search_compositions(means, requests)))
    measured: dict[str, Any] = {"metrics": benchmark.mean_metrics(np.concatenate(values))}
    if len(values) > 1:
        measured |= {
            "vector variance": float(np.var(vectors, axis=0, ddof=1).sum(axis=-1).mean()),
            "recall variance": float(np.var(np.array(values)[..., column] / 100, axis=0, ddof=1).mean()),
        }
    return measured


def _list_wordings(benchmark: Benchmark, paraphraser: Paraphraser) -> list[list[str]]:
    """The prompt of each query and its paraphrases, in random order."""
    prompts = [query.prompts[0].strip() for query in benchmark.queries]
    paraphrases = paraphrase_prompts(paraphraser, prompts, MAX_PARAPHRASES - 1)
    return [
        Random(i).sample([prompt, *others], 1 + len(others))
        for i, (prompt, others) in enumerate(zip(prompts, paraphrases, strict=True))
    ]
