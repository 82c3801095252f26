"""Search requests: several prompts, prompts to avoid, several references, likes and dislikes, rules; in Python and in the shell."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import mmretrieve as mm
from mmretrieve.cli.main import main, make_parser
from mmretrieve.composers.factory import add_constraints
from mmretrieve.composers.simple import PromptOnly, Sum
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery import search
from mmretrieve.images import content_hash
from mmretrieve.inputs import PreparedRequest
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.options import CaptionerName, RewriterName
from mmretrieve.registry import CAPTIONERS, COMPOSERS, ENCODERS, JUDGES, REWRITERS, RULES, ComposerEntry, register_composer
from mmretrieve.request import DEFAULTS, QUERY_FIELDS, REQUEST_FIELDS, SearchRequest
from mmretrieve.rules import Linear, Product, Soft
from mmretrieve.server.app import create_app


def test_search_has_the_fields_of_a_request_in_their_order_with_their_defaults() -> None:
    declared = [(one.name, one.default) for one in dataclasses.fields(SearchRequest)]
    parameters = list(inspect.signature(mm.Retriever.search).parameters.values())[1:]
    assert [(one.name, one.default) for one in parameters] == declared
    assert [one.name for one in parameters if one.kind is not one.KEYWORD_ONLY] == ["image", "prompt"]
    composed = list(inspect.signature(mm.Retriever.compose).parameters.values())[1:]
    assert composed == [one for one in parameters if one.name in QUERY_FIELDS]


def test_the_shell_has_the_fields_of_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    given = make_parser().parse_args(["search", "g"])
    assert {name: getattr(given, name) or DEFAULTS[name] for name in REQUEST_FIELDS} == DEFAULTS
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert not [declared.help for declared in REQUEST_FIELDS.values() if declared.help not in text]


def test_which_composer_a_request_gets_and_which_parts_it_uses() -> None:
    both, captioned = {"reference_id": "a", "prompt": "b"}, {"captioner", "rewriter", "vocabulary"}
    for fields, composer, parts in (
        ({}, "prompt", set()),
        ({"prompt": "b"}, "prompt", {"vocabulary"}),
        ({"avoid": "b"}, "prompt", {"vocabulary"}),
        ({"reference_id": "a"}, "image", set()),
        ({"reference_id": "a", "avoid": "b"}, "captions", captioned),
        (both, "captions", captioned),
        (both | {"rule": "soft"}, "captions", captioned | {"compiler"}),
        (both | {"composer": "sum"}, "sum", set()),
        (both | {"composer": "sum", "weights": "auto"}, "sum", {"vocabulary"}),
        (both | {"composer": "roles"}, "roles", captioned | {"compiler"}),
        (both | {"composer": "lincir"}, "lincir", {"phi", "vocabulary"}),
        (both | {"composer": "one-step"}, "one-step", {"describer", "vocabulary"}),
    ):
        request = SearchRequest.parse(**fields)
        assert (request.composer_name, request.used_parts) == (composer, parts), fields
    for fields, composer in (
        ({"prompt": "in red", "composer": "sum", "weights": "auto"}, "sum"),
        ({"prompt": "without stripes", "composer": "sum", "weights": "auto"}, "image"),
        ({"prompt": "without stripes"}, "captions"),
    ):
        prepared = PreparedRequest.of(SearchRequest.parse(reference_id="a", **fields), RuleCompiler())
        assert prepared.composer == composer, fields


def test_a_request_is_parsed_once_and_stays_what_it_is() -> None:
    request = SearchRequest.parse(
        prompt=["a", "b"], reference_id={"x"}, region=(0, 0, 1, 0.5), k=np.int64(3), beta=np.float32(1)
    )
    assert (request.prompt, request.strength, request.region) == (("a", "b"), (1.0, 1.0), ((0.0, 0.0, 1.0, 0.5),))
    assert (type(request.k), type(request.beta), request.image_weight) == (int, float, (1.0,))
    assert dataclasses.replace(request) == request
    assert SearchRequest.parse(reference_id="x", exclude_reference=np.bool_(True)).exclude_reference is True
    for name, value, message in (
        ("k", 0, "k must be a whole number of at least 1, got 0"),
        ("k", True, "k must be a whole number"),
        ("beta", 1.5, "beta must be a number from 0 to 1, got 1.5"),
        ("alpha_text", "auto", "alpha_text must be a finite number, got 'auto'"),
        ("alpha_image", "much", "alpha_image must be a finite number or 'auto', got 'much'"),
        ("prompt", 3, "prompt must be text, got 3"),
        ("prompt", "\ud800", "prompt must be text in valid Unicode"),
        ("strength", 1e308, "strength must be from -1,000,000 to 1,000,000, got 1e.308"),
        ("weights", {"image": -2e6}, "weights.image must be from -1,000,000 to 1,000,000"),
        ("weights", {}, "weights must be numbers by role"),
        ("region", [0, 0, 1], r"a region must have 4 values: left, top, right and bottom, got \[0, 0, 1\]"),
        ("exclude_reference", "no", "exclude_reference must be True or False, got 'no'"),
        ("exclude_reference", np.array([True]), "exclude_reference must be True or False"),
        ("weights", "best", "weights must be numbers by role"),
        ("composer", "sun", r"unknown composer 'sun'; did you mean 'sum'\? choose from: image, prompt, sum"),
    ):
        with pytest.raises(OptionError, match=message):
            SearchRequest.parse(**{name: value})


@pytest.mark.usefixtures("registered")
def test_registered_names_work_in_python_shell_and_api(
    retriever: mm.Retriever, made: Path, encoder: mm.Encoder, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    reference = retriever.gallery.ids[0]
    expected = retriever.search(reference_id=reference, prompt="in red", composer="sum", rule="product")
    named = {"reference_id": reference, "prompt": "in red", "composer": "mine", "rule": "my-rule"}
    assert retriever.search(**named) == dataclasses.replace(expected, rule="my-rule")
    shell = ["--reference-id", reference, "--prompt", "in red", "--composer", "mine", "--rule", "my-rule", "--dtype", "float32"]
    assert main(["search", str(made), *shell, "--json"]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == list(expected.ids)
    with TestClient(create_app(retriever), base_url="http://127.0.0.1") as client:
        response = client.post("/api/search", json=named)
    assert [hit["score"] for hit in response.json()["hits"]] == [hit.score for hit in expected]
    with pytest.raises(OptionError, match="composer 'mine' exists already"):
        register_composer("mine", Sum)
    captioned = {"image": pictures[0], "prompt": "in red", "caption": "a blue hat"}
    rewritten = mm.Retriever(retriever.gallery, encoder, parts=mm.Parts(rewriter="my-rewriter")).search(**captioned)
    assert rewritten.words["composed"] == "a blue hat, in red"
    shell = ["--image", str(pictures[0]), "--prompt", "in red", "--caption", "a blue hat", "--dtype", "float32"]
    assert main(["search", str(made), *shell, "--rewriter", "my-rewriter", "--json"]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == list(rewritten.ids)


@pytest.mark.usefixtures("registered")
def test_a_plugin_has_the_traits_of_a_built_in_method(retriever: mm.Retriever) -> None:
    both = {"reference_id": retriever.gallery.ids[0], "prompt": "in red"}
    traits = {parameter for parameter in inspect.signature(register_composer).parameters if parameter != "name"}
    assert traits == {field.name for field in dataclasses.fields(ComposerEntry)}
    mm.register_composer("words-only", lambda context: PromptOnly(context.encoder), reads_image=False)
    with pytest.raises(OptionError, match="'words-only' ignores the reference; leave the reference out"):
        retriever.search(**both, composer="words-only")
    mm.register_rule("strong", lambda _: Product(harris=0.5))
    mm.register_rule("strict", lambda _: Soft(0.5), uses=["compiler"], add_terms=add_constraints)
    assert retriever.search(**both, rule="strong").rule == "strong"
    strict = retriever.search(**both, rule="strict", avoid="stripes")
    assert (strict.rule, strict.words["reward"]) == ("strict", "in red")


@pytest.mark.usefixtures("registered")
def test_a_wrong_plugin_is_named_with_what_was_expected(retriever: mm.Retriever) -> None:
    class ReadOnlyName(Linear):
        @property
        def name(self) -> str:  # type: ignore[override]
            return "own"

    context, rule = (
        r"expected factory\(context\) that returns an object with compose",
        "with required_roles, uses_weights, slopes",
    )
    for register, message in (
        (lambda: mm.register_composer("bad", lambda encoder, parts, score: Sum(encoder)), context),  # noqa: ARG005
        (lambda: mm.register_composer("bad", 3), context),  # type: ignore[arg-type]
        (lambda: mm.register_rule("bad", lambda: Product()), f"rule 'bad': its factory does not take one argument; .*{rule}"),  # type: ignore[misc]
        (lambda: mm.register_rewriter("bad", lambda: None), "rewriter 'bad': its factory does not take one argument"),  # type: ignore[misc]
        (
            lambda: mm.register_composer("bad", Sum, uses=["captoner"]),
            "uses of composer 'bad': 'captoner'; did you mean 'captioner'\\?",
        ),
        (
            lambda: mm.register_rule("bad", lambda _: Product(), add_terms=lambda composer: composer),  # type: ignore[misc,arg-type]
            r"rule 'bad': expected add_terms\(context, composer\) that returns a composer",
        ),
        (lambda: mm.register_rule("bad", lambda _: Product(), uses=["compilers"]), "did you mean 'compiler'\\?"),
    ):
        with pytest.raises(OptionError, match=message):
            register()
    assert "bad" not in COMPOSERS
    mm.register_composer("empty", lambda context: context)
    mm.register_rule("empty", lambda _: object())
    mm.register_rule("stubborn", lambda _: ReadOnlyName())
    both = {"reference_id": retriever.gallery.ids[0], "prompt": "in red"}
    for options, message in (
        ({"composer": "empty"}, "composer 'empty': its factory returned ComposerContext without 'compose'; expected factory"),
        ({"rule": "empty"}, "rule 'empty': its factory returned object without 'required_roles'; expected factory"),
        ({"rule": "stubborn"}, "rule 'stubborn': the name of a ReadOnlyName cannot be set; leave `name` out of it"),
    ):
        with pytest.raises(OptionError, match=message):
            retriever.search(**both, **options)


def test_the_uses_of_built_in_methods_are_parts() -> None:
    parts = {part.name for part in dataclasses.fields(mm.Parts)}
    for registry in (COMPOSERS, RULES, JUDGES, REWRITERS, CAPTIONERS, ENCODERS):
        assert all(registry[name].uses <= parts for name in registry)


def test_an_unknown_name_is_looked_up_in_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plug.py").write_text(
        "from mmretrieve.composers.simple import Sum\ndef make(context):\n    return Sum(context.encoder)\n"
    )
    info = tmp_path / "plug-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mmretrieve.composers]\nplugged = plug:make\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(COMPOSERS, "_entries", dict(COMPOSERS._entries))
    assert "plugged" not in COMPOSERS.names
    assert SearchRequest.parse(prompt="a", reference_id="b", composer="plugged").composer_name == "plugged"
    assert "plugged" in COMPOSERS.names
    with pytest.raises(OptionError, match=r"unknown composer 'other'; choose from: .*plugged"):
        COMPOSERS.check("other")


def test_every_built_in_name_has_an_entry() -> None:
    assert COMPOSERS.names == tuple(map(str, mm.ComposerName))
    assert RULES.names == tuple(map(str, mm.RuleName))
    assert REWRITERS.names == tuple(map(str, RewriterName))
    assert CAPTIONERS.names == tuple(map(str, CaptionerName))
    for entry in (
        registry[name] for registry in (COMPOSERS, RULES, JUDGES, REWRITERS, CAPTIONERS, ENCODERS) for name in registry
    ):
        assert callable(resolve_name(str(entry.factory)))


@pytest.fixture
def pictures(photos: Path) -> list[Path]:
    return sorted(photos.rglob("*.png"))


def direction(retriever: mm.Retriever, image: Path, prompt: str) -> tuple[np.ndarray, np.ndarray]:
    one = retriever.compose(image, prompt)
    return one["text"], one["composed"] - one["text"]


def test_directions_of_prompts_add_and_avoid_takes_away(retriever: mm.Retriever, pictures: list[Path]) -> None:
    words = {"prompt": ["in red", "with long sleeves"], "strength": [1, 0.5], "avoid": "striped"}
    query = retriever.compose(pictures[0], **words)
    text, red = direction(retriever, pictures[0], "in red")
    sleeves = direction(retriever, pictures[0], "with long sleeves")[1]
    np.testing.assert_allclose(query.vector, text + red + 0.5 * sleeves - query["avoid"], atol=1e-5)
    assert query.names == ("image", "text", "composed", "prompt", "composed 2", "prompt 2", "avoid")
    assert [query.words[name] for name in ("prompt", "prompt 2", "avoid")] == ["in red", "with long sleeves", "striped"]
    ranking = retriever.search(pictures[0], **words, weights="base")
    assert ranking[0].contributions["avoid"] == pytest.approx(
        -float(query["avoid"] @ vector_of(retriever, ranking[0])), abs=1e-4
    )
    for hit in ranking:
        assert sum(hit.contributions.values()) == pytest.approx(hit.score)


def vector_of(retriever: mm.Retriever, hit: mm.Hit) -> np.ndarray:
    return retriever.gallery.vectors([hit.id])[0]


def test_strength_one_and_no_other_is_the_plain_query(retriever: mm.Retriever, pictures: list[Path]) -> None:
    plain = retriever.search(pictures[0], "in red", beta=0.5)
    assert retriever.search([pictures[0]], ["in red"], strength=1.0, image_weight=[7], beta=0.5) == plain
    nothing = retriever.search(pictures[0], "in red", strength=0, weights="base")
    assert nothing.weights == {"image": 0, "text": 1, "composed": 0, "prompt": 0}


def test_avoid_alone_and_in_a_sum(retriever: mm.Retriever, pictures: list[Path]) -> None:
    alone = retriever.compose(avoid="striped")
    assert alone.term_weights == {"avoid": -1.0}
    both = retriever.compose(pictures[0], "in red", avoid="striped", composer="sum")
    assert both.term_weights == {"image": 1.0, "prompt": 1.0, "avoid": -1.0}


def test_references_are_weighted(retriever: mm.Retriever, pictures: list[Path], photos: Path) -> None:
    query = retriever.compose(pictures[:2], composer="image", image_weight=[3, 1])
    one, two = (retriever.encoder.encode_images([path])[0] for path in pictures[:2])
    np.testing.assert_allclose(query.vector, 0.75 * one + 0.25 * two, atol=1e-5)
    ids = [path.relative_to(photos).as_posix() for path in pictures[:2]]
    by_id = retriever.compose(reference_id=ids, prompt="in red", image_weight=[3, 1], caption=["a top", "a dress"])
    assert by_id.words["text 2"] == "a dress"
    assert by_id.with_pdv(mm.PDV(beta=0)).term_weights["image"] == pytest.approx(0.75)


def test_more_like_and_less_like(retriever: mm.Retriever) -> None:
    a, b, c = retriever.gallery.ids[:3]
    query = retriever.compose(more_like=[a, b], less_like=[c])
    vectors = retriever.gallery.vectors([a, b, c])
    np.testing.assert_allclose(query.vector, 0.75 * vectors[:2].mean(axis=0) - 0.25 * vectors[2], atol=1e-5)
    assert query.words == {"more": a, "more 2": b, "less": c}
    beside = retriever.search(prompt="a dress", more_like=a, less_like=[c], k=3, weights="base")
    assert beside.weights == {"prompt": 1.0, "more": 0.75, "less": -0.25}
    with pytest.raises(GalleryError, match="no item 'nobody'"):
        retriever.search(more_like=["nobody"])


def test_the_reference_can_be_left_out(retriever: mm.Retriever, pictures: list[Path], photos: Path, tmp_path: Path) -> None:
    id_ = pictures[0].relative_to(photos).as_posix()
    assert retriever.search(pictures[0], k=60)[0].id == id_
    assert id_ not in retriever.search(pictures[0], k=60, exclude_reference=True).ids
    assert id_ not in retriever.search(reference_id=id_, k=60, exclude_reference=True).ids
    copy = tmp_path / "renamed.png"
    copy.write_bytes(pictures[0].read_bytes())
    assert id_ not in retriever.search(copy, k=60, exclude_reference=True).ids
    with (
        Image.open(pictures[0]) as opened,
        pytest.raises(OptionError, match="needs files or ids of items as references, got a"),
    ):
        retriever.search(opened, exclude_reference=True)
    with pytest.raises(OptionError, match="this query has none"):
        retriever.search(prompt="a dress", exclude_reference=True)


def test_a_lowest_score_ends_the_ranking(retriever: mm.Retriever) -> None:
    whole = retriever.search(prompt="a dress", k=20)
    part = retriever.search(prompt="a dress", k=20, min_score=whole[4].score)
    assert part.hits == whole.hits[:5]
    assert part.note == f"5 of the 20 asked for: the others score below {whole[4].score:g}"
    assert len(retriever.search(prompt="a dress", min_score=9)) == 0
    with pytest.raises(OptionError, match="min_score must be a finite number"):
        retriever.search(prompt="a dress", min_score=float("nan"))


@pytest.mark.parametrize("rule", ["hinge", "soft", "product", "product-harris"])
def test_a_rule_scores_every_item_of_a_gallery_that_fits(retriever: mm.Retriever, pictures: list[Path], rule: str) -> None:
    composition = retriever.compose(pictures[0], "in red without stripes", rule=rule)
    composition = retriever.weigh(composition, keep_rule=True)
    expected = composition.contributions(retriever.gallery.term_scores(composition)).sum(axis=0)
    found = retriever.search(pictures[0], "in red without stripes", rule=rule, k=60)
    assert found.ids == tuple(retriever.gallery.ids[i] for i in np.argsort(-expected, kind="stable"))
    assert (found.rule, found.pool, found.note) == (rule, None, None)
    for hit in found:
        assert sum(hit.contributions.values()) == pytest.approx(hit.score)


def test_beyond_that_a_rule_scores_a_pool_and_says_so(
    retriever: mm.Retriever, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = retriever.search(pictures[0], "in red", rule="product", composer="sum", k=3)
    monkeypatch.setattr(search, "MAX_EXACT_ITEMS", 10)
    monkeypatch.setattr(search, "POOL_SIZE", 12)
    pooled = retriever.search(pictures[0], "in red", rule="product", composer="sum", k=3)
    assert pooled.pool is not None
    assert 12 <= pooled.pool < 60
    assert f"scored the {pooled.pool} best candidates of its terms, not the whole gallery" in str(pooled.note)
    assert {hit.id for hit in pooled} <= set(retriever.gallery.ids)
    assert pooled[0] == exact[0]
    assert retriever.search(pictures[0], "in red", k=3).pool is None  # linear: the index answers for all


def test_a_region_is_the_query_that_the_part_would_be(retriever: mm.Retriever, pictures: list[Path]) -> None:
    with Image.open(pictures[0]) as whole:
        right = whole.convert("RGB").crop((whole.width // 2, 0, whole.width, whole.height))
    half, id_ = (0.5, 0, 1, 1), retriever.gallery.copies(content_hash(pictures[0]))[0]
    part = retriever.search(right, "in red", k=60)
    assert retriever.search(pictures[0], "in red", region=half, k=60) == part
    assert retriever.search(reference_id=id_, prompt="in red", region=[half], k=60) == part
    assert retriever.search(pictures[0], "in red", k=60) != part
    assert pictures[0].as_posix() not in {
        hit.path for hit in retriever.search(pictures[0], region=half, exclude_reference=True)
    }


def test_references_of_both_kinds(retriever: mm.Retriever, pictures: list[Path]) -> None:
    """Images come first, then items, each with its weight and its region."""
    first, second = (retriever.gallery.copies(content_hash(picture))[0] for picture in pictures[:2])
    items = {"reference_id": [first, second], "image_weight": [2, 1], "region": [None, (0, 0, 1, 0.5)]}
    mixed = {"image": pictures[0], "reference_id": second, "image_weight": [2, 1], "region": [None, (0, 0, 1, 0.5)]}
    together, apart = retriever.search(**mixed, k=60), retriever.search(**items, k=60)
    assert together.ids == apart.ids
    assert together.weights == pytest.approx(apart.weights, rel=1e-3)
    base = retriever.search(**items, weights="base")
    assert base.weights == pytest.approx({"image": 2 / 3, "image 2": 1 / 3})
    assert retriever.search(**mixed, k=1, exclude_reference=True).hidden == {"excluded": 2}


def test_contradicting_fields_are_refused(retriever: mm.Retriever, pictures: list[Path]) -> None:
    one = pictures[0]
    wrong: list[tuple[dict[str, object], str]] = [
        ({}, "the query is empty; give image, reference_id, prompt, avoid, more_like, less_like or axis"),
        (
            {"image": one, "region": [(0, 0, 1, 1), None]},
            "region has 2 values for 1 reference; give one for each reference, or none",
        ),
        ({"image": one, "region": 5}, "a region must have 4 values: left, top, right and bottom, got 5"),
        ({"image": one, "region": (0.5, 0, 0.5, 1)}, r"a region must have 0 <= left.*got \(0.5, 0, 0.5, 1\)"),
        (
            {"image": one, "prompt": ["a", "b"], "strength": 1.0},
            "strength has 1 value for 2 prompts; give one for each prompt, or none",
        ),
        ({"image": one, "image_weight": [1, 2]}, "image_weight has 2 values for 1 reference"),
        ({"image": one, "prompt": "a", "strength": "much"}, "strength must be a finite number, got 'much'"),
        ({"image": one, "image_weight": -1}, "weights of references must be 0 or more"),
        ({"image": one, "prompt": "a", "caption": ["b", "c"]}, "caption has 2 values for 1 reference"),
        ({"image": one, "prompt": "a", "rule": "magic"}, "unknown rule 'magic'"),
        ({"image": one, "prompt": "a", "composer": "image"}, "'image' ignores the prompt"),
        ({"image": one, "prompt": "a", "composer": "prompt"}, "'prompt' ignores the reference"),
        ({"image": one, "prompt": "a", "rule": "product", "more_like": retriever.gallery.ids[0]}, "leave out more_like"),
        ({"image": one, "prompt": "a", "rule": "product", "axis": "long"}, "leave out axis"),
        ({"image": one, "axis_opposite": "short"}, "axis_opposite and axis_weight need an axis, and this request has none"),
        ({"image": one, "axis_weight": -1}, "axis_opposite and axis_weight need an axis, and this request has none"),
        ({"image": one, "axis": [" "]}, "axis is empty; give a text, or leave axis out"),
        ({"prompt": "a", "avoid": " A "}, "'a' is both a prompt and a phrase to avoid"),
        ({"image": one, "avoid": " "}, "avoid is empty; give a text, or leave avoid out"),
        ({"image": one, "prompt": "a", "rule": "product", "avoid": "b"}, "leave out avoid"),
        ({"image": [one] * 20, "prompt": ["a"] * 20}, r"20 references and 20 prompts are more than 256 pairs.*search_many"),
        ({"image": one, "prompt": "a", "weights": {"image": 0}}, "all weights are 0, .* give one term a weight other than 0"),
        ({"image": one, "prompt": "a", "weights": {"image": 1}, "beta": 0.5}, "give weights or beta, not both"),
        ({"image": one, "weights": {5: 1}}, "weights must be numbers by role"),
        (
            {"image": one, "weights": {"imge": 1}},
            r"weights name 'imge', but this query has only: image; did you mean 'image'\?",
        ),
        ({"image": one, "exclude": 5}, "exclude must be the id of an item, got 5"),
        ({"reference_id": [["a"]]}, r"reference_id must be the id of an item, got \['a'\]"),
        ({"prompt": "without stripes", "rule": "hinge"}, "'hinge' rule needs composed, text; this query has only avoid"),
        ({"image": one, "rule": "hinge"}, "'hinge' rule needs composed, text; this query has only image"),
        ({"image": one, "prompt": "a", "rule": "product", "beta": 0.5}, "'product' rule has no weights"),
        ({"image": one, "prompt": "a", "composer": "one-step"}, "'one-step' needs a describer"),
    ]
    for query, message in wrong:
        with pytest.raises(OptionError, match=message):
            retriever.search(**query)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="unknown field 'colour'; choose from: image, prompt"):
        SearchRequest.parse(prompt="a", colour="red")
    with pytest.raises(TypeError, match="colour"):
        retriever.search(prompt="a", colour="red")  # type: ignore[call-arg]


def test_a_method_with_weights_of_its_own_keeps_them_beside_a_gallery_setting(
    tmp_path: Path, encoder: mm.Encoder, pictures: list[Path]
) -> None:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder, setting=mm.PDV(beta=0.5))
    gallery.add(pictures[0].parent)
    retriever = mm.Retriever(gallery, encoder)
    assert retriever.search(pictures[0], "in red", beta=0.5).weights["image"] == 0.5
    assert retriever.search(pictures[0], "in red", composer="sdr").weights["image"] == pytest.approx(1.35 * 0.15)
    assert retriever.search(pictures[0], "in red", rule="product").rule == "product"


def test_the_setting_of_a_gallery_holds_for_many_references(tmp_path: Path, encoder: mm.Encoder, pictures: list[Path]) -> None:
    """Thirds do not add up to one exactly; the base method must be known as such all the same."""
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder, setting=mm.PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75))
    gallery.add(pictures[0].parent)
    retriever = mm.Retriever(gallery, encoder)
    for many in range(1, 8):
        found = retriever.weigh(retriever.compose(pictures[:many], ["in red", "long"]), beta=0.75)
        assert found.term_weights["image"] == pytest.approx(0.25 / many)


def test_a_changed_image_is_not_read(tmp_path: Path, encoder: mm.Encoder, pictures: list[Path]) -> None:
    file = tmp_path / "photos" / "a.png"
    file.parent.mkdir()
    file.write_bytes(pictures[0].read_bytes())
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add(file.parent)
    retriever = mm.Retriever(gallery, encoder)
    assert len(retriever.search(reference_id="a.png", prompt="in red", composer="lincir")) == 1
    file.write_bytes(pictures[1].read_bytes())
    assert len(retriever.search(reference_id="a.png", prompt="in red")) == 1  # its vector is still known
    with pytest.raises(OptionError, match="is missing or has changed since it was indexed"):
        retriever.search(reference_id="a.png", prompt="in red", composer="lincir")


def test_automatic_alpha_takes_all_references_and_prompts(retriever: mm.Retriever, pictures: list[Path]) -> None:
    query = retriever.compose(pictures[:2], ["in red", "striped"], strength=[0.2, 1])
    image, text, composed = (query.weighted({role: 1}).vector for role in ("image", "text", "composed"))
    assert query.automatic_alpha_image() == pytest.approx(
        float(mm.automatic_alpha_image(image[None], text[None], composed[None])[0])
    )
    assert query.automatic_alpha_image() != pytest.approx(
        retriever.compose(pictures[0], "in red").automatic_alpha_image(), abs=1e-3
    )


def test_shell_and_python_say_the_same(
    made: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str], encoder: mm.Encoder
) -> None:
    a, b = mm.Gallery.open(made).ids[:2]
    words = [
        "--prompt",
        "in red",
        "--prompt",
        "with long sleeves",
        "--strength",
        "1",
        "--strength",
        "0.5",
        "--avoid",
        "striped",
    ]
    words += ["--image", str(pictures[0]), "--image", str(pictures[1]), "--image-weight", "2", "--image-weight", "1"]
    words += [
        "--more-like",
        a,
        "--less-like",
        b,
        "--exclude",
        b,
        "--exclude-reference",
        "--min-score",
        "0.01",
        "--rule",
        "hinge",
    ]
    words += ["--composer", "seize", "--rewriter", "swap", "-k", "7", "--json", "--dtype", "float32"]
    assert main(["search", str(made), *words]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    from mmretrieve.language.rewriters import SwapRewriter
    from mmretrieve.wardrobe.captions import vocabulary

    retriever = mm.Retriever.open(made, encoder=encoder, parts=mm.Parts(rewriter=SwapRewriter(vocabulary())))
    ranking = retriever.search(
        pictures[:2],
        ["in red", "with long sleeves"],
        strength=[1, 0.5],
        avoid="striped",
        image_weight=[2, 1],
        more_like=[a],
        less_like=[b],
        exclude=[b],
        exclude_reference=True,
        min_score=0.01,
        rule="hinge",
        composer="seize",
        k=7,
    )
    assert [line["id"] for line in lines] == list(ranking.ids)
    assert lines[0]["contributions"] == pytest.approx(dict(ranking[0].contributions), abs=1e-5)


def test_invalid_options_in_the_shell_are_one_line(
    made: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    image = ["--image", str(pictures[0])]
    for words, message in (
        ([*image, "--prompt", "a", "--strength", "x"], "argument --strength: expected a finite number, got 'x'"),
        ([*image, "--prompt", "a", "--rewriter", "endpoint"], "an endpoint needs --model NAME"),
        (
            [*image, "--prompt", "a", "--model", "m"],
            "no captioner, rewriter, paraphraser, compiler, describer, editor or judge is the endpoint",
        ),
        ([*image, "--prompt", "a", "--rewriter", "nobody"], "unknown rewriter 'nobody'"),
        ([*image, "--prompt", "a", "--composer", "lincir", "--phi", "nowhere.pt"], "nowhere.pt"),
        (
            [*image, "--prompt", "a", "--phi", "nowhere.pt"],
            "--phi has no effect here: the composer is 'captions'; leave it out, or choose another --composer",
        ),
        (
            [*image, "--prompt", "a", "--composer", "sum", "--rewriter", "swap"],
            "--rewriter has no effect here: the composer is 'sum'; leave it out, or choose",
        ),
        (
            ["--prompt", "a", "--captioner", "tagger"],
            "--captioner has no effect here: the composer is 'prompt'; leave it out, give --image, or choose another --composer",
        ),
        (
            ["--avoid", "a", "--rewriter", "swap"],
            "--rewriter has no effect here: the composer is 'prompt'; leave it out, give --image, or",
        ),
        (
            [*image, "--captioner", "tagger"],
            "--captioner has no effect here: the composer is 'image'; leave it out, give --prompt, or",
        ),
        (
            [*image, "--prompt", "a", "--compiler", "rules"],
            "--compiler has no effect here: the composer is 'captions'; leave it out, or choose",
        ),
        (
            [*image, "--prompt", "a", "--composer", "sun"],
            "argument --composer: unknown composer 'sun'; did you mean 'sum'? choose from: image,",
        ),
        ([*image, "--prompt", "a", "--beta", "2"], "argument --beta: expected a number from 0 to 1, got '2'"),
        ([*image, "--prompt", "a", "--weights", "image=1,image=2"], "every role once"),
    ):
        try:
            status = main(["search", str(made), *words])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        error = capsys.readouterr().err
        assert status in (1, 2)
        assert message in error
        assert len(error.splitlines()) == 1
