"""Composers: which terms, which weights, which words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers import Parts, make_composer
from mmretrieve.composers.captions import Captions, ldre_shares
from mmretrieve.composers.simple import Slerp, slerp_weights
from mmretrieve.directions import PUBLISHED
from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import OptionError, VectorError, VocabularyError
from mmretrieve.gallery.gallery import Gallery
from mmretrieve.images import ImageLike
from mmretrieve.inversion.oti import OTI
from mmretrieve.inversion.phi import Phi, Pic2WordPhi
from mmretrieve.language.base import Description, Roles
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.files import FileCaptioner, FileRewriter
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.language.vocabulary import Vocabulary, WordGroup
from mmretrieve.options import ComposerName, RuleName
from mmretrieve.registry import COMPOSERS
from mmretrieve.rules import Hinge
from mmretrieve.vectors import unit
from mmretrieve.wardrobe.attributes import Colour, Garment, Kind, Length, Neckline, Pattern, Sleeves
from mmretrieve.wardrobe.captions import vocabulary
from mmretrieve.wardrobe.dataset import drawings
from mmretrieve.wardrobe.draw import draw

SMALL = Vocabulary(
    "a photo of a {colour} {thing}", (WordGroup("thing", ("dress", "shirt")), WordGroup("colour", ("red", "blue")))
)


@pytest.fixture
def query(encoder: Encoder, photos: Path) -> ComposerInput:
    path = sorted(photos.rglob("*.png"))[0]
    return ComposerInput(encoder.encode_images([path])[0], "in red", image=path)


@pytest.mark.parametrize(
    ("name", "terms", "weights"),
    [
        ("image", ("image",), (1,)),
        ("prompt", ("prompt",), (1,)),
        ("sum", ("image", "prompt"), (1, 1)),
        ("captions", ("image", "text", "composed", "prompt"), (0, 0, 1, 0)),
    ],
)
def test_terms_and_base_weights(
    encoder: Encoder, query: ComposerInput, name: str, terms: tuple[str, ...], weights: tuple[float, ...]
) -> None:
    composition = make_composer(name, encoder).compose([query])[0]
    assert composition.names == terms
    assert composition.weights == weights
    if "prompt" in terms:
        np.testing.assert_allclose(composition["prompt"], encoder.encode_texts(["in red"])[0], atol=1e-6)
    if "image" in terms:
        np.testing.assert_array_equal(composition["image"], query.vector)


def test_a_given_caption_is_used_unchanged(encoder: Encoder, query: ComposerInput) -> None:
    captioned = ComposerInput(query.vector, "in red", caption="a blue thing")
    composition = make_composer("captions", encoder).compose([captioned])[0]
    assert composition.words == {"text": "a blue thing", "composed": "a blue thing, in red", "prompt": "in red"}
    expected = encoder.encode_texts(["a blue thing", "a blue thing, in red"])
    np.testing.assert_allclose([composition["text"], composition["composed"]], expected, atol=1e-6)


class Narrator:
    """A describer for tests: says what is drawn, and once nothing that can be read."""

    def describe(self, queries: Sequence[ComposerInput]) -> list[Description]:
        return [Description(None) if q.prompt == "mumble" else Description(f"a dress {q.prompt}", "a dress") for q in queries]


class Mirror:
    """An editor for tests: says that every image is well as it is."""

    def edit(self, queries: Sequence[ComposerInput]) -> list[ImageLike]:
        return [query.required_image() for query in queries]


def test_a_batch_of_queries_equals_single_queries(encoder: Encoder, query: ComposerInput) -> None:
    image = query.image
    queries = [
        query,
        ComposerInput(query.vector, "striped", "a dress", image),
        ComposerInput(-query.vector, "with dots", image=image),
    ]
    torch.manual_seed(0)
    seen = Phi(Pic2WordPhi(128, 512, 96), encoder.identity.weights)
    for name in ComposerName:
        if COMPOSERS[name].encodes_pairs:  # test_joint.py has an encoder for it
            continue
        phi = seen if name is ComposerName.PIC2WORD else None
        parts = Parts(describer=Narrator(), editor=Mirror(), oti=OTI(steps=3), phi=phi)
        composer = make_composer(name, encoder, parts, score=lambda rows: rows @ rows.T)
        together, apart = composer.compose(queries), [composer.compose([q])[0] for q in queries]
        for a, b in zip(together, apart, strict=True):
            np.testing.assert_allclose(a.terms, b.terms, atol=1e-5)
            assert a.words == b.words


def test_ensembles_are_means_of_captions_and_of_their_rewrites(encoder: Encoder, query: ComposerInput) -> None:
    parts = Parts(captioner=Several(), rewriter=SwapRewriter(SMALL))
    one = make_composer("seize", encoder, parts).compose([query])[0]
    captions = encoder.encode_texts(["a blue dress", "a shirt", "a blue thing"])
    rewritten = encoder.encode_texts(["a red dress, in red", "a shirt, in red", "a red thing, in red"])
    np.testing.assert_allclose(one["text"], unit([captions.mean(axis=0)])[0], atol=1e-5)
    np.testing.assert_allclose(one["composed"], unit([rewritten.mean(axis=0)])[0], atol=1e-5)
    assert (one.rule, one.term_weights["composed"]) == (Hinge(), 1.0)


class Several:
    def captions(self, queries: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        return [["a blue dress", "a shirt", "a blue thing"][:count] for _ in queries]


def test_ldre_weighs_captions_by_the_gains_of_their_rewrites(encoder: Encoder, query: ComposerInput) -> None:
    gallery = encoder.encode_images([query.image]) @ np.eye(128, dtype=np.float32)
    captions, rewrites = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[::-1]
    gains = np.array([[0.1] * 5 + [0.9, -1], [0.2] * 7, [0.0] * 7])

    def score(rows: np.ndarray) -> np.ndarray:
        return gains if rows is rewrites else np.zeros_like(gains)

    d = np.array([4 * 0.1 + 0.9, 5 * 0.2, 0.0])
    powers = np.exp(d / d.max() / 0.04)
    np.testing.assert_allclose(ldre_shares(score, captions, rewrites), powers / powers.sum(), rtol=1e-6)

    def losing(rows: np.ndarray) -> np.ndarray:
        return np.full((3, 7), -1.0 if rows is rewrites else 0.0)

    np.testing.assert_allclose(ldre_shares(losing, captions, rewrites), [1 / 3] * 3)
    one = make_composer("ldre", encoder, Parts(captioner=Several()), score=lambda rows: rows @ gallery.T).compose([query])[0]
    assert "transductive" in str(one.remark)
    with pytest.raises(OptionError, match="weighs captions by a gallery"):
        make_composer("ldre", encoder)


def test_sdr_uses_other_weights_for_the_same_terms(encoder: Encoder, query: ComposerInput) -> None:
    one, plain = (make_composer(name, encoder).compose([query])[0] for name in ("sdr", "captions"))
    np.testing.assert_array_equal(one.terms, plain.terms)
    a, b = 0.15, 0.35
    expected = (1 + b) * ((1 - a) * one["composed"] + a * one["image"]) - b * (one["composed"] - one["prompt"])
    np.testing.assert_allclose(one.vector, expected, atol=1e-6)


def test_role_terms_have_the_signs_of_their_roles(encoder: Encoder, query: ComposerInput) -> None:
    composer_input = ComposerInput(query.vector, "in red, without sleeves, keep the pattern")
    one = make_composer("roles", encoder).compose([composer_input])[0]
    assert one.term_weights == pytest.approx(
        {"image": 0.1, "text": 0, "composed": 0.4, "prompt": 0, "desired": 0.3, "preserve": 0.1, "forbidden": -0.1}
    )
    assert one.words["forbidden"] == "sleeves"
    plain = make_composer("roles", encoder).compose([ComposerInput(query.vector, "in red")])[0]
    assert plain.term_weights == pytest.approx(
        {"image": 0.2 / 0.9, "text": 0, "composed": 0.4 / 0.9, "prompt": 0, "desired": 0.3 / 0.9}
    )
    two = make_composer("roles", encoder).compose([ComposerInput(query.vector, "without dots, no stripes")])[0]
    assert (two.term_weights["forbidden"], two.term_weights["forbidden 2"]) == pytest.approx((-0.05 / 0.7, -0.05 / 0.7))


@pytest.mark.parametrize(
    ("prompt", "desired", "preserve", "forbidden"),
    [
        ("in red", ("in red",), (), ()),
        ("without stripes", (), (), ("stripes",)),
        ("a red dress with no sleeves", ("a red dress",), (), ("sleeves",)),
        ("in blue instead of red", ("in blue",), (), ("red",)),
        ("make it green please", ("green",), (), ()),
        ("keep the neckline but not the colour", (), ("neckline",), ("colour",)),
        ("the same but striped and without a hood", ("striped",), (), ("hood",)),
        ("with the same sleeves, shorter", ("shorter",), ("sleeves",), ()),
        ("has a notebook and is nothing like it", ("a notebook", "nothing like it"), (), ()),
        ("Not striped; no longer blue", (), (), ("striped", "blue")),
        ("in blue instead", ("in blue",), (), ()),
    ],
)
def test_rules_sort_a_prompt_by_role(
    prompt: str, desired: tuple[str, ...], preserve: tuple[str, ...], forbidden: tuple[str, ...]
) -> None:
    assert RuleCompiler().compile([ComposerInput(prompt=prompt)]) == [Roles(None, desired, preserve, forbidden)]


def test_constraints_of_the_soft_rule(encoder: Encoder, query: ComposerInput) -> None:
    composer_input = ComposerInput(query.vector, "in red, keep the sleeves, no dots, not striped")
    one = make_composer("captions", encoder, rule=RuleName.SOFT).compose([composer_input])[0]
    assert (one.words["reward"], one.words["penalty"]) == ("in red, sleeves", "dots, striped")
    assert one.term_weights["reward"] == one.term_weights["penalty"] == 0
    np.testing.assert_allclose(one["penalty"], encoder.encode_texts(["dots, striped"])[0], atol=1e-6)


def test_a_caption_and_a_prompt_compose_without_an_image(encoder: Encoder) -> None:
    one = make_composer("captions", encoder).compose([ComposerInput(None, "in red", "a dress")])[0]
    assert one.names == ("text", "composed", "prompt")
    assert one.weights == (0, 1, 0)


def test_one_step_uses_the_prompt_for_unreadable_answers(encoder: Encoder, query: ComposerInput) -> None:
    queries = [ComposerInput(query.vector, words) for words in ("in red", "mumble", "striped")]
    first, unread, last = make_composer("one-step", encoder, Parts(describer=Narrator())).compose(queries)
    assert first.words == {"text": "a dress", "composed": "a dress in red", "prompt": "in red"}
    assert (unread.words["composed"], unread.supports_pdv) == ("mumble", False)
    assert last.words["composed"] == "a dress striped"
    assert first.term_weights == {"image": 0, "text": 0, "composed": 1, "prompt": 0}
    with pytest.raises(OptionError, match="needs a describer"):
        make_composer("one-step", encoder)


@pytest.mark.parametrize(
    ("caption", "prompt", "rewritten"),
    [
        ("a photo of a blue dress", "in red", "a photo of a red dress, in red"),
        ("a blue dress", "an orange one", "an orange dress, an orange one"),
        ("an orange Dress", "a blue shirt", "a blue shirt, a blue shirt"),
        ("a blue dress", "longer", "a blue dress, longer"),
        ("something", "in red", "something, in red"),
        ("a bluebird dress", "in red", "a bluebird dress, in red"),
    ],
)
def test_a_swap_removes_the_old_word(caption: str, prompt: str, rewritten: str) -> None:
    words = Vocabulary(
        "a {colour} {thing}", (WordGroup("thing", ("dress", "shirt")), WordGroup("colour", ("red", "blue", "orange", "")))
    )
    assert SwapRewriter(words).rewrite([caption], [prompt]) == [rewritten]


def test_an_empty_rewrite_is_replaced_by_the_prompt(encoder: Encoder, query: ComposerInput) -> None:
    class Silent:
        def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:  # noqa: ARG002
            return ["" for _ in captions]

    one = make_composer("captions", encoder, Parts(rewriter=Silent())).compose([query])[0]
    assert one.words["composed"] == "in red"
    assert one.remark == "1 of 1 captions have no rewrite: the prompt is used instead"


def test_several_captions_are_the_best_one_and_its_neighbors(encoder: Encoder, query: ComposerInput) -> None:
    tagger = Tagger(encoder, vocabulary())
    best, *others = tagger.captions([query], 15)[0]
    assert [best] == tagger.captions([query])[0]
    assert len({best, *others}) == 15
    scores = encoder.encode_texts(others) @ query.vector
    assert (np.diff(scores) <= 1e-5).all()
    assert tagger.captions([query], 5)[0] == [best, *others[:4]]


def test_the_tagger_names_what_is_drawn(encoder: Encoder) -> None:
    drawn = [("red", "dress"), ("blue", "shirt"), ("blue", "dress")]
    detail = drawings()[0].detail
    pictures = [
        draw(Garment(Kind(kind), Colour(colour), Pattern.PLAIN, Sleeves.LONG, Length.LONG, Neckline.ROUND), detail, seed=0)
        for colour, kind in drawn
    ]
    queries = [ComposerInput(row) for row in encoder.encode_images(pictures)]
    assert Tagger(encoder, SMALL).captions(queries) == [[f"a photo of a {colour} {kind}"] for colour, kind in drawn]


def test_slerp_by_hand() -> None:
    x, y = np.eye(2, dtype=np.float32)
    assert slerp_weights(x, y, 0.5) == pytest.approx((0.5**0.5, 0.5**0.5))
    assert slerp_weights(x, y, 0.0) == pytest.approx((1, 0))
    assert slerp_weights(x, y, 1 / 3) == pytest.approx((np.sin(np.pi / 3), np.sin(np.pi / 6)))
    assert slerp_weights(x, x, 0.25) == pytest.approx((0.75, 0.25))
    with pytest.raises(VectorError, match="opposite"):
        slerp_weights(x, -x, 0.5)


def test_slerp_lies_on_the_sphere(encoder: Encoder, query: ComposerInput) -> None:
    for t in (0.0, 0.3, 1.0):
        assert np.linalg.norm(Slerp(encoder, t).compose([query])[0].vector) == pytest.approx(1, abs=1e-5)
    with pytest.raises(OptionError, match="t must be"):
        Slerp(encoder, 2)


@pytest.mark.parametrize("words", [{"prompt": ""}, {"prompt": " \n"}, {"prompt": "x", "caption": ""}])
def test_empty_texts_are_refused(words: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="is empty"):
        ComposerInput(np.ones(3, np.float32), **words)


def test_missing_requirements_of_a_composer_are_named(encoder: Encoder) -> None:
    with pytest.raises(OptionError, match="needs a reference image"):
        make_composer("sum", encoder).compose([ComposerInput(prompt="in red")])
    with pytest.raises(OptionError, match="needs a prompt"):
        make_composer("captions", encoder).compose([ComposerInput(np.ones(3, np.float32))])
    with pytest.raises(OptionError, match="a composer needs a vector, a prompt, or both"):
        ComposerInput()
    with pytest.raises(OptionError, match="choose from: image, prompt, sum"):
        make_composer("magic", encoder)


def test_vocabulary_files_round_trip_and_refuse(tmp_path: Path) -> None:
    vocabulary().write(tmp_path / "v.json")
    assert Vocabulary.read(tmp_path / "v.json") == vocabulary()
    for text in (
        "{}",
        "[]",
        "no json",
        '{"sentence": "a {b}", "groups": []}',
        '{"sentence": "{a}", "groups": [{"name": "a", "words": []}]}',
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(VocabularyError):
            Vocabulary.read(tmp_path / "bad.json")
    with pytest.raises(VocabularyError, match=r"nowhere.json: no such file"):
        Vocabulary.read(tmp_path / "nowhere.json")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(VocabularyError, match=r"bad.json: not a vocabulary; expected JSON with 'sentence' and 'groups'$"):
        Vocabulary.read(tmp_path / "bad.json")


def test_say_omits_empty_slots_and_chooses_the_article() -> None:
    assert SMALL.say({}) == "a photo of a"
    assert SMALL.say({"thing": "orange"}) == "a photo of an orange"
    assert SMALL.say({"thing": "dress", "colour": "red"}) == "a photo of a red dress"


def test_encoders_without_a_vocabulary_use_the_general_one(encoder: Encoder) -> None:
    class Bare:
        identity, dim = encoder.identity, encoder.dim
        encode_images, encode_texts = encoder.encode_images, encoder.encode_texts

    composer = make_composer("captions", Bare())
    assert isinstance(composer, Captions)
    words = composer.compose([ComposerInput(encoder.encode_texts(["a black shoe"])[0], "in red")])[0].words["text"]
    assert words.startswith("a photo of")


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "caption_field", "rewrite_field"),
    [
        ("captions", "blip2_caption", "gpt-3.5-turbo"),
        ("ldre", "multi_caption_opt", "multi_gpt-3.5_opt"),
        ("seize", "multi_caption_opt", "multi_gpt-3.5_opt"),
    ],
)
@pytest.mark.slow
def test_the_circo_queries_run_from_their_file(
    encoder: Encoder, made: Path, circo: Path, name: str, caption_field: str, rewrite_field: str
) -> None:
    """CIReVL, LDRE and SEIZE over all 800 test queries, from cached words to rankings; drawings stand in for the gallery."""
    records = json.loads(circo.read_text(encoding="utf-8"))
    fields = {"caption_field": caption_field, "prompt_field": "relative_caption"}
    captioner = FileCaptioner.read(circo, id_field="reference_img_id", **fields)
    gallery = Gallery.open(made)
    parts = Parts(captioner=captioner, rewriter=FileRewriter.read(circo, **fields, rewrite_field=rewrite_field))
    stand_ins = encoder.encode_texts([record["blip2_caption"] for record in records])
    queries = [
        ComposerInput(row, record["relative_caption"], id=str(record["reference_img_id"]))
        for row, record in zip(stand_ins, records, strict=True)
    ]
    composed = make_composer(name, encoder, parts, score=gallery.scores).compose(queries)
    assert len(composed) == 800
    for record, composition in zip(records[::200], composed[::200], strict=True):
        captions, rewrites = (
            [texts] if isinstance(texts, str) else texts for texts in (record[caption_field], record[rewrite_field])
        )
        assert composition.words["text"] in {caption.strip() for caption in captions}
        assert composition.words["composed"] in {rewrite.strip() for rewrite in rewrites}
        if name == "seize":
            means = [unit([encoder.encode_texts(texts).mean(axis=0)])[0] for texts in (captions, rewrites)]
            np.testing.assert_allclose([composition["text"], composition["composed"]], means, atol=1e-3)
        assert len(gallery.search(composition.with_pdv(PUBLISHED["ldre"]), 10)) == 10
