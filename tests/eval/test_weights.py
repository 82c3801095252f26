"""The study of weights: columns, the grid, halves, sensitivity, captions, and a search without options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

import mmretrieve as mm
from eval import load_benchmark
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.runs.compositions import ComposedBenchmark
from eval.studies.compare import measure_searches
from eval.studies.inputs import CaptionSetup, add_captions, held_out_queries, open_retriever
from eval.studies.tables import sensitivity_table, weights_table
from eval.studies.weights import (
    GRID,
    grid_values,
    headline_values,
    list_rows,
    list_shortfalls,
    measure_sensitivity,
    measure_weights,
    scale_amount,
    weight_choices,
)
from mmretrieve.vectors import Float32, unit
from mmretrieve.weighting import APPEND_AMOUNTS, STANDARD_TERMS, Spread, automatic_weights

ITEMS = 40
RANDOM = np.random.default_rng(3)
GALLERY = unit(RANDOM.normal(size=(ITEMS, 8)))
SPREAD = Spread.of(GALLERY)


@pytest.fixture(scope="module")
def bench() -> Benchmark:
    """Ten queries with random terms: the reference is item 0, and query i looks for item i + 1."""
    ids = tuple(map(str, range(ITEMS)))
    queries = tuple(BenchmarkQuery(str(i), "0", ("p",), (ids[i + 1],)) for i in range(10))
    return Benchmark("random", "test", ids, queries, Path, Protocol(headline="map@10", precisions=(10,)))


@pytest.fixture(scope="module")
def composed(bench: Benchmark) -> ComposedBenchmark:
    words = {"text": "a dress", "composed": "a dress, in red", "prompt": "in red"}
    terms = [unit(RANDOM.normal(size=(4, 8))) for _ in range(10)]
    return ComposedBenchmark(bench, [mm.Composition(STANDARD_TERMS, four, (0, 0, 1, 0), words) for four in terms], GALLERY)


def z(scores: np.ndarray) -> np.ndarray:
    return (scores - scores.mean()) / scores.std()


def test_weight_choices_by_hand(composed: ComposedBenchmark) -> None:
    composition, scores = next(iter(composed))
    image, text, change, prompt = scores.astype(float)
    result = {
        name: weigh(composition).contributions(scores).sum(axis=0) for name, weigh in weight_choices(mm.PDV(), SPREAD).items()
    }
    np.testing.assert_allclose(result["base"], change, atol=1e-6)
    np.testing.assert_allclose(result["image + prompt"], image + prompt, atol=1e-6)
    np.testing.assert_allclose(result["product"], image.clip(0) * prompt.clip(0), atol=1e-6)
    expected = z(image) - z(text) / 4 + z(change) / 2 + z(prompt)
    np.testing.assert_allclose(result["auto"], expected / (1 + 1 / 4 + 1 / 2 + 1), atol=1e-4)


def test_every_grid_point_equals_separate_weights(composed: ComposedBenchmark) -> None:
    grid = grid_values(composed)
    assert grid.shape == (10, len(GRID))
    for point in (0, 77, len(GRID) - 1):

        def weigh(composition: mm.Composition, point: int = point) -> mm.Composition:
            sizes = {term: GRID[point, i] / SPREAD.deviation(composition[term]) for i, term in enumerate(STANDARD_TERMS)}
            return composition.weighted(sizes)

        np.testing.assert_allclose(grid[:, point], headline_values(composed, weigh))


def test_results_of_each_half(composed: ComposedBenchmark) -> None:
    result = measure_weights(composed, mm.PDV())
    columns, auto = result["columns"], headline_values(composed, lambda composition: automatic_weights(composition, SPREAD))
    assert columns["auto"] == {"all": pytest.approx(auto.mean()), "held-out": pytest.approx(auto[1::2].mean())}
    grid = grid_values(composed)
    assert columns["best four-term grid (labels)"]["all"] == pytest.approx(grid.mean(axis=0).max())
    assert columns["best four-term grid (labels)"]["held-out"] == pytest.approx(grid[1::2].mean(axis=0).max())
    assert columns["best per query (labels)"]["held-out"] == pytest.approx(grid[1::2].max(axis=1).mean())
    chosen = int(grid[::2].mean(axis=0).argmax())
    assert result["grid, chosen on the other half"] == pytest.approx(grid[1::2, chosen].mean())
    assert result["columns"]["PDV-F"] == result["columns"]["base"]  # PDV() is the base method


def test_a_scaled_amount_is_restored(composed: ComposedBenchmark) -> None:
    before = dict(APPEND_AMOUNTS)
    result = measure_sensitivity(composed)
    assert before == APPEND_AMOUNTS
    assert list(result) == [f"{case}, {term}" for case in ("added", "carried") for term in STANDARD_TERMS]
    assert all(change == {"halved": 0, "doubled": 0} for name, change in result.items() if name.startswith("carried"))
    with scale_amount(APPEND_AMOUNTS, mm.Term.PROMPT, 2.0):
        doubled = headline_values(composed, lambda composition: automatic_weights(composition, SPREAD)).mean()
    plain = headline_values(composed, lambda composition: automatic_weights(composition, SPREAD)).mean()
    assert result["added, prompt"]["doubled"] == pytest.approx(doubled - plain)


def columns_of(auto: float, grid: float = 10.0, **others: float) -> dict[str, dict[str, float]]:
    figures = {"base": 1.0, "image + prompt": 9.0, "product": 9.0, "auto": auto, "best four-term grid (labels)": grid}
    return {name: {"all": value, "held-out": value} for name, value in {**figures, **others}.items()}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (columns_of(9.6), []),
        (columns_of(9.0, grid=9.2), []),
        (columns_of(9.4), ["best four-term grid (labels)"]),
        (columns_of(8.9, grid=9.0), ["image + prompt", "product"]),
        (columns_of(9.6, base=9.7), ["base"]),
    ],
)
def test_where_automatic_weights_fall_short(columns: dict[str, dict[str, float]], expected: Sequence[str]) -> None:
    assert list_shortfalls(columns, "all") == expected


def test_tables_mark_shortfalls() -> None:
    columns = {"base": {"all": 1.0, "held-out": 9.5}, "image + prompt": {"all": 2.0, "held-out": 2.0}}
    columns |= {"product": {"all": 3.0, "held-out": 3.0}, "auto": {"all": 9.6, "held-out": 9.4}}
    columns["best four-term grid (labels)"] = {"all": 10.0, "held-out": 9.6}
    changes = {"added, image": {"halved": -0.5, "doubled": 0.04}}
    other = {"columns": columns, "sensitivity": {"added, image": {"halved": -1.5, "doubled": 0.0}}}
    result = {"w": {"rows": {"given": {"columns": columns, "sensitivity": changes}, "tagged": other}}}
    assert weights_table(result).splitlines()[2] == (
        "| w | given | 1.0 (9.5) | 2.0 (2.0) | 3.0 (3.0) | 9.6 (9.4 ▼) | 10.0 (9.6) | 96 (98) |"
    )
    assert sensitivity_table(result).splitlines() == [
        "| amount | w, halved | w, doubled |",
        "| --- | --- | --- |",
        "| added, image | −1.0 (−1.5) | 0.0 (0.0) |",
    ]


def test_halves_share_no_article(bench: Benchmark) -> None:
    assert held_out_queries(bench).tolist() == [False, True] * 5
    articles = ["shirt", "watch", "shirt", "dress"]
    queries = tuple(BenchmarkQuery(str(i), str(i), ("p",), ("9",)) for i in range(4))
    shop = replace(bench, queries=queries, fields={str(i): {"article": article} for i, article in enumerate(articles)})
    assert held_out_queries(shop).tolist() == [crc32(article.encode()) % 2 == 1 for article in articles]


def test_captions_of_every_source(encoder: mm.Encoder) -> None:
    bench = load_benchmark("wardrobe")
    reference = bench.queries[0].reference
    fields = bench.fields[reference]
    by_source = {source: add_captions(bench, encoder, source) for source in CaptionSetup}
    assert by_source[CaptionSetup.GENERAL][0].queries[0].caption is None
    assert by_source[CaptionSetup.OWN][0].queries[0].caption is None
    assert {group.name for group in by_source[CaptionSetup.GENERAL][1].groups} == {"thing", "colour"}
    assert {group.name for group in by_source[CaptionSetup.OWN][1].groups} >= {"garment", "sleeves"}
    for source in (CaptionSetup.FIELDS, CaptionSetup.GIVEN):
        caption = by_source[source][0].queries[0].caption
        assert caption is not None
        assert f"{fields['colour']} {fields['pattern']}" in caption
    with pytest.raises(mm.MMRetrieveError, match="no fields to make captions from"):
        add_captions(replace(bench, fields={}), encoder, CaptionSetup.FIELDS)
    with pytest.raises(mm.MMRetrieveError, match="some queries have no caption"):
        add_captions(replace(bench, name="other"), encoder, CaptionSetup.GIVEN)


def test_rows_have_distinct_labels() -> None:
    labels = [method.label for _, method in list_rows()]
    assert len(labels) == len(set(labels)) == 14
    assert labels[:2] == ["tagged, general vocabulary, template", "tagged, general vocabulary, swap"]
    assert {"LDRE, swap", "SEIZE, template", "SEARLE-OTI", "LinCIR"} <= set(labels)
    assert all(method.pdv is not None for _, method in list_rows())


def test_measure_searches_agrees_with_search(photos: Path, encoder: mm.Encoder) -> None:
    files = {path.name: path for path in sorted(photos.rglob("*.png"))}
    ids = tuple(files)
    vectors: Float32 = encoder.encode_images(list(files.values()))
    queries = tuple(BenchmarkQuery(str(i), ids[i], ("in red",), (ids[i + 1],)) for i in range(5))
    fields: dict[str, Any] = {id_: {"colour": id_.split("-")[0], "kind": None} for id_ in ids}
    protocol = Protocol(headline="map@10", recalls=(1,), precisions=(10,))
    bench = Benchmark("small", "test", ids, queries, files.__getitem__, protocol, fields=fields)
    with open_retriever(bench, vectors, encoder) as retriever:
        assert retriever.gallery.item(ids[0]).fields["colour"] == ids[0].split("-")[0]
        result = measure_searches(bench, retriever)
        first = [
            retriever.search(reference_id=query.reference, prompt="in red", exclude_reference=True).ids[0] for query in queries
        ]
    right = [id_ == query.targets[0] for id_, query in zip(first, queries, strict=True)]
    assert result["auto"]["recall@1"] == pytest.approx(100 * np.mean(right))
    assert set(result) == {"base", "auto"}
