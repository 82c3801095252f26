"""Metrics by hand and against a slower second way; benchmarks and runs on real parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmretrieve as mm
from eval import load_benchmark
from eval.benchmark import Benchmark, BenchmarkQuery
from eval.metrics import average_precision_at, recall_at, target_ranks
from eval.run import compose, run


def test_ranks_by_hand() -> None:
    assert target_ranks(np.array([3, 5, 3]), [0]).tolist() == [3]  # 5 above, the other 3 before it
    assert target_ranks(np.array([9, 5, 3, 8]), [0, 2], hidden=[3]).tolist() == [1, 3]
    assert target_ranks(np.array([[9, 5], [5, 9]]), [0]).tolist() == [[1], [2]]


def test_metrics_by_formula() -> None:
    ranks = np.array([1, 3, 12])
    assert recall_at(ranks, 1) == 100
    assert recall_at(ranks + 1, 1) == 0
    assert average_precision_at(ranks, 10) == pytest.approx(100 * (1 / 1 + 2 / 3) / 3)
    assert average_precision_at(ranks, 2) == pytest.approx(100 * (1 / 1) / 2)
    assert average_precision_at(np.array([2]), 5) == pytest.approx(100 * (1 / 2) / 1)


@settings(max_examples=300)
@given(st.integers(0, 2**31), st.integers(1, 14), st.integers(1, 25))
def test_metrics_equal_a_slow_second_way(seed: int, targets: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, 40).astype(float)  # many ties
    right = rng.choice(39, targets, replace=False).tolist()
    order = sorted((i for i in range(39)), key=lambda i: (-scores[i], i in right))  # item 39 is the reference
    found = [i in right for i in order]
    ranks = target_ranks(scores, right, hidden=[39])
    precision = sum(sum(found[: i + 1]) / (i + 1) for i in range(k) if found[i])
    assert average_precision_at(ranks, k) == pytest.approx(100 * precision / min(targets, k))
    assert recall_at(ranks, k) == 100 * any(found[:k])


def tiny(**changes: object) -> Benchmark:
    queries = (BenchmarkQuery("q", "a", ("in red",), ("b",)), BenchmarkQuery("r", "b", ("x",), ("c", "d")))
    return Benchmark(
        **(
            {
                "name": "tiny",
                "gallery_ids": ("a", "b", "c", "d"),
                "queries": queries,
                "image_path": Path,
                "recalls": (1, 2),
                "precisions": (3,),
            }
            | changes
        )
    )


def test_a_benchmark_scores_and_leaves_the_reference_out() -> None:
    gallery = np.eye(4)
    queries = np.array([[5, 3, 2, 1], [0.1, 9, 0.5, 0.5]])  # each best fits its own reference
    assert tiny().score(queries, gallery) == pytest.approx({"recall@1": 100, "recall@2": 100, "map@3": 100})
    kept = tiny(keeps_reference=True).score(queries, gallery)
    assert kept["recall@1"] == 0
    assert kept["map@3"] == pytest.approx(100 * (1 / 2 + (1 / 2 + 2 / 3) / 2) / 2)


def test_a_benchmark_refuses_what_does_not_fit() -> None:
    with pytest.raises(mm.MMRetrieveError, match="expected 2 query and 4 gallery vectors, got 1 and 4"):
        tiny().score(np.ones((1, 4)), np.eye(4))
    with pytest.raises(mm.MMRetrieveError, match="comes twice"):
        tiny(gallery_ids=("a", "a", "b", "c", "d"))
    with pytest.raises(mm.MMRetrieveError, match="not in the gallery"):
        tiny(gallery_ids=("a", "b", "c"))
    with pytest.raises(mm.MMRetrieveError, match="k = 5 is larger than the ranking of 3 items"):
        tiny(recalls=(5,)).score(np.ones((2, 4)), np.eye(4))
    with pytest.raises(mm.MMRetrieveError, match="choose from: wardrobe, catalogue"):
        load_benchmark("imagenet")
    with pytest.raises(mm.MMRetrieveError, match="needs root"):
        load_benchmark("catalogue")


@pytest.mark.shared_data
def test_the_catalogue_is_read_whole_and_bad_lines_are_named(catalogue: Path, tmp_path: Path) -> None:
    bench = load_benchmark("catalogue", catalogue)
    assert (len(bench.gallery_ids), len(bench.queries)) == (3125, 600)
    assert bench.queries[0].prompts == ("in blue instead",)
    assert bench.image_path(bench.gallery_ids[0]).is_file()
    for name in ("items.csv", "queries.jsonl"):
        shutil.copy(catalogue / name, tmp_path)
    lines = (tmp_path / "queries.jsonl").read_text().splitlines()
    (tmp_path / "queries.jsonl").write_text("\n".join([*lines[:4], lines[4][:30], *lines[5:]]))
    with pytest.raises(mm.MMRetrieveError, match=r"queries\.jsonl, line 5"):
        load_benchmark("catalogue", tmp_path)
    with pytest.raises(mm.MMRetrieveError, match=r"items\.csv"):
        load_benchmark("catalogue", tmp_path / "nowhere")


@pytest.fixture(scope="module")
def small(photos: Path) -> Benchmark:
    """A benchmark over the sixty drawings: the next picture is the target, whatever the prompt."""
    files = {path.name: path for path in sorted(photos.rglob("*.png"))}
    ids = tuple(files)
    queries = tuple(BenchmarkQuery(str(i), ids[i], ("in red",), (ids[i + 1],)) for i in range(20))
    return Benchmark("small", ids, queries, files.__getitem__)


def test_a_run_measures_every_method_as_score_does(small: Benchmark, encoder: mm.Encoder) -> None:
    result = run(small, encoder)
    assert set(result["methods"]) == {*map(str, mm.ComposerName), "captions + PDV-T", "captions + PDV-I", "captions + PDV-F"}
    gallery = encoder.encode_images([small.image_path(id_) for id_ in small.gallery_ids])
    scored = compose(small, gallery, encoder, mm.ComposerName.CAPTIONS)
    vectors = [c.with_pdv(mm.PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75)).vector for c in scored.compositions]
    assert result["methods"]["captions + PDV-F"] == pytest.approx(small.score(np.stack(vectors), gallery))
    tuned = result["tuned"]
    assert tuned["tuned on"] != tuned["reported on"]
    json.dumps(result)


def test_the_wardrobe_benchmark_is_the_built_in_world() -> None:
    bench = load_benchmark("wardrobe")
    assert (len(bench.gallery_ids), len(bench.queries)) == (2000, 500)
    assert bench.metrics == ("recall@1", "recall@5", "recall@10", "map@10")
