"""One request through every front end: import, shell, API, MCP and page give the same scores, to the last digit."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from live_server import served
from mcp import Client

import mmretrieve as mm
from demo.app import page
from mmretrieve.cli.main import main
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.store import ledger
from mmretrieve.request import SearchRequest
from mmretrieve.server.app import create_app
from mmretrieve.service import MAX_ATTEMPTS, SearchService

Scores = list[tuple[str, float, dict[str, float]]]
K = 60  # all items, so that copies that the page stacks are no shorter list


@pytest.fixture(scope="module")
def link(retriever: mm.Retriever) -> Iterator[str]:
    with served(create_app(retriever, page=page)) as link:
        yield link


def from_shell(gallery: Path, request: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> Scores:
    words: list[str] = []
    for name, value in request.items():
        option = "-k" if name == "k" else f"--{name.replace('_', '-')}"
        text = ",".join(f"{role}={weight}" for role, weight in value.items()) if isinstance(value, dict) else str(value)
        words += [option] if value is True else [option, text]
    capsys.readouterr()
    assert main(["search", str(gallery), *words, "--json", "--dtype", "float32"]) == 0
    return in_order([json.loads(line) for line in capsys.readouterr().out.splitlines()])


def from_mcp(link: str, request: dict[str, Any]) -> Scores:
    async def call() -> Any:
        async with Client(f"{link}/mcp", read_timeout_seconds=60) as client:
            return await client.call_tool("search", request)

    result = anyio.run(call)
    assert not result.is_error, result.content
    return in_order(result.structured_content["hits"])


def from_page(link: str, request: dict[str, Any]) -> Scores:
    """The hits that are shown; copies have no scores of their own there."""
    body = request | {"k": K}
    answer = httpx.post(f"{link}/page/view", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return [(card["id"], card["score"], card["contributions"]) for card in answer.json()["results"]["cards"]]


def in_order(hits: list[dict[str, Any]]) -> Scores:
    return [(hit["id"], hit["score"], hit["contributions"]) for hit in hits]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"weights": "balanced"},
        {"weights": "base"},
        {"weights": {"image": 0.3, "prompt": 1.7, "composed": 0.77}},
        {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75, "exclude_reference": True},
        {"alpha_image": "auto"},
        {"avoid": "stripes", "min_score": 0.1, "where": "width > 90"},
        {"composer": "sum"},
        {"rule": "hinge"},
    ],
    ids=str,
)
def test_one_request_has_the_same_scores_in_all_five_front_ends(
    link: str, made: Path, retriever: mm.Retriever, photos: Path, capsys: pytest.CaptureFixture[str], request_: dict[str, Any]
) -> None:
    file = sorted(photos.rglob("*.png"))[7]
    request = {"prompt": "in red", "k": K} | request_
    ranking = retriever.search(file, **request)
    expected = [(hit.id, hit.score, dict(hit.contributions)) for hit in ranking]
    assert expected
    sent = request | {"image": base64.b64encode(file.read_bytes()).decode()}
    assert in_order(httpx.post(f"{link}/api/search", json=sent, timeout=60).json()["hits"]) == expected
    assert from_mcp(link, sent) == expected
    assert from_shell(made, request | {"image": file}, capsys) == expected
    shown = from_page(link, sent)
    by_id = {id_: (score, contributions) for id_, score, contributions in expected}
    assert shown
    for id_, score, contributions in shown:
        assert score == by_id[id_][0]
        assert contributions == {name: by_id[id_][1][name] for name in contributions}
    assert [id_ for id_, *_ in shown] == [id_ for id_, *_ in expected if id_ in {one[0] for one in shown}]


def test_a_query_is_scored_once_and_weighted_again_exactly(retriever: mm.Retriever, photos: Path) -> None:
    service, file = SearchService(retriever), sorted(photos.rglob("*.png"))[7]
    automatic = SearchRequest.parse(image=file, prompt="in red", k=K)
    scored = service.score(automatic)
    for weights in (None, "balanced", "base", {"image": 1 / 3, "composed": 0.7}):
        request = SearchRequest.parse(image=file, prompt="in red", k=K, weights=weights)
        assert service.score(request) is scored
        assert service.rank(scored, service.weigh(scored, request), request) == retriever.search(
            file, "in red", k=K, weights=weights
        )
    assert service.score(SearchRequest.parse(image=file, prompt="in blue")) is not scored
    own, other = (SearchRequest.parse(image=file, prompt="in red", composer="sum", weights=w) for w in (None, "auto"))
    assert service.score(own) is not service.score(other)  # the one takes "without …" word for word


def test_a_moved_slider_reads_the_ids_of_its_hits_only(
    gallery: mm.Gallery, encoder: mm.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a million items would take longer than their scores."""
    reader = mm.Gallery.open(gallery.path)

    def refuse(*_: object) -> None:
        raise AssertionError("all ids were read")

    monkeypatch.setattr(ledger.Ledger, "ids", refuse)
    service, request = SearchService(mm.Retriever(reader, encoder)), SearchRequest.parse(prompt="a red dress", k=3)
    scored = service.score(request)
    assert service.score(request) is scored
    assert len(service.rank(scored, service.weigh(scored, request), request)) == 3
    reader.delete([service.rank(scored, scored.composition, request).ids[0]])
    assert service.score(request) is not scored


def test_an_answer_is_attempted_a_bounded_number_of_times(gallery: mm.Gallery, encoder: mm.Encoder) -> None:
    service = SearchService(mm.Retriever(gallery, encoder))
    attempts: list[str] = []

    def answer_while_another_process_writes(_: object) -> None:
        attempts.append(gallery.ids[0])
        gallery.delete([gallery.ids[0]])

    with pytest.raises(GalleryError, match="changed during each of 8 attempts to answer; try again"):
        service.with_scores(SearchRequest.parse(prompt="a red dress"), answer_while_another_process_writes)
    assert len(attempts) == MAX_ATTEMPTS


def test_facets_count_all_items(tmp_path: Path) -> None:
    gallery = mm.Gallery.for_vectors(tmp_path / "g", mm.EncoderIdentity("model", "weights", "none"), dim=2)
    fields = [{"colour": "red" if i < 3_000 else "blue"} for i in range(3_500)]
    gallery.add_vectors([str(i) for i in range(3_500)], np.ones((3_500, 2)), fields=fields)
    service = SearchService(mm.Retriever(gallery, SimpleNamespace(identity=gallery.encoder_identity)))  # type: ignore[arg-type]
    assert service.facets()[0].choices == (("red", 3_000), ("blue", 500))


def test_facets_are_fields_that_divide_the_items(tmp_path: Path) -> None:
    gallery = mm.Gallery.for_vectors(tmp_path / "g", mm.EncoderIdentity("model", "weights", "none"), dim=2)
    fields = [
        {
            "title": f"dress {i}",
            "nearly": f"no. {i // 2 * 2 if i > 20 else i}",
            "colour": ("red", "blue")[i % 2],
            "brand": "one",
            "price": i,
            "stock": 1,
            "maker": f"maker {i // 4}",
        }
        for i in range(120)
    ]
    gallery.add_vectors([str(i) for i in range(120)], np.ones((120, 2)), fields=fields)
    service = SearchService(mm.Retriever(gallery, SimpleNamespace(identity=gallery.encoder_identity)))  # type: ignore[arg-type]
    facets = {facet.field: facet for facet in service.facets()}
    assert list(facets) == ["colour", "price", "maker"]
    assert len(facets["maker"].choices) == 30
    assert facets["colour"].choices == (("red", 60), ("blue", 60))
    assert (facets["price"].lowest, facets["price"].highest) == (0, 119)
