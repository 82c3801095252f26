"""Automatic weights: their formula by hand, when they are taken, what they do with odd galleries and encoders; and what is avoided."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.composition import AvoidedPhrase, Caption
from mmretrieve.errors import OptionError
from mmretrieve.language.rewriters import TemplateRewriter
from mmretrieve.options import NO_MATCH
from mmretrieve.rules import Hinge, Linear, Product
from mmretrieve.vectors import unit
from mmretrieve.weighting import AVOID_AMOUNT, LEAST_AVOID_SHARE, NO_IMAGE_AVOID_SHARE, Spread, automatic_weights

RANDOM = np.random.default_rng(3)
GALLERY = unit(RANDOM.normal(size=(50, 6)) + [1, 0, 0, 0, 0, 0])
TERMS = unit(RANDOM.normal(size=(4, 6)))
FOUR = ("image", "text", "composed", "prompt")


def query(text: str = "a blue dress", composed: str = "a blue dress, in red", trust: float = 1.0) -> mm.Composition:
    words = {"text": Caption(text, trust=trust, source="given"), "composed": composed, "prompt": "in red"}
    return mm.Composition(FOUR, TERMS, (0.0, 0.0, 1.0, 0.0), words)


def z_scores(terms: np.ndarray) -> np.ndarray:
    scores = terms.astype(np.float64) @ GALLERY.T
    return np.asarray((scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("composed", "trust", "amounts"),
    [
        ("a blue dress, in red", 1.0, (1, -0.25, 0.5, 1)),  # the rewrite repeats the caption
        ("a blue dress, in red", 0.2, (1, -0.25, 0.5, 1)),
        ("a red dress, in red", 1.0, (1, -0.5, 2, 0.25)),  # it replaces a word
        ("a red dress, in red", 0.0, (1, -0.5, 1, 0.25)),
    ],
)
def test_scores_are_weighted_means_of_standard_deviations(composed: str, trust: float, amounts: Sequence[float]) -> None:
    weighed = automatic_weights(query(composed=composed, trust=trust), Spread.of(GALLERY))
    scores = weighed.contributions((TERMS.astype(np.float64) @ GALLERY.T).astype(np.float32)).sum(axis=0)
    np.testing.assert_allclose(scores, np.array(amounts) @ z_scores(TERMS) / np.abs(amounts).sum(), atol=1e-5)
    assert abs(scores.mean()) < 1e-5  # the average item scores 0
    assert f"caption from you (trust {trust:.2f})" in str(weighed.why)


def test_a_text_that_hardly_varies_counts_less_than_the_others() -> None:
    flat = unit(np.array([[0.01, 1, 0, 0, 0, 0]], np.float32))
    gallery = unit(np.c_[GALLERY[:, :1], 0.02 * GALLERY[:, 1:2], GALLERY[:, 2:]])
    composition = mm.Composition(FOUR, np.vstack([TERMS[:3], flat]).astype(np.float32), (0, 0, 1, 0), query().words)
    spread = Spread.of(gallery)
    deviations = {name: spread.deviation(composition[name]) for name in FOUR}
    least = max(deviations["text"], deviations["composed"]) / 2
    assert deviations["prompt"] < least
    weights = automatic_weights(composition, spread).term_weights
    assert weights["prompt"] * least / (weights["image"] * deviations["image"]) == pytest.approx(1)
    assert weights["image"] * deviations["image"] == pytest.approx(1 / 2.75)  # the bound is one of texts


def test_words_that_the_encoder_does_not_know_keep_the_reference(retriever: mm.Retriever) -> None:
    dress = next(id_ for id_ in retriever.gallery.ids if "checked-dress" in id_)
    ranking = retriever.search(reference_id=dress, prompt="cheaper", k=5)
    assert ranking.weights["prompt"] < 4 * ranking.weights["image"]  # 12 times without the bound


def test_amounts_of_several_prompts_and_avoided_phrases() -> None:
    two = query().with_terms(
        mm.Composition(("composed 2", "prompt 2"), TERMS[:2], (0, 0), {"composed 2": "a blue dress, long"})
    )
    two = two.with_terms(mm.Composition(("avoid", "avoid 2"), TERMS[2:], (-1, 0), {"avoid": "stripes", "avoid 2": "dots"}))
    two = mm.Composition(two.names, two.terms, two.weights, two.words, shares={"composed 2": 0.5, "prompt 2": 0.5})
    spread = Spread.of(GALLERY)
    amounts = {
        name: weight * spread.deviation(two[name]) for name, weight in automatic_weights(two, spread).term_weights.items()
    }
    unit_ = amounts["image"]
    assert amounts["prompt 2"] / unit_ == pytest.approx(0.5)
    assert amounts["composed 2"] / amounts["composed"] == pytest.approx(0.5)
    shown = [(two["image"] - spread.mean) @ two[name] / spread.deviation(two[name]) for name in ("avoid", "avoid 2")]
    assert amounts["avoid"] / unit_ == pytest.approx(AVOID_AMOUNT * np.clip(shown[0], LEAST_AVOID_SHARE, 1), rel=1e-5)
    assert amounts["avoid 2"] / unit_ == pytest.approx(AVOID_AMOUNT * np.clip(shown[1], LEAST_AVOID_SHARE, 1), rel=1e-5)
    assert amounts["text"] / unit_ == pytest.approx(-0.25 - 0.5 * 0.5)  # what composed repeats of the caption is given back


def test_a_phrase_counts_less_if_the_image_does_not_show_it() -> None:
    spread = Spread.of(GALLERY)
    amounts = {}
    for image in (TERMS[2], -TERMS[2]):  # the phrase itself, and its opposite
        shown = mm.Composition(("image", "avoid"), np.stack([image, TERMS[2]]), (1, -1), {"avoid": "stripes"})
        weighed = automatic_weights(shown, spread)
        weights = weighed.term_weights
        amounts[str(weighed.why)] = weights["avoid"] / weights["image"]
    full, half = amounts.values()
    assert (full, half) == (pytest.approx(AVOID_AMOUNT), pytest.approx(AVOID_AMOUNT * LEAST_AVOID_SHARE))
    assert ["hardly shows stripes" in why for why in amounts] == [False, True]
    words = {"avoid": AvoidedPhrase("stripes", trust=0.9)}  # the caption states it
    stated = automatic_weights(mm.Composition(("image", "avoid"), np.stack([-TERMS[2], TERMS[2]]), (1, -1), words), spread)
    assert stated.weights[1] / stated.weights[0] == pytest.approx(AVOID_AMOUNT * 0.9)
    alone = mm.Composition(("prompt", "avoid"), TERMS[1:3], (1, -1))
    weights = automatic_weights(alone, spread).term_weights
    deviations = spread.deviations(alone.terms)
    assert weights["avoid"] * deviations[1] / (weights["prompt"] * deviations[0]) == pytest.approx(
        AVOID_AMOUNT * NO_IMAGE_AVOID_SHARE
    )


def test_a_caption_that_states_a_phrase_makes_it_count_in_full(retriever: mm.Retriever) -> None:
    query = retriever.compose(
        reference_id=retriever.gallery.ids[0], caption="a photo of a striped dress", prompt="without stripes, not formal"
    )
    stripes, formal = (query.words[name] for name in query.names if name.startswith("avoid"))
    assert [(word, word.trust) for word in (stripes, formal) if isinstance(word, AvoidedPhrase)] == [
        ("stripes", 1),
        ("formal", 0),
    ]
    assert pickle.loads(pickle.dumps(stripes)).trust == 1


def test_keep_rule_keeps_the_rule() -> None:
    spread = Spread.of(GALLERY)
    hinge = query().with_rule(Hinge())
    assert isinstance(automatic_weights(hinge, spread).rule, Linear)
    kept = automatic_weights(hinge, spread, keep_rule=True)
    assert kept.rule == Hinge()
    assert not kept.means
    assert kept.term_weights["composed"] == pytest.approx(1)
    assert automatic_weights(query().with_rule(Product()), spread, keep_rule=True).weights == query().weights


@pytest.mark.parametrize("gallery", [GALLERY[:1], np.repeat(GALLERY[:1], 5, axis=0), GALLERY[:0]])
def test_a_gallery_without_variance_gets_raw_scores_and_a_remark(gallery: np.ndarray) -> None:
    weighed = automatic_weights(query(), Spread.of(gallery))
    assert weighed.weights == pytest.approx(np.array((1, -0.25, 0.5, 1)) / 2.75)
    assert not weighed.means
    assert "cannot be told apart" in str(weighed.remark)


def test_new_weights_reset_the_means() -> None:
    weighed = automatic_weights(query(), Spread.of(GALLERY))
    assert weighed.means
    back = weighed.with_pdv(mm.PDV())
    assert (dict(back.means), back.why) == ({}, None)


class Constant:
    """The wardrobe's pictures, and one vector for all words."""

    def __init__(self, inner: mm.Encoder) -> None:
        self._inner, self.identity, self.dim = inner, inner.identity, inner.dim

    def encode_images(self, images: Any, progress: Any = None) -> np.ndarray:
        return self._inner.encode_images(images, progress)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.repeat(self._inner.encode_texts(["a dress"]), len(texts), axis=0)


def test_an_encoder_with_constant_text_vectors_is_reported(made: Path, encoder: mm.Encoder) -> None:
    retriever = mm.Retriever.open(made, encoder=Constant(encoder))
    id_ = retriever.gallery.ids[4]
    ranking = retriever.search(reference_id=id_, prompt="in red")
    assert ranking[0].id == id_
    assert "gives different texts the same vector" in str(ranking.note)
    assert ranking.ids == retriever.search(reference_id=id_).ids


@pytest.fixture(scope="module")
def one_item(tmp_path_factory: pytest.TempPathFactory, encoder: mm.Encoder, photos: Path) -> mm.Retriever:
    gallery = mm.Gallery.create(tmp_path_factory.mktemp("one") / "g", encoder=encoder)
    gallery.add(sorted(photos.rglob("*.png"))[0])
    return mm.Retriever(gallery, encoder)


def test_a_gallery_of_one_item_can_be_searched(one_item: mm.Retriever) -> None:
    ranking = one_item.search(reference_id=one_item.gallery.ids[0], prompt="in red without stripes", avoid="dots")
    assert len(ranking) == 1
    assert "cannot be told apart" in str(ranking.note)


def test_which_requests_get_automatic_weights(retriever: mm.Retriever) -> None:
    asked: dict[str, Any] = {"reference_id": retriever.gallery.ids[3], "prompt": "in red", "k": 60}
    by_itself = retriever.search(**asked)
    assert by_itself.weights["image"] > 0
    for composer in ("sum", "slerp", "sdr", "roles"):
        own = retriever.search(**asked, composer=composer)
        assert own.why is None
        assert own == retriever.search(**asked, composer=composer, weights="base")
        chosen = retriever.search(**asked, composer=composer, weights="auto")
        assert str(chosen.why).startswith("automatic")
    for composer in ("captions", "seize", "ldre", "lincir"):
        assert str(retriever.search(**asked, composer=composer).why).startswith("automatic")
    assert retriever.search(**asked, rule="product").rule == "product"
    assert retriever.search(**asked, rule="hinge").rule == "hinge"
    with pytest.raises(OptionError, match="give weights or beta, not both"):
        retriever.search(**asked, beta=0.5, weights="auto")
    with pytest.raises(OptionError, match="'auto', 'base' or 'balanced'"):
        retriever.search(**asked, weights="best")


def test_base_scores_equal_the_formula(made: Path, encoder: mm.Encoder) -> None:
    """With the template and a given caption nothing of today's choices enters."""
    retriever = mm.Retriever.open(made, encoder=encoder, parts=mm.Parts(rewriter="template"))
    id_, prompt, caption = retriever.gallery.ids[3], "in red, without stripes", "a photo of a dress"
    (text, composed) = encoder.encode_texts([caption, f"{caption}, {prompt}", "in red"])[:2]
    image = retriever.gallery.vectors([id_])[0]
    for knobs, vector in (
        ({"weights": "base"}, composed),
        ({"beta": 0.75, "alpha_image": 1.4, "alpha_text": 1.2}, 0.25 * image - 0.5 * text + 1.25 * composed),
    ):
        found = retriever.search(reference_id=id_, prompt=prompt, caption=caption, k=60, **knobs)
        expected = retriever.gallery.vectors() @ vector
        assert found.ids == tuple(retriever.gallery.ids[i] for i in np.argsort(-expected, kind="stable"))
        assert found[0].score == pytest.approx(expected.max(), abs=1e-5)


@pytest.mark.parametrize(
    "question",
    [
        {"prompt": "in red without stripes"},
        {"prompt": "not striped", "avoid": "red"},
        {"avoid": ["stripes", "a hood"]},
        {"prompt": ["in red", "without a hood"], "composer": "searle-oti"},
        {"prompt": "no stripes", "composer": "sum", "weights": "auto"},
    ],
)
def test_phrases_to_avoid_are_separate_terms(retriever: mm.Retriever, question: dict[str, Any]) -> None:
    ranking = retriever.search(reference_id=retriever.gallery.ids[3], k=5, **question)
    avoided = [name for name in ranking.weights if name.split()[0] == "avoid"]
    assert avoided
    assert all(ranking.weights[name] < 0 for name in avoided)
    assert all("stripes" not in ranking.words.get(name, "") for name in ("prompt", "composed"))
    assert f"away from {', '.join(ranking.words[name] for name in avoided)}" in str(ranking.why)
    for hit in ranking:
        assert sum(hit.contributions.values()) == pytest.approx(hit.score)


def test_only_avoiding_without_a_reference(retriever: mm.Retriever) -> None:
    ranking = retriever.search(prompt="without stripes", k=5)
    assert list(ranking.weights) == ["avoid"]
    assert ranking.answerable is None
    assert all("striped" not in id_ for id_ in ranking.ids)


def test_avoided_stripes_disappear(retriever: mm.Retriever) -> None:
    striped = next(id_ for id_ in retriever.gallery.ids if "striped" in id_)
    for question in ({"avoid": "stripes"}, {"prompt": "without stripes"}, {"prompt": "not striped"}):
        ids = retriever.search(reference_id=striped, k=10, **question).ids
        assert sum("striped" in id_ for id_ in ids) <= 1
    assert sum("striped" in id_ for id_ in retriever.search(reference_id=striped, k=10).ids) >= 3


def test_answerable_separates_matches_from_no_match(retriever: mm.Retriever) -> None:
    there = retriever.search(prompt="a striped hoodie")
    foreign = retriever.search(prompt="refrigerator")
    assert foreign.answerable is not None
    assert there.answerable is not None
    assert 0 <= foreign.answerable < NO_MATCH <= there.answerable <= 1
    assert (there.has_match, foreign.has_match) == (True, False)
    nothing = retriever.search(prompt="a striped hoodie", where="width < 0")
    assert (len(nothing), nothing.has_match) == (0, False)


def test_a_phrase_to_avoid_leaves_the_kind_that_a_prompt_asks_for() -> None:
    retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
    kinds = sorted({str(item.fields["kind"]) for item in retriever.gallery.items(retriever.gallery.ids)})

    def found(template: str) -> list[tuple[bool, bool]]:
        """Of each hit, whether it is of the kind, and whether it is striped."""
        rankings = retriever.search_many([{"prompt": template.format(kind), "k": 8} for kind in kinds])
        return [
            (item.fields["kind"] == kind, item.fields.get("pattern") == "striped")
            for kind, ranking in zip(kinds, rankings, strict=True)
            for item in retriever.gallery.items(ranking.ids)
        ]

    plain, without = found("a {}"), found("a {} without stripes")
    assert sum(kept for kept, _ in without) >= sum(kept for kept, _ in plain)
    assert not any(striped for _, striped in without)


@pytest.mark.parametrize("said", ["but in red", "the same but in red", "Like this, but in red", "this one but in red"])
def test_what_is_said_before_a_wish_does_not_count(retriever: mm.Retriever, said: str) -> None:
    query = {"reference_id": retriever.gallery.ids[3]}
    plain, ranking = retriever.search(**query, prompt="in red"), retriever.search(**query, prompt=said)
    assert (ranking.ids, ranking.words) == (plain.ids, plain.words)
    assert retriever.search(**query, prompt=said, composer="sum").words["prompt"] == said, (
        "a named composer reads what is written"
    )
    own = mm.Retriever(retriever.gallery, retriever.encoder, parts=mm.Parts(rewriter=TemplateRewriter()))
    assert own.search(**query, prompt=said).words["prompt"] == said, "a file of rewrites may know the prompt by its words"
    assert retriever.search(**query, prompt="but").words["prompt"] == "but"


def test_a_prompt_that_only_forbids_is_the_same_by_itself_and_within_another(retriever: mm.Retriever) -> None:
    query = {"reference_id": retriever.gallery.ids[3], "caption": "a photo of a striped dress"}
    apart = retriever.search(**query, prompt=["in red", "without stripes"])  # type: ignore[arg-type]
    together = retriever.search(**query, prompt="in red, without stripes")  # type: ignore[arg-type]
    assert apart.ids == together.ids
    assert dict(apart.words) == dict(together.words)
    assert dict(apart.weights) == pytest.approx(dict(together.weights), rel=1e-5)


def test_search_many_equals_single_searches(retriever: mm.Retriever, photos: Path) -> None:
    pictures, ids = sorted(photos.rglob("*.png")), retriever.gallery.ids
    requests: list[dict[str, Any]] = [
        {"image": str(pictures[1]), "prompt": "in red", "k": 7},
        {"reference_id": ids[2], "prompt": "without stripes", "exclude_reference": True},
        {"prompt": "a dress", "min_score": 1.0},
        {"reference_id": [ids[3], ids[4]], "prompt": ["in red", "long"], "where": "width > 0", "exclude": [ids[3]]},
        {"image": pictures[5], "prompt": "in navy", "rule": "product"},
        {"image": pictures[6], "prompt": "in navy", "composer": "seize", "beta": 0.5},
        {"more_like": ids[7], "where": "width > 0"},
    ]
    alone = [retriever.search(**request) for request in requests]
    together = retriever.search_many(requests)
    assert [ranking.ids for ranking in together] == [ranking.ids for ranking in alone]
    for one, other in zip(alone, together, strict=True):
        assert [hit.score for hit in other] == pytest.approx([hit.score for hit in one], abs=1e-6)
        assert (one.hidden, one.searched, one.why, one.note, one.rule) == (
            other.hidden,
            other.searched,
            other.why,
            other.note,
            other.rule,
        )
    assert retriever.search_many([]) == []


def test_invalid_requests_are_named_by_number(retriever: mm.Retriever) -> None:
    good = {"prompt": "in red"}
    for requests, message in (
        ([good, {"promt": "in red"}], r"request 2: unknown field 'promt'; did you mean 'prompt'\? choose from: image, prompt"),
        ([good, good, {"prompt": "a", "k": 0}], "request 3: k must be a whole number"),
        ([good, "in red"], "request 2: expected a mapping"),
        (good, "takes a list of mappings"),
    ):
        with pytest.raises(OptionError, match=message):
            retriever.search_many(requests)  # type: ignore[arg-type]


def test_the_shell_prints_the_interpreted_query(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    id_ = mm.Gallery.open(made).ids[3]
    words = ["search", str(made), "--reference-id", id_, "--prompt", "in red", "-k", "3"]
    assert main([*words, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line["query"] == lines[0]["query"] for line in lines)
    assert set(lines[0]["query"]) == set(mm.Ranking((), k=3, searched=0, weights={}).query)
    assert [lines[0]["query"][name] for name in ("rule", "pool", "k", "has_match")] == ["linear", None, 3, False]
    assert all(isinstance(line["fields"], dict) for line in lines)
    assert main(words) == 0
    assert "note: automatic: " in capsys.readouterr().err
    assert main(["search", str(made), "--prompt", "refrigerator"]) == 0
    assert "no good match" in capsys.readouterr().err


def test_named_weights_in_the_shell(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", str(made), "--prompt", "a dress", "--json", "-k", "1"]
    found = {}
    for name in ("auto", "base"):
        assert main([*words, "--weights", name]) == 0
        found[name] = json.loads(capsys.readouterr().out)["query"]["weights"]
    assert found["base"] == {"prompt": 1.0}
    assert found["auto"]["prompt"] > 1
    with pytest.raises(SystemExit):
        main([*words, "--weights", "best"])
    assert "expected auto, base, balanced, or weights by role" in capsys.readouterr().err


def test_named_rewriters_in_python(made: Path, encoder: mm.Encoder) -> None:
    swop = mm.Retriever.open(made, encoder=encoder, parts=mm.Parts(rewriter="swop"))
    with pytest.raises(OptionError, match="unknown rewriter 'swop'; did you mean 'swap'\\? choose from: template, swap"):
        swop.search(reference_id=swop.gallery.ids[0], prompt="in red")


def test_a_hit_deleted_meanwhile_does_not_fail_the_search(tmp_path: Path, encoder: mm.Encoder, photos: Path) -> None:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add(photos / "summer")
    retriever = mm.Retriever(gallery, encoder)
    composition = retriever.compose(prompt="a dress")
    ranking = gallery.search(retriever.weigh(composition), 5)
    gallery.delete([ranking[0].id])
    assert retriever.with_answerable([ranking], [composition]) == [ranking]
