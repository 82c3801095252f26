"""The study of paraphrases: groups of wordings against searches and variances by hand, and its table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from eval.benchmarks import Benchmark, BenchmarkName, load_benchmark
from eval.studies.compare import ranking_values, search_requests
from eval.studies.paraphrases import SIZES, _list_wordings, measure_paraphrases
from eval.studies.tables import paraphrases_table
from mmretrieve.language.paraphrases import TemplateParaphraser

ROOT = Path(__file__).parents[2]
QUERIES = 40


class FixedParaphraser:
    """Returns the other wordings of the query that a wording begins."""

    def __init__(self, groups: Sequence[Sequence[str]]) -> None:
        self.others = {first: list(others) for first, *others in groups}

    def paraphrase(self, prompts: Sequence[str], count: int) -> list[list[str]]:
        return [self.others[prompt][:count] for prompt in prompts]


@pytest.fixture(scope="module")
def retriever(encoder: mm.Encoder) -> mm.Retriever:
    return mm.Retriever.open(mm.wardrobe.gallery_folder(), encoder=encoder)


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    """Queries with six wordings and different prompts, and one whose prompt has no paraphrases."""
    whole = load_benchmark(BenchmarkName.WARDROBE, None)
    prompts = [query.prompts[0] for query in whole.queries]
    worded = [
        i
        for i, texts in enumerate(_list_wordings(whole, TemplateParaphraser()))
        if len(texts) == 6 and prompts.index(prompts[i]) == i
    ]
    queries = [whole.queries[i] for i in worded[:QUERIES]]
    return replace(whole, queries=(*queries, replace(queries[0], id="other", prompts=("swap the bag",))))


@pytest.fixture(scope="module")
def result(benchmark: Benchmark, retriever: mm.Retriever) -> dict[str, Any]:
    return measure_paraphrases(benchmark, retriever)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_metrics_are_those_of_searches(
    benchmark: Benchmark, retriever: mm.Retriever, result: dict[str, Any], size: int
) -> None:
    kept = replace(benchmark, queries=benchmark.queries[:QUERIES])
    wordings = _list_wordings(kept, TemplateParaphraser())
    values = []
    for start in range(0, 6, size):
        rankings = []
        for request, texts in zip(search_requests(kept), wordings, strict=True):
            group = texts[start : start + size]
            searches = mm.Retriever(retriever.gallery, retriever.encoder, parts=mm.Parts(paraphraser=FixedParaphraser([group])))
            rankings.append(searches.search(**request | {"prompt": group[0]}, paraphrases=size))
        values.append(ranking_values(kept, rankings))
    metrics = result["wordings"][str(size)]["metrics"]
    assert metrics == pytest.approx(kept.mean_metrics(np.concatenate(values)))
    if size < 6:
        column = [metric.name for metric in kept.metrics].index("recall@1")
        recall = np.array(values)[..., column] / 100
        assert result["wordings"][str(size)]["recall variance"] == pytest.approx(recall.var(axis=0, ddof=1).mean())


def test_queries_without_six_wordings_are_left_out(result: dict[str, Any]) -> None:
    assert result["queries"] == {"measured": QUERIES, "all": QUERIES + 1}


def test_the_variance_of_vectors_falls_with_the_size_of_a_group(
    benchmark: Benchmark, retriever: mm.Retriever, result: dict[str, Any]
) -> None:
    variances = []
    for query, texts in zip(benchmark.queries[:QUERIES], _list_wordings(benchmark, TemplateParaphraser()), strict=False):
        rows = [
            retriever.weigh(retriever.compose(reference_id=query.reference, prompt=text)).direction.astype(float)
            for text in texts
        ]
        variances.append(sum(np.sum((row - np.mean(rows, axis=0)) ** 2) for row in rows) / 5)
    of_size = [result["wordings"][str(size)].get("vector variance") for size in SIZES]
    assert of_size[0] == pytest.approx(np.mean(variances), rel=1e-3)
    assert of_size[0] > of_size[1] > of_size[2]
    assert of_size[3] is None


def test_paraphrases_table() -> None:
    own = {"vector variance": 0.5, "recall variance": 0.25, "metrics": {"recall@1": 12.34}}
    whole = {"metrics": {"recall@1": 13.0}}
    assert paraphrases_table({"toy": {"wordings": {"1": own, "6": whole}}}).splitlines() == [
        "| wordings | toy, variance of vectors | toy, variance of R@1 | toy, R@1 |",
        "| --- | --- | --- | --- |",
        "| 1 | 0.5000 | 0.2500 | 12.3 |",
        "| 6 | – | – | 13.0 |",
    ]


def test_the_table_in_the_guide_is_that_of_the_result() -> None:
    result = json.loads((ROOT / "results" / "paraphrases.json").read_text(encoding="utf-8"))
    assert paraphrases_table(result) in (ROOT / "docs" / "guides" / "searching.md").read_text(encoding="utf-8")
    for own in result.values():
        variances = [own["wordings"][str(size)] for size in SIZES[:-1]]
        for name in ("vector variance", "recall variance"):
            assert variances[0][name] > variances[1][name] > variances[2][name]
