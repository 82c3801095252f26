"""Means over paraphrases: their terms against a plain mean of single searches, and what requests may ask for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers import Parts, make_composer
from mmretrieve.composers.paraphrased import mean_composition
from mmretrieve.composition import Composition
from mmretrieve.errors import OptionError, VectorError
from mmretrieve.options import ComposerName
from mmretrieve.registry import COMPOSERS

WORDINGS = ["longer", "make it longer", "I want it longer", "a longer one"]
READS_PARAPHRASES = [name for name in ComposerName if COMPOSERS[name].reads_paraphrases]


class RecordingParaphraser:
    """A paraphraser that looks prompts up and counts its calls."""

    def __init__(self, **texts: list[str]) -> None:
        self.texts, self.calls = texts, list[tuple[list[str], int]]()

    def paraphrase(self, prompts: Sequence[str], count: int) -> list[list[str]]:
        self.calls.append((list(prompts), count))
        return [self.texts.get(prompt.replace(" ", "_"), []) for prompt in prompts]


def retriever_with(retriever: mm.Retriever, paraphraser: RecordingParaphraser) -> mm.Retriever:
    return mm.Retriever(retriever.gallery, retriever.encoder, parts=Parts(paraphraser=paraphraser))


@pytest.fixture
def query(retriever: mm.Retriever) -> ComposerInput:
    vector = retriever.gallery.vectors(retriever.gallery.ids[:1])[0]
    own, *others = (ComposerInput(vector, wording, "a blue dress") for wording in WORDINGS)
    return replace(own, paraphrases=tuple(others))


def test_a_mean_by_hand() -> None:
    """(0.6, 0.8) and (0.6, −0.8) have the mean (0.6, 0); the directions from `text` (0, 1) are (0.6, −0.2) and (0.6, −1.8)."""
    names, text = ("text", "composed"), [0.0, 1.0]
    wordings = [
        Composition(names, np.array([text, row], np.float32), (0.0, 1.0), {"composed": words}, remark=words)
        for row, words in (([0.6, 0.8], "own"), ([0.6, -0.8], "other"))
    ]
    mean = mean_composition(wordings)
    np.testing.assert_allclose(mean.terms, [text, [1, 0]], atol=1e-7)
    assert (mean.weights, mean.words) == ((0.0, 1.0), {"composed": "own"})
    root = np.sqrt(2)
    agreement = ((0.6 + 0.2) / np.hypot(0.6, 0.2) / root + (0.6 + 1.8) / np.hypot(0.6, 1.8) / root) / 2
    assert mean.remark == f"own; other; 2 wordings of the prompt were averaged (agreement {agreement:.2f})"


def test_one_wording_is_returned_unchanged() -> None:
    one = Composition(("prompt",), np.array([[0.6, 0.8]], np.float32), (1.0,))
    assert mean_composition([one]) is one


def test_wordings_that_cancel_are_an_error() -> None:
    opposite = [Composition(("prompt",), np.array([[x, 0.0]], np.float32), (1.0,)) for x in (1, -1)]
    with pytest.raises(VectorError, match="the mean of the paraphrases"):
        mean_composition(opposite)


@pytest.mark.parametrize("name", READS_PARAPHRASES)
def test_terms_are_means_over_single_queries(retriever: mm.Retriever, query: ComposerInput, name: ComposerName) -> None:
    composer = make_composer(name, retriever.encoder, score=retriever.gallery.scores)
    singles = [composer.compose([one])[0] for one in (replace(query, paraphrases=()), *query.paraphrases)]
    (mean,) = composer.compose([query])
    assert (mean.weights, mean.words) == (singles[0].weights, singles[0].words)
    for term in mean.names:
        if term == "desired":  # the roles of a prompt are read once
            continue
        rows = np.array([single[term] for single in singles], np.float64)
        np.testing.assert_allclose(mean[term], rows.mean(0) / np.linalg.norm(rows.mean(0)), atol=1e-5)
        assert np.ptp(rows, axis=0).any() == (term in ("composed", "prompt")), term
    np.testing.assert_array_equal(mean["prompt" if name is ComposerName.PROMPT else mean.names[0]].dtype, np.float32)


def test_the_direction_is_the_mean_of_the_directions(retriever: mm.Retriever, query: ComposerInput) -> None:
    composer = make_composer("captions", retriever.encoder)
    singles = [composer.compose([one])[0] for one in (replace(query, paraphrases=()), *query.paraphrases)]
    (mean,) = composer.compose([query])
    expected = np.mean([single["composed"] - single["text"] for single in singles], axis=0)
    direction = mean["composed"] - mean["text"]
    np.testing.assert_array_equal(mean["text"], singles[0]["text"])
    assert direction @ expected / np.linalg.norm(direction) / np.linalg.norm(expected) > 0.995


@pytest.mark.parametrize("name", list(ComposerName))
def test_the_trait_says_which_composers_read_paraphrases(name: ComposerName) -> None:
    fields: dict[str, Any] = {"prompt": "longer", "composer": name.value, "paraphrases": 2}
    if name is ComposerName.IMAGE:
        del fields["prompt"]
    if COMPOSERS[name].reads_image:
        fields["reference_id"] = "a"
    if name in READS_PARAPHRASES:
        assert mm.request.SearchRequest.parse(**fields).paraphrases == 2
        return
    reason = "paraphrases needs a prompt" if name is ComposerName.IMAGE else f"'{name}' takes each prompt in one wording"
    with pytest.raises(OptionError, match=f"^{reason}[^\n]*$"):
        mm.request.SearchRequest.parse(**fields)


def test_a_reference_is_described_once(retriever: mm.Retriever, query: ComposerInput) -> None:
    class Counting:
        def __init__(self) -> None:
            self.prompts: list[str | None] = []

        def captions(self, inputs: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:  # noqa: ARG002
            self.prompts += [one.prompt for one in inputs]
            return [["a blue dress"] for _ in inputs]

    captioner = Counting()
    composer = make_composer("captions", retriever.encoder, Parts(captioner=captioner))
    without_caption = replace(query, caption=None, paraphrases=tuple(replace(one, caption=None) for one in query.paraphrases))
    (mean,) = composer.compose([without_caption])
    assert captioner.prompts == ["longer"]
    np.testing.assert_allclose(mean.terms, composer.compose([query])[0].terms, atol=1e-6)


@pytest.mark.parametrize("composer", ["captions", "sum", "slerp"])
def test_one_paraphrase_changes_nothing_to_the_last_bit(retriever: mm.Retriever, composer: str) -> None:
    request = {"reference_id": retriever.gallery.ids[0], "prompt": "longer", "composer": composer}
    plain, same = retriever.compose(**request), retriever.compose(**request, paraphrases=1)
    assert plain.terms.tobytes() == same.terms.tobytes()
    assert (plain.names, plain.weights, plain.words, plain.remark) == (same.names, same.weights, same.words, same.remark)
    assert retriever.search(**request).to_dict() == retriever.search(**request, paraphrases=1).to_dict()


def test_a_search_averages_the_wordings_of_each_prompt(retriever: mm.Retriever) -> None:
    paraphraser = RecordingParaphraser(longer=WORDINGS[1:], in_red=["a red one"])
    searches = retriever_with(retriever, paraphraser)
    reference = {"reference_id": retriever.gallery.ids[0]}
    whole = searches.compose(**reference, prompt=["longer", "in red", "odd"], paraphrases=4)
    assert paraphraser.calls == [(["longer", "in red", "odd"], 3)]
    for role, wordings in (("", WORDINGS), (" 2", ["in red", "a red one"]), (" 3", ["odd"])):
        for term in ("composed", "prompt"):
            rows = np.array([retriever.compose(**reference, prompt=text)[term] for text in wordings], np.float64)
            np.testing.assert_allclose(whole[term + role], rows.mean(0) / np.linalg.norm(rows.mean(0)), atol=1e-5)
    remarks = str(whole.remark).split("; ")
    assert [re.sub(r"agreement [01]\.\d\d", "agreement X", remark) for remark in remarks] == [
        "4 wordings of 'longer' were averaged (agreement X)",
        "2 wordings of 'in red' were averaged (agreement X)",
        "there is no paraphrase of 'odd'",
    ]
    assert searches.search(**reference, prompt="odd", paraphrases=2, k=1).note == "there is no paraphrase of 'odd'"


def test_requests_are_paraphrased_together_and_searched_as_alone(retriever: mm.Retriever) -> None:
    paraphraser = RecordingParaphraser(longer=WORDINGS[1:], in_red=["a red one", "make it red"])
    searches = retriever_with(retriever, paraphraser)
    prompts, counts = ["longer", "in red", "longer", "in red", "longer"], [3, 3, 1, 2, 3]
    requests = [
        {"reference_id": id_, "prompt": prompt, "paraphrases": number, "k": 5}
        for id_, prompt, number in zip(retriever.gallery.ids, prompts, counts, strict=False)
    ]
    together = searches.search_many(requests)
    assert sorted(paraphraser.calls) == [(["in red"], 1), (["longer", "in red"], 2)]
    for request, ranking in zip(requests, together, strict=True):
        alone = searches.search(**request)
        assert (ranking.ids, ranking.note) == (alone.ids, alone.note)
        np.testing.assert_allclose([hit.score for hit in ranking], [hit.score for hit in alone], atol=1e-6)


def test_paraphrases_that_forbid_something_else_are_left_out(retriever: mm.Retriever) -> None:
    texts = {
        "in_red": ["in red, without stripes", "a red one"],
        "in_red,_without_stripes": ["in red", "without stripes", "in red, not striped or dotted", "a red one, without stripes"],
        "without_stripes": ["in red", "in red, without stripes", "one without stripes"],
    }
    searches = retriever_with(retriever, RecordingParaphraser(**texts))
    reference = {"reference_id": retriever.gallery.ids[0]}
    for prompt, kept in (
        ("in red", "a red one"),
        ("in red, without stripes", "a red one, without stripes"),
        ("without stripes", "one without stripes"),
    ):
        whole = searches.compose(**reference, prompt=prompt, paraphrases=6)
        rows = np.array([retriever.compose(**reference, prompt=text)["composed"] for text in (prompt, kept)], np.float64)
        np.testing.assert_allclose(whole["composed"], rows.mean(0) / np.linalg.norm(rows.mean(0)), atol=1e-5)
        assert "2 wordings of" in str(whole.remark)
        assert [name for name in whole.names if name.startswith("avoid")] == ["avoid"] * ("without" in prompt)


def test_templates_are_the_default(retriever: mm.Retriever) -> None:
    ranking = retriever.search(reference_id=retriever.gallery.ids[0], prompt="longer", paraphrases=6, k=1)
    assert re.fullmatch(r"6 wordings of 'longer' were averaged \(agreement [01]\.\d\d\)", str(ranking.note))


@pytest.mark.parametrize("value", [0, 7, -1, 2.5, "2", True])
def test_a_wrong_number_is_one_clear_line(retriever: mm.Retriever, value: object) -> None:
    with pytest.raises(OptionError, match=f"^paraphrases must be a whole number from 1 to 6, got {value!r}$"):
        retriever.search(prompt="longer", paraphrases=value)  # type: ignore[arg-type]


def test_wordings_count_among_the_pairs_of_a_query() -> None:
    fields = {"reference_id": list("abcdefgh"), "prompt": [str(i) for i in range(16)]}
    assert mm.request.SearchRequest.parse(**fields, paraphrases=2).paraphrases == 2
    message = "8 references and 16 prompts in 3 wordings are more than 256 pairs in one query"
    with pytest.raises(OptionError, match=f"^{message}"):
        mm.request.SearchRequest.parse(**fields, paraphrases=3)


def test_a_part_without_its_method_is_refused() -> None:
    with pytest.raises(OptionError, match=r"^paraphraser must be an object with paraphrase\(…\), got 3$"):
        Parts(paraphraser=3)  # type: ignore[arg-type]


def test_as_many_wordings_as_requested_are_averaged(retriever: mm.Retriever) -> None:
    numbers = count(1)
    texts = [f"longer by {next(numbers)} steps" for _ in range(9)]
    searches = retriever_with(retriever, RecordingParaphraser(longer=texts))
    reference = {"reference_id": retriever.gallery.ids[0]}
    notes = [searches.search(**reference, prompt="longer", paraphrases=n, k=1).note for n in (2, 6)]
    assert [str(note).split(" (")[0] for note in notes] == [f"{n} wordings of 'longer' were averaged" for n in (2, 6)]
