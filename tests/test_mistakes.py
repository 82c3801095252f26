"""Plain mistakes in Python: each is one line of the error family that says what was wrong, what was expected and what to do."""

# ruff: noqa: ARG005 - each call uses what it needs

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mmretrieve as mm
from mmretrieve.errors import KeywordError, MMRetrieveError

Call = Callable[[mm.Retriever, Path], Any]


class NamedEncoder:
    """An encoder with a string for an identity."""

    identity, dim = "my-clip", 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda r, p: mm.Gallery.from_vectors(p / "g", ["a", "b"], [[1, 2], [1]]),
            "vectors: expected an array of real numbers of",
        ),
        (
            lambda r, p: r.search(prompt="x", judge_k=3),
            "judge_k and judge_weight need a judge, and this request has none; name",
        ),
        (lambda r, p: r.search(prompt="x", judge_weight=0), "judge_k and judge_weight need a judge"),
        (lambda r, p: r.weigh("x"), "expected a Composition, such as what Retriever.compose returns, got 'x'"),
        (lambda r, p: r.gallery.term_scores(None), "expected a Composition"),
        (lambda r, p: mm.Retriever.open(None), "path must be a path, got None"),
        (lambda r, p: mm.Retriever.open(""), "path is empty; name a file or a folder, such as . for this one"),
        (lambda r, p: mm.Gallery.create("", encoder=r.encoder), "path is empty; name a file or a folder"),
        (lambda r, p: mm.read_source(""), "source is empty; name a file or a folder"),
        (lambda r, p: mm.open_gallery(3), "path must be a path, got 3"),
        (lambda r, p: mm.Gallery.open(None), "path must be a path, got None"),
        (lambda r, p: mm.read_source([3]), "source must be a path, got [3]"),
        (lambda r, p: mm.Gallery.open(r.gallery.path, encoder="wardrobe"), "such as load_encoder('wardrobe'), got 'wardrobe'"),
        (lambda r, p: mm.Gallery.create(p / "g", encoder=None), "such as what load_encoder returns, got None"),
        (lambda r, p: mm.Gallery.create(p / "g", encoder=NamedEncoder()), "must be an EncoderIdentity(model, weights, preproc"),
        (lambda r, p: mm.Gallery.for_vectors(p / "g", "clip", 4), "expected an encoder or an EncoderIdentity"),
        (lambda r, p: mm.Gallery.for_vectors(p / "g", r.encoder, "4"), "dim must be a whole number of at least 1, got '4'"),
        (lambda r, p: mm.Retriever("shop.gallery", r.encoder), "expected a gallery, such as what open_gallery returns"),
        (lambda r, p: mm.Retriever(r.gallery, r.encoder, parts="swap"), "parts must be Parts(…), got 'swap'"),
        (lambda r, p: r.search(3, "in red"), "expected a path, a PIL image, an array, bytes or an open file, got 3"),
        (lambda r, p: r.search_requests([{"prompt": "x"}]), "search_many takes mappings"),
        (lambda r, p: r.gallery.merge(r.gallery), "other must be a path, got <Gallery of"),
        (lambda r, p: r.gallery.export(None), "folder must be a path, got None"),
        (lambda r, p: r.gallery.import_vectors(None), "folder must be a path, got None"),
        (lambda r, p: r.gallery.list_items(limit=-1), "limit must be a whole number of at least 0, got -1"),
        (lambda r, p: mm.Parts(captioner=3), "captioner must be an object with captions(…), got 3"),
        (lambda r, p: mm.Retriever.open(r.gallery.path, device=0), "unknown device '0'"),
        (lambda r, p: r.gallery.search(r.gallery.vectors()[0], exclude=3), "expected a list of ids, got 3"),
        (lambda r, p: r.gallery.search(r.gallery.vectors()[0], min_score="a"), "min_score must be a finite number, got 'a'"),
        (lambda r, p: mm.Composition("image", r.gallery.vectors()[:1], (1.0,)), "got one string 'image'"),
    ],
)
def test_a_mistake_is_one_line(retriever: mm.Retriever, tmp_path: Path, call: Call, message: str) -> None:
    with pytest.raises(MMRetrieveError) as caught:
        call(retriever, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "nothing was created"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda r: r.search(promt="in red"),
            "unknown keyword 'promt' of search; did you mean 'prompt'? choose from: image, prompt, re",
        ),
        (lambda r: r.search(prompt="in red", top_k=3), "unknown keyword 'top_k' of search; did you mean 'k'?"),
        (lambda r: r.search(prompt="in red", filter="a = 1"), "did you mean 'where'?"),
        (lambda r: r.compose(promt="in red"), "did you mean 'prompt'?"),
        (lambda r: r.weigh(None, betta=1), "unknown keyword 'betta' of weigh; did you mean 'beta'?"),
        (lambda r: r.gallery.search(None, top_k=3), "did you mean 'k'? choose from: composition, k, exclude, where, min_score"),
        (lambda r: r.gallery.list_items(were="a"), "did you mean 'where'?"),
        (
            lambda r: mm.Retriever.open("x", devise="cpu"),
            "did you mean 'device'? choose from: path, encoder, device, dtype, parts",
        ),
        (lambda r: mm.open_gallery("x", divice="cpu"), "did you mean 'device'?"),
        (lambda r: mm.load_encoder("wardrobe", devce="cpu"), "did you mean 'device'?"),
        (
            lambda r: mm.Parts(rewritr="swap"),
            "unknown keyword 'rewritr' of Parts; did you mean 'rewriter'? choose from: vocabulary, capt",
        ),
        (lambda r: mm.Columns(img="photo"), "unknown keyword 'img' of Columns; did you mean 'image'? choose from: image, id"),
        (lambda r: mm.PDV(bta=1), "unknown keyword 'bta' of PDV; did you mean 'beta'?"),
        (lambda r: mm.pdv_weights(alpha_img=1), "did you mean 'alpha_image'? choose from: alpha_image, alpha_text, beta"),
        (lambda r: mm.Gallery.create("x", encodr=1), "did you mean 'encoder'?"),
    ],
)
def test_an_unknown_keyword_names_all_and_the_nearest(retriever: mm.Retriever, call: Callable[..., Any], message: str) -> None:
    with pytest.raises(KeywordError) as caught:
        call(retriever)
    assert message in str(caught.value)
