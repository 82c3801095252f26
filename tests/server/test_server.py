"""The API of a real server: one query has one answer everywhere, and whatever is wrong is one line."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from live_server import ROOT, SlowRetriever, command, free_port, served, until
from milvus_server import LiteServer
from PIL import Image

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.errors import BusyError, ExpiredError, ImageError, JudgeError, MissingError, OptionError
from mmretrieve.filters import parse, to_dict
from mmretrieve.images import MAX_PIXELS
from mmretrieve.milvus.transfer import push
from mmretrieve.request import REQUEST_FIELDS, SearchRequest
from mmretrieve.server import connections, errors, limits, run
from mmretrieve.server.app import create_app
from mmretrieve.server.limits import BATCH, COMPUTED_TOGETHER, PROMPTS, REFERENCES, TURNS, Limits
from mmretrieve.server.mcp import MAX_THUMBNAILS
from mmretrieve.server.schemas import SearchBody, SearchResponse
from mmretrieve.server.uploads import Uploads
from mmretrieve.service import IMAGE_SIDE, SearchService

HOSTILE = "<img src=x onerror=alert(1)>.jpg"
KNOBS = {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75}
TRICKS = (
    "../../../../../../etc/passwd",
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f%2e%2e%2fetc/passwd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "file:///etc/passwd",
    "..%5c..%5cetc%5cpasswd",
    "%00",
    "secret.jpg%00.png",
    "....//....//etc/passwd",
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, encoder: mm.Encoder, photos: Path) -> mm.Retriever:
    """The sixty, one picture with a hostile name, and one whose file is gone; a secret lies beside them."""
    place = tmp_path_factory.mktemp("shop")
    more = place / "more"
    more.mkdir()
    for name, colour in ((HOSTILE, "red"), ("gone.png", "blue")):
        Image.new("RGB", (80, 80), colour).save(more / name)
    gallery = mm.Gallery.create(place / "shop.gallery", encoder=encoder)
    gallery.add(photos)
    gallery.add(more)
    (more / "gone.png").unlink()
    Image.new("RGB", (80, 80), "green").save(place / "secret.jpg")
    Image.new("RGB", (80, 80), "green").save(more / "secret.jpg")
    return mm.Retriever(gallery, encoder)


@pytest.fixture(scope="module")
def site(shop: mm.Retriever) -> Iterator[httpx.Client]:
    with served(create_app(shop)) as link, httpx.Client(base_url=link, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def file(photos: Path) -> Path:
    return sorted(photos.rglob("*.png"))[7]


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def error_text(answer: httpx.Response, status: int) -> str:
    """The one line of an error, which is all that there is."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    line: str = answer.json()["error"]
    assert line.strip()
    assert "\n" not in line
    assert len(line) <= errors.MAX_CHARACTERS + 2
    assert "Traceback" not in line
    return line


def hits_of(found: Any) -> list[tuple[str, float, dict[str, float]]]:
    """What must be equal however it is requested."""
    hits = found if isinstance(found, list) else found["hits"]
    return [(hit["id"], hit["score"], hit["contributions"]) for hit in hits]


def expected(ranking: mm.Ranking) -> list[tuple[str, float, dict[str, float]]]:
    return [(hit.id, hit.score, dict(hit.contributions)) for hit in ranking]


def test_a_note_says_which_words_were_cut(site: httpx.Client, shop: mm.Retriever, file: Path) -> None:
    prompts, caption = ("in red and with dots", "in green and with stripes"), "a photo of a long blue dress " * 9
    requests = [{"image": base64_of(file.read_bytes()), "prompt": prompt, "caption": caption} for prompt in prompts]
    notes = [shop.search(file, prompt, caption=caption).note for prompt in prompts]
    assert all("so that the prompt fits into the encoder's 40 tokens" in str(note) for note in notes)
    singles = [site.post("/api/search", json=ask).json() for ask in requests]
    batch = site.post("/api/batch", json={"requests": requests}).json()["answers"]
    for answers in (singles, batch):
        assert [answer["note"] for answer in answers] == notes
        assert all(prompt in answer["words"]["composed"] for prompt, answer in zip(prompts, answers, strict=True))
        assert hits_of(answers[0]) != hits_of(answers[1])
    assert site.post("/api/search", json=requests[0] | {"caption": "a blue dress"}).json()["note"] is None


def test_the_body_of_a_search_has_the_fields_of_a_request_and_uploads() -> None:
    assert set(SearchBody.model_fields) == {*REQUEST_FIELDS, "upload"}
    for name, declared in REQUEST_FIELDS.items():
        assert str(SearchBody.model_fields[name].description).startswith(declared.help)
    assert SearchBody().to_request(Uploads(Limits())) == SearchRequest()


def test_every_way_to_send_a_request_gives_the_same_ranking(
    site: httpx.Client, shop: mm.Retriever, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = file.read_bytes()
    upload = site.post("/api/uploads", content=content).json()["upload"]
    query = {"prompt": "in red", "k": 12, "exclude_reference": True} | KNOBS
    expected_hits = expected(shop.search(file, **query))
    assert len(expected_hits) == 12

    ways = {
        "base64": site.post("/api/search", json=query | {"image": base64_of(content)}),
        "data:": site.post("/api/search", json=query | {"image": [f"data:image/png;base64,{base64_of(content)}"]}),
        "upload": site.post("/api/search", json=query | {"upload": upload}),
        "form": site.post("/api/search/form", files={"image": content}, data={"request": json.dumps(query)}),
        "batch": site.post("/api/batch", json={"requests": [query | {"upload": upload}]}),
    }
    for way, answer in ways.items():
        found = answer.json()
        assert hits_of(found["answers"][0] if way == "batch" else found) == expected_hits, way

    words = ["--image", str(file), "--prompt", "in red", "-k", "12", "--exclude-reference", "--json"]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in KNOBS.items()]
    capsys.readouterr()
    assert main(["search", str(shop.gallery.path), *words, "--dtype", "float32"]) == 0
    assert hits_of([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == expected_hits


def test_references_keep_their_order(site: httpx.Client, shop: mm.Retriever, photos: Path) -> None:
    first, second, third = sorted(photos.rglob("*.png"))[:3]
    item = shop.gallery.ids[30]
    weights = [1, 2, 3, 4]
    expected_hits = expected(shop.search([first, second, third], "striped", reference_id=item, image_weight=weights))
    uploads = [site.post("/api/uploads", content=path.read_bytes()).json()["upload"] for path in (second, third)]
    more = {"prompt": "striped", "reference_id": item, "image_weight": weights}
    assert (
        hits_of(site.post("/api/search", json=more | {"image": base64_of(first.read_bytes()), "upload": uploads}).json())
        == expected_hits
    )
    form = site.post(
        "/api/search/form",
        files=[("image", first.read_bytes()), ("image", second.read_bytes())],
        data={"request": json.dumps(more | {"upload": uploads[1]})},
    )
    assert hits_of(form.json()) == expected_hits


@pytest.mark.parametrize(
    "query",
    [
        {"prompt": "a red dress"},
        {"prompt": ["in red", "striped"], "strength": [1, 0.5], "avoid": "with dots", "reference_id": "ITEM"},
        {"reference_id": "ITEM", "region": [0, 0, 1, 0.5]},
        {"reference_id": "ITEM", "prompt": "in red", "weights": {"image": 1, "prompt": 2}},
        {"reference_id": "ITEM", "prompt": "in red", "weights": "balanced"},
        {"reference_id": "ITEM", "prompt": ["longer", "two dogs"], "paraphrases": 6},
        {"reference_id": "ITEM", "prompt": "in red", "alpha_image": "auto", "caption": "a blue dress"},
        {"prompt": "in red", "more_like": "ITEM", "exclude": "ITEM", "min_score": 0.1},
        {"reference_id": "ITEM", "prompt": "in red", "composer": "sum", "rule": "product", "where": "width > 90"},
        {"reference_id": "ITEM"},
        {"reference_id": "ITEM", "prompt": "in red", "axis": ["large", "wide"], "axis_opposite": "small", "axis_weight": -0.5},
        {"axis": "red"},
    ],
)
def test_every_field_means_what_it_means_in_python(site: httpx.Client, shop: mm.Retriever, query: dict[str, Any]) -> None:
    item = shop.gallery.ids[11]
    query = {name: item if value == "ITEM" else value for name, value in query.items()}
    found = site.post("/api/search", json=query).json()
    ranking = shop.search(**query)
    assert hits_of(found) == expected(ranking)
    assert found["weights"] == dict(ranking.weights)
    assert (found["words"], found["rule"], found["pool"]) == (dict(ranking.words), ranking.rule.value, ranking.pool)
    assert (found["asked"], found["searched"], found["hidden"]) == (10, ranking.searched, dict(ranking.hidden))
    assert found["note"] == ranking.note
    assert 0 < found["seconds"] < 60


def test_an_invalid_request_of_a_batch_does_not_affect_the_others(site: httpx.Client, shop: mm.Retriever) -> None:
    requests = [{"prompt": "in red"}, {"prompt": 3}, "what?", {"reference_id": "none"}, {"prompt": "in red", "k": 3}, {}]
    answers = site.post("/api/batch", json={"requests": requests}).json()["answers"]
    assert ["error" in answer for answer in answers] == [False, True, True, True, False, True]
    assert hits_of(answers[0])[:3] == hits_of(answers[4]) == expected(shop.search(prompt="in red", k=3))
    assert answers[3] == {"error": "no item 'none' in this gallery"}
    assert "prompt must be text, got 3" in answers[1]["error"]
    for wrong in ([], [{"prompt": "in red"}] * (BATCH + 1)):
        assert "requests must have " in error_text(site.post("/api/batch", json={"requests": wrong}), 400)


def test_unknown_fields_of_a_batch_are_refused(site: httpx.Client) -> None:
    answer = site.post("/api/batch", json={"requests": [{"prompt": "a"}], "request": []})
    assert error_text(answer, 400) == "unknown field 'request'; did you mean 'requests'? choose from: requests"


def test_a_session_is_the_session_of_python(site: httpx.Client, shop: mm.Retriever, file: Path) -> None:
    session = shop.session(decay=0.5)
    turns: list[dict[str, Any]] = [
        {"image": base64_of(file.read_bytes()), "prompt": "in red", "where": "width < 90", "k": 4},
        {"prompt": ["with dots"], "strength": None, "where": "width > 90", "avoid": "stripes"},
        {"more_like": shop.gallery.ids[11], "avoid": []},
        {"drop": ["where", "k"]},
    ]
    for count, turn in enumerate(turns, start=1):
        ranking = session.search(**turn | ({"image": file} if "image" in turn else {}))
        answer = site.post("/api/session", json={"turns": turns[:count], "decay": 0.5}).json()
        assert hits_of(answer) == expected(ranking)
        assert answer["words"] == dict(ranking.words)
    assert "avoid" not in answer["words"]
    assert len(answer["hits"]) == 10


def test_an_upload_is_a_reference_of_a_session_until_another_one(site: httpx.Client, shop: mm.Retriever, file: Path) -> None:
    upload = site.post("/api/uploads", content=file.read_bytes()).json()["upload"]
    turns: list[dict[str, Any]] = [{"upload": upload, "prompt": "in red"}, {"prompt": "with dots"}]
    answer = site.post("/api/session", json={"turns": turns}).json()
    assert hits_of(answer) == expected(shop.search(file, ["in red", "with dots"]))
    other = shop.gallery.ids[11]
    answer = site.post("/api/session", json={"turns": [*turns, {"reference_id": other}]}).json()
    assert hits_of(answer) == expected(shop.search(reference_id=other, prompt=["in red", "with dots"]))


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({}, "turns is missing; every request needs it"),
        ({"turns": []}, "turns must have 1 or more values, got 0"),
        ({"turns": [{}] * (TURNS + 1)}, f"turns must have up to {TURNS} values, got {TURNS + 1}"),
        ({"turns": [{}]}, "the query is empty; give image,"),
        ({"turns": [{"prompt": "a"}], "decay": 2}, "decay must be at most 1, got 2"),
        ({"turns": [{"prompt": "a"}, {"prompt": 3}]}, "prompt must be text, got 3"),
        ({"turns": [{"prompt": "a"}, {"promt": "b"}]}, "unknown field 'promt'; did you mean 'prompt'?"),
        ({"turns": [{"prompt": "a"}, {"strength": 3}]}, "turn 2: strength needs a prompt"),
        (
            {"turns": [{"prompt": f"prompt {i}"} for i in range(PROMPTS + 1)]},
            f"prompt must have up to {PROMPTS} values, got {PROMPTS + 1}",
        ),
        ({"turns": [{"prompt": "a"}, {"where": "path LIKE '/%'"}]}, "path tells where files are"),
        ({"turns": [{"prompt": "a"}, {"drop": "colour"}]}, "turn 2: unknown field to drop 'colour'; choose from: image,"),
        ({"turn": [{"prompt": "a"}]}, "unknown field 'turn'; did you mean 'turns'?"),
    ],
)
def test_a_wrong_session_is_one_line(site: httpx.Client, body: dict[str, Any], line: str) -> None:
    assert line in error_text(site.post("/api/session", json=body), 400)


def test_a_deleted_item_of_a_session_is_missing(site: httpx.Client) -> None:
    answer = site.post("/api/session", json={"turns": [{"reference_id": "none"}, {"prompt": "in red"}]})
    assert error_text(answer, 404) == "no item 'none' in this gallery"


def test_the_earlier_names_of_requests_are_accepted(site: httpx.Client) -> None:
    query = {"prompt": "in red", "k": 3}
    expected_hits = hits_of(site.post("/api/search", json=query).json())
    assert hits_of(site.post("/api/batch", json={"asks": [query]}).json()["answers"][0]) == expected_hits
    assert hits_of(site.post("/api/search/form", data={"ask": json.dumps(query)}).json()) == expected_hits
    for name in ("asks", "requests"):
        assert error_text(site.post("/api/batch", json={name: []}), 400) == f"{name} must have 1 or more values, got 0"
    assert error_text(site.post("/api/batch", json={}), 400) == "requests is missing; every request needs it"


def test_an_image_of_a_form_is_a_file(site: httpx.Client) -> None:
    assert (
        error_text(site.post("/api/search/form", data={"image": "dress.png"}), 400) == "image must be a file, got 'dress.png'"
    )


def huge_png(side: int) -> bytes:
    """A small file that says it holds side × side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.timed
def test_invalid_images_are_errors_without_a_path(site: httpx.Client) -> None:
    wrong = {
        b"not a picture": "not an image that can be read",
        huge_png(14_200): "more pixels than the limit of 40,000,000; scale it down",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>": "not an image that can be read",
    }
    for content, line in wrong.items():
        started = time.monotonic()
        for name, answer in (
            ("the upload", site.post("/api/uploads", content=content)),
            ("the upload", site.post("/api/uploads", files={"image": content})),
            ("image", site.post("/api/search", json={"image": base64_of(content)})),
            ("the upload", site.post("/api/search/form", files={"image": content})),
        ):
            assert error_text(answer, 422) == f"{name}: {line}"
        assert time.monotonic() - started < 5
    assert "the request has no image" in error_text(site.post("/api/uploads"), 422)
    assert "the request has no image" in error_text(site.post("/api/uploads", files={"image": b""}), 422)


@pytest.mark.parametrize(
    "address", ["http://example.com/a.jpg", "HTTPS://example.com", "file:///etc/passwd", " ftp://x", "gs://b/c"]
)
def test_urls_are_not_fetched(site: httpx.Client, address: str) -> None:
    for text in (address, f"data:image/png;base64,{address}"):
        line = error_text(site.post("/api/search", json={"image": text}), 422)
        assert line == "a URL is not an image, and URLs are never fetched; send the bytes of the image as base64"


@pytest.mark.parametrize("text", ["data:,x", "hello world!", "/etc/passwd", "", "dress.png"])
def test_invalid_base64_is_an_error(site: httpx.Client, text: str) -> None:
    line = error_text(site.post("/api/search", json={"image": text}), 422)
    assert line in ("expected an image as base64, bare or in a data: URL", "image: not an image that can be read")


@pytest.mark.parametrize(
    ("query", "status", "line"),
    [
        ({}, 400, "the query is empty; give image, reference_id, prompt, avoid, more_like, less_like or axis"),
        ({"prompt": "a" * 10_000_000}, 400, "prompt must have up to 2,000 characters, got 10,000,000"),
        ({"prompt": ["a"] * (PROMPTS + 1)}, 400, "prompt must have up to 16 values, got 17"),
        ({"prompt": ["a"] * PROMPTS, "avoid": "b"}, 400, "17 prompts; a request takes up to 16"),
        ({"upload": ["a"] * REFERENCES, "reference_id": "b"}, 400, "9 references; a request takes up to 8"),
        ({"prompt": "a", "k": 0}, 400, "k must be at least 1, got 0"),
        ({"prompt": "a", "k": "3"}, 400, "k must be a whole number, got '3'"),
        ({"prompt": "a", "k": True}, 400, "k must be a whole number, got true"),
        ({"prompt": "a", "beta": "0.5"}, 400, "beta must be a number, got '0.5'"),
        ({"prompt": "a", "strength": ["2"]}, 400, "strength must be a number, got '2'"),
        ({"prompt": "a", "exclude_reference": 1}, 400, "exclude_reference must be true or false, got 1"),
        ({"prompt": "a", "k": 1001}, 400, "k must be at most 1000, got 1001"),
        ({"prompt": "a", "k": 10**30}, 400, "k must be at most 1000, got 1000000"),
        ({"prompt": "a", "paraphrases": 7}, 400, "paraphrases must be at most 6, got 7"),
        ({"prompt": "a", "colour": "red"}, 400, "unknown field 'colour'; choose from: upload, image, prompt"),
        ({"prompt": "a", "x\ny" * 9_000: 1}, 400, "unknown field 'x\\nyx"),
        ({"prompt": "\ud800"}, 400, r"prompt must be text in valid Unicode, got '\ud800'"),
        ({"prompt": "a", "weights": {"\ud800": 1}}, 400, r"weights name '\ud800', but this query has only: prompt"),
        ({"prompt": "a", "weights": {"prompt": 1e300}}, 400, "weights.prompt must be at most 1,000,000, got 1e+300"),
        ({"prompt": "a", "composer": "sun"}, 400, "unknown composer 'sun'; did you mean 'sum'? choose from: image, prompt"),
        ({"prompt": "a", "beta": 2}, 400, "beta must be at most 1, got 2"),
        ({"prompt": "a", "where": "1); DROP TABLE items"}, 400, "a second statement"),
        ({"prompt": "a", "where": "(SELECT 1)"}, 400, "a query ("),
        ({"prompt": "a", "x\ud800": 1}, 400, r"unknown field 'x\ud800'"),
        ({"promt": "a"}, 400, "unknown field 'promt'; did you mean 'prompt'? choose from: upload, image, prompt"),
        ({"prompt": "a", "top_k": 3}, 400, "unknown field 'top_k'; did you mean 'k'? choose from"),
        ({"prompt": "a", "weights": "blanced"}, 400, "or 'balanced', got 'blanced'; did you mean 'balanced'?"),
        ({"prompt": "a", "weights": 3}, 400, 'weights must be an object such as {"image": 1, "prompt": 2} or \'auto\''),
        ({"prompt": "a", "weights": {"prompt": "x"}}, 400, "weights.prompt must be a number, got 'x'"),
        ({"prompt": "a", "alpha_image": "x"}, 400, "alpha_image must be a number or 'auto', got 'x'"),
        (
            {"reference_id": "a", "region": [0, 0, 1]},
            400,
            "region must have exactly 4 values: left, top, right and bottom, got 3",
        ),
        ({"prompt": {"text": "a"}}, 400, "prompt must be text, got an object"),
        ({"prompt": "a", "k": "x"}, 400, "k must be a whole number, got 'x'"),
        ({"prompt": "a", "exclude_reference": "x"}, 400, "exclude_reference must be true or false, got 'x'"),
        (
            {"prompt": "a", "where": "widht = 1"},
            400,
            "no such column: widht; did you mean 'width'? the columns are id, width, height",
        ),
        ({"prompt": "a", "where": "colour = 1"}, 400, "no such column: colour"),
        ({"prompt": "a", "where": "width > 3 AND \"Path\" LIKE '/home/%'"}, 400, "where: Path tells where files are"),
        ({"prompt": "a", "where": "width > 3 AND colour = 'no path'"}, 400, "no such column: colour"),
        ({"prompt": "a", "exclude_reference": True}, 400, "this query has none"),
        ({"reference_id": "none"}, 404, "no item 'none' in this gallery"),
        ({"reference_id": "none\x00"}, 404, r"no item 'none\x00' in this gallery"),
        ({"reference_id": "/etc/passwd"}, 404, "no item '/etc/passwd' in this gallery"),
        ({"more_like": "none"}, 404, "no item 'none' in this gallery"),
        ({"upload": "0" * 32}, 410, "this upload is not stored any more"),
        ({"upload": "../../etc/passwd"}, 410, "this upload is not stored any more"),
        ({"reference_id": "gone.png", "region": [0, 0, 1, 0.5]}, 422, "gone.png"),
    ],
)
def test_an_invalid_request_is_an_error_of_one_line(
    site: httpx.Client, shop: mm.Retriever, query: dict[str, Any], status: int, line: str
) -> None:
    got = error_text(site.post("/api/search", content=json.dumps(query), headers={"Content-Type": "application/json"}), status)
    assert line in got
    for place in (shop.gallery.path.parent, ROOT, Path(sys.prefix)):
        assert str(place) not in got


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", "the request has no body; send a JSON object"),
        (b'{"prompt": ', "the request is not valid JSON: Expecting value at character 11"),
        (b"null", "the request must be a JSON object"),
        (b"[]", "the request must be a JSON object (Content-Type: application/json), got a list"),
    ],
)
def test_a_body_that_is_not_json_is_an_error(site: httpx.Client, body: bytes, line: str) -> None:
    assert error_text(site.post("/api/search", content=body, headers={"Content-Type": "application/json"}), 400).startswith(
        line
    )


def test_unknown_parameters_are_refused(site: httpx.Client) -> None:
    for path, line in (
        ("/api/items?wher=width", "unknown parameter 'wher'; did you mean 'where'? choose from: where, offset, limit"),
        ("/api/info?x=1", "unknown parameter 'x'; leave it out"),
        ("/api/item", "id is missing; every request needs it"),
        ("/api/items?limit=0", "limit must be at least 1, got '0'"),
    ):
        assert error_text(site.get(path), 400) == line


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 40_000, b"null", b'{"prompt": NaN}', b'{"prompt":"a","beta":NaN}', b"\xff\xfe", b"[]"]
)
def test_a_body_that_is_not_a_request_is_an_error(site: httpx.Client, body: bytes) -> None:
    assert error_text(site.post("/api/search", content=body, headers={"Content-Type": "application/json"}), 400)
    assert error_text(site.post("/api/search/form", data={"request": body.decode("latin-1") or "{"}), 400)


def test_too_many_files_of_a_form_are_not_read(site: httpx.Client) -> None:
    files = [("image", b"no picture")] * (REFERENCES + 1)
    assert error_text(site.post("/api/search/form", files=files), 400) == "9 references; a request takes up to 8"


def test_other_methods_and_paths_are_refused(site: httpx.Client) -> None:
    for method, path, allowed in (("GET", "/api/search", "POST"), ("POST", "/api/items", "GET"), ("DELETE", "/mcp", "POST")):
        answer = site.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert error_text(site.get("/api/nothing"), 404) == "no such route; see /docs or /api/openapi.json"
    assert error_text(site.delete("/api/search"), 405) == "the route does not have this method; see /docs or /api/openapi.json"
    assert error_text(site.post("/api/search", content=b"prompt=a", headers={"Content-Type": "text/plain"}), 400)
    assert site.get("/").json()["api"] == "/api/openapi.json"


def test_images_of_items_are_served_and_cached(site: httpx.Client, shop: mm.Retriever) -> None:
    item = shop.gallery.ids[5]
    small, large = (site.get(f"/api/{kind}", params={"id": item}) for kind in ("thumbnail", "image"))
    assert small.content == shop.gallery.thumbnail(item)
    with Image.open(io.BytesIO(large.content)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (96, 96))
    for answer in (small, large):
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["cache-control"].startswith("private")
        known = {"If-None-Match": answer.headers["etag"]}
        again = site.get(answer.request.url, headers=known)
        assert (again.status_code, again.content) == (304, b"")
    assert small.headers["etag"] != site.get("/api/thumbnail", params={"id": shop.gallery.ids[6]}).headers["etag"]


def test_a_missing_image_file_is_an_error(site: httpx.Client) -> None:
    assert site.get("/api/thumbnail", params={"id": "gone.png"}).status_code == 200
    line = error_text(site.get("/api/image", params={"id": "gone.png"}), 422)
    assert line == "the image of 'gone.png' cannot be read any more, or was changed; restore its file, or add it again"


def test_an_id_with_html_is_served_as_json(site: httpx.Client) -> None:
    for kind in ("item", "thumbnail", "image"):
        assert site.get(f"/api/{kind}", params={"id": HOSTILE}).status_code == 200
    found = site.post("/api/search", json={"reference_id": HOSTILE, "k": 1})
    assert found.json()["hits"][0]["id"] == HOSTILE
    for answer in (found, site.get("/api/item", params={"id": HOSTILE + "x"})):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("trick", TRICKS)
def test_paths_outside_the_gallery_are_not_served(site: httpx.Client, trick: str) -> None:
    for route in ("/api/item?id=", "/api/thumbnail?id=", "/api/image?id=", "/api/uploads/", "/api/", "/", "/mcp/", "/metrics/"):
        answer = site.get(route + trick)
        assert 400 <= answer.status_code < 500
        assert answer.content[:2] != b"\xff\xd8"
        assert "root:" not in answer.text


def test_files_are_not_served_by_path(site: httpx.Client, shop: mm.Retriever) -> None:
    place = shop.gallery.path.parent
    inside = Path(shop.gallery.item(shop.gallery.ids[0]).path)
    for path in (place / "secret.jpg", place / "more" / "secret.jpg", "secret.jpg", inside, "../secret.jpg"):
        for kind in ("item", "thumbnail", "image"):
            assert error_text(site.get(f"/api/{kind}", params={"id": str(path)}), 404)


@pytest.mark.parametrize(
    "name",
    ['"%s"', "`%s`", "[%s]", "%s", "items.%s", 'items."%s"', "items.`%s`", "items.[%s]", '"items"."%s"', "`'` = 1 OR %s"],
)
@pytest.mark.parametrize("place", ["path", "SOURCE", "stamp"])
def test_filters_cannot_read_private_columns(site: httpx.Client, name: str, place: str) -> None:
    where = f"{name % place} LIKE '/%'"
    for answer in (
        site.get("/api/items", params={"where": where}),
        site.post("/api/search", json={"prompt": "a", "where": where}),
    ):
        assert "tells where files are" in error_text(answer, 400)
    assert site.get("/api/items", params={"where": "id <> 'path'"}).status_code == 200


@pytest.mark.parametrize(
    "where", ["items.'path' LIKE '/%'", "'items'.path LIKE '/%'", 'CAST(1 AS "\'") = 0 OR path', "1 AS ['] OR path LIKE '/%'"]
)
def test_invalid_filters_cannot_read_private_columns(site: httpx.Client, where: str) -> None:
    assert error_text(site.get("/api/items", params={"where": where}), 400)


def test_a_filter_is_sent_as_text_or_as_its_structure(site: httpx.Client, shop: mm.Retriever) -> None:
    structure = to_dict(parse("width > 90"))
    expected_hits = expected(shop.search(prompt="in red", where="width > 90"))
    assert hits_of(site.post("/api/search", json={"prompt": "in red", "where": structure}).json()) == expected_hits
    assert hits_of(site.post("/api/search", json={"prompt": "in red", "where": json.dumps(structure)}).json()) == expected_hits
    form = site.post(
        "/api/search/form",
        files={"image": huge_png(20)},
        data={"request": json.dumps({"prompt": "in red", "where": structure, "k": 1})},
    )
    assert form.json()["searched"] == len(shop.gallery.list_items(where="width > 90", limit=100).items)
    total = site.get("/api/items", params={"where": json.dumps(structure)}).json()["total"]
    assert total == shop.gallery.list_items(where="width > 90").total
    by_field = site.post("/api/search", json={"prompt": "a", "where": {"width": 80}, "k": 9}).json()
    assert [hit["id"] for hit in by_field["hits"]] == list(shop.search(prompt="a", where="width = 80", k=9).ids)
    for wrong, line in (
        ({"column": "PATH"}, "PATH tells where files are"),
        ({"path": "/etc"}, "path tells where files are"),
        ({"operator": "select"}, "expected {'column': name}"),
        ({"type": "select"}, "no such column: type"),
        ({}, "the mapping is empty"),
        (5, "must be an SQL expression"),
        ("{", "where: "),
    ):
        assert line in error_text(site.post("/api/search", json={"prompt": "a", "where": wrong}), 400)


def test_unknown_fields_of_a_form_are_refused(site: httpx.Client) -> None:
    answer = site.post("/api/search/form", files={"image": huge_png(20)}, data={"prompt": "in red"})
    assert error_text(answer, 400) == (
        "unknown field of a form 'prompt'; choose from: image, request; send the fields of a search as JSON in request"
    )
    answer = site.post("/api/search/form", files={"images": huge_png(20)})
    assert error_text(answer, 400).startswith("unknown field of a form 'images'; did you mean 'image'?")


def test_items_are_listed(site: httpx.Client, shop: mm.Retriever) -> None:
    ids = list(shop.gallery.ids)
    page = site.get("/api/items", params={"offset": 10, "limit": 7}).json()
    assert (page["total"], [item["id"] for item in page["items"]]) == (len(ids), ids[10:17])
    small = site.get("/api/items", params={"where": "width = 80"}).json()
    assert {item["id"] for item in small["items"]} == {HOSTILE, "gone.png"}
    assert site.get("/api/items", params={"offset": 1000}).json() == {"items": [], "total": len(ids)}
    one = site.get("/api/item", params={"id": ids[3]}).json()
    item = shop.gallery.item(ids[3])
    assert one == {"id": ids[3], "hash": item.hash, "width": 96, "height": 96, "fields": {}}
    for wrong in (
        {"limit": 0},
        {"limit": 501},
        {"offset": -1},
        {"where": "; DROP"},
        {"where": "source LIKE '/%'"},
        {"offset": "x"},
    ):
        assert error_text(site.get("/api/items", params=wrong), 400)


def test_info_contains_no_folder(site: httpx.Client, shop: mm.Retriever) -> None:
    info = site.get("/api/info").json()
    assert (info["items"], info["encoder"]["model"]) == (62, "wardrobe")
    assert {"captions", "sum"} < set(info["composers"])
    assert {"linear", "product"} < set(info["rules"])
    assert "attributes" in info["judges"]
    for composer in info["composers"]:
        query = {"reference_id": shop.gallery.ids[3], "prompt": "in red", "composer": composer}
        assert site.post("/api/search", json=query).status_code == 200
    assert site.get("/api/health").json() == {"status": "ok", "items": 62}
    for path in ("/api/info", "/api/health", "/api/openapi.json", "/metrics", "/"):
        for place in (shop.gallery.path.parent, Path.home(), ROOT):
            assert str(place) not in site.get(path).text


def test_advice_on_an_index_contains_no_folder(made: Path, encoder: mm.Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "copy.gallery"
    shutil.copytree(made, folder)
    mm.Gallery.open(folder, encoder=encoder).build_index("IVF4,SQfp16")
    for file in folder.glob("index.faiss*"):
        file.unlink()
    gallery = mm.Gallery.open(folder, encoder=encoder)
    assert str(folder) in gallery.info()["index"]["advice"]
    with served(create_app(mm.Retriever(gallery, encoder))) as link:
        info = httpx.get(f"{link}/api/info").json()
    assert info["index"]["advice"] == "its file is missing: mmretrieve build copy.gallery"
    assert str(tmp_path) not in json.dumps(info)


def test_error_lines_contain_no_folder() -> None:
    lines = {
        "/home/me/my photos/a b.png: no such image": "a b.png: no such image",
        "[Errno 2] No such file: '/srv/models/phi.pt'": "[Errno 2] No such file: 'phi.pt'",
        "see http://localhost:1/v1/models and 3/4 and/or": "see http://localhost:1/v1/models and 3/4 and/or",
        "/srv/encoder": "/srv/encoder".rpartition("/")[2],
    }
    for line, without in lines.items():
        assert errors.without_folders(line) == without
    gallery: Any = SimpleNamespace(path="/a/b/c.gallery", encoder_identity=mm.EncoderIdentity("/m/model", "w", "p"))
    assert errors.error_line(ImageError("/a/b/c.gallery: /x/y/z.png: gone"), gallery) == "z.png: gone"
    assert errors.error_line(MissingError("/a/b/c.gallery: no item '/x/y'"), gallery) == "no item '/x/y'"
    assert errors.error_line(OptionError("needs a phi for /m/model: give one"), gallery) == "needs a phi for model: give one"
    assert errors.one_line("a\n b\t" + "c" * 5_000).startswith("a b ccc")


def test_notes_contain_no_folder(retriever: mm.Retriever) -> None:
    class Offline:
        def rank(self, *_: object) -> list[dict[str, Any]]:
            raise JudgeError("/home/me/answers.sqlite: 20 of 20 answers are not in it")

    ranking = retriever.search(prompt="in red/blue", k=1, judge=Offline())
    assert "/home/me/answers.sqlite" in str(ranking.note)
    note = str(SearchResponse.of(ranking, [""], [{}], 0.0).note)
    assert note == str(ranking.note).replace("/home/me/", "")


def test_uploads_have_the_same_name_after_a_restart(shop: mm.Retriever, file: Path) -> None:
    content = file.read_bytes()
    names = []
    for _ in range(2):
        with served(create_app(shop)) as link:
            expired = httpx.post(f"{link}/api/search", json={"upload": names[-1]}) if names else None
            names.append(httpx.post(f"{link}/api/uploads", content=content).json()["upload"])
            names.append(httpx.post(f"{link}/api/uploads", files={"any": content}).json()["upload"])
            preview = httpx.get(f"{link}/api/uploads/{names[-1]}")
            assert preview.headers["content-type"] == "image/jpeg"
            with Image.open(io.BytesIO(preview.content)) as picture:
                assert picture.size == (96, 96)
            assert (
                httpx.get(f"{link}/api/uploads/{names[-1]}", headers={"If-None-Match": preview.headers["etag"]}).status_code
                == 304
            )
    assert len(set(names)) == 1
    assert expired is not None
    assert "this upload is not stored any more" in error_text(expired, 410)


def test_uploads_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def picture(shade: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (50, 50), (shade, 0, 0)).save(buffer, "BMP")
        return buffer.getvalue()

    size = len(picture(0))
    uploads = Uploads(Limits(upload_bytes=3 * size, upload_seconds=0.5))
    names = [uploads.add(picture(shade)) for shade in range(3)]
    uploads.path(names[0])  # asked for, so another one is the least recently used
    names.append(uploads.add(picture(3)))
    assert uploads.bytes == 3 * size
    with pytest.raises(ExpiredError, match="send the image again"):
        uploads.path(names[1])
    for name in (names[0], names[2], names[3]):
        assert uploads.path(name).stat().st_size == size
    assert oct(uploads.path(names[0]).parent.stat().st_mode & 0o777) == "0o700"
    time.sleep(0.6)
    with pytest.raises(ExpiredError):
        uploads.path(names[0])
    folders = list(tmp_path.iterdir())
    assert [list(folder.iterdir()) for folder in folders] == [[]]
    del uploads
    assert list(tmp_path.iterdir()) == []


def test_uploads_outlast_a_cleaned_folder() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(buffer, "PNG")
    uploads, content = Uploads(Limits()), buffer.getvalue()
    token = uploads.add(content)
    uploads.path(token).unlink()
    with pytest.raises(ExpiredError, match="send the image again"):
        uploads.path(token)
    assert uploads.path(uploads.add(content)).read_bytes() == content
    shutil.rmtree(uploads.path(token).parent)
    assert uploads.path(uploads.add(content)).read_bytes() == content


def test_an_upload_to_a_full_disk_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(buffer, "PNG")
    uploads = Uploads(Limits())

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BusyError, match=r"images cannot be stored now \(No space left on device\); try again later"):
        uploads.add(buffer.getvalue())
    assert list(uploads._folder.iterdir()) == []
    assert uploads.bytes == 0


def metric(link: str, name: str) -> float:
    lines = httpx.get(f"{link}/metrics").text.splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))


def test_requests_beyond_the_queue_are_refused(retriever: mm.Retriever) -> None:
    slow = SlowRetriever(retriever)
    with served(create_app(slow, limits=Limits(workers=2, waiting=1))) as link, ThreadPoolExecutor(4) as clients:
        ask: Callable[[], httpx.Response] = lambda: httpx.post(f"{link}/api/search", json={"prompt": "in red"}, timeout=60)  # noqa: E731
        asked = [clients.submit(ask) for _ in range(3)]
        until(
            lambda: (
                metric(link, 'mmretrieve_running{gate="searching"}') + metric(link, 'mmretrieve_waiting{gate="searching"}') == 3
            )
        )
        assert metric(link, 'mmretrieve_waiting{gate="searching"}') == 1
        refused = ask()
        assert "3 requests are running or waiting; try again in a moment" in error_text(refused, 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert httpx.get(f"{link}/api/items").status_code == 200  # reading goes on
        slow.let.set()
        assert [answer.result().status_code for answer in asked] == [200, 200, 200]
        until(lambda: metric(link, 'mmretrieve_running{gate="searching"}') == 0)
        assert ask().status_code == 200


def test_a_thread_that_does_not_end_is_given_up_and_replaced(retriever: mm.Retriever) -> None:
    slow = SlowRetriever(retriever)
    with served(create_app(slow, limits=Limits(workers=1, waiting=0, seconds=1.5, given_up=2))) as link:
        for begun in (1, 2, 3):
            line = error_text(httpx.post(f"{link}/api/search", json={"prompt": "in red"}), 504)
            assert line == "the request took longer than 1.5 seconds; try again later, or send fewer requests"
            assert slow.begun == begun
            given_up = min(begun, 2)
            until(lambda: metric(link, 'mmretrieve_given_up{gate="searching"}') == given_up)  # noqa: B023
            until(lambda: metric(link, 'mmretrieve_running{gate="searching"}') == (begun == 3))  # noqa: B023
        error_text(httpx.post(f"{link}/api/search", json={"prompt": "in red"}), 503)  # as many as may be were given up
        slow.let.set()
        until(lambda: metric(link, 'mmretrieve_given_up{gate="searching"}') == 0)
        until(lambda: metric(link, 'mmretrieve_running{gate="searching"}') == 0)
        assert httpx.post(f"{link}/api/search", json={"prompt": "in red"}).status_code in (200, 504)


class Broken(mm.Retriever):
    def compose_requests(self, requests: Sequence[SearchRequest]) -> list[mm.Composition]:  # noqa: ARG002
        raise ZeroDivisionError(f"in {__file__}")


def test_a_bug_is_one_line_for_the_client_and_a_traceback_in_the_log(
    retriever: mm.Retriever, caplog: pytest.LogCaptureFixture
) -> None:
    with served(create_app(Broken(retriever.gallery, retriever.encoder))) as link:
        answer = httpx.post(f"{link}/api/search", json={"prompt": "in red"})
        assert error_text(answer, 500) == "an unexpected error; the log of the server has the details"
        assert answer.headers["content-security-policy"]
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)


def test_writes_of_other_processes_become_visible(gallery: mm.Gallery, encoder: mm.Encoder, tmp_path: Path) -> None:
    with served(create_app(mm.Retriever.open(gallery.path, encoder=encoder))) as link:

        def items() -> int:
            return int(httpx.get(f"{link}/api/health").json()["items"])

        assert items() == 60
        Image.new("RGB", (64, 64), "red").save(tmp_path / "new.png")
        gallery.add(tmp_path / "new.png")
        until(lambda: items() == 61, 5)
        assert httpx.post(f"{link}/api/search", json={"reference_id": "new.png"}).json()["hits"][0]["id"] == "new.png"
        gallery.delete(["new.png"])
        until(lambda: items() == 60, 5)
        assert error_text(httpx.post(f"{link}/api/search", json={"reference_id": "new.png"}), 404)


def test_a_gallery_on_a_milvus_server_is_served(
    milvus: LiteServer, gallery: mm.Gallery, encoder: mm.Encoder, tmp_path: Path
) -> None:
    address = milvus.address("served")
    push(gallery.path, address)
    with served(create_app(mm.Retriever.open(address, encoder=encoder))) as link:
        ask = {"reference_id": gallery.ids[5], "prompt": "in red", "where": "width > 90"}
        found = httpx.post(f"{link}/api/search", json=ask, timeout=60).json()
        expected_hits = expected(mm.Retriever(gallery, encoder).search(**ask))
        assert [one[0] for one in hits_of(found)] == [one[0] for one in expected_hits]
        assert [one[1] for one in hits_of(found)] == pytest.approx([one[1] for one in expected_hits], abs=1e-6)
        assert str(milvus.port) not in httpx.get(f"{link}/api/info").text
        assert (
            error_text(httpx.post(f"{link}/api/search", json={"reference_id": "none"}), 404) == "no item 'none' in this gallery"
        )
        Image.new("RGB", (64, 64), "red").save(tmp_path / "new.png")
        gallery.add(tmp_path / "new.png")
        push(gallery.path, address)
        until(lambda: httpx.get(f"{link}/api/health").json()["items"] == 61, 10)


def test_a_hit_that_was_deleted_has_no_fields(gallery: mm.Gallery, encoder: mm.Encoder) -> None:
    answers = SearchService(mm.Retriever(gallery, encoder))
    ranking = answers.search([SearchRequest.parse(prompt="in red", k=3)])[0]
    gallery.delete([ranking[1].id])
    assert answers.fields([ranking]) == [[{}, {}, {}]]


def test_requests_are_counted_by_route_and_status(retriever: mm.Retriever) -> None:
    with served(create_app(retriever)) as link:
        httpx.post(f"{link}/api/search", json={"prompt": "in red"})
        httpx.post(f"{link}/api/search", json={})
        upload = httpx.post(f"{link}/api/uploads", content=huge_png(20)).json()["upload"]
        for path in (f"/api/uploads/{upload}", "/api/uploads/made-up", "/made-up", "/api/made-up"):
            httpx.get(link + path)
        httpx.request("MADEUP", f"{link}/api/search")
        httpx.get(f"{link}/api/health", headers={"Host": "made-up.example"})
        text = httpx.get(f"{link}/metrics").text
    for line in (
        'mmretrieve_requests_total{method="POST",route="/api/search",status="200"} 1.0',
        'mmretrieve_requests_total{method="POST",route="/api/search",status="400"} 1.0',
        'mmretrieve_requests_total{method="GET",route="/api/uploads/{upload}",status="200"} 1.0',
        'mmretrieve_requests_total{method="GET",route="/api/uploads/{upload}",status="410"} 1.0',
        'mmretrieve_requests_total{method="GET",route="other",status="404"} 2.0',
        'mmretrieve_requests_total{method="GET",route="other",status="421"} 1.0',
        'mmretrieve_request_seconds_count{route="/api/search"} 3.0',
        "mmretrieve_items 60.0",
        f"mmretrieve_upload_bytes {float(len(huge_png(20)))}",
    ):
        assert line in text
    assert "made-up" not in text
    assert "MADEUP" not in text


def test_fifty_concurrent_requests_get_their_own_rankings(site: httpx.Client, shop: mm.Retriever) -> None:
    queries = [{"reference_id": shop.gallery.ids[i], "prompt": "in red", "k": 5} | KNOBS for i in range(50)]
    with ThreadPoolExecutor(50) as clients:
        found = list(clients.map(lambda ask: httpx.post(f"{site.base_url}/api/search", json=ask, timeout=60).json(), queries))
    for one, ask in zip(found, queries, strict=True):
        assert_same_hits(one, shop.search(**ask))


def assert_same_hits(found: Any, ranking: mm.Ranking) -> None:
    """Alone and together: the same items in the same order, scores within 1e-6."""
    assert [hit["id"] for hit in found["hits"]] == list(ranking.ids)
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in ranking], abs=1e-6)


@contextmanager
def waiting_searches(
    slow: SlowRetriever, bodies: Sequence[dict[str, Any]], **bounds: Any
) -> Iterator[tuple[str, list[Future[httpx.Response]]]]:
    """A server with one thread, which computes a search; the others, of these bodies, wait."""
    app = create_app(slow, limits=Limits(workers=1, **bounds))
    with served(app) as link, ThreadPoolExecutor(len(bodies) + 1) as clients:
        send = lambda body: clients.submit(httpx.post, f"{link}/api/search", json=body, timeout=60)  # noqa: E731
        send({"prompt": "in blue"})
        until(lambda: slow.begun == 1)
        answers = []
        for body in bodies:  # in this order
            answers.append(send(body))
            until(lambda: metric(link, 'mmretrieve_waiting{gate="searching"}') == len(answers))
        yield link, answers


def test_searches_that_wait_are_computed_together(retriever: mm.Retriever) -> None:
    ids = retriever.gallery.ids
    bodies = [{"reference_id": ids[i], "prompt": "in red", "k": 5 + i} for i in range(18)]
    slow = SlowRetriever(retriever)
    with waiting_searches(slow, bodies) as (link, answers):
        slow.let.set()
        for body, answer in zip(bodies, answers, strict=True):
            assert_same_hits(answer.result().json(), retriever.search(**body))
        text = httpx.get(f"{link}/metrics").text
    assert slow.sizes == [1, COMPUTED_TOGETHER, 2]
    for line in (
        "mmretrieve_batch_requests_count 3.0",
        "mmretrieve_batch_requests_sum 19.0",
        'mmretrieve_batch_requests_bucket{le="2.0"} 2.0',
        'mmretrieve_stage_seconds_count{stage="compose"} 3.0',
        'mmretrieve_stage_seconds_count{stage="search"} 3.0',
    ):
        assert line in text


def test_an_invalid_search_fails_alone(retriever: mm.Retriever) -> None:
    bodies = [{"prompt": f"in {colour}", "k": 3} for colour in ("red", "green", "black", "white")]
    wrong = {"reference_id": "none"}, {"prompt": "in red", "weights": {"image": 1}}
    slow = SlowRetriever(retriever)
    with waiting_searches(slow, [bodies[0], wrong[0], *bodies[1:], wrong[1]]) as (_, answers):
        slow.let.set()
        assert error_text(answers.pop(1).result(), 404) == "no item 'none' in this gallery"
        assert "weights name 'image'" in error_text(answers.pop().result(), 400)
        for body, answer in zip(bodies, answers, strict=True):
            assert_same_hits(answer.result().json(), retriever.search(**body))
    assert slow.sizes[:2] == [1, 6]


def test_searches_of_another_kind_are_computed_apart_in_their_turn(retriever: mm.Retriever, file: Path) -> None:
    image = {"image": base64_of(file.read_bytes())}
    product = {"reference_id": retriever.gallery.ids[0], "prompt": "in red", "rule": "product"}
    bodies = [{"prompt": "in red"}, product, image, {"prompt": "in black"}, image]
    slow = SlowRetriever(retriever)
    with waiting_searches(slow, bodies) as (_, answers):
        slow.let.set()
        assert [answer.result().status_code for answer in answers] == [200] * 5
    assert slow.sizes == [1, 2, 1, 2]


def test_a_search_whose_client_was_answered_is_not_computed(retriever: mm.Retriever) -> None:
    slow = SlowRetriever(retriever)
    with waiting_searches(slow, [{"prompt": "in red"}] * 3, seconds=2.0, given_up=0) as (link, answers):
        assert [answer.result().status_code for answer in answers] == [504] * 3
        assert metric(link, 'mmretrieve_waiting{gate="searching"}') == 0
        slow.let.set()
        until(lambda: metric(link, 'mmretrieve_running{gate="searching"}') == 0)
    assert slow.sizes == [1]


def test_images_and_static_files_do_not_wait_for_searches(retriever: mm.Retriever) -> None:
    slow, item = SlowRetriever(retriever), retriever.gallery.ids[0]
    with waiting_searches(slow, [{"prompt": "in red"}] * 3) as (link, answers):
        for path in ("/api/thumbnail", "/api/image", "/api/item"):
            assert httpx.get(link + path, params={"id": item}).status_code == 200
        for path in ("/docs", "/api/openapi.json", "/api/health", "/api/info", "/metrics"):
            assert httpx.get(link + path).status_code == 200
        assert not any(answer.done() for answer in answers)
        slow.let.set()


def test_look_ups_of_caches_are_counted(retriever: mm.Retriever, file: Path) -> None:
    with served(create_app(mm.Retriever(retriever.gallery, retriever.encoder))) as link:

        def lookups(cache: str) -> tuple[float, float]:
            hits, misses = (
                metric(link, f'mmretrieve_cache_lookups_total{{cache="{cache}",result="{result}"}}')
                for result in ("hit", "miss")
            )
            return hits, misses

        before = lookups("texts")
        for images in ((0, 1), (1, 1)):
            body = {"image": base64_of(file.read_bytes()), "prompt": "in the color of a ripe plum"}
            assert httpx.post(f"{link}/api/search", json=body, timeout=60).status_code == 200
            assert lookups("images") == images
            hits, misses = (now - then for now, then in zip(lookups("texts"), before, strict=True))
            assert misses > 0
            if images == (0, 1):
                first = misses
        assert misses == first
        assert hits > 0


def test_the_command_serves_stops_and_removes_its_uploads(made: Path, file: Path, tmp_path: Path) -> None:
    with command(
        "mmretrieve.cli.main", "serve", str(made), "--port", str(free_port()), "--token", "auto", TMPDIR=str(tmp_path)
    ) as (
        process,
        link,
    ):
        address, _, token = link.partition("/?token=")
        assert len(token) >= 32
        credentials = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{address}/api/health").status_code == 401
        assert httpx.get(f"{address}/api/health", headers=credentials).json()["items"] == 60
        assert httpx.post(f"{address}/api/uploads", content=file.read_bytes(), headers=credentials).status_code == 200
        assert len(list(tmp_path.glob("mmretrieve-uploads-*/*"))) == 1
        process.terminate()
        rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest, errors) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_invalid_options_of_the_command_are_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> tuple[int, str]:
        status = main(["serve", str(made), *words])
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        return status, line

    assert refused("--host", "0.0.0.0") == (
        2,
        "mmretrieve: 0.0.0.0: others can reach this address; give --token or --user, or leave out --host\n",
    )
    assert refused("--token", "")[0] == refused("--token", "short")[0] == refused("--user", "ann")[0] == 2
    assert "leave out port, token" in refused("--stdio", "--token", "correct-horse", "--port", "1")[1]
    monkeypatch.setenv("MMRETRIEVE_TOKEN", "short")
    assert "at least 8" in refused()[1]
    monkeypatch.setenv("MMRETRIEVE_USER", "ann:battery-staple")
    assert "not both" in refused()[1]


def test_a_missing_package_is_named_with_what_to_install(made: Path) -> None:
    lines = "import sys; sys.modules['fastapi'] = None; from mmretrieve.cli.main import main; sys.exit(main(sys.argv[1:]))"
    for words in ((), ("--stdio",)):
        ended = subprocess.run(
            [sys.executable, "-c", lines, "serve", str(made), *words], cwd=ROOT, capture_output=True, text=True
        )
        output = "mmretrieve: fastapi is missing; install it with: pip install 'mmretrieve[server]'\n"
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", output)


def test_a_token_of_the_environment_is_required_and_not_printed(made: Path) -> None:
    with command("mmretrieve.cli.main", "serve", str(made), "--port", str(free_port()), MMRETRIEVE_TOKEN="correct-horse") as (
        _,
        link,
    ):
        assert "token" not in link  # the environment has it: the output of a server ends in logs
        assert httpx.get(f"{link}/api/health").status_code == 401
        assert httpx.get(f"{link}/?token=correct-horse", follow_redirects=False).status_code == 303
    with command("mmretrieve.cli.main", "serve", str(made), "--port", str(free_port()), MMRETRIEVE_TOKEN="auto") as (_, link):
        assert len(link.partition("/?token=")[2]) >= 32  # a new one, which nobody knows otherwise


GUIDE = (ROOT / "docs" / "guides" / "server.md").read_text(encoding="utf-8")
CURLS = re.findall(r"^    (curl .*)$", GUIDE, re.MULTILINE)


@pytest.fixture
def guided(site: httpx.Client, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address that the guide's lines go to, from a folder that holds its picture."""
    (tmp_path / "dress.png").write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return str(site.base_url).rstrip("/")


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
@pytest.mark.parametrize("line", CURLS)
def test_the_curl_commands_of_the_guide_work(guided: str, shop: mm.Retriever, line: str) -> None:
    line = line.replace("summer/dress 1.png", shop.gallery.ids[0])
    told = subprocess.run(["bash", "-c", f"S={guided}; {line}"], capture_output=True, text=True, timeout=60).stdout
    if "thumbnail" in line:
        assert Path("thumbnail.jpg").read_bytes()[:2] == b"\xff\xd8"
    else:
        assert "error" not in json.loads(told)


def test_the_python_of_the_guide_works(guided: str, shop: mm.Retriever, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(compile(block.replace("http://127.0.0.1:7860", guided), "server.md", "exec"), {})
    ranking = shop.search("dress.png", "in red", alpha_image=1.4, beta=0.75, k=5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ranking)
    assert all(id_ in line for id_, line in zip(ranking.ids, lines, strict=True))


def test_the_guide_states_the_limits() -> None:
    bounds = Limits()
    for text in (
        f"{bounds.body_bytes // 1_000_000} MB; {bounds.seconds:g} s",
        f"{limits.REFERENCES} references, {limits.PROMPTS} prompts of {limits.PROMPT_CHARACTERS:,} characters, {limits.K:,} hits, of which a judge sees {limits.JUDGED}",
        f"{limits.BATCH} requests",
        f"{bounds.waiting} more requests wait",
        f"together, up to {COMPUTED_TOGETHER} at once",
        f"a queue of {bounds.reading:,}",
        f"{bounds.upload_bytes // 1_000_000} MB together, each {bounds.upload_seconds / 3600:g} hours",
        f"{bounds.image_pixels // 1_000_000} million pixels if a client sends it, {MAX_PIXELS // 1_000_000} million if",
        f"JSON: {limits.JSON_VALUES:,} values",
        f"Headers: {connections.HEADER_BYTES // 1024} KB",
        f"have {connections.MIN_CHUNK_BYTES} bytes or more",
        f"{bounds.connections}, of one address {bounds.connections_of_address}",
        f"closed after {bounds.header_seconds:g} s, and one whose client does not read the response after {bounds.seconds:g} s",
        f"{bounds.all_bodies_bytes // 1_000_000} MB for the bodies",
        f"{bounds.unread_bytes // 1_000_000} MB for responses",
        f"up to {bounds.given_up} threads",
        f"completes requests for {run.GRACEFUL_SECONDS} s and ends within {run.EXIT_SECONDS:g} s",
        f"up to {IMAGE_SIDE:,} pixels a side",
        f"first {MAX_THUMBNAILS} hits",
    ):
        assert text in " ".join(GUIDE.split()), text
    assert len(CURLS) == 8
