"""The composer "imagined", and editors of images: files, and an `/images/edits` endpoint that fails in every way."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmretrieve as mm
from eval.benchmarks import load_benchmark
from mmretrieve.cli.main import main
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers import Parts, make_composer
from mmretrieve.composers.imagined import MAX_PICTURES
from mmretrieve.errors import EndpointError, MMRetrieveError, OptionError
from mmretrieve.images import open_image
from mmretrieve.language.base import Description
from mmretrieve.language.files import FileEditor
from mmretrieve.language.llm.cache import AnswerCache
from mmretrieve.language.llm.endpoint import ChatEndpoint
from mmretrieve.language.llm.roles import EndpointEditor

PICTURES = mm.wardrobe.pictures_folder()
DRESS, OTHER = "red-checked-dress-1815.png", "navy-checked-top-0218.png"
LAMBDA = 0.3  # of Paracosm
Answer = Callable[[dict[str, bytes], int], object]


class Painter:
    """An editor that returns the same image for everybody, and remembers for how many queries it was called."""

    def __init__(self, image: str = OTHER) -> None:
        self.image, self.calls = PICTURES / image, []

    def edit(self, inputs: Sequence[ComposerInput]) -> list[Path]:
        self.calls.append(len(inputs))
        return [self.image] * len(inputs)


class Narrator:
    """A describer that cannot describe what is mumbled."""

    def describe(self, inputs: Sequence[ComposerInput]) -> list[Description]:
        return [Description(None if query.prompt == "mumble" else f"a dress {query.prompt}") for query in inputs]


class Loud:
    """An encoder whose images have features of twice the length."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def image_features(self, images: Sequence[Any]) -> np.ndarray:
        return np.asarray(2 * self.encoder.image_features(images))


def query_of(encoder: mm.Encoder, prompt: str = "in red", image: str = DRESS) -> ComposerInput:
    return ComposerInput(encoder.encode_images([PICTURES / image])[0], prompt, image=PICTURES / image, id=image)


def length(vector: np.ndarray) -> float:
    return float(np.sqrt((vector.astype(np.float64) ** 2).sum()))


def test_a_query_is_the_published_sum(encoder: Any) -> None:
    """λ · unit(f(picture) + f(description)) + (1 − λ) · unit(f(prompt)), with features of any length."""
    encoder, painter = Loud(encoder), Painter()
    query = make_composer("imagined", encoder, Parts(editor=painter, describer=Narrator())).compose([query_of(encoder)])[0]
    picture, (description, prompt) = (
        encoder.image_features([painter.image])[0],
        encoder.text_features(["a dress in red", "in red"]),
    )
    assert length(picture) > 1.5 * length(description), "unit vectors would give the same"
    both = picture + description
    expected = LAMBDA * both / length(both) + (1 - LAMBDA) * prompt / length(prompt)
    np.testing.assert_allclose(query.vector, expected, atol=1e-6)
    assert query.names == ("image", "imagined", "composed", "prompt")
    assert query.term_weights["image"] == 0
    assert query.words == {"composed": "a dress in red", "prompt": "in red"}


def test_without_a_description_the_picture_stands_alone(encoder: Any) -> None:
    for describer, prompt in ((None, "in red"), (Narrator(), "mumble")):
        composer = make_composer("imagined", encoder, Parts(editor=Painter(), describer=describer))
        query = composer.compose([query_of(encoder, prompt)])[0]
        assert query.term_weights == pytest.approx({"image": 0, "imagined": LAMBDA, "prompt": 1 - LAMBDA})
        np.testing.assert_allclose(query["imagined"], encoder.encode_images([PICTURES / OTHER])[0], atol=1e-6)


def test_pictures_are_made_in_batches(encoder: Any) -> None:
    painter, count = Painter(), MAX_PICTURES + 3
    composer = make_composer("imagined", encoder, Parts(editor=painter))
    assert len(composer.compose([query_of(encoder)] * count)) == count
    assert painter.calls == [MAX_PICTURES, 3]
    assert composer.compose([]) == []


def test_strength_leads_from_the_image_to_the_picture(made: Path, encoder: mm.Encoder) -> None:
    retriever = mm.Retriever.open(made, encoder=encoder, parts=Parts(editor=Painter()))
    reference = retriever.gallery.ids[0]
    own, image = (
        retriever.compose(reference_id=reference, prompt="in red", composer="imagined"),
        retriever.gallery.vectors([reference])[0],
    )
    for alpha in (0.0, 0.5, 1.0, 1.4):
        query = retriever.compose(reference_id=reference, prompt="in red", composer="imagined", strength=alpha)
        moved = LAMBDA * (image + alpha * (own["imagined"] - image)) + alpha * (1 - LAMBDA) * own["prompt"]
        np.testing.assert_allclose(query.vector, moved, atol=1e-6)
    with pytest.raises(OptionError, match=r"has only image, imagined, prompt \(use strength\)"):
        retriever.search(reference_id=reference, prompt="in red", composer="imagined", beta=0.5)
    for weights in ({}, {"weights": "auto"}, {"weights": {"imagined": 1, "image": 0.5}}):
        for hit in retriever.search(reference_id=reference, prompt="in red", composer="imagined", k=20, **weights):
            assert sum(hit.contributions.values()) == pytest.approx(hit.score, abs=1e-5)
    ranking = retriever.search(reference_id=reference, prompt="in red", composer="imagined", weights="auto")
    assert ranking.why == "automatic: the edited image beside image and prompt"
    assert min(ranking.weights.values()) > 0


def test_an_editor_that_knows_the_targets_finds_them(encoder: mm.Encoder) -> None:
    benchmark = load_benchmark("wardrobe")
    queries = benchmark.queries[:60]
    targets = {(query.reference, query.prompts[0]): query.targets[0] for query in queries}

    class Oracle:
        def edit(self, inputs: Sequence[ComposerInput]) -> list[Path]:
            return [PICTURES / targets[str(query.id), str(query.prompt)] for query in inputs]

    retriever = mm.Retriever.open(mm.wardrobe.gallery_folder(), encoder=encoder, parts=Parts(editor=Oracle()))
    requests = [{"reference_id": q.reference, "prompt": q.prompts[0], "k": 1, "exclude_reference": True} for q in queries]

    def recall(**options: Any) -> float:
        rankings = retriever.search_many([request | options for request in requests])
        return float(np.mean([ranking[0].id in query.targets for ranking, query in zip(rankings, queries, strict=True)]))

    assert recall(composer="imagined", weights={"imagined": 1}) == 1
    assert recall(composer="imagined") > recall(composer="sum")


def test_what_is_missing_is_one_line(encoder: mm.Encoder) -> None:
    with pytest.raises(OptionError, match="'imagined' needs an editor: give --editor endpoint or --editor FILE, or Parts"):
        make_composer("imagined", encoder)
    with pytest.raises(OptionError, match=r"editor must be an object with edit\(…\), got 'endpoint'"):
        Parts(editor="endpoint")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_edited_images_of_a_file(tmp_path: Path, encoder: mm.Encoder, suffix: str) -> None:
    Image.open(PICTURES / OTHER).save(tmp_path / "edited.png")
    path = tmp_path / f"edits{suffix}"
    record = {"reference": DRESS, "prompt": "in red", "edited": "edited.png"}
    lines = ",".join(record) + "\n" + ",".join(record.values()) + "\n"
    path.write_text(lines if suffix == ".csv" else json.dumps([record | {"id": DRESS}]), encoding="utf-8")
    editor = FileEditor.read(path, id_field="reference" if suffix == ".csv" else None)
    assert editor.edit([query_of(encoder)]) == [tmp_path / "edited.png"]
    missing = query_of(encoder, "longer")
    with pytest.raises(MMRetrieveError, match=rf"1 of 1 edited images are missing or ambiguous: 'longer' of {DRESS}; add them"):
        editor.edit([missing])
    assert FileEditor(editor.entries, allow_missing=True).edit([missing]) == [missing.image]


def picture(side: int = 8) -> str:
    """An image in base64, as servers answer."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "blue").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def edited(value: object) -> dict[str, Any]:
    return {"created": 1, "data": [{"b64_json": value}]}


def enormous() -> str:
    """A PNG file of a few bytes that claims to have 10,000,000,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")).decode()


class Server:
    """Serves `/v1/images/edits`. `answer(form, attempt)` returns a JSON value, bytes, or a status; it may raise to hang up."""

    def __init__(self, answer: Answer) -> None:
        self.forms: list[dict[str, bytes]] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(answer))
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def _handler(self, answer: Answer) -> type[BaseHTTPRequestHandler]:
        forms = self.forms

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/images/edits"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                message = message_from_bytes(f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + body)
                parts = message.get_payload()
                form = {str(p.get_param("name", header="content-disposition")): p.get_payload(decode=True) for p in parts}  # type: ignore[union-attr]
                forms.append(form)  # type: ignore[arg-type]
                try:
                    value = answer(form, len(forms))  # type: ignore[arg-type]
                except ConnectionError:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status = value if isinstance(value, int) else 200
                content = value if isinstance(value, bytes) else json.dumps({} if isinstance(value, int) else value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                if status == 429:
                    self.send_header("Retry-After", "0.01")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def editor(server: Server, model: str = "painter", **options: Any) -> EndpointEditor:
    return EndpointEditor(ChatEndpoint(model, server.address, "secret", **{"retries": 0} | options))


def test_a_server_gets_the_image_and_the_prompt(serve: Any, encoder: mm.Encoder) -> None:
    server = serve(lambda *_: edited(picture()))
    answers = editor(server).edit([query_of(encoder)])
    assert open_image(answers[0]).getpixel((0, 0)) == (0, 0, 255)
    form = server.forms[0]
    assert set(form) == {"model", "prompt", "image", "response_format"}
    assert (form["model"], form["response_format"]) == (b"painter", b"b64_json")
    assert form["prompt"].decode().splitlines()[-1] == "Prompt: in red"
    assert form["prompt"].startswith(b"Edit this picture.")
    sent = open_image(form["image"])
    assert sent.size == open_image(PICTURES / DRESS).size


@pytest.mark.parametrize("model", ["gpt-image-1", "chatgpt-image-latest"])
def test_models_that_refuse_a_format_are_not_asked_for_it(serve: Any, encoder: mm.Encoder, model: str) -> None:
    server = serve(lambda form, _: 400 if "response_format" in form else edited(picture()))
    assert len(editor(server, model).edit([query_of(encoder)])) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (edited(None), r"the picture of the response cannot be decoded \("),
        (edited("###"), r"the picture of the response cannot be decoded \("),
        (edited(base64.b64encode(b"<html>").decode()), r"the picture of the response cannot be decoded \("),
        (edited(picture(64)[:80]), r"the picture of the response cannot be decoded \("),
        (edited(enormous()), r"the picture of the response cannot be decoded \(.*pixels"),
        ({"data": [{"url": "http://127.0.0.1/secret.png"}]}, r"the response has no picture in data\[0\]\.b64_json"),
        ({"data": []}, r"the response has no picture in data\[0\]\.b64_json"),
        ([1], r"the response has no picture in data\[0\]\.b64_json"),
        (b"<html>", "the response is not JSON"),
        (500, "status 500"),
    ],
)
def test_an_answer_without_a_picture_is_one_line(serve: Any, encoder: mm.Encoder, answer: object, reason: str) -> None:
    with pytest.raises(EndpointError, match=rf"\(painter\): 1 of 1 requests failed; first: {reason}") as caught:
        editor(serve(lambda *_: answer)).edit([query_of(encoder)])
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_fails_is_asked_again(serve: Any, encoder: mm.Encoder) -> None:
    def answer(_: dict[str, bytes], attempt: int) -> object:
        if attempt == 1:
            raise ConnectionError
        return {2: 429, 3: edited("###")}.get(attempt, edited(picture()))

    server = serve(answer)
    assert len(editor(server, retries=4).edit([query_of(encoder)])) == 1
    assert len(server.forms) == 4


def test_pictures_are_cached_and_replayed_offline(serve: Any, encoder: mm.Encoder, tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "answers.sqlite")
    server = serve(lambda *_: edited(picture()))
    queries = [query_of(encoder), query_of(encoder, "longer"), query_of(encoder, image=OTHER), query_of(encoder)]
    first = editor(server, cache=cache).edit(queries)
    assert len(server.forms) == 3, "equal requests are sent once"
    for again in (editor(server, cache=cache), editor(server, cache=cache, offline=True)):
        assert [image.tobytes() for image in again.edit(queries)] == [image.tobytes() for image in first]  # type: ignore[union-attr]
    assert len(server.forms) == 3
    with pytest.raises(EndpointError, match=r"1 of 1 answers of painter are not in it, first: edit \(Prompt: blue\)"):
        editor(server, cache=cache, offline=True).edit([query_of(encoder, "blue")])


def test_a_shell_search_imagines(serve: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    server = serve(lambda *_: edited(picture()))
    words = [
        "search",
        "wardrobe",
        "--image",
        str(PICTURES / DRESS),
        "--prompt",
        "in red",
        "--composer",
        "imagined",
        "--json",
        "-k",
        "3",
    ]
    assert main(words) == 2
    assert "'imagined' needs an editor" in capsys.readouterr().err
    endpoint = ["--editor", "endpoint", "--model", "painter", "--endpoint", server.address, "--key", "k"]
    assert main([*words, *endpoint, "--memory", str(tmp_path / "answers.sqlite")]) == 0
    query = json.loads(capsys.readouterr().out.splitlines()[0])["query"]
    assert query["weights"] == pytest.approx({"image": 0, "imagined": LAMBDA, "prompt": 1 - LAMBDA})
