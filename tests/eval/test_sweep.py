"""A sweep: every point equals a run, the best point is chosen on the right queries, and the record says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.runs.compositions import ComposedBenchmark, MethodConfig
from eval.runs.run import EvalRun
from eval.runs.weight_settings import make_weight_setting
from eval.sweep.plane import Plane
from eval.sweep.sweep import Tuning, rank_plane, sweep_plane
from mmretrieve import PDV, PUBLISHED, ComposerName, Composition
from mmretrieve.composition import term_name
from mmretrieve.errors import OptionError
from mmretrieve.rules import Hinge, Product
from mmretrieve.vectors import unit

FOUR = ("image", "text", "composed", "prompt")
PLANE = Plane(np.linspace(0, 1, 5), np.linspace(-0.5, 3, 8))
PROTOCOL = Protocol(headline="map@3", recalls=(1, 5), precisions=(3,), aspects=("colour", "shape"), subset_recalls=(1,))
KEYS = {"kind", "name", "benchmark", "split", "label", "composer", "rule", "headline", "metric", "queries", "betas", "gammas"}
KEYS |= {"plane", "points", "tuning", "parts", "remarks", "options", "encoder", "provenance"}


def random_part(
    seed: int, *, queries: int = 9, items: int = 40, name: str = "random", names: Sequence[str] = FOUR
) -> ComposedBenchmark:
    """Random terms that point at a target, more or less, over random items; every second query has the aspect "colour", the first also "shape"."""
    rng = np.random.default_rng(seed)
    ids = tuple(f"i{n}" for n in range(items))
    gallery = unit(rng.normal(size=(items, 8)))
    benchmark_queries, compositions = [], []
    for number in range(queries):
        rows = [ids[i] for i in rng.permutation(items)]
        targets = tuple(rows[1 : 2 + rng.integers(0, 3)])
        tags = ("colour",) * (number % 2 == 0) + ("shape",) * (number == 0)
        benchmark_queries.append(
            BenchmarkQuery(f"{number}", rows[0], ("p",), targets, tags=tags, candidates=(*targets, rows[8], rows[9], rows[9]))
        )
        terms = unit(rng.normal(size=(len(names), 8)) + 2 * gallery[ids.index(targets[0])])  # each points there, roughly
        compositions.append(Composition(tuple(names), terms, tuple(float(term == "composed") for term in names)))
    benchmark = Benchmark(name, "test", ids, tuple(benchmark_queries), Path, PROTOCOL)
    return ComposedBenchmark(benchmark, compositions, gallery)


def run_of(
    encoder: mm.Encoder, *parts: ComposedBenchmark, family: str = "random", composer: ComposerName = ComposerName.CAPTIONS
) -> EvalRun:
    setting = make_weight_setting(None, None, composer=composer, benchmark=family, model="")
    return EvalRun("a-name", family, encoder, MethodConfig(composer), setting, parts, {"composer": composer.value, "phi": None})


def alone(part: ComposedBenchmark, pdv: PDV) -> np.ndarray:
    """(queries, metrics) of a separate run under one setting."""
    return part.measure(lambda composition: composition.with_pdv(pdv))


def at(beta: float, gamma: float) -> PDV:
    return PDV(alpha_image=float(gamma), alpha_text=float(gamma), beta=float(beta))


@pytest.mark.parametrize("names", [FOUR, ("prompt", "composed", "text", "image")])
def test_every_point_equals_a_separate_run(names: Sequence[str]) -> None:
    part = random_part(1, names=names)
    named = {"cirevl": PUBLISHED["cirevl"], "base": PDV()}
    values = rank_plane(part, replace(PLANE, named=named)).values
    assert values.shape == (9, 5 * 8 + 2, len(part.benchmark.metrics))
    settings = [at(beta, gamma) for beta in PLANE.betas for gamma in PLANE.gammas]
    for place, pdv in enumerate([*settings, *named.values()]):
        np.testing.assert_allclose(values[:, place], alone(part, pdv), rtol=0, atol=1e-9)
    assert len(np.unique(values[:, :40, 3].mean(axis=0))) > 10  # the points differ


def contrary() -> ComposedBenchmark:
    """Even queries find their target by the image alone, odd ones by the text alone; each other term finds another item."""
    gallery = np.eye(12, dtype=np.float32)
    queries = tuple(BenchmarkQuery(f"{n}", "i11", ("p",), (f"i{n}",)) for n in range(6))
    compositions = []
    for n in range(6):
        right, wrong, other = gallery[n], gallery[n + 3 if n < 3 else n - 3], gallery[10]
        compositions.append(
            Composition(FOUR[:3], np.stack([right, wrong, other] if n % 2 == 0 else [wrong, right, other]), (0, 0, 1))
        )
    ids = tuple(f"i{n}" for n in range(12))
    benchmark = Benchmark("contrary", "test", ids, queries, Path, Protocol(headline="recall@1", recalls=(1, 5)))
    return ComposedBenchmark(benchmark, compositions, gallery)


def test_halves_choose_on_the_even_queries_and_report_on_the_odd_ones(encoder: mm.Encoder) -> None:
    plane = Plane(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    halves = sweep_plane(run_of(encoder, contrary()), plane, Tuning.HALVES).to_json()
    assert halves["tuning"] == {"tuned on": "even queries", "reported on": "odd queries"}
    assert halves["queries"] == 3
    best = halves["points"]["best"]
    assert (best["beta"], best["gamma"]) == (0, 0)  # the image alone, which is right on every even query …
    assert best["metrics"]["recall@1"] == 0  # … and wrong on every odd one
    assert halves["plane"]["recall@1"] == [[0, 0], [100, 0]]  # the odd ones' own best would be the text alone


def test_tuning_on_all_queries_is_recorded_as_such(encoder: mm.Encoder) -> None:
    plane = Plane(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    same = sweep_plane(run_of(encoder, contrary()), plane, Tuning.SAME).to_json()
    assert same["tuning"] == {"tuned on": "all queries", "reported on": "all queries"}
    assert same["queries"] == 6
    assert same["plane"]["recall@1"] == [[50, 0], [50, 0]]
    assert (same["points"]["best"]["beta"], same["points"]["best"]["metrics"]["recall@1"]) == (0, 50)  # the first of equals


@pytest.mark.parametrize("tuning", Tuning)
def test_a_record_holds_means_over_queries_then_over_parts(encoder: mm.Encoder, tuning: Tuning) -> None:
    parts = [random_part(2, queries=9, name="suite:a"), random_part(3, queries=4, name="suite:b")]
    record = sweep_plane(run_of(encoder, *parts, family="suite"), PLANE, tuning).to_json()
    assert set(record) == KEYS
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["kind"] == "sweep"
    assert record["metric"] == record["headline"] == "map@3"
    assert record["queries"] == sum(len(part.benchmark.queries[tuning.reported]) for part in parts)
    assert (record["betas"], record["gammas"]) == (PLANE.betas.tolist(), PLANE.gammas.tolist())
    assert list(record["parts"]) == ["suite:a", "suite:b"]
    assert (record["parts"]["suite:b"]["queries"], record["parts"]["suite:b"]["gallery"]) == (4, 40)

    def mean(pdv: PDV, queries: slice) -> dict[str, float]:
        of_parts = [part.benchmark.mean_metrics(alone(part, pdv)[queries]) for part in parts]
        return {name: float(np.mean([one[name] for one in of_parts])) for name in of_parts[0] if name in of_parts[1]}

    for name, pdv in {"base": PDV(), "published": PUBLISHED["cirevl"]}.items():
        point = record["points"][name]
        assert (point["beta"], point["gamma"]) == pytest.approx((pdv.beta, pdv.gamma))
        assert point["metrics"] == pytest.approx(mean(pdv, tuning.reported), abs=1e-9)
    assert record["points"]["published"]["setting"] == "cirevl"
    chosen = {(b, g): mean(at(b, g), tuning.chosen)["map@3"] for b in record["betas"] for g in record["gammas"]}
    best = record["points"]["best"]
    assert chosen[best["beta"], best["gamma"]] == pytest.approx(max(chosen.values()), abs=1e-9)
    assert best["metrics"] == pytest.approx(mean(at(best["beta"], best["gamma"]), tuning.reported), abs=1e-9)
    for metric, plane in record["plane"].items():
        expected = [[mean(at(b, g), tuning.reported)[metric] for g in record["gammas"]] for b in record["betas"]]
        np.testing.assert_allclose(plane, expected, rtol=0, atol=1e-9)


def test_an_aspect_is_the_mean_over_its_own_queries_and_left_out_where_it_has_none(encoder: mm.Encoder) -> None:
    part = random_part(4)
    record = sweep_plane(run_of(encoder, part), PLANE, Tuning.SAME).to_json()
    aspect = alone(part, at(PLANE.betas[3], PLANE.gammas[5]))[::2, 4]  # even queries carry it
    assert part.benchmark.metrics[4].name == "map@10/colour"
    assert record["plane"]["map@10/colour"][3][5] == pytest.approx(sum(aspect) / 5)
    assert "map@10/shape" in record["plane"]
    halves = sweep_plane(run_of(encoder, part), PLANE, Tuning.HALVES).to_json()  # no odd query has an aspect
    assert (
        list(halves["plane"])
        == list(halves["points"]["best"]["metrics"])
        == ["recall@1", "recall@5", "recall_subset@1", "map@3"]
    )


def test_remarks_of_a_sweep(encoder: mm.Encoder) -> None:
    part = random_part(5)
    first, *others = part.benchmark.queries
    part = replace(
        part, benchmark=replace(part.benchmark, queries=(replace(first, prompts=(" ",)), *others), remark="one is missing")
    )
    record = sweep_plane(run_of(encoder, part), PLANE, Tuning.SAME).to_json()
    assert record["remarks"] == ["one is missing", "random: 1 empty prompt replaced by '.'"]
    assert record["parts"]["random"]["remark"] == "one is missing"


def test_no_published_point_without_a_published_setting(encoder: mm.Encoder) -> None:
    record = sweep_plane(run_of(encoder, random_part(6), composer=ComposerName.ROLES), PLANE, Tuning.SAME).to_json()
    assert list(record["points"]) == ["base", "best"]
    fashion = sweep_plane(run_of(encoder, random_part(6), family="fashioniq:dress"), PLANE, Tuning.SAME).to_json()["points"][
        "published"
    ]
    assert fashion["setting"] == "cirevl-fashioniq-base"
    assert (fashion["beta"], fashion["gamma"]) == pytest.approx((0.75, 0.25 * 1.4 + 0.75 * 1.4))


def error_of(part: ComposedBenchmark, change: Any) -> str:
    compositions = [change(composition) for composition in part.compositions]
    with pytest.raises(mm.MMRetrieveError) as caught:
        rank_plane(replace(part, compositions=compositions), PLANE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rankings_off_the_plane_are_refused() -> None:
    for rule, name in ((Hinge(), "hinge"), (Product(), "product")):
        message = error_of(random_part(7), lambda composition, rule=rule: composition.with_rule(rule))
        assert message == f"random: a sweep needs the linear rule; the scores of the {name!r} rule are not linear"
    message = error_of(random_part(7, names=("image", "prompt")), lambda composition: composition)
    assert message == "random: the PDV plane weighs image, text and composed; these queries have image, prompt"
    more = random_part(8).gallery[:1]
    message = error_of(random_part(7), lambda composition: composition.with_role("desired", more, 0.5, ["red"]))
    assert message.endswith("these queries have image, text, composed, prompt, desired")
    two = tuple(term_name("composed", i) for i in range(2))
    message = error_of(random_part(7, names=("image", "text", *two)), lambda composition: composition)
    assert message.endswith("these queries have image, text, composed, composed 2")


def test_tunings_by_name() -> None:
    assert Tuning("halves") is Tuning.HALVES
    with pytest.raises(OptionError, match="unknown tuning 'best'; choose from: halves, same"):
        Tuning("best")


@pytest.mark.parametrize(
    ("composer", "options", "label"),
    [
        (ComposerName.CAPTIONS, {}, "captions (tagger, template)"),
        (ComposerName.CAPTIONS, {"captioner": "endpoint", "rewriter": "swap"}, "captions (endpoint, swap)"),
        (ComposerName.LDRE, {"rewriter": "answers.json 12ab34cd"}, "ldre (tagger, answers.json 12ab34cd)"),
        (ComposerName.ROLES, {"captioner": None}, "roles (tagger, template, rules)"),
        (ComposerName.ONE_STEP, {"describer": "endpoint"}, "one-step (endpoint)"),
        (ComposerName.LINCIR, {}, "lincir"),
        (ComposerName.SUM, {}, "sum"),
    ],
)
def test_a_label_names_the_sources_of_texts(
    encoder: mm.Encoder, composer: ComposerName, options: dict[str, str], label: str
) -> None:
    assert replace(run_of(encoder, random_part(1), composer=composer), options=options).label == label


def test_a_label_names_captions_of_the_benchmark(encoder: mm.Encoder) -> None:
    part = random_part(1)
    queries = tuple(replace(query, caption="a dress", concept="a dress") for query in part.benchmark.queries)
    run = run_of(encoder, replace(part, benchmark=replace(part.benchmark, queries=queries)))
    assert run.label == "captions (benchmark captions, template)"
    own = replace(run.config, benchmark_captions=False)
    assert replace(run, config=own).label == "captions (tagger, template)"
    assert replace(run, config=replace(own, concept=True, rule="hinge")).label == "captions (concept, template), hinge rule"
