"""The public checks of contracts: all built-in parts pass, and each clause notices a part that violates it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

import mmretrieve as mm
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers import ComposerContext
from mmretrieve.composers.simple import Sum
from mmretrieve.encoders.base import PromptCutWarning
from mmretrieve.errors import ImageError, OptionError
from mmretrieve.images import ImageLike, open_image
from mmretrieve.inversion.oti import OTI
from mmretrieve.inversion.phi import Phi, Pic2WordPhi
from mmretrieve.language.base import Description
from mmretrieve.options import Dtype, JudgeName, RuleName
from mmretrieve.registry import JUDGES
from mmretrieve.rules import Product, Slopes
from mmretrieve.testing import check_composer, check_encoder, check_judge, check_rule, composers, encoders, judges, rules
from mmretrieve.vectors import unit

WORDS = 20  # that `Faithful` reads


class Faithful:
    """An encoder with all optional members that keeps the contract."""

    identity: Any = mm.EncoderIdentity("faithful", "none", "none")
    dim: Any = 49
    context_length: Any = WORDS + 1

    def supports(self, kind: str) -> bool:  # noqa: ARG002
        return True

    def encode_images(self, images: Iterable[Any], progress: Any = None) -> Any:
        rows = [np.asarray(open_image(image).resize((4, 4)), np.float64).ravel() for image in images]
        if progress is not None:
            progress(len(rows))
        return self._unit(rows)

    def encode_texts(self, texts: Sequence[str]) -> Any:
        if not all(Faithful.fits_context(self, texts)):
            warnings.warn("a text was cut", PromptCutWarning, stacklevel=2)
        heads = (" ".join(text.split()[:WORDS]) for text in texts)
        return self._unit([np.random.default_rng(crc32(head.encode())).normal(128, 40, size=48) for head in heads])

    def encode_pairs(self, images: Sequence[Any], texts: Sequence[str]) -> Any:
        rows = Faithful.encode_images(self, images) + 0.5 * Faithful.encode_texts(self, texts)
        return unit(rows) if texts else rows

    def encode_patches(self, images: Iterable[Any]) -> Any:
        """The quarters of each image."""
        quarters = []
        for image in map(open_image, images):
            width, height = (side // 2 for side in image.size)
            corners = [(left, top) for top in (0, height) for left in (0, width)]
            quarters += [image.crop((left, top, left + width, top + height)) for left, top in corners]
        return Faithful.encode_images(self, quarters).reshape(-1, 4, 49)

    def feature_batches(self, batches: Iterable[Iterable[Any]]) -> Iterable[Any]:
        return (3 * Faithful.encode_images(self, batch) for batch in batches)

    def fits_context(self, texts: Sequence[str]) -> list[bool]:
        return [len(text.split()) <= WORDS for text in texts]

    def _unit(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        columns = np.array(rows).reshape(len(rows), 48) - 128
        return unit(np.hstack([columns, np.ones((len(rows), 1))])) if rows else np.empty((0, 49), np.float32)


def encoder_with(**members: Any) -> Any:
    return type("Broken", (Faithful,), members)()


def texts_with(change: Callable[[np.ndarray], Any]) -> Any:
    """`Faithful` with other rows of texts."""
    return encoder_with(encode_texts=lambda self, texts: change(Faithful.encode_texts(self, texts)))


def images_with(change: Callable[[np.ndarray], Any]) -> Any:
    """`Faithful` with other rows of images."""
    return encoder_with(
        encode_images=lambda self, images, progress=None: change(Faithful.encode_images(self, images, progress))
    )


def patches_with(change: Callable[[np.ndarray], Any]) -> Any:
    """`Faithful` with other patches."""
    return encoder_with(encode_patches=lambda self, images: change(Faithful.encode_patches(self, images)))


def with_nan(rows: np.ndarray) -> np.ndarray:
    rows[-1:, 0] = np.nan
    return rows


def marks_images(self: Any, images: Iterable[Any], progress: Any = None) -> Any:
    images = list(images)
    for image in images:
        if isinstance(image, Image.Image):
            image.putpixel((0, 0), (1, 2, 3))
    return Faithful.encode_images(self, images, progress)


def reads_bgr(self: Any, images: Iterable[Any], progress: Any = None) -> Any:
    return Faithful.encode_images(self, [one[..., ::-1] if isinstance(one, np.ndarray) else one for one in images], progress)


def skips_unreadable(self: Any, images: Iterable[Any], progress: Any = None) -> Any:
    def is_readable(image: Any) -> bool:
        try:
            return open_image(image) is not None
        except ImageError:
            return False

    return Faithful.encode_images(self, [image for image in images if is_readable(image)], progress)


def raises_nameless(self: Any, images: Iterable[Any], progress: Any = None) -> Any:
    try:
        return Faithful.encode_images(self, images, progress)
    except ImageError as error:
        raise ImageError("an image cannot be read") from error


def raises_anything(self: Any, images: Iterable[Any], progress: Any = None) -> Any:
    try:
        return Faithful.encode_images(self, images, progress)
    except ImageError as error:
        raise RuntimeError(str(error)) from error


def needs_a_list(self: Any, images: Any, progress: Any = None) -> Any:
    return Faithful.encode_images(self, [images[i] for i in range(len(images))], progress)


versions = itertools.count()
rng = np.random.default_rng(0)
ENCODER_MUTANTS: list[tuple[str, Any]] = [
    ("identity has its type", encoder_with(identity="faithful")),
    ("dim is a positive whole number", encoder_with(dim=49.0)),
    ("dim is a positive whole number", encoder_with(dim=0)),
    ("what it supports has a method", encoder_with(supports=lambda self, kind: False)),  # noqa: ARG005
    ("what it supports has a method", encoder_with(supports=None)),
    ("what it supports has a method", encoder_with(encode_pairs=None)),
    ("what it supports has a method", encoder_with(encode_patches=None)),
    ("rows have shape n dim", texts_with(lambda rows: rows[:, :-1])),
    ("rows have shape n dim", images_with(lambda rows: rows.tolist())),
    ("rows have shape n dim", encoder_with(dim=48)),
    ("rows are contiguous float32", texts_with(lambda rows: rows.astype(np.float64))),
    ("rows are contiguous float32", images_with(np.asfortranarray)),
    ("rows are finite", texts_with(with_nan)),
    ("rows have length 1", images_with(lambda rows: 2 * rows)),
    ("rows have length 1", encoder_with(encode_pairs=lambda self, i, t: self.encode_images(i) + self.encode_texts(t))),
    ("no inputs give no rows", texts_with(lambda rows: rows if len(rows) else np.empty(0, np.float32))),
    ("no inputs give no rows", texts_with(lambda rows: rows if len(rows) else np.empty((0, 49)))),
    ("no inputs give no rows", images_with(lambda rows: rows if len(rows) else np.stack([]))),
    ("equal inputs have equal rows", images_with(lambda rows: unit(rows + 0.01 * rng.normal(size=rows.shape)))),
    ("rows are in the order of inputs", texts_with(lambda rows: rows[rows[:, 0].argsort()])),
    ("rows do not depend on the batch", texts_with(lambda rows: unit(rows - 0.1 * rows.mean(axis=0)) if len(rows) else rows)),
    (
        "different inputs have different rows",
        texts_with(lambda rows: np.tile(np.eye(49, dtype=np.float32)[:1], (len(rows), 1))),
    ),
    ("inputs are not changed", encoder_with(encode_images=marks_images)),
    (
        "identity and dim do not change",
        encoder_with(identity=property(lambda self: replace(Faithful.identity, weights=str(next(versions))))),  # noqa: ARG005
    ),
    ("images are equal in every form", encoder_with(encode_images=reads_bgr)),
    ("images can come from an iterator", encoder_with(encode_images=needs_a_list)),
    (
        "progress counts every image",
        encoder_with(encode_images=lambda self, images, progress=None: Faithful.encode_images(self, images)),  # noqa: ARG005
    ),
    ("an unreadable image is an error that names it", encoder_with(encode_images=skips_unreadable)),
    ("an unreadable image is an error that names it", encoder_with(encode_images=raises_nameless)),
    ("an unreadable image is an error that names it", encoder_with(encode_images=raises_anything)),
    (
        "feature batches agree with encode images",
        encoder_with(feature_batches=lambda self, batches: [self.encode_images(itertools.chain(*batches))]),
    ),
    (
        "feature batches agree with encode images",
        encoder_with(feature_batches=lambda self, batches: (self.encode_images(batch)[::-1] for batch in batches)),
    ),
    ("fits context tells which texts are cut", encoder_with(fits_context=lambda self, texts: [True for _ in texts])),  # noqa: ARG005
    (
        "fits context tells which texts are cut",
        encoder_with(encode_texts=lambda self, texts: silently(Faithful.encode_texts, self, texts)),
    ),
    ("fits context tells which texts are cut", encoder_with(context_length=5)),
    ("patches have shape n p dim", patches_with(lambda patches: patches.reshape(-1, 49))),
    ("patches have shape n p dim", patches_with(lambda patches: patches[:, :0])),
    ("patches have shape n p dim", patches_with(lambda patches: patches.transpose(0, 2, 1))),
    ("patches have shape n p dim", patches_with(lambda patches: patches if len(patches) else np.empty((0, 1, 49), np.float32))),
    ("patches are contiguous float32", patches_with(lambda patches: patches.astype(np.float64))),
    ("patches are contiguous float32", patches_with(np.asfortranarray)),
    ("patches have length 1", patches_with(lambda patches: 2 * patches)),
    ("patches have length 1", patches_with(lambda patches: np.full_like(patches, np.nan))),
    ("patches do not depend on the batch", patches_with(lambda patches: np.ascontiguousarray(patches[::-1]))),
    (
        "patches do not depend on the batch",
        patches_with(
            lambda patches: (
                patches
                if len(patches) < 2
                else unit((patches - patches.mean(axis=0) / 9).reshape(-1, 49)).reshape(patches.shape)
            )
        ),
    ),
    ("patches of an image differ", patches_with(lambda patches: np.repeat(patches[:, :1], 4, axis=1))),
]


def silently(encode: Callable[..., Any], *values: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return encode(*values)


def violates(clause: str) -> str:
    return f' violates "{clause}": .'


@pytest.mark.parametrize(("clause", "mutant"), ENCODER_MUTANTS)
def test_a_wrong_encoder_is_noticed(clause: str, mutant: Any) -> None:
    with pytest.raises(AssertionError, match=violates(clause)) as caught:
        check_encoder(mutant)
    assert str(caught.value).startswith("encoder Broken")
    assert "\n" not in str(caught.value)


def test_encoders_that_keep_the_contract_pass(encoder: mm.Encoder, made: Path) -> None:
    check_encoder(Faithful())  # type: ignore[arg-type]
    check_encoder(encoder_with(supports=lambda self, kind: kind == "text"))  # noqa: ARG005
    check_encoder(mm.load_encoder(encoder_with(identity=None), identity=Faithful.identity))
    check_encoder(encoder)
    check_encoder(mm.load_encoder("wardrobe"))
    check_encoder(mm.load_encoder("wardrobe", dtype=Dtype.BFLOAT16))
    check_encoder(mm.Retriever.open(made, lazy=True, dtype=Dtype.FLOAT32).encoder)


@pytest.mark.parametrize("kind", ["image", "text", "pair"])
def test_an_encoder_is_checked_for_what_it_supports(kind: str) -> None:
    method = f"encode_{kind}s"
    encode = getattr(Faithful(), method)
    common = {"identity": Faithful.identity, "dim": Faithful.dim, "supports": lambda name: name == kind}
    check_encoder(SimpleNamespace(**common, **{method: encode}))
    with pytest.raises(AssertionError, match=violates("rows have length 1")):
        check_encoder(SimpleNamespace(**common, **{method: lambda *inputs: 2 * encode(*inputs)}))


def test_the_tolerance_is_that_of_the_caller() -> None:
    noisy = images_with(lambda rows: unit(rows + 1e-3 * rng.normal(size=rows.shape)))  # 0.007 long
    check_encoder(noisy, tolerance=0.05)
    with pytest.raises(AssertionError, match=r"row \d is 0.0\d+ off, expected at most 0.001"):
        check_encoder(noisy)


def rule_with(slopes: Callable[..., Any], required: Any = ("image", "prompt"), uses_weights: Any = False) -> Any:
    members = {"required_roles": required, "uses_weights": uses_weights, "slopes": lambda self, *scores: slopes(*scores)}  # noqa: ARG005
    return type("Broken", (), members)()


def clamps_in_place(weighted: Any, roles: Mapping[str, Any]) -> Slopes:
    np.maximum(roles["image"], 0, out=roles["image"])
    return Product().slopes(weighted, roles)


def is_rough_in_float32(weighted: Any, roles: Mapping[str, Any]) -> Slopes:
    slopes = Product().slopes(weighted, roles).roles
    return Slopes(0.0, {name: slope.round(2) if slope.dtype == np.float32 else slope for name, slope in slopes.items()})


def divides_by_zero(weighted: Any, roles: Mapping[str, Any]) -> Slopes:  # noqa: ARG001
    with np.errstate(invalid="ignore"):
        return Slopes(weighted / np.abs(weighted))


product = Product().slopes
RULE_MUTANTS: list[tuple[str, Any]] = [
    ("required roles is a collection of names", rule_with(product, required="image")),
    ("required roles is a collection of names", rule_with(product, required=(1, 2))),
    ("uses weights is true or false", rule_with(product, uses_weights=0)),
    ("slopes has a number for each item", rule_with(lambda weighted, roles: (0.0, {"image": roles["prompt"]}))),  # noqa: ARG005
    ("slopes has a number for each item", rule_with(lambda weighted, roles: Slopes(weighted[:-1]))),  # noqa: ARG005
    ("slopes has a number for each item", rule_with(lambda weighted, roles: Slopes(0.0, {"image": roles["prompt"][:, None]}))),  # noqa: ARG005
    ("slopes has a number for each item", rule_with(lambda weighted, roles: Slopes(0.0, {"images": roles["prompt"]}))),  # noqa: ARG005
    ("slopes are finite", rule_with(divides_by_zero, uses_weights=True)),
    ("scores are not changed", rule_with(clamps_in_place)),
    (
        "the score of an item does not depend on other items",
        rule_with(lambda weighted, roles: Slopes(1 / (1 + weighted.var())), uses_weights=True),  # noqa: ARG005
    ),
    (
        "the score of an item does not depend on other items",
        rule_with(lambda weighted, roles: Slopes(1.0 / (1 + np.arange(len(weighted)))), uses_weights=True),  # noqa: ARG005
    ),
    ("its required roles are enough", rule_with(product, required=("image",))),
    ("uses weights tells whether the weighted sum counts", rule_with(lambda *_: Slopes(1.0))),
    ("uses weights tells whether the weighted sum counts", rule_with(product, uses_weights=True)),
    ("totals are the sums of contributions", rule_with(is_rough_in_float32)),
    (
        "contributions are gradients averaged from zero",  # of a product, each factor has one half
        rule_with(lambda weighted, roles: Slopes(0.0, {"image": roles["prompt"]})),  # noqa: ARG005
    ),
]


@pytest.mark.parametrize(("clause", "mutant"), RULE_MUTANTS)
def test_a_wrong_rule_is_noticed(clause: str, mutant: Any) -> None:
    with pytest.raises(AssertionError, match=f"^rule Broken{violates(clause)}"):
        check_rule(mutant)


@pytest.mark.parametrize("name", list(RuleName))
def test_built_in_rules_pass(name: RuleName) -> None:
    check_rule(name)
    check_rule(rule_with(product))


@pytest.mark.usefixtures("registered")
def test_a_rule_is_checked_with_learned_words_too() -> None:
    mm.register_rule("half-broken", lambda learned: rule_with(product, required=("image",) if learned else ("image", "prompt")))
    with pytest.raises(AssertionError, match=f"^rule half-broken{violates('its required roles are enough')}"):
        check_rule("half-broken")
    with pytest.raises(OptionError, match="unknown rule 'produkt'; did you mean 'product'"):
        check_rule("produkt")


class Narrator:
    """A describer for tests."""

    def describe(self, queries: Sequence[ComposerInput]) -> list[Description]:
        return [Description(f"a dress {query.prompt}", "a dress") for query in queries]


class Mirror:
    """An editor for tests: it changes nothing."""

    def edit(self, queries: Sequence[ComposerInput]) -> list[ImageLike]:
        return [query.required_image() for query in queries]


@pytest.mark.parametrize("name", list(mm.ComposerName))
def test_built_in_composers_pass(name: mm.ComposerName, encoder: mm.Encoder) -> None:
    torch.manual_seed(0)
    phi = Phi(Pic2WordPhi(128, 512, 96), encoder.identity.weights) if name is mm.ComposerName.PIC2WORD else None
    encoder = Faithful() if name is mm.ComposerName.JOINT else encoder  # type: ignore[assignment]
    check_composer(name, encoder=encoder, parts=mm.Parts(describer=Narrator(), editor=Mirror(), oti=OTI(steps=3), phi=phi))


Change = Callable[[list[mm.Composition]], Any]


def composed_with(change: Change) -> Callable[[mm.Encoder], Any]:
    """A composer that does something to the compositions of "sum"."""
    return composer_with(lambda encoder, queries: change(Sum(encoder).compose(queries)))


def composer_with(compose: Callable[[mm.Encoder, Any], Any]) -> Callable[[mm.Encoder], Any]:
    return lambda encoder: type("Broken", (), {"compose": lambda self, queries: compose(encoder, queries)})()  # noqa: ARG005


def forced(composition: mm.Composition, **values: Any) -> mm.Composition:
    """The composition with values that its own checks would refuse."""
    for name, value in values.items():
        object.__setattr__(composition, name, value)
    return composition


def drops_signs(encoder: mm.Encoder, queries: Sequence[ComposerInput]) -> list[mm.Composition]:
    for query in queries:
        if query.vector is not None:
            np.abs(query.vector, out=query.vector)
    return Sum(encoder).compose(queries)


COMPOSER_MUTANTS: list[tuple[str, Callable[[mm.Encoder], Any]]] = [
    ("each query has one composition", composed_with(lambda composed: composed[:-1])),
    ("each query has one composition", composed_with(iter)),
    ("each query has one composition", composed_with(lambda composed: [one.terms for one in composed])),
    ("no queries have no compositions", composed_with(lambda composed: composed or None)),
    (
        "terms are unit vectors of the encoder",
        composed_with(lambda composed: [replace(one, terms=unit(one.terms[:, :64])) for one in composed]),
    ),
    (
        "terms are unit vectors of the encoder",
        composed_with(lambda composed: [forced(one, terms=2 * one.terms) for one in composed]),
    ),
    (
        "base weights are finite and not all zero",
        composed_with(lambda composed: [replace(one, weights=(0.0, 0.0)) for one in composed]),
    ),
    (
        "base weights are finite and not all zero",
        composed_with(lambda composed: [forced(one, weights=(float("nan"), 1.0)) for one in composed]),
    ),
    (
        "equal queries have equal compositions",
        composed_with(lambda composed: [replace(one, weights=(1.0, rng.random())) for one in composed]),
    ),
    (
        "equal queries have equal compositions",
        composed_with(lambda composed: [replace(one, words={"prompt": str(next(versions))}) for one in composed]),
    ),
    (
        "compositions are in the order of queries",
        composer_with(lambda encoder, queries: Sum(encoder).compose(sorted(queries, key=lambda query: query.prompt or ""))),
    ),
    (
        "compositions do not depend on the batch",
        composed_with(lambda composed: [replace(one, weights=(1.0, 1 / len(composed))) for one in composed]),
    ),
    ("queries are not changed", composer_with(drops_signs)),
    (
        "a missing input is an error that says so",
        composer_with(lambda encoder, queries: [query.prompt.strip() for query in queries] and Sum(encoder).compose(queries)),
    ),
]


@pytest.mark.parametrize(("clause", "make"), COMPOSER_MUTANTS)
def test_a_wrong_composer_is_noticed(clause: str, make: Callable[[mm.Encoder], Any], encoder: mm.Encoder) -> None:
    with pytest.raises(AssertionError, match=f"^composer Broken{violates(clause)}"):
        check_composer(make(encoder), encoder=encoder)


def make_sum(context: ComposerContext) -> Sum:
    return Sum(context.encoder)


def make_sum_of_one_wording(context: ComposerContext) -> Any:
    """A composer that ignores paraphrases."""
    of_one = composer_with(lambda encoder, queries: Sum(encoder).compose([replace(query, paraphrases=()) for query in queries]))
    return of_one(context.encoder)


TRAIT_MUTANTS = [
    ("its traits tell what it reads", {"reads_image": False, "supports_pdv": False}),
    ("its traits tell what it reads", {"reads_prompt": False, "supports_pdv": False}),
    ("supports pdv tells that it has the terms of pdv", {}),
    ("reads paraphrases tells that terms are means over wordings", {"reads_paraphrases": True, "supports_pdv": False}),
]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(("clause", "traits"), TRAIT_MUTANTS)
def test_wrong_traits_of_a_composer_are_noticed(clause: str, traits: dict[str, bool], encoder: mm.Encoder) -> None:
    mm.register_composer("wrong", make_sum_of_one_wording, **traits)  # type: ignore[arg-type]
    mm.register_composer("right", make_sum, supports_pdv=False, reads_paraphrases=True)
    check_composer("right", encoder=encoder)
    check_composer(Sum(encoder), encoder=encoder)
    with pytest.raises(AssertionError, match=f"^composer wrong{violates(clause)}"):
        check_composer("wrong", encoder=encoder)


def similarity(query: Mapping[str, Any], document: Mapping[str, Any]) -> float:
    """From 0 to 1: how near the mean color of a document is to that of the query, or to the length of its words."""
    color, other = (np.asarray(one["image"]).mean() if "image" in one else len(one["text"]) for one in (document, query))
    return float(1 - abs(color - other) / 255)


def judge_with(change: Callable[[list[dict[str, Any]]], Any] = list, **members: Any) -> Any:
    """A judge that does something to results that are right."""

    def rank(_self: Any, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> Any:
        return change([{"corpus_id": i, "score": similarity(query, one)} for i, one in enumerate(documents)])

    return type("Broken", (), {"rank": rank} | members)()


def scored(score: Callable[[int, float], Any], **members: Any) -> Any:
    """A judge with other scores, of the position and the right score of each document."""
    return judge_with(lambda results: [one | {"score": score(one["corpus_id"], one["score"])} for one in results], **members)


def numbered(number: Callable[[int], Any]) -> Any:
    return judge_with(lambda results: [one | {"corpus_id": number(one["corpus_id"])} for one in results])


def needs_both(self: Any, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ARG001
    return [{"corpus_id": i, "score": len(query["text"]) + query["image"].width} for i in range(len(documents))]


def pops(self: Any, query: Any, documents: Any) -> Any:  # noqa: ARG001
    return [
        {"corpus_id": i, "score": similarity(query, {"image": one.pop("image")})} for i, one in enumerate(map(dict, documents))
    ]


def draws(self: Any, query: Any, documents: Any) -> Any:  # noqa: ARG001
    for document in documents:
        document["image"].putpixel((0, 0), (0, 0, 0))
    return [{"corpus_id": i, "score": 0.5} for i in range(len(documents))]


JUDGE_MUTANTS: list[tuple[str, Any]] = [
    ("results have a corpus id and a score", judge_with(lambda results: [])),  # noqa: ARG005
    ("results have a corpus id and a score", judge_with(lambda results: [one["score"] for one in results])),
    (
        "results have a corpus id and a score",
        judge_with(lambda results: [{"index": 0, "relevance_score": 1.0} for _ in results]),
    ),
    ("corpus ids are positions of documents", numbered(lambda position: position + 1)),
    ("corpus ids are positions of documents", numbered(lambda position: position - 1)),
    ("corpus ids are positions of documents", numbered(str)),
    ("a document has one result at most", numbered(lambda position: position // 2)),
    ("scores are finite numbers", scored(lambda position, score: float("-inf") if position else score)),
    ("scores are finite numbers", scored(lambda position, score: "yes")),  # noqa: ARG005
    ("probabilities are from 0 to 1", scored(lambda position, score: score + 1, scale="probability")),  # noqa: ARG005
    ("no documents have no results", judge_with(lambda results: results or [{"corpus_id": 0, "score": 0.0}])),
    ("a query can lack its image or its text", judge_with(rank=needs_both)),
    ("query and documents are not changed", judge_with(rank=draws)),
    ("the order of documents does not matter", scored(lambda position, score: score + position)),
    ("the order of documents does not matter", judge_with(lambda results: results[:1])),
]


@pytest.mark.parametrize(("clause", "mutant"), JUDGE_MUTANTS)
def test_a_wrong_judge_is_noticed(clause: str, mutant: Any) -> None:
    with pytest.raises(AssertionError, match=f"^judge Broken{violates(clause)}"):
        check_judge(mutant)


def test_judges_that_keep_the_contract_pass() -> None:
    check_judge(judge_with())
    check_judge(judge_with(scale="probability"))
    check_judge(judge_with(lambda results: results[::-1]))
    check_judge(judge_with(rank=pops))
    check_judge(scored(lambda position, score: score + position, listwise=True))
    check_judge(scored(lambda position, score: np.float32(score)))  # noqa: ARG005
    check_judge(numbered(np.int64))


@pytest.mark.parametrize("name", list(JudgeName))
def test_built_in_judges_pass(name: JudgeName, encoder: mm.Encoder) -> None:
    check_judge(JUDGES.build(name, ComposerContext(encoder, mm.Parts())))


@pytest.mark.parametrize(
    ("clauses", "mutants"),
    [
        ((*encoders.CLAUSES, *itertools.chain(*encoders.MORE_CLAUSES.values())), ENCODER_MUTANTS),
        (rules.DECLARATIONS + rules.CLAUSES, RULE_MUTANTS),
        (composers.CLAUSES + composers.TRAITS, COMPOSER_MUTANTS + TRAIT_MUTANTS),
        (judges.CLAUSES, JUDGE_MUTANTS),
    ],
)
def test_each_clause_has_a_mutant(clauses: Sequence[Callable[..., None]], mutants: Sequence[tuple[str, Any]]) -> None:
    assert {clause.__name__.replace("_", " ") for clause in clauses} == {clause for clause, _ in mutants}


def test_an_error_of_the_object_is_a_violation_in_one_line() -> None:
    with pytest.raises(AssertionError, match=r'^judge SimpleNamespace violates "results .*": TypeError: ') as caught:
        check_judge(SimpleNamespace(rank=lambda: []))
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(AssertionError, match="AttributeError: 'int' object has no attribute 'identity'"):
        check_encoder(3)  # type: ignore[arg-type]
