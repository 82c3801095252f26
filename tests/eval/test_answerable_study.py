"""The studies of `answerable` and `avoid`: cases, figures and fits that can be checked by hand."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

import mmretrieve as mm
from eval import load_benchmark
from eval.studies.answerable import CaseEvidence, measure_cases, measure_reliability, refit, summarize
from eval.studies.answerable_cases import (
    FOREIGN,
    FOREIGN_PROMPTS,
    PRESENT,
    REMOVED,
    composed_cases,
    find_satisfying,
    list_phrases,
    text_cases,
    two_prompt_cases,
)
from eval.studies.avoid import ATTRIBUTES, MAX_REFERENCES, measure_shares, sample_references
from eval.studies.calibration import auroc, draw_reliability, fit_logistic, predict_logistic
from eval.studies.tables import answerable_table, avoid_table
from mmretrieve import wardrobe
from mmretrieve.ranking import Ranking


def test_logistic_regression_recovers_the_odds() -> None:
    """At 0 one of four is right, at 1 three of four: log-odds −log 3 and log 3."""
    features = np.array([[0.0]] * 4 + [[1.0]] * 4)
    right = np.array([True, False, False, False, True, True, True, False])
    weights = fit_logistic(features, right, np.ones(8))
    assert weights == pytest.approx([2 * np.log(3), -np.log(3)], abs=0.03)  # the ridge keeps it a little smaller
    assert predict_logistic(np.array([[0.0], [1.0]]), np.array([2 * np.log(3), -np.log(3)])) == pytest.approx([0.25, 0.75])


def test_auroc_by_hand() -> None:
    assert auroc(np.array([3.0, 1.0]), np.array([2.0, 0.0])) == 3 / 4
    assert auroc(np.array([1.0]), np.array([1.0])) == 1 / 2


def test_satisfying_items_have_the_kind_and_the_changed_attributes() -> None:
    bench = load_benchmark("wardrobe")
    for query in bench.queries[:5]:
        ids = find_satisfying(bench, query)
        target = bench.fields[query.targets[0]]
        assert set(query.targets) <= set(ids)
        for id_, fields in bench.fields.items():
            same = fields["kind"] == target["kind"] and all(fields[name] == target[name] for name in query.tags)
            assert (id_ in ids) == same


def test_cases_of_a_query_exclude_different_items() -> None:
    bench = load_benchmark("wardrobe")
    present, removed, foreign = islice(composed_cases(bench, {bench.queries[0].reference: "a shirt"}), 3)
    query = bench.queries[0]
    assert (present.case, removed.case, foreign.case) == (PRESENT, REMOVED, FOREIGN)
    assert present.request == {
        "reference_id": query.reference,
        "prompt": query.prompts[0],
        "caption": "a shirt",
        "exclude": [query.reference],
    }
    assert set(removed.request["exclude"]) == {query.reference, *find_satisfying(bench, query)}
    assert foreign.request["prompt"] in FOREIGN_PROMPTS["wardrobe"]  # type: ignore[index]
    halves = [
        {c.request["prompt"] for c in composed_cases(bench) if c.case == FOREIGN and c.held_out == half}
        for half in (False, True)
    ]
    assert not halves[0] & halves[1]


def test_phrases_are_true_of_their_items() -> None:
    bench = load_benchmark("wardrobe")
    result = list_phrases(bench)
    assert {bench.fields[id_]["colour"] for id_ in result["red"]} == {"red"}
    assert {(bench.fields[id_]["colour"], bench.fields[id_]["kind"]) for id_ in result["navy dress"]} == {("navy", "dress")}
    assert [case.case for case in islice(text_cases(bench), 3)] == [PRESENT, REMOVED, FOREIGN]


def test_two_changes_in_one_prompt_and_in_two() -> None:
    one, two = next(two_prompt_cases(load_benchmark("wardrobe")))
    assert one.request["prompt"] == " and ".join(two.request["prompt"])
    assert len(two.request["prompt"]) == 2


def test_cases_are_measured_as_a_search_does(retriever: mm.Retriever) -> None:
    bench = load_benchmark("wardrobe")
    id_ = retriever.gallery.ids[0]
    case = next(composed_cases(bench))
    case = type(case)(PRESENT, False, {"reference_id": id_, "prompt": "in red", "exclude": [id_]})
    result = measure_cases(retriever, [case, case])
    ranking = retriever.search(reference_id=id_, prompt="in red", exclude=[id_], k=3)
    assert result.answerable == pytest.approx([ranking.answerable] * 2)
    lead, score = result.evidence[0]
    from mmretrieve.answerable import IMAGE_AND_PROMPT

    assert 1 / (1 + np.exp(-(IMAGE_AND_PROMPT[0] * lead + IMAGE_AND_PROMPT[1] * score + IMAGE_AND_PROMPT[2]))) == pytest.approx(
        ranking.answerable
    )


SMALL = CaseEvidence(
    np.array([PRESENT, PRESENT, REMOVED, FOREIGN, PRESENT, FOREIGN]),
    np.array([False, False, False, False, True, True]),
    np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [-2.0, 0.0]]),
    np.array([0.9, 0.2, 0.4, 0.1, 0.8, 0.6]),
)


def test_figures_by_hand() -> None:
    assert summarize(SMALL) == {
        "present": 3,
        "false alarms": pytest.approx(100 / 3),
        "AUROC, removed": pytest.approx(2 / 3),
        "misses, removed": 100,
        "AUROC, foreign": pytest.approx(5 / 6),
        "misses, foreign": 50,
    }
    assert summarize(SMALL, held_out=True) == {"present": 1, "false alarms": 0, "AUROC, foreign": 1, "misses, foreign": 100}


def test_constants_are_fitted_on_one_half_and_unused_evidence_has_weight_zero() -> None:
    lead, score, _ = refit([SMALL], [0], held_out=False)
    assert lead > 0
    assert score == 0


def test_reliability_by_hand() -> None:
    """Of the first half: 0.9 is present and 0.1 not; the two in between fall into one bin and count 1/4 each."""
    bins = measure_reliability([SMALL], 3, held_out=False)
    assert bins == [
        (pytest.approx((0.2 / 4 + 0.1 / 4) / 0.5), pytest.approx(0.5), pytest.approx(0.5)),
        (pytest.approx(0.4), 0.0, pytest.approx(0.25)),
        (pytest.approx(0.9), 1.0, pytest.approx(0.25)),
    ]
    assert draw_reliability({"small": bins}, 0.5).startswith(b"\x89PNG")


def test_answerable_table() -> None:
    halves = {"all": {"present": 3.0, "AUROC, removed": 0.667}, "held-out": {"present": 1.0, "AUROC, removed": 1.0}}
    other = {half: {"present": 2.0} for half in ("all", "held-out")}
    result = {"sets": {"w": {"kinds": {"a": halves, "b": other}}}}
    assert answerable_table(result).splitlines()[2:] == ["| w | a | 3 (1) | 0.67 (1.00) |", "| w | b | 2 (2) | – |"]


def test_references_show_the_avoided_attribute() -> None:
    fields = load_benchmark("wardrobe").fields
    for attribute in ATTRIBUTES:
        chosen = sample_references(attribute, fields)
        assert len(chosen) == len(set(chosen)) == MAX_REFERENCES
        assert {fields[id_][attribute.field] for id_ in chosen} == {attribute.value}


def test_shares_by_hand() -> None:
    """A search that always finds one striped dress and one plain skirt."""
    drawings = {drawing.id: drawing.garment for drawing in wardrobe.drawings()}
    striped = next(id_ for id_, g in drawings.items() if (g.kind, g.pattern) == ("dress", "striped"))
    plain = next(id_ for id_, g in drawings.items() if (g.kind, g.pattern) == ("skirt", "plain"))
    hits = tuple(mm.Hit(rank, id_, 0.0, {}) for rank, id_ in enumerate((striped, plain), start=1))
    fields = load_benchmark("wardrobe").fields
    result = measure_shares(lambda _, pairs: [Ranking(hits, 2, 2, {}) for _ in pairs], "avoid", fields)
    assert result["stripes"][0] == 50
    assert result["checks"][0] == 0
    kinds = [fields[id_]["kind"] for id_ in sample_references(ATTRIBUTES[0], fields)]
    assert result["stripes"][1] == pytest.approx(50 * np.mean([kind in ("dress", "skirt") for kind in kinds]))


def test_avoid_table() -> None:
    result = {"avoid={}": {"auto": {"stripes": [10.0, 80.0], "red": [30.0, 60.0]}}}
    assert avoid_table(result).splitlines() == [
        "| request | search | stripes | red | **mean** | same kind |",
        "| --- | --- | --- | --- | --- | --- |",
        "| avoid=X | auto | 10 | 30 | **20** | 70 |",
    ]
