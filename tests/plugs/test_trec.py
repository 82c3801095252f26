"""Runs and qrels through ir_measures and ranx, on random runs of the size of CIRR's validation split."""

from __future__ import annotations

from pathlib import Path

import ir_measures
import numpy as np
import pytest
import ranx
from ir_measures import RR, Success, nDCG

from eval.lists.trec import measure_run, read_qrels, read_run
from mmretrieve import Hit, Ranking
from mmretrieve.ranking.trec import run_lines

QUERIES, ITEMS, DEPTH = 4181, 2297, 50


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with many equal scores, and qrels with one target a query."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("trec")
    rankings, qrels = {}, []
    for query in range(QUERIES):
        items = rng.choice(ITEMS, DEPTH, replace=False)
        scores = np.sort(rng.normal(size=DEPTH).round(1))[::-1]
        hits = tuple(
            Hit(at, f"item {item}", float(score), {}) for at, (item, score) in enumerate(zip(items, scores, strict=True), 1)
        )
        rankings[f"q{query}"] = Ranking(hits, DEPTH, ITEMS, {})
        target = items[min(DEPTH - 1, rng.geometric(0.05))] if rng.random() < 0.8 else rng.integers(ITEMS)
        qrels.append(f"q{query} 0 item%20{target} 1\n")
    (folder / "run").write_text("".join(f"{line}\n" for line in run_lines(rankings)))
    (folder / "qrels").write_text("".join(qrels))
    return folder / "run", folder / "qrels"


def test_ir_measures_gives_the_same_numbers(files: tuple[Path, Path]) -> None:
    own = measure_run(read_run(files[0]), read_qrels(files[1]))
    run, qrels = ir_measures.read_trec_run(str(files[0])), ir_measures.read_trec_qrels(str(files[1]))
    names = {RR: "mrr", nDCG @ 10: "ndcg@10"} | {Success @ k: f"recall@{k}" for k in (1, 5, 10, 50)}
    measured = ir_measures.calc_aggregate(names, qrels, run)
    assert {names[measure]: 100 * value for measure, value in measured.items()} == pytest.approx(
        {name: own[name] for name in names.values()}, abs=1e-10
    )
    assert 20 < own["recall@10"] < 80


def test_ranx_gives_the_same_numbers(files: tuple[Path, Path]) -> None:
    own = measure_run(read_run(files[0]), read_qrels(files[1]))
    names = {"mrr": "mrr", "ndcg@10": "ndcg@10"} | {f"hit_rate@{k}": f"recall@{k}" for k in (1, 5, 10, 50)}
    run, qrels = ranx.Run.from_file(str(files[0]), kind="trec"), ranx.Qrels.from_file(str(files[1]), kind="trec")
    measured = ranx.evaluate(qrels, run, list(names))
    assert {names[name]: 100 * float(value) for name, value in measured.items()} == pytest.approx(
        {name: own[name] for name in names.values()}, abs=1e-10
    )
