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
from eval.methods import METHODS, Method
from eval.metrics import average_precision_at, recall_at, target_ranks
from eval.report import fill, markdown, table, weights_table
from eval.run import compose, run
from eval.weights import PLANE, compared, weighings
from mmretrieve.balance import Spread, balanced
from mmretrieve.inversion.oti import OTI

ROOT = Path(__file__).parents[1]


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
    result = run(small, encoder, mm.Parts(oti=OTI(steps=3)))
    assert list(result["methods"]) == [method.label for method in METHODS]
    assert result["not run"] == {}
    gallery = encoder.encode_images([small.image_path(id_) for id_ in small.gallery_ids])
    method = next(method for method in METHODS if method.label == "captions, template")
    scored = compose(small, gallery, encoder, method, mm.Parts())
    setting = mm.PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75)
    weighed = {
        "base": lambda c: c,
        "PDV-F": lambda c: c.with_pdv(setting),
        "balanced": lambda c: balanced(c, Spread.of(gallery)),
    }
    for name, weigh in weighed.items():
        vectors = np.stack([weigh(c).vector for c in scored.compositions])
        assert result["methods"]["captions, template"][name] == pytest.approx(small.score(vectors, gallery))
    assert result["methods"]["captions, template"]["setting"] == {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75}
    assert "PDV-F" not in result["methods"]["SDR-CIR"]
    assert result["tuned"]["tuned on"] != result["tuned"]["reported on"]
    assert table(result).splitlines()[0].split() == list(small.metrics)
    json.dumps(result)


def test_what_cannot_run_is_named_and_the_others_go_on(small: Benchmark, encoder: mm.Encoder) -> None:
    methods = (Method("pictures", mm.ComposerName.IMAGE), Method("a model", mm.ComposerName.ONE_STEP))
    result = run(small, encoder, methods=methods)
    assert list(result["methods"]) == ["pictures"]
    assert "needs a describer" in result["not run"]["a model"]
    assert "not run: a model: 'one-step' needs a describer" in table(result)


def test_the_table_shows_where_other_weights_lose() -> None:
    result = {
        "benchmark": "b",
        "methods": {
            "m": {"base": {"map@10": 5.0}, "PDV-F": {"map@10": 4.94}, "balanced": {"map@10": 7.0}},
            "n": {"base": {"map@10": 1.0}},
        },
    }
    lines = markdown([result, {"benchmark": "c", "methods": {"n": {"base": {"map@10": 2.0}}}}]).splitlines()
    assert lines == [
        "| method | b | + PDV-F | + balanced | c | + PDV-F | + balanced |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| m | 5.0 | 4.9 ▼ | 7.0 | – | – | – |",
        "| n | 1.0 | – | – | 2.0 | – | – |",
    ]
    assert (
        fill("a\n<!-- table: begin -->\nold\n<!-- table: end -->\nb", "new")
        == "a\n<!-- table: begin -->\nnew\n<!-- table: end -->\nb"
    )
    with pytest.raises(mm.MMRetrieveError, match="no place for the table"):
        fill("nothing here", "new")


def test_the_tables_in_the_texts_are_those_of_the_results() -> None:
    results = [
        json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8")) for name in ("wardrobe", "catalogue")
    ]
    assert markdown(results) in (ROOT / "README.md").read_text(encoding="utf-8")
    weights = json.loads((ROOT / "results" / "weights.json").read_text(encoding="utf-8"))
    assert weights_table(weights) in (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")


def test_rules_of_weights_by_hand(small: Benchmark, encoder: mm.Encoder) -> None:
    gallery = encoder.encode_images([small.image_path(id_) for id_ in small.gallery_ids])
    method = next(method for method in METHODS if method.label == "captions, template")
    scored = compose(small, gallery, encoder, method, mm.Parts())
    found = {name: next(scores) for name, scores in weighings(scored, Spread.of(gallery)).items()}
    image, text, composed, prompt = (row.astype(float) for row in scored.scores[0])
    np.testing.assert_allclose(found["image + prompt"], image + prompt, atol=1e-6)

    def z(scores: np.ndarray) -> np.ndarray:
        return (scores - scores.mean()) / scores.std()

    np.testing.assert_allclose(found["standardised composed + prompt"], z(composed) + z(prompt), atol=1e-4)
    shared = np.corrcoef(image, text)[0, 1]
    expected = (1 - shared**2) ** 0.5 * z(image) - shared / 2 * z(text) + z(composed) + 0.72 * z(prompt)
    np.testing.assert_allclose(z(found["balanced"]), z(expected), atol=1e-3)
    assert any(np.allclose(found["margin, on the PDV plane"], point @ scored.scores[0]) for point in PLANE)
    result = compared(small, scored, gallery)
    tuned = [value for name, value in result["ceilings"].items() if name.startswith("four terms")]
    assert tuned[2] >= tuned[1]
    assert tuned[2] >= max(rule["map@10"] for name, rule in result["rules"].items() if name == "base")


def test_weights_of_a_word_that_was_replaced(encoder: mm.Encoder, small: Benchmark) -> None:
    gallery = encoder.encode_images([small.image_path(id_) for id_ in small.gallery_ids])
    spread = Spread.of(gallery)
    assert spread.deviation(gallery[0]) == pytest.approx((gallery @ gallery[0]).std(), rel=1e-4)
    rows = encoder.encode_texts(["a dress", "a red dress", "red"])
    terms = np.concatenate([gallery[:1], rows])
    words = {"text": "a dress", "composed": "a red dress"}
    query = mm.Composition(("image", "text", "composed", "prompt"), terms, (0, 0, 1, 0), words)
    assert balanced(query, spread).weighing["prompt"] == pytest.approx(
        0.37 * (gallery @ rows[1]).std() / (gallery @ rows[2]).std(), rel=1e-3
    )
    assert balanced(query, Spread.of(gallery[:1])).weighing["image"] == 1  # one item spreads nothing
    liked = balanced(query.plus("more", gallery[:1], 0.75, ["a"]), spread)
    assert (liked.weighing["composed"], liked.weighing["more"]) == (1, 0.75)
    with pytest.raises(mm.MMRetrieveError, match="this query has no text, composed, prompt"):
        balanced(mm.Composition(("image",), terms[:1], (1.0,)), spread)


def test_the_wardrobe_benchmark_is_the_built_in_world() -> None:
    bench = load_benchmark("wardrobe")
    assert (len(bench.gallery_ids), len(bench.queries)) == (2000, 500)
    assert bench.metrics == ("recall@1", "recall@5", "recall@10", "map@10")
