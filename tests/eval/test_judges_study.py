"""The study of judges: the half that it measures, an oracle, and its table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from eval.benchmarks import load_benchmark
from eval.studies import judges
from eval.studies.inputs import held_out_queries
from eval.studies.judges import WEIGHTS, measure_first_stage, measure_judges
from eval.studies.tables import ablation_table, first_stage_table, judges_table
from mmretrieve.judges.base import judge_logits
from mmretrieve.judges.local import LocalJudge
from mmretrieve.judges.reranking import rerank
from mmretrieve.language.vocabulary import default_vocabulary
from mmretrieve.options import JudgeName

ROOT = Path(__file__).parents[2]


class Undecided:
    """A judge without an opinion."""

    def rank(self, _query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{"corpus_id": i, "score": 0.5} for i in range(len(documents))]


def test_an_oracle_gains_what_its_hits_contain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the held-out queries, those with a target among the 20 first hits have it first with an oracle; a judge without an opinion changes nothing."""
    benchmark, retriever = load_benchmark("wardrobe"), mm.Retriever.open(mm.wardrobe.gallery_folder())
    benchmark = replace(benchmark, queries=benchmark.queries[:40])
    half = [query for query, is_held_out in zip(benchmark.queries, held_out_queries(benchmark), strict=True) if is_held_out]
    remaining = cycle(half)

    class Oracle:
        def rank(self, _: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
            targets = {retriever.gallery.picture(target).tobytes() for target in next(remaining).targets}
            scores = (100.0 * (document["image"].tobytes() in targets) for document in documents)
            return [{"corpus_id": i, "score": score} for i, score in enumerate(scores)]

    monkeypatch.setattr(judges.JUDGES, "build", lambda name, _context: Oracle() if name is JudgeName.LOCAL else Undecided())
    measured = measure_judges(benchmark, retriever)
    before = measured["without"]["metrics"]["recall@1"]

    def share_in_pool(k: int = 20, **options: Any) -> float:
        requests = [{"reference_id": query.reference, "prompt": query.prompts[0], "exclude_reference": True} for query in half]
        rankings = retriever.search_many([request | options | {"k": k} for request in requests])
        return float(np.mean([not set(query.targets).isdisjoint(one.ids) for query, one in zip(half, rankings, strict=True)]))

    assert measured["queries"] == len(half) == 20
    assert before == 100 * share_in_pool(1)
    for weight in WEIGHTS:
        with_oracle, undecided = measured["judges"]["local"][weight], measured["judges"]["attributes"][weight]
        assert with_oracle["metrics"]["recall@1"] == 100 * share_in_pool() > before
        assert with_oracle["gain"]["difference"] == pytest.approx(with_oracle["metrics"]["recall@1"] - before)
        assert undecided == {"metrics": measured["without"]["metrics"], "gain": {"difference": 0, "low": 0, "high": 0, "p": 1}}
    steps = {name: step["metrics"]["recall@1"] for name, step in measured["ablation"].items()}
    assert list(steps) == ["global", "+ roles", "+ local"]
    assert steps["+ local"] == 100 * share_in_pool(composer="roles", weights="base") > steps["+ roles"]
    assert measured["ablation"]["+ local"]["gain"]["difference"] == pytest.approx(steps["+ local"] - steps["+ roles"])


def test_the_last_step_is_one_search_with_roles_and_the_judge(retriever: mm.Retriever) -> None:
    query = {"reference_id": retriever.gallery.ids[0], "prompt": "in red", "k": 20, "composer": "roles", "weights": "base"}
    first, judged = retriever.search(**query), retriever.search(**query, judge="local")
    judge = LocalJudge(retriever.encoder, default_vocabulary(retriever.encoder))
    pictures = [{"image": picture} for picture in retriever.gallery.pictures(first.ids)]
    logits = judge_logits(judge, {"image": retriever.gallery.picture(query["reference_id"]), "text": query["prompt"]}, pictures)
    expected = rerank(first, logits)
    assert judged.ids == expected.ids != first.ids
    np.testing.assert_allclose(
        [hit.score for hit in judged], [hit.score for hit in expected], atol=1e-3
    )  # stored patches are float16


def test_the_best_of_one_patch_is_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark, retriever = load_benchmark("wardrobe"), mm.Retriever.open(mm.wardrobe.gallery_folder())
    vectors = retriever.gallery.vectors(benchmark.gallery_ids)
    monkeypatch.setattr(type(retriever.encoder), "encode_patches", lambda *_: vectors[:, np.newaxis])
    same = measure_first_stage(benchmark, retriever)
    assert same["best patches"] == same["whole images"] | {"gain": {"difference": 0, "low": 0, "high": 0, "p": 1}}
    worse = np.stack([vectors, np.roll(vectors, 1, axis=0)], axis=1)  # each image also has the patch of another one
    monkeypatch.setattr(type(retriever.encoder), "encode_patches", lambda *_: worse)
    assert measure_first_stage(benchmark, retriever)["best patches"]["gain"]["high"] < 0


def test_first_stage_table() -> None:
    worse = {"metrics": {"recall@1": 12.0, "recall@10": 47.0}, "gain": {"difference": -33.0, "low": -38.0, "high": -28.0}}
    steps = {"whole images": {"metrics": {"recall@1": 45.0, "recall@10": 96.0}}, "best patches": worse}
    assert first_stage_table({"wardrobe": {"first stage": steps}}).splitlines() == [
        "| the prompt is compared with | wardrobe, R@1 | wardrobe, gain of R@1 | wardrobe, R@10 |",
        "| --- | --- | --- | --- |",
        "| whole images | 45.0 | – | 96.0 |",
        "| best patches | 12.0 | -33.0 (-38.0 to -28.0) | 47.0 |",
    ]


def test_judges_table() -> None:
    without = {"metrics": {"recall@1": 48.0, "recall@10": 99.0}}
    judged = {"metrics": {"recall@1": 49.5, "recall@10": 98.0}, "gain": {"difference": 1.5, "low": -0.25, "high": 3.0}}
    study = {"queries": 250, "without": without, "judges": {"local": {"0.5": judged}}}
    assert judges_table({"wardrobe": study}).splitlines() == [
        "| judge | judge_weight | wardrobe, R@1 | wardrobe, gain of R@1 | wardrobe, R@10 |",
        "| --- | --- | --- | --- | --- |",
        "| none | – | 48.0 | – | 99.0 |",
        "| local | 0.5 | 49.5 | +1.5 (-0.2 to +3.0) | 98.0 |",
    ]


def test_ablation_table() -> None:
    better = {"metrics": {"recall@1": 42.5, "recall@10": 91.0}, "gain": {"difference": 2.5, "low": 0.5, "high": 4.0}}
    steps = {"global": {"metrics": {"recall@1": 40.0, "recall@10": 90.0}}, "+ roles": better}
    assert ablation_table({"wardrobe": {"ablation": steps}}).splitlines() == [
        "| scores | wardrobe, R@1 | wardrobe, gain of R@1 | wardrobe, R@10 |",
        "| --- | --- | --- | --- |",
        "| global | 40.0 | – | 90.0 |",
        "| + roles | 42.5 | +2.5 (+0.5 to +4.0) | 91.0 |",
    ]


def test_the_tables_in_the_guide_are_those_of_the_result() -> None:
    result = json.loads((ROOT / "results" / "judges.json").read_text(encoding="utf-8"))
    guide = (ROOT / "docs" / "guides" / "searching.md").read_text(encoding="utf-8")
    assert judges_table(result) in guide
    assert ablation_table(result) in guide
    assert first_stage_table(result) in guide
