"""Sessions: how turns merge, against a plain specification, and that a session is the search of its merged turns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mmretrieve as mm
from mmretrieve import merge_turns
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.request import SearchRequest
from mmretrieve.session import check_decay

REFERENCE = {"reference_id": "a", "region": [0, 0, 1, 0.5], "image_weight": 2, "caption": "a dress"}


def expected_prompts(turns: Sequence[dict[str, Any]], decay: float) -> dict[str, float]:
    """Prompt → decay^(T − t) · strength, for each prompt that no later turn repeats, avoids or drops, and that has a share left."""
    result = {}
    for t, turn in enumerate(turns):
        later = turns[t + 1 :]
        dropped = {text for other in later for text in (*other.get("prompt", ()), *other.get("avoid", ()))}
        if not any(other.get("prompt") == [] for other in later) and (decay > 0 or not later):
            for text, strength in zip(turn.get("prompt", ()), turn.get("strength", [1] * 9), strict=False):
                if text not in dropped:
                    result[text] = strength * decay ** len(later)
    return result


def expected_ids(turns: Sequence[dict[str, Any]], name: str, opposite: str) -> list[str]:
    """The ids of a field in the order of the last turn that names each, without those that a later turn drops or contradicts."""
    result: list[str] = []
    for turn in turns:
        if turn.get(name) == []:
            result = []
        result = [id_ for id_ in result if id_ not in (*turn.get(name, ()), *turn.get(opposite, ()))] + turn.get(name, [])
    return result


TEXTS, IDS = (
    st.lists(st.sampled_from("abcd"), max_size=2, unique=True),
    st.lists(st.sampled_from("wxyz"), max_size=2, unique=True),
)


@st.composite
def parsed_turns(draw: st.DrawFn) -> dict[str, Any]:
    """A turn with some of the fields that accumulate; no value contradicts another of the same turn."""
    turn: dict[str, Any] = draw(st.fixed_dictionaries({}, optional={"prompt": TEXTS, "more_like": IDS, "k": st.integers(1, 9)}))
    for name, opposite in (("avoid", "prompt"), ("less_like", "more_like")):
        if draw(st.booleans()):
            turn[name] = [value for value in draw(TEXTS if name == "avoid" else IDS) if value not in turn.get(opposite, ())]
    if turn.get("prompt"):
        turn["strength"] = draw(
            st.lists(st.sampled_from([0.5, 1.0, -2.0]), min_size=len(turn["prompt"]), max_size=len(turn["prompt"]))
        )
    return turn


@given(st.lists(parsed_turns(), min_size=1, max_size=5), st.sampled_from([0.0, 0.5, 1.0]))
def test_turns_merge_as_specified(turns: list[dict[str, Any]], decay: float) -> None:
    merged = merge_turns(turns, decay)
    assert dict(zip(merged.get("prompt", ()), merged.get("strength", ()), strict=True)) == expected_prompts(turns, decay)
    for name, opposite in (("more_like", "less_like"), ("less_like", "more_like")):
        assert merged.get(name, []) == expected_ids(turns, name, opposite)
    assert merged.get("k") == next((turn["k"] for turn in reversed(turns) if "k" in turn), None)
    SearchRequest.parse(**merged)  # nothing in it contradicts itself


@given(st.lists(parsed_turns(), min_size=2, max_size=5), st.sampled_from([0.0, 0.5, 1.0]), st.data())
def test_a_merged_request_is_a_turn(turns: list[dict[str, Any]], decay: float, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(turns) - 1))
    assert merge_turns([merge_turns(turns[:cut], decay), *turns[cut:]], decay) == merge_turns(turns, decay)


def test_a_reference_stays_until_a_turn_names_another() -> None:
    prompt = {"prompt": "in red"}
    carried = merge_turns([REFERENCE | prompt, {"prompt": "longer"}])
    assert {name: carried[name] for name in REFERENCE} == REFERENCE
    assert merge_turns([REFERENCE | prompt, {"reference_id": "b"}])["reference_id"] == "b"
    for other in ({"image": "b.jpg"}, {"reference_id": ["b", "c"]}, {"upload": "name"}, {"image": []}):
        merged = merge_turns([REFERENCE | prompt, other])
        assert {name for name in merged if name in (*REFERENCE, "image", "upload")} == set(other)
        assert merged["prompt"] == ["in red"]
    assert merge_turns([REFERENCE, {"caption": "a skirt"}])["caption"] == "a skirt"


def test_weights_and_pdv_replace_each_other() -> None:
    pdv = {"alpha_image": 1.4, "beta": 0.5}
    assert merge_turns([pdv, {"beta": 0.7}]) == {"alpha_image": 1.4, "beta": 0.7}
    assert merge_turns([pdv, {"weights": "base"}]) == {"weights": "base"}
    assert merge_turns([{"weights": "base", "k": 3}, {"beta": 0.7}]) == {"k": 3, "beta": 0.7}
    ends = {"axis": "long", "axis_opposite": "short", "axis_weight": 2}
    assert merge_turns([ends, {"axis_weight": 1}]) == ends | {"axis_weight": 1}
    assert merge_turns([ends, {"axis": "formal"}]) == {"axis": "formal"}


def test_a_turn_drops_what_earlier_turns_named() -> None:
    first = REFERENCE | {"prompt": "in red", "strength": 2, "where": "width > 3", "judge": "attributes", "judge_k": 9, "k": 5}
    kept = merge_turns([first])
    for drop, lost in (
        ("where", ["where"]),
        (["where", "judge"], ["where", "judge", "judge_k"]),
        ("prompt", ["prompt", "strength"]),
        ("reference_id", list(REFERENCE)),
        (["avoid"], []),
        ([], []),
        (None, []),
    ):
        assert merge_turns([first, {"drop": drop}]) == {name: value for name, value in kept.items() if name not in lost}
    weaker = merge_turns([{"prompt": "a", "strength": 0.5}, {"drop": "strength", "prompt": "b"}])
    assert (weaker["prompt"], weaker["strength"]) == (["a", "b"], [1.0, 1.0])
    for dropped, rest in (("prompt", {"paraphrases": 3}), ("reference_id", {"exclude_reference": True})):
        query = {"reference_id": "x", "prompt": "a", **rest}
        SearchRequest.parse(**merge_turns([query, {"drop": dropped}]))
    assert merge_turns([first, {"drop": "where", "where": "width > 4"}])["where"] == "width > 4"
    changed = merge_turns([first, {"drop": "prompt", "prompt": "longer"}, {"prompt": "with dots"}])
    assert changed["prompt"] == ["longer", "with dots"]
    assert merge_turns([{"axis": "long", "axis_opposite": "short", "prompt": "a"}, {"drop": "axis"}])["prompt"] == ["a"]


@pytest.mark.parametrize(
    ("prompts", "kept"),
    [
        (["in black", "in red"], ["in red"]),
        (["but black", "longer", "The same but in red, please"], ["longer", "The same but in red, please"]),
        (["striped", "in red", "with dots"], ["in red", "with dots"]),
        (["for men", "for women"], ["for women"]),
        (["with short sleeves", "sleeveless"], ["sleeveless"]),
        (["in black", "with red dots"], None),
        (["in red with dots", "in black"], None),
        (["a red dress", "in black"], None),
        (["dotted", "without stripes"], None),
        (["longer", "shorter"], None),
        (["a chair", "a lamp"], None),
        (["with red buttons", "in blue"], None),
    ],
)
def test_a_change_of_mind_replaces_a_value(prompts: list[str], kept: list[str] | None) -> None:
    merged = merge_turns([{"prompt": prompt} for prompt in prompts])
    assert merged["prompt"] == (kept or prompts)
    assert len(merged["strength"]) == len(merged["prompt"])
    assert merge_turns([{"prompt": prompts}])["prompt"] == prompts, "of one turn, all count"


def test_a_repeated_prompt_counts_once_however_it_is_spelled() -> None:
    merged = merge_turns([{"prompt": "In  red"}, {"prompt": "longer"}, {"prompt": "in red"}], 0.5)
    assert (merged["prompt"], merged["strength"]) == (["longer", "in red"], [0.5, 1.0])
    assert merge_turns([{"more_like": "A"}, {"more_like": "a"}])["more_like"] == ["A", "a"]  # ids are not words


def test_one_turn_is_a_search_and_none_stands_for_no_value() -> None:
    turn = {"prompt": ("in red", "in red"), "strength": [1, 2], "avoid": "dots", "image": None, "where": "width > 3"}
    assert SearchRequest.parse(**merge_turns([turn], 0.1)) == SearchRequest.parse(**turn)


def test_an_array_can_be_a_reference() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    assert merge_turns([{"image": pixels}, {"prompt": "in red"}])["image"] is pixels


@pytest.mark.parametrize(
    ("turns", "line"),
    [
        ([], "there are no turns; give at least one"),
        ({"prompt": "in red"}, "turns must be a list of mappings"),
        ("in red", "turns must be a list of mappings"),
        ([{"prompt": "in red"}, "longer"], "turn 2: expected a mapping such as .*, got 'longer'"),
        ([{"prompt": 3}], "turn 1: prompt must be text, got 3"),
        ([{"prompt": "in red"}, {"prompt": ["a", "b"], "strength": 1}], "turn 2: strength has 1 value for 2 prompts"),
        ([{"prompt": "in red"}, {"strength": 1}], "turn 2: strength needs a prompt"),
        ([{"more_like": 3}], "turn 1: more_like must be the id of an item, got 3"),
        ([{"prompt": "in red"}, {"drop": "wher"}], "turn 2: unknown field to drop 'wher'; did you mean 'where'?"),
        ([{"prompt": "in red"}, {"drop": ["k", 3]}], "turn 2: unknown field to drop '3'; choose from: image, prompt"),
    ],
)
def test_wrong_turns_are_one_line(turns: Any, line: str) -> None:
    with pytest.raises(OptionError, match=line):
        merge_turns(turns)


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan"), "1", None, True])
def test_wrong_decay(decay: Any, retriever: mm.Retriever) -> None:
    for make in (check_decay, lambda decay: merge_turns([{}], decay), lambda decay: retriever.session(decay=decay)):
        with pytest.raises(OptionError, match="decay must be a number from 0 to 1, got"):
            make(decay)


def test_a_session_is_the_search_of_its_merged_turns(retriever: mm.Retriever) -> None:
    first, other = retriever.gallery.ids[3], retriever.gallery.ids[11]
    session = retriever.session(decay=0.5)
    assert (session.turns, session.ranking) == ((), None)
    one = session.search(reference_id=first, prompt="in red", k=5)
    assert one == retriever.search(reference_id=first, prompt="in red", k=5)
    two = session.search(prompt="with dots")
    both = {"reference_id": first, "prompt": ["in red", "with dots"], "strength": [0.5, 1], "k": 5}
    assert two == retriever.search(**both)
    assert two.ids != one.ids
    liked = session.like(two[2], other)
    likes = both | {"strength": [0.25, 0.5], "more_like": [two[2].id, other]}
    assert liked == retriever.search(**likes)
    disliked = session.dislike(other)
    assert disliked == retriever.search(**likes | {"strength": [0.125, 0.25], "more_like": two[2].id, "less_like": other})
    assert disliked == retriever.search(**merge_turns(session.turns, 0.5))
    assert json.loads(json.dumps(session.turns))[2] == {"more_like": [two[2].id, other]}
    assert session.undo() == liked == session.ranking
    assert [session.undo(), session.undo(), session.undo()] == [two, one, None]
    with pytest.raises(OptionError, match="the session has no turn to undo; search first"):
        session.undo()


def test_without_decay_only_the_last_turn_counts(retriever: mm.Retriever) -> None:
    id_ = retriever.gallery.ids[3]
    session = retriever.session(decay=0)
    session.search(reference_id=id_, prompt="in red")
    assert session.search(prompt="with dots") == retriever.search(reference_id=id_, prompt="with dots")


def test_a_failed_turn_is_not_recorded(retriever: mm.Retriever, tmp_path: Path) -> None:
    session = retriever.session()
    with pytest.raises(OptionError, match="the query is empty; give image,"):
        session.search()
    ranking = session.search(prompt="a red dress")
    for wrong, error, line in (
        ({"prompt": ""}, OptionError, "prompt is empty"),
        ({"top_k": 3}, OptionError, "unknown keyword 'top_k' of search; did you mean 'k'"),
        ({"image": str(tmp_path / "none.jpg")}, mm.MMRetrieveError, "none.jpg"),
        ({"reference_id": "none"}, GalleryError, "no item 'none' in this gallery"),
        ({"composer": "image"}, OptionError, "'image' ignores the prompt"),
    ):
        with pytest.raises(error, match=line):
            session.search(**wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no hit is given; name at least one hit of a ranking"):
        session.like()
    assert session.turns == ({"prompt": "a red dress"},)
    assert session.ranking is ranking


def test_a_deleted_reference_is_one_line_and_the_session_goes_on(gallery: mm.Gallery, encoder: mm.Encoder) -> None:
    retriever = mm.Retriever(gallery, encoder)
    deleted, other = gallery.ids[3], gallery.ids[11]
    session = retriever.session()
    first = session.search(reference_id=deleted, prompt="in red")
    gallery.delete([deleted])
    with pytest.raises(GalleryError, match=f"no item '{deleted}' in this gallery; if an earlier turn named it, give another"):
        session.search(prompt="with dots")
    assert session.ranking is first
    assert session.search(reference_id=other) == retriever.search(reference_id=other, prompt="in red")


def test_a_list_may_change_after_its_turn(retriever: mm.Retriever) -> None:
    session, prompts = retriever.session(), ["in red"]
    session.search(prompt=prompts)
    prompts.append("with dots")
    assert session.turns == ({"prompt": ["in red"]},)


def test_an_image_is_carried_forward(retriever: mm.Retriever, photos: Path) -> None:
    path = sorted(photos.rglob("*.png"))[3]
    with path.open("rb") as file, Image.open(path) as picture:
        for image in (path, picture.convert("RGB"), file):
            session = retriever.session()
            session.search(image)
            assert session.search(prompt="in red").ids == retriever.search(path, "in red").ids
