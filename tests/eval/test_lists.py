"""Ranked lists: the forms that are read, the rules, and metrics by formula, also on released annotations."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from eval import Benchmark, BenchmarkQuery, load_benchmark
from eval.benchmarks.base import Protocol
from eval.lists.files import ListKind, RankedLists, read_lists
from eval.lists.score import check_lists, measure_lists, score_lists
from mmretrieve.errors import OptionError

CIRR = Protocol(headline="recall@1", recalls=(1, 4), subset_recalls=(1, 2))
IDS = ("a", "b", "c", "d", "e", "f")


def small(protocol: Protocol = CIRR, **changes: Any) -> Benchmark:
    """Two queries over six ids; of the second the third candidate is right."""
    queries = (
        BenchmarkQuery("10", "a", ("in red",), ("b",), candidates=("b", "c", "d")),
        BenchmarkQuery("11", "f", ("in blue",), ("e",), candidates=("c", "d", "e")),
    )
    return replace(Benchmark("small", "val", IDS, queries, Path, protocol), **changes)


WHOLE = {"10": ["c", "b", "d", "e"], "11": ["e", "a", "b", "c"]}
SUBSET = {"version": "rc2", "metric": "recall_subset", "10": ["c", "b"], "11": ["d", "c"]}
FULL = {"10": ["a", "c", "b", "d", "e", "f"], "11": ["f", "d", "a", "b", "c", "e"]}


def saved(folder: Path, content: object, name: str = "lists.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def scored(folder: Path, *contents: object, benchmark: Benchmark | None = None) -> dict[str, float]:
    files = [read_lists(saved(folder, content, f"{i}.json")) for i, content in enumerate(contents)]
    return score_lists(benchmark or small(), *files)


def test_lists_are_measured_by_the_benchmarks_own_protocol(tmp_path: Path) -> None:
    recalls = {"recall@1": 100 * (0 + 1) / 2, "recall@4": 100 * (1 + 1) / 2}
    subset = {"recall_subset@1": 0.0, "recall_subset@2": 100 * (1 + 0) / 2}
    assert scored(tmp_path, WHOLE) == recalls  # a subset's ranking is not guessed: "11" does not name "d"
    assert scored(tmp_path, WHOLE | {"version": "rc2", "metric": "recall"}) == recalls
    assert scored(tmp_path, SUBSET) == subset
    assert scored(tmp_path, WHOLE, SUBSET) == scored(tmp_path, SUBSET, WHOLE) == recalls | subset
    with_references = SUBSET | {"10": ["a", "c", "b"], "11": ["d", "f", "c"]}
    assert scored(tmp_path, with_references) == subset
    full = {"recall@1": 0.0, "recall@4": 100 * (1 + 0) / 2} | subset
    assert scored(tmp_path, FULL) == full
    ahead = SUBSET | {"10": ["b", "c"]}
    assert scored(tmp_path, FULL, ahead) == full | {"recall_subset@1": 50.0}  # the file of subset rankings goes first


def test_a_kept_reference_is_ranked(tmp_path: Path) -> None:
    kept = small(Protocol(headline="recall@1", recalls=(1, 3), precisions=(3,), keeps_reference=True))
    lists = {"10": ["a", "b", "c"], "11": ["c", "f", "e"]}
    values = {"recall@1": 0.0, "recall@3": 100.0, "map@3": 100 * (1 / 2 + 1 / 3) / 2}
    assert scored(tmp_path, lists, benchmark=kept) == pytest.approx(values)
    short = r"query 10 \(as with 1 other\): expected at least 3 ids, got 2 besides the reference$"
    with pytest.raises(mm.MMRetrieveError, match=short):
        scored(tmp_path, lists, benchmark=replace(kept, protocol=replace(kept.protocol, keeps_reference=False)))


def test_candidates_alone_are_ranked(tmp_path: Path) -> None:
    alone = small(Protocol(headline="recall@1", recalls=(1, 2), keeps_reference=True, candidates_alone=True))
    assert scored(tmp_path, {"10": ["b", "c"], "11": ["d", "e", "c"]}, benchmark=alone) == {"recall@1": 50, "recall@2": 100}
    for wrong in ("a", "f"):  # its reference, and somebody else's
        with pytest.raises(mm.MMRetrieveError, match=f"query 10: '{wrong}' is not one of the query's candidates"):
            scored(tmp_path, {"10": ["b", wrong], "11": ["d", "e"]}, benchmark=alone)
    with pytest.raises(mm.MMRetrieveError, match=r"query 11: expected at least 2 ids, got 1$"):
        scored(tmp_path, {"10": ["b", "c"], "11": ["d"]}, benchmark=alone)
    with pytest.raises(OptionError, match=r"0\.json and .*1\.json are for the same metrics of small: expected one file"):
        scored(tmp_path, WHOLE, WHOLE, benchmark=alone)


def test_records_in_the_order_of_the_queries(tmp_path: Path) -> None:
    queries = tuple(replace(query, id=str(i)) for i, query in enumerate(small().queries))
    benchmark = small(Protocol(headline="recall@1", recalls=(1,), keeps_reference=True), queries=queries)
    records = [{"candidate": "a", "captions": ["x"], "ranking": ["b"]}, {"candidate": "f", "captions": [], "ranking": ["a"]}]
    assert scored(tmp_path, records, benchmark=benchmark) == {"recall@1": 50}
    refused = {
        r"query 0 \(as with 1 other\): the record's candidate is 'f', the query's reference 'a'": records[::-1],
        r"query 1: has no list; it is a query of small val, which has 2": records[:1],
        r"query 2: not a query of small val": [*records, records[0]],
        r"record 2: there is no field 'candidate'": [records[0], {"ranking": ["a"]}],
        r"query 1: expected a list of ids, best first, not None": [records[0], {"candidate": "f"}],
    }
    for message, content in refused.items():
        with pytest.raises(mm.MMRetrieveError, match=message):
            scored(tmp_path, content, benchmark=benchmark)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"10": ["a", ', ", line 1.*: not JSON"),
        ('{"10": ["a"], "10": ["b"]}', "'10' occurs twice"),
        ([], r"expected \{query id: .*, not \[\]"),
        (["a"], r"expected \{query id: .*, not \['a'\]"),
        ("3", r"expected \{query id: .*, not 3"),
        ({}, "it contains no lists; expected"),
        ({"version": "rc2", "metric": "recall"}, "it contains no lists; expected"),
        (
            {"10": {"b": 0.5}, "11": {"c": 1}},
            r"query 10 \(as with 1 other\): expected a list of ids, best first, not \{'b': 0.5\}",
        ),
        ({"10": ["b"], "11": "c"}, "query 11: expected a list of ids, best first, not 'c'"),
        ({"10": ["b", 0.5]}, r"query 10: expected ids \(texts or whole numbers\), not 0.5"),
        ({"10": ["b", True]}, "not True"),
        ({"10": ["b", None]}, "not None"),
        (WHOLE | {"version": "rc1", "metric": "recall"}, '"version" should be "rc2", not \'rc1\''),
        (WHOLE | {"version": "rc2"}, '"metric" should be one of recall, recall_subset, not None'),
        (WHOLE | {"metric": "map"}, "\"metric\" should be one of recall, recall_subset, not 'map'"),
        (WHOLE | {"metric": ["recall"]}, '"metric" should be one of'),
    ],
)
def test_files_of_another_form_are_refused(content: object, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(mm.MMRetrieveError, match=f"^{re.escape(str(path))}.*{message}") as caught:
        read_lists(path)
    assert "\n" not in str(caught.value)


def test_the_error_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(mm.MMRetrieveError, match=r"nowhere\.json: cannot be read \(No such file"):
        read_lists(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"10": WHOLE["10"]}, r", query 11: has no list; it is a query of small val, which has 2: is the file incomplete"),
        (
            WHOLE | {"9": ["a"]},
            ", query 9: not a query of small val, which has 2: does the file belong to another split or benchmark?",
        ),
        ({"1": [], "2": [], "3": []}, r", query 1 \(as with 2 others\): not a query of small val"),
        (
            WHOLE | {"11": ["e", "a", "b.png", "c"]},
            "query 11: 'b.png' is not in the gallery of small val, whose ids look like 'a'",
        ),
        (WHOLE | {"10": ["c", "b", 7, "e"]}, "query 10: '7' is not in the gallery"),
        (WHOLE | {"10": ["c", "b", "d", "e", "c"]}, "query 10: 'c' occurs twice"),
        (WHOLE | {"10": ["c", "b", "e"]}, "query 10: expected at least 4 ids, got 3$"),
        (WHOLE | {"10": ["a", "c", "b", "e"]}, "query 10: expected at least 4 ids, got 3 besides the reference$"),
        (WHOLE | {"10": []}, "query 10: expected at least 4 ids, got 0"),
        (SUBSET | {"10": ["c", "e"]}, "query 10: 'e' is not one of the query's candidates"),
        (SUBSET | {"10": ["a", "c"]}, "query 10: expected at least 2 ids, got 1 besides the reference"),
        (
            {name: SUBSET[name] for name in ("10", "11")},
            'query 10 .as with 1 other.: expected at least 4 ids, got 2; a file of subset rankings has "metric": "recall_subset"',
        ),
    ],
)
def test_lists_that_do_not_fit_are_refused(content: object, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(mm.MMRetrieveError, match=f"^{re.escape(str(path))}.*{message}") as caught:
        score_lists(small(), read_lists(path))
    assert "\n" not in str(caught.value)


def test_lists_that_determine_no_metric_are_refused(tmp_path: Path) -> None:
    both = r"0\.json and .*1\.json are for the same metrics of small: expected one each of recall and recall_subset"
    with pytest.raises(OptionError, match=both):
        scored(tmp_path, WHOLE, FULL)
    with pytest.raises(OptionError, match="there are no lists of small to score"):
        score_lists(small())
    plain = small(Protocol(headline="recall@1", recalls=(1,)))
    with pytest.raises(
        mm.MMRetrieveError, match=r'0\.json has "metric": "recall", as files for CIRR do, but was given for small val'
    ):
        scored(tmp_path, WHOLE | {"metric": "recall"}, benchmark=plain)
    hidden = small(queries=tuple(replace(query, targets=()) for query in small().queries))
    with pytest.raises(mm.MMRetrieveError, match="the targets of small val are not public"):
        scored(tmp_path, FULL, benchmark=hidden)
    deep = small(Protocol(headline="recall@7", recalls=(7,)))
    with pytest.raises(mm.MMRetrieveError, match="k = 7 is larger than the ranking of 5 items"):
        scored(tmp_path, FULL, benchmark=deep)
    with pytest.raises(mm.MMRetrieveError, match=r"expected at least 5 ids, got 4"):  # all there are, where k asks for more
        scored(tmp_path, WHOLE, benchmark=deep)


def full_rankings(benchmark: Benchmark, scores: np.ndarray) -> dict[str, list[str]]:
    ids = np.array(benchmark.gallery_ids, dtype=object)
    return {query.id: ids[np.argsort(-row)].tolist() for query, row in zip(benchmark.queries, scores, strict=True)}


@pytest.mark.shared_data
def test_full_rankings_of_cirr_val_agree_with_their_scores(shared: Path) -> None:
    benchmark = load_benchmark("cirr", shared / "cirr", split="val")
    scores = np.random.default_rng(5).random((len(benchmark.queries), len(benchmark.gallery_ids)))
    for row, query in zip(scores, benchmark.queries, strict=True):
        row[benchmark.id2row[query.targets[0]]] += 0.6
    lists = full_rankings(benchmark, scores)
    result = measure_lists(benchmark, RankedLists("memory", lists))
    np.testing.assert_array_equal(result, benchmark.measure_scores(scores))
    assert len(set(benchmark.mean_metrics(result).values())) == 7
    cut = {query.id: [id_ for id_ in lists[query.id] if id_ != query.reference][:50] for query in benchmark.queries}
    members = {query.id: [id_ for id_ in lists[query.id] if id_ in (query.candidates or ())][:3] for query in benchmark.queries}
    both = RankedLists("one", cut, ListKind.RECALL), RankedLists("other", members, ListKind.SUBSET)
    np.testing.assert_array_equal(measure_lists(benchmark, *both), result)
    alone = score_lists(benchmark, both[0])
    assert alone == {
        name: value for name, value in benchmark.mean_metrics(result).items() if not name.startswith("recall_subset")
    }
    query = benchmark.queries[3]
    with_reference = cut | {query.id: [query.reference, *cut[query.id][:49]]}
    with pytest.raises(mm.MMRetrieveError, match=f"query {query.id}: expected at least 50 ids, got 49 besides the reference"):
        check_lists(benchmark, RankedLists("memory", with_reference))


@pytest.mark.shared_data
def test_circo_val_by_formula(shared: Path, tmp_path: Path) -> None:
    benchmark = load_benchmark("circo", shared / "circo", split="val")
    filler = [int(id_) for id_ in benchmark.gallery_ids[:200]]
    lists, numbers = {}, []
    for query in benchmark.queries:
        targets = [int(id_) for id_ in query.targets]
        others = [id_ for id_ in filler if id_ not in targets]
        lists[query.id] = [others[0], *targets, *others[1:]][:50]  # all one place too low, the first target first
        numbers.append(len(targets))
    result = scored(tmp_path, lists, benchmark=benchmark)
    for k in (5, 10, 25, 50):
        expected = [sum(i / (i + 1) for i in range(1, n + 1) if i + 1 <= k) / min(n, k) for n in numbers]
        assert result[f"map@{k}"] == pytest.approx(100 * sum(expected) / len(numbers))
        assert result[f"recall@{k}"] == 100
    negation = [n for n, query in zip(numbers, benchmark.queries, strict=True) if "negation" in query.tags]
    expected = [sum(i / (i + 1) for i in range(1, n + 1) if i + 1 <= 10) / min(n, 10) for n in negation]
    assert result["map@10/negation"] == pytest.approx(100 * sum(expected) / len(negation))
    assert len(result) == 4 + 4 + 9
    test = load_benchmark("circo", shared / "circo", split="test")
    with pytest.raises(mm.MMRetrieveError, match=r"query 220 \(as with 579 others\): has no list; it is a query of circo test"):
        scored(tmp_path, lists, benchmark=test)
    with pytest.raises(mm.MMRetrieveError, match=r"query 219: expected at least 50 ids, got 49$"):
        scored(tmp_path, lists | {"219": lists["219"][:49]}, benchmark=benchmark)


@pytest.mark.shared_data
def test_fashioniq_in_its_own_form(shared: Path, tmp_path: Path) -> None:
    benchmark = load_benchmark("fashioniq:dress", shared / "fashioniq")
    records = json.loads((shared / "fashioniq/captions/cap.dress.val.json").read_text(encoding="utf-8"))
    rankings = []
    for i, record in enumerate(records):
        others = [id_ for id_ in benchmark.gallery_ids[:51] if id_ != record["target"]]
        place = (0, 9, 10, 49, 50)[i % 5]
        ranking = [*others[:place], record["target"], *others[place:]][:50]
        rankings.append({"candidate": record["candidate"], "captions": record["captions"], "ranking": ranking})
    n = len(records)
    at_10 = sum(i % 5 in (0, 1) for i in range(n))
    at_50 = sum(i % 5 != 4 for i in range(n))
    assert scored(tmp_path, rankings, benchmark=benchmark) == pytest.approx(
        {"recall@10": 100 * at_10 / n, "recall@50": 100 * at_50 / n}
    )
    by_place = {str(i): record["ranking"] for i, record in enumerate(rankings)}
    assert scored(tmp_path, by_place, benchmark=benchmark) == scored(tmp_path, rankings, benchmark=benchmark)
    with pytest.raises(mm.MMRetrieveError, match="are the records in the order of the queries"):
        scored(tmp_path, rankings[::-1], benchmark=benchmark)
    with pytest.raises(mm.MMRetrieveError, match=r"query 2017 \(as with 20 others\): has no list"):
        scored(tmp_path, by_place, benchmark=load_benchmark("fashioniq:shirt", shared / "fashioniq"))


@pytest.mark.shared_data
def test_genecis_by_formula(shared: Path) -> None:
    benchmark = load_benchmark("genecis:change_object", shared / "genecis")
    lists = {}
    for i, query in enumerate(benchmark.queries):
        others = [id_ for id_ in dict.fromkeys(query.candidates or ()) if id_ not in query.targets]
        lists[query.id] = [*others[: i % 4], *query.targets, *others[i % 4 :]][: 3 + i % 3]
    result = score_lists(benchmark, RankedLists("memory", lists))
    n = len(benchmark.queries)
    assert result == pytest.approx({f"recall@{k}": 100 * sum(i % 4 < k for i in range(n)) / n for k in (1, 2, 3)})
    other = load_benchmark("genecis:focus_object", shared / "genecis")
    with pytest.raises(mm.MMRetrieveError, match=r"memory, query \d+ \(as with \d+ others\): '\d+' is not"):
        score_lists(other, RankedLists("memory", lists))


@pytest.mark.shared_data
def test_a_real_submission_is_read_and_mixed_up_splits_are_detected(shared: Path) -> None:
    lists = read_lists(shared / "cirr" / "test1_pred_ranks_recall_subset.json")
    assert lists.metric is ListKind.SUBSET
    benchmark = load_benchmark("cirr", shared / "cirr", split="test1")
    check_lists(benchmark, lists, exact=True)
    with pytest.raises(mm.MMRetrieveError, match="the targets of cirr test1 are not public: `submit` writes"):
        score_lists(benchmark, lists)
    mixed = (
        r"query 12063 \(as with 4147 others\): not a query of cirr val, which has 4181: does the file belong to another split"
    )
    with pytest.raises(mm.MMRetrieveError, match=mixed):
        score_lists(load_benchmark("cirr", shared / "cirr", split="val"), lists)


def test_deeply_nested_lists_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "deep.json"
    file.write_text("[" * 100_000)
    with pytest.raises(mm.MMRetrieveError, match=r"deep\.json: not JSON that can be read \(nested too deeply\)"):
        read_lists(file)
