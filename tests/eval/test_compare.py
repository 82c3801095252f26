"""The comparison of methods, balanced weights, and the tables of the documents."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from eval import load_benchmark
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.cli import study_commands
from eval.runs.compositions import ComposedBenchmark, MethodConfig, compose
from eval.studies.compare import PLANE as TUNED
from eval.studies.compare import TUNED_METHOD, compare_methods, tune_on_even_queries
from eval.studies.inputs import METHODS, Method, method_parts
from eval.studies.tables import answerable_table, avoid_table, fill_table, methods_table, sensitivity_table, weights_table
from mmretrieve.inversion.oti import OTI
from mmretrieve.vectors import Float32
from mmretrieve.weighting import Spread, automatic_weights, balanced_weights

ROOT = Path(__file__).parents[2]


@pytest.mark.shared_data
def test_the_catalogue_is_read_and_errors_name_the_line(catalogue: Path, tmp_path: Path) -> None:
    bench = load_benchmark("catalogue", catalogue)
    assert (len(bench.gallery_ids), len(bench.queries)) == (3125, 600)
    assert bench.queries[0].prompts == ("in blue instead",)
    assert bench.metrics[bench.headline_column].name == "map@10"
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
    """A benchmark over the sixty drawings: the next image is the target, for any prompt."""
    files = {path.name: path for path in sorted(photos.rglob("*.png"))}
    ids = tuple(files)
    queries = tuple(BenchmarkQuery(str(i), ids[i], ("in red",), (ids[i + 1],)) for i in range(20))
    protocol = Protocol(headline="map@10", recalls=(1, 5, 10), precisions=(10,))
    return Benchmark("small", "test", ids, queries, files.__getitem__, protocol)


@pytest.fixture(scope="module")
def gallery(small: Benchmark, encoder: mm.Encoder) -> Float32:
    return encoder.encode_images([small.image_path(id_) for id_ in small.gallery_ids])


@pytest.fixture(scope="module")
def composed(small: Benchmark, gallery: Float32, encoder: mm.Encoder) -> ComposedBenchmark:
    """By captions, rewritten by the template."""
    return compose(small, gallery, encoder, MethodConfig(mm.ComposerName.CAPTIONS), mm.Parts())


def test_compare_methods_agrees_with_score(
    small: Benchmark, gallery: Float32, composed: ComposedBenchmark, encoder: mm.Encoder
) -> None:
    labels: list[str] = []
    result = compare_methods(small, gallery, encoder, mm.Parts(oti=OTI(steps=3)), report=labels.append)
    assert list(result["methods"]) == labels == [method.label for method in METHODS]
    assert result["not run"] == {}
    setting = mm.PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75)
    weighed = {
        "base": lambda c: c,
        "PDV-F": lambda c: c.with_pdv(setting),
        "auto": lambda c: automatic_weights(c, Spread.of(gallery)),
    }
    for name, weigh in weighed.items():
        vectors = np.stack([weigh(c).vector for c in composed.compositions])
        assert result["methods"]["captions, template"][name] == pytest.approx(small.score(vectors, gallery))
    assert "auto" in result["methods"]["SDR-CIR"]
    assert not any("auto" in result["methods"][label] for label in ("image only", "prompt only", "product (BASIC)"))
    assert result["methods"]["captions, template"]["setting"] == {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75}
    assert "PDV-F" not in result["methods"]["SDR-CIR"]
    assert json.loads(json.dumps(result)) == result


def test_the_plane_is_tuned_on_even_queries_and_reported_on_odd_ones(
    small: Benchmark, gallery: Float32, encoder: mm.Encoder
) -> None:
    method = next(method for method in METHODS if method.label == TUNED_METHOD)
    result = compare_methods(small, gallery, encoder, methods=[method])["tuned"]
    swapped = compose(small, gallery, encoder, method.config, method_parts(method, encoder, mm.Parts()))
    values = {}
    for beta in TUNED.betas:
        for gamma in TUNED.gammas:
            pdv = mm.PDV(alpha_image=gamma, alpha_text=gamma, beta=beta)
            values[beta, gamma] = swapped.measure(lambda c, pdv=pdv: c.with_pdv(pdv))
    headline = small.headline_column
    best = max(values.values(), key=lambda one: one[::2, headline].mean())
    assert values[result["beta"], result["gamma"]][::2, headline].mean() == pytest.approx(best[::2, headline].mean())
    assert result["tuned"] == pytest.approx(small.mean_metrics(values[result["beta"], result["gamma"]][1::2]))
    assert result["base"] == pytest.approx(small.mean_metrics(values[1.0, 1.0][1::2]))
    assert (result["metric"], result["tuned on"], result["reported on"]) == ("map@10", "even queries", "odd queries")


def test_the_tuned_point_depends_on_the_even_queries_only() -> None:
    """Queries 0 and 2 find their target by the image, 1, 3 and 4 by the text: two of three even ones, but two of five."""
    gallery, ids = np.eye(12, dtype=np.float32), tuple("abcdefghijkl")
    compositions = []
    for n, by_image in enumerate([True, False, True, False, False]):
        right, wrong = gallery[n], gallery[n + 5]
        rows = [right, wrong, gallery[10]] if by_image else [wrong, right, gallery[10]]
        compositions.append(mm.Composition(("image", "text", "composed"), np.stack(rows), (0, 0, 1)))
    queries = tuple(BenchmarkQuery(ids[n], "l", ("p",), (ids[n],)) for n in range(5))
    bench = Benchmark("five", "test", ids, queries, Path, Protocol(headline="recall@1", recalls=(1,)))
    result = tune_on_even_queries(ComposedBenchmark(bench, compositions, gallery))
    assert result["beta"] < 0.5  # on all queries the text would be best
    assert (result["tuned"], result["base"]) == ({"recall@1": 0}, {"recall@1": 0})


def test_methods_that_cannot_run_are_listed_and_the_others_measured(
    small: Benchmark, gallery: Float32, encoder: mm.Encoder
) -> None:
    methods = (
        Method("pictures", MethodConfig(mm.ComposerName.IMAGE)),
        Method("a model", MethodConfig(mm.ComposerName.ONE_STEP)),
    )
    result = compare_methods(small, gallery, encoder, methods=methods)
    assert list(result["methods"]) == ["pictures"]
    assert list(result["not run"]) == ["a model"]
    assert "needs a describer" in result["not run"]["a model"]


def test_methods_table_marks_weights_that_score_lower() -> None:
    result = {
        "benchmark": "b",
        "methods": {
            "m": {"base": {"map@10": 5.0}, "PDV-F": {"map@10": 4.94}, "auto": {"map@10": 7.0}},
            "n": {"base": {"map@10": 1.0}},
        },
    }
    lines = methods_table([result, {"benchmark": "c", "methods": {"n": {"base": {"map@10": 2.0}}}}]).splitlines()
    assert lines == [
        "| method | b | + PDV-F | + auto | c | + PDV-F | + auto |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| m | 5.0 | 4.9 ▼ | 7.0 | – | – | – |",
        "| n | 1.0 | – | – | 2.0 | – | – |",
    ]


def test_fill_table() -> None:
    assert (
        fill_table("a\n<!-- table: begin -->\nold\n<!-- table: end -->\nb", "new")
        == "a\n<!-- table: begin -->\nnew\n<!-- table: end -->\nb"
    )
    with pytest.raises(mm.MMRetrieveError, match="no place for the table"):
        fill_table("nothing here", "new")
    two = "<!-- table: begin -->\n<!-- table: end -->\n<!-- other: begin -->\n<!-- other: end -->"
    assert fill_table(two, "new", "other").endswith("<!-- other: begin -->\nnew\n<!-- other: end -->")


def test_the_document_is_unchanged_where_a_method_did_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "README.md"
    text.write_text("<!-- table: begin -->\nold\n<!-- table: end -->\n")
    before = text.read_bytes()
    result: dict[str, Any] = {"benchmark": "wardrobe", "methods": {}, "not run": {"LinCIR": "needs a phi"}}
    monkeypatch.setattr(study_commands, "load_sets", lambda _: [None])
    monkeypatch.setattr(study_commands, "_compare", lambda *_: result)
    with pytest.raises(mm.MMRetrieveError, match=r"wardrobe: the table is not changed, .* {'LinCIR': 'needs a phi'}"):
        study_commands.table(Namespace(data=tmp_path, out=tmp_path / "results", text=text))
    assert text.read_bytes() == before
    assert not (tmp_path / "results").exists()


def test_the_tables_in_the_documents_are_those_of_the_results() -> None:
    results = [
        json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8")) for name in ("wardrobe", "catalogue")
    ]
    assert methods_table(results) in (ROOT / "README.md").read_text(encoding="utf-8")
    weights, answerable, avoid = (
        json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("weights", "answerable", "avoid")
    )
    text = (ROOT / "docs" / "guides" / "weights.md").read_text(encoding="utf-8")
    assert all(table in text for table in (weights_table(weights), sensitivity_table(weights), avoid_table(avoid["shares"])))
    assert answerable_table(answerable) in (ROOT / "docs" / "guides" / "answerable.md").read_text(encoding="utf-8")


def test_balanced_weights_of_a_replaced_word(encoder: mm.Encoder, gallery: Float32) -> None:
    spread = Spread.of(gallery)
    assert spread.deviation(gallery[0]) == pytest.approx((gallery @ gallery[0]).std(), rel=1e-4)
    rows = encoder.encode_texts(["a dress", "a red dress", "red"])
    terms = np.concatenate([gallery[:1], rows])
    words = {"text": "a dress", "composed": "a red dress"}
    query = mm.Composition(("image", "text", "composed", "prompt"), terms, (0, 0, 1, 0), words)
    assert balanced_weights(query, spread).term_weights["prompt"] == pytest.approx(
        0.37 * (gallery @ rows[1]).std() / (gallery @ rows[2]).std(), rel=1e-3
    )
    assert balanced_weights(query, Spread.of(gallery[:1])).term_weights["image"] == 1  # one item spreads nothing
    liked = balanced_weights(query.with_role("more", gallery[:1], 0.75, ["a"]), spread)
    assert (liked.term_weights["composed"], liked.term_weights["more"]) == (1, 0.75)
    with pytest.raises(mm.MMRetrieveError, match="this query has no text, composed, prompt"):
        balanced_weights(mm.Composition(("image",), terms[:1], (1.0,)), spread)


def test_the_wardrobe_benchmark() -> None:
    bench = load_benchmark("wardrobe")
    assert (len(bench.gallery_ids), len(bench.queries)) == (2000, 500)
    names = [metric.name for metric in bench.metrics]
    assert names[:4] == ["recall@1", "recall@5", "recall@10", "map@10"]
    assert all(name.startswith("map@10/") for name in names[4:])
    assert bench.metrics[bench.headline_column].name == "map@10"
