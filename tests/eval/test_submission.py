"""Submissions: every rule of the servers, atomic writes, and whole submissions for the hidden splits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mmretrieve as mm
from eval import Benchmark, BenchmarkQuery, load_benchmark
from eval.benchmarks import circo, cirr
from eval.lists.files import ListKind, read_lists
from eval.lists.score import check_lists
from eval.lists.submission import Rankings, rank_candidate_ids, rank_ids, submission_files, write_submission
from mmretrieve.errors import OptionError

NAMES = tuple(f"test1-{n}" for n in range(60))
RECALL, SUBSET, CIRCO = "cirr_test1_recall.json", "cirr_test1_recall_subset.json", "circo_test.json"


def small_cirr() -> Benchmark:
    queries = tuple(
        BenchmarkQuery(str(70 + n), NAMES[n], ("in red",), candidates=tuple(NAMES[n + 1 : n + 6])) for n in range(3)
    )
    return Benchmark("cirr", "test1", NAMES, queries, Path, cirr.PROTOCOL)


def small_circo() -> Benchmark:
    queries = tuple(BenchmarkQuery(str(n), str(500 + n), ("in red",)) for n in range(3))
    return Benchmark("circo", "test", tuple(str(500 + n) for n in range(60)), queries, Path, circo.PROTOCOL)


def of_scores(benchmark: Benchmark, seed: int = 0) -> tuple[dict[str, list[str]], dict[str, list[str]] | None]:
    """Rankings of random scores, and those of the subsets where there are any."""
    rng, whole, subsets = np.random.default_rng(seed), {}, {}
    for query in benchmark.queries:
        scores = rng.random(len(benchmark.gallery_ids))
        whole[query.id] = rank_ids(benchmark, query, scores)
        if query.candidates is not None:
            subsets[query.id] = rank_candidate_ids(benchmark, query, scores)
    return whole, subsets or None


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_rankings_of_scores_by_hand() -> None:
    benchmark = small_cirr()
    query = benchmark.queries[0]  # its reference is the first name, its candidates the next five
    scores = np.zeros(60)
    scores[[0, 3, 5, 40]] = [9, 7, 8, 8]
    rest = [name for i, name in enumerate(NAMES) if i not in (0, 3, 5, 40)]
    assert rank_ids(benchmark, query, scores) == [NAMES[5], NAMES[40], NAMES[3], *rest[:47]]  # ties in the gallery's order
    assert rank_candidate_ids(benchmark, query, scores) == [NAMES[5], NAMES[3], NAMES[1]]
    backwards = replace(query, candidates=(query.candidates or ())[::-1])
    assert rank_candidate_ids(benchmark, backwards, scores) == [NAMES[5], NAMES[3], NAMES[1]]
    circo = small_circo()
    assert rank_ids(circo, circo.queries[0], scores)[:4] == ["500", "505", "540", "503"]
    assert len(rank_ids(circo, circo.queries[0], scores)) == 50
    with pytest.raises(OptionError, match="circo test has no subsets to rank"):
        rank_candidate_ids(circo, circo.queries[0], scores)
    with pytest.raises(mm.MMRetrieveError, match=r"cirr test1: expected 60 scores for each query, got \(59,\)"):
        rank_ids(benchmark, query, scores[:59])


def test_files_of_cirr() -> None:
    rankings, subsets = of_scores(small_cirr())
    files = submission_files(small_cirr(), rankings, subsets)
    assert list(files) == [RECALL, SUBSET]
    assert json.loads(files[RECALL]) == {"version": "rc2", "metric": "recall", **rankings}
    assert json.loads(files[SUBSET]) == {"version": "rc2", "metric": "recall_subset", **(subsets or {})}
    assert files[SUBSET].startswith('{"version":"rc2","metric":"recall_subset","70":["test1-')  # no byte too many
    backwards = dict(reversed(rankings.items()))
    assert submission_files(small_cirr(), backwards, subsets)[RECALL] == files[RECALL]


def test_the_file_of_circo_has_numbers() -> None:
    rankings, _ = of_scores(small_circo())
    files = submission_files(small_circo(), rankings)
    assert list(files) == [CIRCO]
    assert json.loads(files[CIRCO]) == {query: [int(id_) for id_ in ids] for query, ids in rankings.items()}


def first(rankings: Rankings, ids: list[str]) -> dict[str, list[str]]:
    """The rankings with other ids for the first query."""
    return {**{query: list(ids) for query, ids in rankings.items()}, "70": ids}


def test_every_rule_of_cirr() -> None:
    benchmark = small_cirr()
    rankings, subsets = of_scores(benchmark)
    assert subsets is not None
    good, own = rankings["70"], subsets["70"]
    other = next(name for name in NAMES if name not in (*good, NAMES[0]))
    refused = [
        ({k: v for k, v in rankings.items() if k != "72"}, subsets, f"{RECALL}, query 72: has no list"),
        ({**rankings, "73": good}, subsets, f"{RECALL}, query 73: not a query of cirr test1"),
        (first(rankings, good[:49]), subsets, f"{RECALL}, query 70: expected exactly 50 ids, got 49"),
        (first(rankings, [*good, other]), subsets, f"{RECALL}, query 70: expected exactly 50 ids, got 51"),
        (first(rankings, [*good[:49], good[0]]), subsets, f"'{good[0]}' occurs twice"),
        (first(rankings, [*good[:49], "test1-0.png"]), subsets, "'test1-0.png' is not in the gallery of cirr test1"),
        (first(rankings, [*good[:49], NAMES[0]]), subsets, "query 70: the reference 'test1-0' is in its own ranking"),
        (first(rankings, [*good, NAMES[0]]), subsets, "query 70: the reference 'test1-0' is in its own ranking"),
        (rankings, first(subsets, own[:2]), f"{SUBSET}, query 70: expected exactly 3 ids, got 2"),
        (rankings, first(subsets, [*own[:2], NAMES[0]]), f"{SUBSET}, query 70: the reference 'test1-0' is in its own"),
        (rankings, first(subsets, [*own[:2], NAMES[50]]), "'test1-50' is not one of the query's candidates"),
        (rankings, first(subsets, list(benchmark.queries[0].candidates or ())), "expected exactly 3 ids, got 5"),
        (rankings, {k: v for k, v in subsets.items() if k != "71"}, f"{SUBSET}, query 71: has no list"),
    ]
    for whole, members, message in refused:
        with pytest.raises(mm.MMRetrieveError, match=message):
            submission_files(benchmark, whole, members)


def test_every_rule_of_circo() -> None:
    rankings, _ = of_scores(small_circo())
    good = rankings["0"]
    for ids, message in [
        (good[:49], "circo_test.json, query 0: expected exactly 50 ids, got 49"),
        ([*good[:49], good[1]], f"'{good[1]}' occurs twice"),
        ([*good[:49], "7"], "'7' is not in the gallery"),
    ]:
        with pytest.raises(mm.MMRetrieveError, match=message):
            submission_files(small_circo(), {**rankings, "0": ids})
    with pytest.raises(mm.MMRetrieveError, match="query 2: has no list"):
        submission_files(small_circo(), {"0": good, "1": good})


def test_a_file_too_large_for_the_server_is_refused() -> None:
    long = tuple(f"{n:02}".ljust(40_000, "x") for n in range(60))
    queries = tuple(replace(q, reference=long[i], candidates=long[i + 1 : i + 6]) for i, q in enumerate(small_cirr().queries))
    benchmark = replace(small_cirr(), gallery_ids=long, queries=queries)
    with pytest.raises(mm.MMRetrieveError, match=rf"{RECALL}: 6,\d\d\d,\d\d\d bytes; the server takes at most 5,000,000"):
        submission_files(benchmark, *of_scores(benchmark))


def test_only_splits_that_a_server_scores_are_accepted() -> None:
    rankings, subsets = of_scores(small_cirr())
    with pytest.raises(OptionError, match="no server scores cirr val; there is one for: cirr test1, circo test"):
        submission_files(replace(small_cirr(), split="val"), rankings, subsets)
    with pytest.raises(OptionError, match="no server scores fashioniq:dress val"):
        submission_files(replace(small_cirr(), name="fashioniq:dress", split="val"), rankings)
    with pytest.raises(OptionError, match="the server of cirr takes a ranking of the subsets"):
        submission_files(small_cirr(), rankings)
    with pytest.raises(OptionError, match="the server of circo takes no ranking of the subsets"):
        submission_files(small_circo(), of_scores(small_circo())[0], subsets)


def test_files_are_written_completely_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "submission"
    old, new = (submission_files(small_cirr(), *of_scores(small_cirr(), seed)) for seed in (1, 2))
    assert write_submission(folder, old) == (folder / RECALL, folder / SUBSET)
    assert content(folder) == old
    assert read_lists(folder / RECALL).metric is ListKind.RECALL
    assert read_lists(folder / SUBSET).metric is ListKind.SUBSET
    with pytest.raises(UnicodeEncodeError):  # the second file fails when the first is ready
        write_submission(folder, {**new, SUBSET: "\ud800"})
    assert content(folder) == old
    write_submission(folder, new)
    assert content(folder) == new


def test_the_error_names_the_path_that_cannot_be_written(tmp_path: Path) -> None:
    files = submission_files(small_cirr(), *of_scores(small_cirr()))
    (tmp_path / "file").write_text("", encoding="utf-8")
    for below in ("file", "file/deeper"):
        with pytest.raises(mm.MMRetrieveError, match=f"{below}: the submission cannot be written"):
            write_submission(tmp_path / below, files)
    (tmp_path / "out" / SUBSET).mkdir(parents=True)
    with pytest.raises(mm.MMRetrieveError, match=f"{SUBSET} is a folder"):
        write_submission(tmp_path / "out", files)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [SUBSET]


@pytest.mark.shared_data
def test_a_whole_submission_to_cirr(shared: Path, tmp_path: Path) -> None:
    benchmark = load_benchmark("cirr", shared / "cirr", split="test1")
    write_submission(tmp_path, submission_files(benchmark, *of_scores(benchmark)))
    captions = json.loads((shared / "cirr/captions/cap.rc2.test1.json").read_text(encoding="utf-8"))
    names = set(json.loads((shared / "cirr/image_splits/split.rc2.test1.json").read_text(encoding="utf-8")))
    for file, metric, size in ((RECALL, "recall", 50), (SUBSET, "recall_subset", 3)):
        assert (tmp_path / file).stat().st_size <= 5e6
        content = json.loads((tmp_path / file).read_text(encoding="utf-8"))
        assert (content.pop("version"), content.pop("metric")) == ("rc2", metric)
        assert list(content) == [str(record["pairid"]) for record in captions]
        assert len(content) == 4148
        for record in captions:
            ids = content[str(record["pairid"])]
            among = names if size == 50 else set(record["img_set"]["members"])
            assert len(ids) == len(set(ids)) == size
            assert set(ids) <= among - {record["reference"]}
    check_lists(benchmark, read_lists(tmp_path / RECALL), exact=True)


@pytest.mark.shared_data
def test_a_whole_submission_to_circo(shared: Path, tmp_path: Path) -> None:
    benchmark = load_benchmark("circo", shared / "circo", split="test")
    (path,) = write_submission(tmp_path, submission_files(benchmark, *of_scores(benchmark)))
    content = json.loads(path.read_text(encoding="utf-8"))
    assert list(content) == [str(n) for n in range(800)]
    gallery_ids = {int(line) for line in (shared / "circo/unlabeled2017_ids.txt").read_text(encoding="utf-8").splitlines()}
    assert all(len(set(ids)) == len(ids) == 50 and set(ids) <= gallery_ids for ids in content.values())
