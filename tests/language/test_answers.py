"""Wrong answers of captioners, rewriters, describers, editors and compilers are one line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import mmretrieve as mm
from mmretrieve.errors import OptionError
from mmretrieve.language.base import Description


def part(method: str, answer: Any) -> Any:
    """An object with one method, which always answers the same."""
    return SimpleNamespace(**{method: lambda *_: answer})


@pytest.fixture
def query(retriever: mm.Retriever) -> dict[str, str]:
    return {"reference_id": retriever.gallery.ids[0], "prompt": "in red"}


CASES = {
    "captioner": (
        ["a hat", "ab", None, [], [[]], [["a hat"], ["a coat"]], [[3]], [None], 7],
        "captions",
        "captions",
        "a list of captions",
    ),
    "rewriter": (["a", None, [], ["a", "b"], [3], [None], [["a"]]], "rewrite", "captions", "one text"),
    "describer": (["a", None, [], ["a"], [None], [Description("a")] * 2], "describe", "one-step", "one Description"),
    "editor": (["a", None, [], [None]], "edit", "imagined", "one image"),
    "compiler": (["a", None, [], ["in red"], [None]], "compile", "roles", "one Roles"),
}  # part → wrong answers, its method, a composer that asks it, what is expected


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, case in CASES.items() for i in range(len(case[0]))])
def test_a_wrong_answer_is_one_line(retriever: mm.Retriever, query: dict[str, str], name: str, number: int) -> None:
    answers, method, composer, expected = CASES[name]
    other = mm.Retriever(retriever.gallery, retriever.encoder, parts=mm.Parts(**{name: part(method, answers[number])}))
    line = rf"^an? {name} must return {expected} for each of 1 (queries|captions), got "
    with pytest.raises(OptionError, match=line) as caught:
        other.search(**query, composer=composer)
    assert "\n" not in str(caught.value)


def test_answers_of_other_kinds_of_sequences_are_taken(retriever: mm.Retriever, query: dict[str, str]) -> None:
    usual = mm.Parts(captioner=part("captions", [["a hat"]]), rewriter=part("rewrite", ["a red hat"]))
    other = mm.Parts(captioner=part("captions", (("a hat",),)), rewriter=part("rewrite", iter(["a red hat"])))
    rankings = [mm.Retriever(retriever.gallery, retriever.encoder, parts=parts).search(**query) for parts in (usual, other)]
    assert rankings[0].ids == rankings[1].ids
    assert rankings[0].words["composed"] == rankings[1].words["composed"] == "a red hat"


def test_a_rewrite_may_be_missing(retriever: mm.Retriever, query: dict[str, str]) -> None:
    parts = mm.Parts(captioner=part("captions", [["a hat"]]), rewriter=part("rewrite", [""]))
    ranking = mm.Retriever(retriever.gallery, retriever.encoder, parts=parts).search(**query)
    assert ranking.words["composed"] == "in red"
