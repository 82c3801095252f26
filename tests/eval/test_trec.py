"""Runs and qrels of TREC: what is written comes back with the same metrics, and what is wrong is one line."""

from __future__ import annotations

from math import log2
from pathlib import Path

import numpy as np
import pytest

from eval.benchmarks import load_benchmark
from eval.cli.main import main
from eval.lists.files import read_lists
from eval.lists.score import score_lists
from eval.lists.trec import is_run, measure_run, qrels_lines, read_qrels, read_run, run_lines
from eval.metrics import UNRANKED, ndcg_at, reciprocal_rank_at
from mmretrieve import MMRetrieveError


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_benchmark_comes_back_from_run_and_qrels(tmp_path: Path) -> None:
    benchmark = load_benchmark("wardrobe")
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(len(benchmark.queries), len(benchmark.gallery_ids))).round(1)  # many are equal
    for query, row in zip(benchmark.queries, scores, strict=True):
        row[[benchmark.id2row[target] for target in query.targets[:2]]] += rng.integers(0, 5)
    run = written(tmp_path / "run.trec", "".join(f"{line}\n" for line in run_lines(benchmark, scores)))
    qrels = written(tmp_path / "qrels", "".join(f"{line}\n" for line in qrels_lines(benchmark)))
    assert is_run(run)
    lists = read_run(run)
    for query, row in zip(benchmark.queries, scores, strict=True):
        expected = [benchmark.gallery_ids[i] for i in benchmark.top_rows(query, row, benchmark.depth)]
        assert list(lists.lists[query.id]) == expected, "ties are not broken again"
    own, by_qrels = score_lists(benchmark, lists), measure_run(lists, read_qrels(qrels))
    assert 5 < own["recall@10"] < 100
    for name in ("recall@1", "recall@5", "recall@10", "map@10"):
        assert by_qrels[name] == pytest.approx(own[name], abs=1e-12)
    assert "recall@50" not in by_qrels, "no list is as long"


@pytest.mark.parametrize("ranks", [[1], [3], [1, 3], [2, 9, 10, 40], [UNRANKED], [5, UNRANKED]])
def test_measures_are_their_definitions(ranks: list[int]) -> None:
    gain = sum(1 / log2(rank + 1) for rank in ranks if rank <= 10) / sum(1 / log2(at + 1) for at in range(1, len(ranks) + 1))
    assert ndcg_at(np.array(ranks), 10) == pytest.approx(100 * gain, abs=1e-12)
    assert reciprocal_rank_at(np.array(ranks), 10) == pytest.approx(100 / ranks[0] if ranks[0] <= 10 else 0, abs=1e-12)


def test_ideal_gains_end_at_k() -> None:
    assert ndcg_at(np.arange(1, 31), 10) == pytest.approx(100)
    np.testing.assert_allclose(ndcg_at(np.array([[1, 2], [2, 3]]), 1), [100, 0])


def test_equal_scores_are_ordered_as_trec_eval_does(tmp_path: Path) -> None:
    run = read_run(written(tmp_path / "r", "q Q0 a 1 1 x\nq Q0 c 9 1 x\nq Q0 b 2 1.5 x\n"))
    assert run.lists == {"q": ["b", "c", "a"]}


def test_the_shell_reads_and_writes_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, qrels = tmp_path / "run.trec", tmp_path / "qrels"
    assert main(["run", "wardrobe", "--composer", "sum", "--out", str(tmp_path / "out"), "--trec", str(run), "--json"]) == 0
    assert main(["qrels", "wardrobe", "--out", str(qrels)]) == 0
    capsys.readouterr()
    assert main(["score", "--run", str(run), "--qrels", str(qrels)]) == 0
    by_qrels = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert main(["score", "wardrobe", "--predictions", str(run)]) == 0
    own = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert by_qrels.items() >= {name: own[name] for name in ("recall@1", "recall@10", "map@10")}.items()
    assert {"mrr", "ndcg@10"} < by_qrels.keys()


@pytest.mark.parametrize(
    ("run", "qrels", "message"),
    [
        ("q Q0 a 1 1 x\nq Q0 a 2 0.5 x", "q 0 a 1", "run, query q: 'a' occurs twice"),
        ("q Q0 a 1 1 x\nr Q0 a 1 1 x", "q 0 a 1", "run, query r: not a query of the qrels"),
        ("q Q0 a 1 1 x", "q 0 a 1\nr 0 a 1", "run, query r: has no list; it is a query of the qrels"),
        ("q Q0 a 1 1", "q 0 a 1", "run, line 1: expected `query Q0 item rank score name`, got 'q Q0 a 1 1'"),
        ("q Q0 a 1 high x", "q 0 a 1", "run, line 1: 'high' is not a finite number"),
        ("q Q0 a 1 nan x", "q 0 a 1", "run, line 1: 'nan' is not a finite number"),
        ("", "q 0 a 1", "run: it contains no lines; expected `query Q0 item rank score name`"),
        ("q Q0 a 1 1 x", "\n", "qrels: it contains no lines; expected `query 0 item relevance`"),
        ("q Q0 a 1 1 x", "q 0 a 0", "qrels, query q: has no relevant item"),
        ("q Q0 a 1 1 x", "q a 1", "qrels, line 1: expected `query 0 item relevance`, got 'q a 1'"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, run: str, qrels: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = written(tmp_path / "run", run), written(tmp_path / "qrels", qrels)
    assert main(["score", "--run", str(files[0]), "--qrels", str(files[1])]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_of_another_benchmark_is_named(tmp_path: Path) -> None:
    run = read_run(written(tmp_path / "run", "999 Q0 a 1 1 x"))
    with pytest.raises(MMRetrieveError, match="query 999: not a query of wardrobe test"):
        score_lists(load_benchmark("wardrobe"), run)
    assert not is_run(written(tmp_path / "lists.json", ' {"0": ["a"]}'))
    assert read_lists(tmp_path / "lists.json").lists == {"0": ("a",)}
    assert main(["score", "--run", str(tmp_path / "run")]) == 2


def test_what_no_run_can_be_read_from_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, problem in ((tmp_path, "is a folder"), (tmp_path / "none", "No such file or directory")):
        assert main(["score", "wardrobe", "--run", str(path)]) == 1
        assert capsys.readouterr().err == f"eval: {path}: cannot be read ({problem})\n"
