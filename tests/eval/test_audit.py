"""The audit of what queries need: by hand, on the page, and in a run of the wardrobe."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.benchmarks import load_benchmark
from eval.report import build_report
from eval.report.audit import Audit, Need, audit_queries, split_metric
from eval.report.audit_view import select_queries, summarize_audit
from eval.report.bootstrap import correct_p_values, paired_interval
from eval.report.groups import ComparisonGroup, group_records
from eval.report.loading import read_records
from eval.report.tables import results_table
from eval.runs.compositions import MethodConfig, compose
from eval.runs.records import QueriesRecord
from eval.runs.run import SINGLE_TERMS, EvalRun
from eval.runs.weight_settings import BASE_SETTING
from mmretrieve import ComposerName, Parts, load_encoder
from tests.eval.test_report import IDS, Outcome, write_run

SOLVED, CLOSE, LOST = (100.0, 1), (0.0, 2), (0.0, 50)
RANKS = [(1, 9), (8, 1), (1, 1), (7, 9), (9, 9)]  # of the image alone, and of the prompt alone
NEEDS = [Need.IMAGE, Need.PROMPT, Need.EITHER, Need.BOTH, Need.UNSOLVED]


def with_single_terms(query: dict[str, Any]) -> dict[str, Any]:
    ranks = dict(zip(("image", "prompt"), RANKS[int(query["id"])], strict=True))
    return query | {
        "single_terms": {term: {"rank": rank, "hits": IDS[:3], "values": [100.0 * (rank == 1)]} for term, rank in ranks.items()}
    }


def write_audited(folder: Path, name: str, outcomes: list[Outcome], **more: Any) -> None:
    write_run(folder, name, outcomes, change=with_single_terms, **more)


def group_of(folder: Path) -> ComparisonGroup:
    (group,) = group_records(read_records(folder).runs, resamples=200)
    return group


def audit_of(group: ComparisonGroup, k: int | None = None) -> Audit:
    audit = audit_queries(group, k)
    assert audit is not None
    return audit


def test_needs_by_hand(tmp_path: Path) -> None:
    write_audited(tmp_path, "a", [SOLVED, CLOSE, SOLVED, SOLVED, CLOSE])
    audit = audit_of(group_of(tmp_path))
    assert (audit.k, list(audit.needs.values())) == (1, NEEDS)
    assert summarize_audit(audit) == (
        "At the first hit, 4 queries of 5 are solved, and 1 of these (25%) needs both the image and the prompt."
    )
    needs = list(audit_of(group_of(tmp_path), 2).needs.values())
    assert needs == [*NEEDS[:4], Need.BOTH]  # rank 2 is among the first 2 hits
    assert set(audit_of(group_of(tmp_path), 9).needs.values()) == {Need.EITHER}


def test_a_query_that_any_run_solves_needs_both(tmp_path: Path) -> None:
    write_audited(tmp_path, "a", [SOLVED, SOLVED, SOLVED, LOST, LOST], weighing="auto")
    write_run(tmp_path, "b", [LOST, LOST, LOST, SOLVED, LOST])  # a record of before single terms
    group = group_of(tmp_path)
    audit = audit_of(group)
    assert list(audit.needs.values()) == NEEDS
    assert split_metric(group.runs[0], "recall@1", audit) == dict(zip(Need, (100, 100, 100, 0, 0), strict=True))
    assert split_metric(audit.reference, "recall@1", audit, "image") == dict(zip(Need, (100, 0, 100, 0, 0), strict=True))
    assert audit.best_single("recall@1") == ("image", 40.0)
    assert results_table(group).single == ("40.0 (image)",)
    assert select_queries(group.runs[0], audit, Need.BOTH) == ()  # the best run does not solve it
    assert select_queries(group.runs[1], audit, Need.BOTH) == (("cirr", 3),)


def test_the_page_shows_needs_and_rankings_side_by_side(tmp_path: Path) -> None:
    write_audited(tmp_path, "a", [SOLVED, CLOSE, SOLVED, SOLVED, LOST])
    page = build_report(tmp_path, resamples=50)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "both needed 1 (20%)" in text
    assert re.search(r"Both needed .* image alone, rank 7 .* prompt alone, rank 9 .* captions, rank 1 ", text)
    assert re.search(r"captions 100\.0 0\.0 100\.0 100\.0 0\.0 image alone 100\.0 0\.0 100\.0 0\.0 0\.0", text)


def test_without_single_terms_there_is_no_audit(tmp_path: Path) -> None:
    write_run(tmp_path, "a", [SOLVED, LOST])
    assert audit_queries(group_of(tmp_path)) is None
    assert results_table(group_of(tmp_path)).single == ()
    page = build_report(tmp_path, resamples=50)
    assert "What queries need" not in page
    assert "best single term" not in page


def test_single_terms_have_a_value_for_each_metric(tmp_path: Path) -> None:
    write_audited(tmp_path, "a", [SOLVED] * 5)
    path = tmp_path / "a.queries.json"
    content = json.loads(path.read_text())
    content["parts"]["cirr"][2]["single_terms"]["image"]["values"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a\.queries\.json: parts, cirr\[2\], single_terms, image: 'values' should be"):
        read_records(tmp_path)


def test_a_run_records_what_composers_of_one_term_reach() -> None:
    bench = load_benchmark("wardrobe")
    small = replace(bench, queries=bench.queries[:12])
    encoder, rng = load_encoder("wardrobe"), np.random.default_rng(0)
    gallery = rng.normal(size=(len(small.gallery_ids), encoder.dim)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)

    def evaluate(composer: ComposerName) -> QueriesRecord:
        part = compose(small, gallery, encoder, MethodConfig(composer), Parts())
        return EvalRun("a", "wardrobe", encoder, MethodConfig(composer), BASE_SETTING, [part], {}).evaluate()[1]

    recorded = evaluate(ComposerName.SUM).parts["wardrobe"]
    for term in SINGLE_TERMS:
        for query, alone in zip(recorded, evaluate(term).parts["wardrobe"], strict=True):
            single = query.single_terms[term]
            assert alone.target is not None
            assert (single.rank, single.values) == (alone.target.rank, alone.values)
            assert single.hits == tuple(hit.id for hit in alone.hits)


def test_holm_by_hand_and_against_its_definition() -> None:
    assert correct_p_values([]) == []
    assert correct_p_values([0.5, 0.9]) == [1.0, 1.0]
    p = np.random.default_rng(1).random(30) ** 4
    corrected = correct_p_values(p.tolist())
    for level in np.linspace(0.01, 0.99, 50):  # step down: reject while p(i) ≤ level / (m − i)
        rejected = np.zeros(30, dtype=bool)
        for step, i in enumerate(np.argsort(p)):
            if p[i] > level / (30 - step):
                break
            rejected[i] = True
        assert (np.array(corrected) <= level).tolist() == rejected.tolist()


def test_p_values_are_those_of_the_paired_z_test() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.15, 1, 400), rng.normal(0, 1, 400)
    interval, d = paired_interval(a, b), a - b
    assert interval.p == pytest.approx(math.erfc(abs(d.mean()) / d.std() * math.sqrt(400 / 2)), rel=0.1)
    assert interval.reverse.p == interval.p
    assert paired_interval(a, a).p == 1.0


def test_a_difference_of_two_runs_can_be_lost_among_many(tmp_path: Path) -> None:
    outcomes = [SOLVED] * 8 + [LOST] * 30
    write_run(tmp_path, "a", outcomes, weighing="auto")
    write_run(tmp_path, "b", [LOST] * 5 + outcomes[5:])
    group = group_of(tmp_path)
    assert group.interval(*group.runs).is_significant  # alone
    for i in range(4):
        write_run(tmp_path, f"c{i}", [LOST] * (4 + i) + outcomes[4 + i :], weighing=f"c{i}")
    group = group_of(tmp_path)
    runs = {run.name: run for run in group.runs}
    interval = group.interval(runs["a"], runs["b"])
    assert interval.low > 0
    assert not interval.is_significant  # one of 15 pairs
