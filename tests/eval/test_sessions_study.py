"""The study of sessions: its cases, what it asks of a retriever, and its table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eval.studies.sessions import DECAYS, K, SessionCase, draw_sessions, measure_hits
from eval.studies.tables import sessions_table
from mmretrieve import Hit, Ranking, wardrobe
from mmretrieve.wardrobe.attributes import Colour
from mmretrieve.wardrobe.captions import differences

ROOT = Path(__file__).parents[2]
DRAWINGS = {drawing.id: drawing for drawing in wardrobe.drawings()}


class FakeRetriever:
    """Finds a case's target where a request has all of its prompts; otherwise items in a fixed order. Records its requests."""

    def __init__(self, cases: Sequence[SessionCase], others: Sequence[str]) -> None:
        self.cases, self.others, self.requests = cases, others, list[dict[str, Any]]()

    def search_many(self, requests: Sequence[dict[str, Any]]) -> list[Ranking]:
        self.requests += requests
        rankings = []
        for case, request in zip(self.cases, requests, strict=True):
            ids = sorted(case.targets)[:1] if set(request["prompt"]) == set(case.prompts) else self.others
            rankings.append(Ranking(tuple(Hit(i, id_, 0.0, {}) for i, id_ in enumerate(ids, start=1)), K, 2000, {}))
        return rankings


@pytest.mark.parametrize(("turns", "changes_mind"), [(2, False), (3, False), (4, False), (3, True)])
def test_each_turn_asks_for_one_attribute_of_the_target(turns: int, changes_mind: bool) -> None:
    cases = draw_sessions(turns, 20, changes_mind=changes_mind)
    assert cases == draw_sessions(turns, 20, changes_mind=changes_mind)
    assert len({(case.reference, case.garment) for case in cases}) == 20
    for case in cases:
        reference = DRAWINGS[case.reference]
        assert len(case.prompts) == turns
        assert len(differences(reference.garment, case.garment)) == turns - changes_mind
        assert case.targets == {
            id_ for id_, other in DRAWINGS.items() if (other.detail, other.garment) == (reference.detail, case.garment)
        }


def colours_in(prompt: str) -> list[Colour]:
    return [colour for colour in Colour if colour in prompt.split()]


def test_a_change_of_mind_begins_with_another_value_of_the_last_attribute() -> None:
    cases = [case for case in draw_sessions(3, 200, changes_mind=True) if colours_in(case.prompts[-1])]
    assert len(cases) >= 10
    for case in cases:
        (first,), (last,) = (colours_in(case.prompts[turn]) for turn in (0, -1))
        assert last == case.garment.colour
        assert first not in (last, DRAWINGS[case.reference].garment.colour)


def test_hits_are_counted_after_each_turn() -> None:
    cases = draw_sessions(3, 10)
    others = [cases[0].reference]
    assert measure_hits(FakeRetriever(cases, others), cases, 1.0) == [0, 0, 100]  # type: ignore[arg-type]
    assert measure_hits(FakeRetriever(cases, others), cases, 0.0) == [0, 0, 0]  # type: ignore[arg-type]
    retriever = FakeRetriever(cases, others)
    measure_hits(retriever, cases, 0.5)  # type: ignore[arg-type]
    last, case = retriever.requests[-1], cases[-1]
    assert (last["prompt"], last["strength"]) == (list(case.prompts), [0.25, 0.5, 1.0])
    assert (last["reference_id"], last["exclude"], last["k"]) == (case.reference, [case.reference], K)


def test_the_best_hit_becomes_the_reference_only_if_it_has_more_of_what_is_wanted() -> None:
    cases = draw_sessions(2, 3)
    half_way = {
        drawing.id: drawing for drawing in DRAWINGS.values() if len(differences(drawing.garment, cases[0].garment)) == 1
    }
    worse = next(id_ for id_, drawing in DRAWINGS.items() if len(differences(drawing.garment, cases[0].garment)) == 4)
    for others, expected in (([worse, next(iter(half_way))], next(iter(half_way))), ([worse], cases[0].reference)):
        retriever = FakeRetriever(cases, others)
        measure_hits(retriever, cases, 1.0, replaces=True)  # type: ignore[arg-type]
        assert retriever.requests[len(cases)]["reference_id"] == expected


def test_sessions_table() -> None:
    result = {"2 turns": {"stays": {"last": [10.2, 20.6], "all": [10.2, 90.0]}}}
    assert sessions_table(result).splitlines() == [
        "| session | reference | last | all |",
        "| --- | --- | --- | --- |",
        "| 2 turns | stays | 10 → 21 | 10 → 90 |",
    ]


def test_the_table_in_the_guide_is_that_of_the_result() -> None:
    result = json.loads((ROOT / "results" / "sessions.json").read_text(encoding="utf-8"))
    assert sessions_table(result["hits"]) in (ROOT / "docs" / "guides" / "searching.md").read_text(encoding="utf-8")
    assert list(result["hits"]["2 turns"]["the same in all turns"]) == list(DECAYS)
