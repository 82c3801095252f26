"""Language models: the cache of answers, endpoints that fail in every way, files of texts, a captioner with real weights."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mmretrieve as mm
from mmretrieve.composer_input import ComposerInput
from mmretrieve.errors import EndpointError, MMRetrieveError, OptionError
from mmretrieve.language.base import Description, Roles
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.captioners.transformers import TransformersCaptioner
from mmretrieve.language.files import FileCaptioner, FileCompiler, FileDescriber, FileRewriter, IdLookup
from mmretrieve.language.llm.cache import AnswerCache
from mmretrieve.language.llm.endpoint import ChatEndpoint, ChatRequest, Instructions
from mmretrieve.language.llm.roles import (
    EndpointCaptioner,
    EndpointCompiler,
    EndpointDescriber,
    EndpointParaphraser,
    EndpointRewriter,
)
from mmretrieve.language.options import LanguageOptions, captioner_from, compiler_from, describer_from, rewriter_from
from mmretrieve.language.rewriters import SwapRewriter, TemplateRewriter
from mmretrieve.language.role_compiler import RuleCompiler

TIMEOUT = 0.5  # of endpoints that are meant to hang
Reply = tuple[int, str, str]  # status, content type, body


def completion(words: object) -> Reply:
    body = {
        "id": "1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": words}}],
    }
    return 200, "application/json", json.dumps(body)


class Server:
    """A chat endpoint. `reply(text, attempt)` answers, by default with the question itself; it may raise to hang up."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.reply: Callable[[str, int], Reply] = lambda text, _: completion(text.upper())
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def received(self) -> list[str]:
        return [text_of(body) for body in self.bodies]

    def close(self) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    attempt = server.received.count(text_of(body))
                    server.bodies.append(body)
                    server.keys.append(self.headers["Authorization"])
                try:
                    status, kind, reply = server.reply(text_of(body), attempt)
                except ConnectionError:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(reply.encode())))
                if status == 429:
                    self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(reply.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def text_of(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(part["text"] for part in content if part["type"] == "text")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "memory.sqlite")


def endpoint(server: Server, cache: AnswerCache | None = None, **settings: Any) -> ChatEndpoint:
    return ChatEndpoint("m", server.address, cache=cache, **{"timeout": 10, "retries": 2, **settings})


def pairs(count: int) -> tuple[list[str], list[str]]:
    return [f"caption {i}" for i in range(count)], ["in red"] * count


def rewritten(count: int) -> list[str]:
    return [f"CAPTION: CAPTION {i} PROMPT: IN RED" for i in range(count)]


# Endpoint: failures


def hang(server: Server) -> Reply:
    server.closing.wait(10)
    raise ConnectionError


def hang_up(_: Server) -> Reply:
    raise ConnectionError


FAILURES: dict[str, Callable[[Server], Reply]] = {
    "500": lambda _: (500, "application/json", '{"error": {"message": "sorry"}}'),
    "429": lambda _: (429, "application/json", '{"error": {"message": "slowly"}}'),
    "time-out": hang,
    "hang-up": hang_up,
    "web page": lambda _: (200, "text/html", "<h1>welcome</h1>"),
    "broken JSON": lambda _: (200, "application/json", '{"choices": ['),
    "no choices": lambda _: (200, "application/json", '{"choices": []}'),
    "choices of another kind": lambda _: (200, "application/json", '{"choices": ["yes"]}'),
    "no words": lambda _: completion(" \n"),
    "thoughts and no more": lambda _: completion("<think>red, so"),
    "nothing in quotes": lambda _: completion('""'),
    "null": lambda _: completion(None),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_rewriter_survives(server: Server, cache: AnswerCache, failure: str) -> None:
    fails = FAILURES[failure]
    server.reply = lambda text, attempt: fails(server) if attempt == 0 else completion(text.upper())
    patience = TIMEOUT if failure == "time-out" else 10
    answers = EndpointRewriter(endpoint(server, cache, timeout=patience)).rewrite(*pairs(6))
    assert answers == rewritten(6)
    assert set(Counter(server.received).values()) == {2}
    assert len(cache) == 6


def test_retry_after_is_respected(server: Server) -> None:
    times: list[float] = []

    def reply(text: str, attempt: int) -> Reply:
        times.append(time.monotonic())
        return FAILURES["429"](server) if attempt == 0 else completion(text)

    server.reply = reply
    EndpointRewriter(endpoint(server)).rewrite(*pairs(1))
    assert times[1] - times[0] >= 1  # Retry-After: 1, and `pause` is 0.01


def test_requests_run_concurrently_and_answers_are_in_order(server: Server) -> None:
    together, under_way, most = threading.Barrier(4, timeout=5), [0], [0]

    def reply(text: str, _: int) -> Reply:
        with server.lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        together.wait()  # breaks unless four are under way at the same time
        time.sleep(0.1 if text.endswith(("0", "5")) else 0.0)
        with server.lock:
            under_way[0] -= 1
        return completion(text.upper())

    server.reply = reply
    assert EndpointRewriter(endpoint(server, concurrency=4, retries=0)).rewrite(*pairs(12)) == rewritten(12)
    assert most[0] == 4


def test_equal_requests_are_sent_once(server: Server, cache: AnswerCache) -> None:
    captions, prompts = pairs(5)
    news: list[int] = []
    rewriter = EndpointRewriter(endpoint(server, cache), progress=news.append)
    assert rewriter.rewrite(captions * 3, prompts * 3) == rewritten(5) * 3
    assert len(server.received) == 5
    assert sorted(news) == [3] * 5
    again = EndpointRewriter(endpoint(server, AnswerCache(cache.path)), progress=news.append)
    assert again.rewrite([*captions, "caption 5"], [*prompts, "in red"]) == rewritten(6)
    assert Counter(server.received) == Counter({f"Caption: caption {i}\nPrompt: in red": 1 for i in range(6)})
    assert sum(news) == 3 * 5 + 6


def test_everything_that_determines_an_answer_is_part_of_its_key(server: Server, cache: AnswerCache) -> None:
    instructions, question = Instructions("task", "Do this."), [ChatRequest({"prompt": "x"})]
    for change in ({}, {"temperature": 0.5}, {"temperature": None}, {"max_tokens": 9}):
        endpoint(server, cache, **change).complete(instructions, question)
    endpoint(server, cache).complete(Instructions("task", "Do that."), question)
    endpoint(server, cache).complete(instructions, [ChatRequest({"prompt": "y"})])
    endpoint(server, cache).complete(instructions, [ChatRequest({"prompt": "x"}, sample=1)])
    assert len(server.bodies) == len(cache) == 7
    assert [body.get("temperature") for body in server.bodies] == [0, 0.5, None, 0, 0, 0, 0]
    assert server.bodies[0]["messages"][0] == {"role": "system", "content": "Do this."}


def test_a_refused_request_does_not_affect_the_others(server: Server, cache: AnswerCache) -> None:
    server.reply = lambda text, _: (400, "text/plain", "never") if "caption 3" in text else completion(text.upper())
    with pytest.raises(EndpointError, match=rf"m\): 1 of 10 requests failed; first: .*never.*stored in {cache.path}"):
        EndpointRewriter(endpoint(server, cache)).rewrite(*pairs(10))
    assert len(cache) == 9
    assert len(server.received) == 10  # a refusal is not sent again
    server.reply = lambda text, _: completion(text.upper())
    assert EndpointRewriter(endpoint(server, cache)).rewrite(*pairs(10)) == rewritten(10)
    assert len(server.received) == 11


def test_separate_failures_do_not_end_a_batch(server: Server, cache: AnswerCache) -> None:
    server.reply = lambda text, _: (400, "text/plain", "odd") if int(text.split()[2]) % 2 else completion(text.upper())
    with pytest.raises(EndpointError, match="5 of 10 requests failed; first: "):
        EndpointRewriter(endpoint(server, cache, concurrency=1)).rewrite(*pairs(10))
    assert len(cache) == 5


def test_answers_are_stored_when_the_endpoint_fails(server: Server, cache: AnswerCache) -> None:
    def reply(text: str, _: int) -> Reply:
        if int(text.split()[2]) >= 10:
            time.sleep(0.05)
            return FAILURES["500"](server)
        return completion(text.upper())

    server.reply = reply
    with pytest.raises(EndpointError, match=r"[34] of 200 requests failed, 18\d were not sent; first: status 500"):
        EndpointRewriter(endpoint(server, cache, concurrency=2)).rewrite(*pairs(200))
    assert len(cache) == 10


@pytest.mark.timed
def test_an_endpoint_that_never_answers_is_reported(server: Server, cache: AnswerCache) -> None:
    server.reply = lambda *_: hang(server)
    started = time.monotonic()
    with pytest.raises(EndpointError, match=r"of 800 requests failed, 79\d were not sent; first: no answer within 0.5 s"):
        EndpointRewriter(endpoint(server, cache, timeout=TIMEOUT, retries=1, concurrency=4)).rewrite(*pairs(800))
    assert time.monotonic() - started < 20  # 800 requests would take 200 s: two attempts of 0.5 s, four at a time
    assert len(server.received) <= 4 * 2 + 4  # each thread twice, and those that began before the third failure


def test_an_address_without_a_server_is_reported(server: Server) -> None:
    server.close()
    with pytest.raises(EndpointError, match=r"first: no connection \(.*refused.*no answer is stored: give --memory FILE"):
        EndpointRewriter(endpoint(server)).rewrite(*pairs(800))


def test_an_interrupted_batch_sends_nothing_more(server: Server, cache: AnswerCache) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EndpointRewriter(endpoint(server, cache, concurrency=2), progress=interrupt).rewrite(*pairs(500))
    assert len(server.received) < 100
    assert len(AnswerCache(cache.path)) == len(server.received)  # those under way were waited for


def test_the_key_is_sent_and_never_shown(server: Server) -> None:
    server.reply = lambda *_: (401, "text/plain", "wrong key: sk-secret")
    asker = endpoint(server, key="sk-secret")
    with pytest.raises(EndpointError, match=r"status 401 \(wrong key: …\)") as caught:
        EndpointRewriter(asker).rewrite(*pairs(1))
    assert "sk-secret" not in f"{caught.value} {asker!r}"
    assert server.keys == ["Bearer sk-secret"]


def test_address_and_key_may_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"no endpoint is named: .*OPENAI_BASE_URL"):
        ChatEndpoint("m")
    for options, message in (
        ({"timeout": 0}, "timeout must be more than 0 and at most 86400 seconds, got 0"),
        ({"retries": -1}, "retries must be a whole number of at least 0, got -1"),
        ({"concurrency": 0}, "concurrency must be a whole number of at least 1, got 0"),
    ):
        with pytest.raises(OptionError, match=message):
            ChatEndpoint("m", server.address, **options)
    with pytest.raises(OptionError, match="batch must be a whole number of at least 1, got 0"):
        TransformersCaptioner("m", batch=0)
    monkeypatch.setenv("OPENAI_BASE_URL", server.address)
    assert EndpointRewriter(ChatEndpoint("m")).rewrite(*pairs(1)) == rewritten(1)


def test_a_missing_package_is_named_before_any_work(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EndpointError, match=re.escape("pip install 'mmretrieve[llm]'")):
        endpoint(server)
    with pytest.raises(MMRetrieveError, match=re.escape("pip install 'mmretrieve[captioners]'")):
        TransformersCaptioner("any")


RUN = """
import sys
from mmretrieve.language.llm.cache import AnswerCache
from mmretrieve.language.llm.endpoint import ChatEndpoint
from mmretrieve.language.llm.roles import EndpointRewriter
endpoint = ChatEndpoint("m", sys.argv[1], cache=AnswerCache(sys.argv[2]), concurrency=4)
print(*EndpointRewriter(endpoint).rewrite([f"caption {i}" for i in range(40)], ["in red"] * 40), sep="|")
"""


def test_a_killed_run_resumes(server: Server, cache: AnswerCache) -> None:
    def slowly(text: str, _: int) -> Reply:
        time.sleep(0.05)
        return completion(text.upper())

    server.reply = slowly
    run = [sys.executable, "-c", RUN, server.address, str(cache.path)]
    with subprocess.Popen(run, stdout=subprocess.DEVNULL) as killed:
        while len(server.received) < 17:
            assert killed.poll() is None
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
    before = Counter(server.received)
    assert len(before) < 40
    finished = subprocess.run(run, capture_output=True, text=True, check=True)
    assert finished.stdout.strip().split("|") == rewritten(40)
    times = Counter(server.received)
    assert len(times) == 40
    assert max(times.values()) <= 2
    assert sum(count == 2 for count in times.values()) <= 4  # those under way at the kill
    assert len(AnswerCache(cache.path)) == 40


def test_a_run_is_replayed_without_its_server(server: Server, cache: AnswerCache) -> None:
    EndpointRewriter(endpoint(server, cache)).rewrite(*pairs(4))
    server.close()
    offline = ChatEndpoint("m", cache=AnswerCache(cache.path), offline=True)
    assert EndpointRewriter(offline).rewrite(*pairs(4)) == rewritten(4)
    missing = r"memory.sqlite: 2 of 6 answers of m are not in it, first: rewrite \(Caption: caption 4; Prompt: in red\)"
    with pytest.raises(EndpointError, match=missing):
        EndpointRewriter(offline).rewrite(*pairs(6))
    with pytest.raises(OptionError, match="--offline needs --memory FILE"):
        ChatEndpoint("m", offline=True)


OLD_MEMORY = (
    '{"task": "rewrite", "model": "m", "asked": {"caption": "a dög", "prompt": "in “red”", "instructions": "ef2646661e31", '
    '"temperature": 0.0, "max_tokens": 512}, "said": "a red dög"}\n'
)


def test_the_memory_of_an_earlier_version_is_replayed(tmp_path: Path, encoder: mm.Encoder) -> None:
    """Requests and instructions are unchanged, so an old file still answers; a changed instruction breaks this on purpose."""
    path = tmp_path / "old.jsonl"
    path.write_text(OLD_MEMORY, encoding="utf-8")
    rewriter = rewriter_from(LanguageOptions(rewriter="endpoint", model="m", memory=path, offline=True), encoder)
    assert rewriter.rewrite(["a dög"], ["in “red”"]) == ["a red dög"]
    with pytest.raises(EndpointError, match=r"old\.jsonl: 1 of 1 answers of m are not in it, first: rewrite \(Caption: a cat"):
        rewriter.rewrite(["a cat"], ["in red"])


# Endpoint: requests of each role


@pytest.fixture
def queries(tmp_path: Path) -> list[ComposerInput]:
    """Three references in different forms: a path, a picture, an open file."""
    red, blue = Image.new("RGB", (1200, 600), "red"), Image.new("RGB", (40, 80), "blue")
    red.save(tmp_path / "red.png")
    file = io.BytesIO()
    Image.new("RGB", (30, 30), "green").save(file, "PNG")
    return [ComposerInput(prompt=f"prompt {i}", image=image) for i, image in enumerate((tmp_path / "red.png", blue, file))]


def sent_picture(body: dict[str, Any]) -> Image.Image:
    url = next(part["image_url"]["url"] for part in body["messages"][-1]["content"] if part["type"] == "image_url")
    assert url.startswith("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_unparsed_descriptions_do_not_shift_the_others(
    server: Server, queries: list[ComposerInput], caplog: pytest.LogCaptureFixture
) -> None:
    answers = {
        "Prompt: prompt 0": 'Sure!\n```json\n{"reference": "a {red} dog", "thoughts": "hm", "target": "a blue\ndog"}\n```',
        "Prompt: prompt 1": '{"reference": "cut off',
        "Prompt: prompt 2": '<think>{"target": "no"}</think>{"mood": 1} {"reference": "a cat", "thoughts": "", "target image": "two cats"}',
    }
    server.reply = lambda text, _: completion(answers[text])
    expected = [Description("a blue dog", "a {red} dog"), Description(None), Description("two cats", "a cat")]
    assert EndpointDescriber(endpoint(server, side=300)).describe(queries) == expected
    assert "1 of 3 answers could not be parsed" in caplog.text
    sizes = {text_of(body): sent_picture(body).size for body in server.bodies}
    assert sizes == {"Prompt: prompt 0": (300, 150), "Prompt: prompt 1": (40, 80), "Prompt: prompt 2": (30, 30)}
    assert sent_picture(next(body for body in server.bodies if "prompt 1" in text_of(body))).getpixel((20, 40))[2] > 200  # type: ignore[index]


def test_unparsed_roles_are_replaced_by_rules(
    server: Server, queries: list[ComposerInput], caplog: pytest.LogCaptureFixture
) -> None:
    answers = {
        "Prompt: prompt 0": '{"global": "a red dog", "desired": ["red", 3, " ", "red"], "preserve": "dog", "forbidden": []}',
        "Caption: a dress\nPrompt: no sleeves": "I cannot help with that",
        "Prompt: striped": '{"desired": ["stripes"]}',
    }
    server.reply = lambda text, _: completion(answers[text])
    requests = [queries[0], ComposerInput(prompt="no sleeves", caption="a dress"), ComposerInput(prompt="striped")]
    assert EndpointCompiler(endpoint(server)).compile(requests) == [
        Roles("a red dog", ("red",), ("dog",), ()),
        RuleCompiler().compile([requests[1]])[0],
        Roles(None, ("stripes",)),
    ]
    assert "1 of 3 answers could not be parsed" in caplog.text


def test_unparsed_paraphrases_are_left_out(server: Server, cache: AnswerCache, caplog: pytest.LogCaptureFixture) -> None:
    answers = {
        "in red": '```json\n{"paraphrases": ["make it red", 3, "a red one", "make it red"]}\n```',
        "longer": "Sure, here they are: make it longer",
        "striped": '{"paraphrases": []}',
    }
    server.reply = lambda text, _: completion(answers[text.removeprefix("Prompt: ")])
    paraphraser = EndpointParaphraser(endpoint(server, cache))
    assert paraphraser.paraphrase(list(answers), 5) == [["make it red", "a red one"], [], []]
    assert "1 of 3 answers could not be parsed; their prompts are used in one wording" in caplog.text
    assert paraphraser.paraphrase(["in red"], 1) == [["make it red"]]
    assert len(server.received) == 3


def test_further_captions_are_samples(server: Server, cache: AnswerCache, queries: list[ComposerInput]) -> None:
    answers = iter(range(100))
    server.reply = lambda *_: completion(f'"caption {next(answers)}"')
    captioner = EndpointCaptioner(endpoint(server, cache), temperature=0.9)
    captions = captioner.captions(queries, 3)
    assert sorted(caption for several in captions for caption in several) == sorted(
        f"caption {i}" for i in range(9)
    )  # nine questions, no quotation marks around the captions
    assert Counter(body["temperature"] for body in server.bodies) == {0: 3, 0.9: 6}
    assert [several[:1] for several in captions] == captioner.captions(queries)  # the first of three is the one
    assert captioner.captions(queries, 3) == captions
    assert len(server.bodies) == 9


def test_a_query_without_an_image_is_named(server: Server) -> None:
    queries = [ComposerInput(prompt="x", image=Image.new("RGB", (9, 9))), ComposerInput(prompt="in red", id="7")]
    for ask in (EndpointDescriber(endpoint(server)).describe, EndpointCaptioner(endpoint(server)).captions):
        with pytest.raises(OptionError, match=r"query 2 of 2 \(7\) has none"):
            ask(queries)


# Files


def write(path: Path, content: object) -> Path:
    lines = content if isinstance(content, str) else json.dumps(content)
    path.write_text(lines, encoding="utf-8")
    return path


def named(*ids: str) -> list[ComposerInput]:
    return [ComposerInput(prompt="in red", id=name) for name in ids]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.json", {"1": "a dog", "2": ["a cat", "a pet"]}),
        ("c.json", {"1": {"caption": "a dog"}, "2": {"caption": ["a cat", "a pet"]}}),
        ("c.json", [{"image_id": 1, "text": "a dog"}, {"image_id": 2, "text": "a cat"}, {"image_id": 2, "text": "a pet"}]),
        ("c.json", [{"candidate": "1", "captions": ["a dog"]}, {"candidate": "2", "captions": ["a cat", "a pet"]}]),
        ("c.jsonl", '{"id": 1, "caption": "a dog"}\n\n{"id": 2, "caption": ["a cat", "a pet"]}'),
        ("c.csv", '\ufeffimage,caption,x\n1,a dog,\n2," a cat",\n2,a pet,5\n'),
    ],
)
def test_captions_come_from_files_of_every_form(tmp_path: Path, name: str, content: object) -> None:
    captioner = FileCaptioner.read(write(tmp_path / name, content))
    assert captioner.captions(named("2", "1")) == [["a cat"], ["a dog"]]
    assert captioner.captions(named("2", "images/0002.jpg"), 2) == [["a cat", "a pet"]] * 2


def test_repeated_captions_stay_and_repeated_records_do_not(tmp_path: Path) -> None:
    records = [{"id": 1, "caption": ["a dog", "a dog", "a pet"]}] * 2 + [{"id": 1, "caption": "a hound"}]
    captioner = FileCaptioner.read(write(tmp_path / "c.json", records))
    assert captioner.captions(named("1"), 9) == [["a dog", "a dog", "a pet", "a hound"]]


def test_ambiguous_fields_must_be_named(tmp_path: Path) -> None:
    both = write(tmp_path / "both.json", [{"id": 5, "reference": "1", "caption": "a dog", "Nebensatz": "x"}])
    with pytest.raises(OptionError, match="id and reference could each be the id; choose one with --id-field NAME"):
        FileCaptioner.read(both)
    assert FileCaptioner.read(both, id_field="reference").captions(named("1")) == [["a dog"]]
    assert FileCaptioner.read(both, id_field="reference", caption_field="Nebensatz").captions(named("1")) == [["x"]]
    with pytest.raises(
        OptionError, match="no field 'nothing'; give --id-field NAME, one of: id, reference, caption, Nebensatz"
    ):
        FileCaptioner.read(both, id_field="nothing")
    other = write(tmp_path / "other.csv", "number,words\n1,a dog\n")
    with pytest.raises(OptionError, match="no field for the id; give --id-field NAME, one of: number, words"):
        FileCaptioner.read(other)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.txt", "1 a dog", "ends in .json, .jsonl, .csv"),
        ("c.json", "{", "c.json: cannot be read"),
        ("c.json", "[]", "the file has no records"),
        ("c.json", "[1]", "expected a list of records"),
        ("c.jsonl", '{"id": 1}\nno', "line 2"),
        ("c.csv", "id,caption\n1,a,b\n", "record 1 does not have as many columns"),
        ("c.json", [{"id": 1, "caption": "a"}, {"id": [2], "caption": "b"}], "record 2: expected text in 'id'"),
        ("c.json", [{"id": 1, "caption": "a"}, {"id": 2, "caption": [3]}], "record 2: expected text or a list of texts"),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path: Path, name: str, content: object, message: str) -> None:
    with pytest.raises(MMRetrieveError, match=message):
        FileCaptioner.read(write(tmp_path / name, content))
    with pytest.raises(MMRetrieveError, match=r"no\.json: cannot be read"):
        FileCaptioner.read(tmp_path / "no.json")


def test_missing_captions_are_counted_named_and_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Other:
        def captions(self, queries: list[ComposerInput], count: int = 1) -> list[list[str]]:
            return [[f"other {query.id}"] * count for query in queries]

    path = write(tmp_path / "c.json", {"1": "a dog", "3": "", "4": ["a", "b", "c"]})
    requests = named("1", "2", "3", "4", "5", "6")
    with pytest.raises(MMRetrieveError, match=r"4 of 6 images' captions are missing or ambiguous: 2; 3; 5; …"):
        FileCaptioner.read(path).captions(requests)
    answers = FileCaptioner.read(path, fallback=Other()).captions(requests, 2)
    assert answers == [["a dog"], ["other 2"] * 2, ["other 3"] * 2, ["a", "b"], ["other 5"] * 2, ["other 6"] * 2]
    assert "4 of 6 images' captions are missing" in caplog.text
    assert "1 of 6 images have fewer than 2 captions" in caplog.text
    with pytest.raises(OptionError, match="this query has none"):
        FileCaptioner.read(path).captions([ComposerInput(prompt="x")])


def test_ids_match_if_they_are_unambiguous() -> None:
    names = IdLookup(["21179", "a/7.png", "007", "dev-1-img1", "x.y", "0"])
    assert [names.find(name) for name in ("images/021179.JPG", "21179.jpg", "dev-1-img1.png", "x.y", "000.png")] == [
        "21179",
        "21179",
        "dev-1-img1",
        "x.y",
        "0",
    ]
    assert names.find("007") == "007"  # the same text comes first
    assert names.find("7") is None  # a/7.png or 007
    assert names.find("x") is None  # .y is no ending of a picture
    assert names.find("2117") is None


def test_rewrites_come_from_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [
        {"caption": "a dog", "prompt": "in red ", "rewrite": "a red dog"},
        {"caption": "a dog", "prompt": "in red", "rewrite": "another"},
        {"caption": ["a cat", "a pet"], "prompt": "two", "rewrite": ["two cats", "two pets"]},
    ]
    path = write(tmp_path / "r.json", records)
    rewriter = FileRewriter.read(path)
    assert rewriter.rewrite(["a pet", "a dog"], ["two", "in red"]) == ["two pets", "a red dog"]
    assert "1 further rewrites of the same caption and prompt" in caplog.text
    with pytest.raises(MMRetrieveError, match=r"1 of 2 rewrites are missing or ambiguous: 'a cow' with 'two'"):
        rewriter.rewrite(["a pet", "a cow"], ["two", "two"])
    assert FileRewriter.read(path, allow_missing=True).rewrite(["a pet", "a cow"], ["two", "two"]) == ["two pets", ""]
    assert "1 of 2 rewrites are missing" in caplog.text
    records.append({"caption": ["a", "b"], "prompt": "two", "rewrite": ["c"]})
    with pytest.raises(MMRetrieveError, match="record 4: 2 in 'caption' and 1 in 'rewrite'; expected lists of equal length"):
        FileRewriter.read(write(path, records))


def test_a_cache_is_a_file_of_rewrites(server: Server, cache: AnswerCache) -> None:
    server.reply = lambda text, _: completion(f'"{text.upper()}"')
    EndpointRewriter(endpoint(server, cache)).rewrite(*pairs(3))
    cache.put("caption", "m", {"picture": "x"}, "not a rewrite")
    assert FileRewriter.read(cache.path).rewrite(*pairs(3)) == rewritten(3)
    lines = cache.path.with_name("memory.jsonl")
    assert cache.export_jsonl(lines) == 4
    with lines.open("a") as file:
        file.write('{"task": "torn')
    assert FileRewriter.read(lines).rewrite(*pairs(3)) == rewritten(3)


def test_the_files_of_circo_are_read_whole(catalogue: Path) -> None:
    path = catalogue.parent / "captions" / "circo_test_with_captions.json"
    records = json.loads(path.read_text())
    fields = {"caption_field": "multi_caption_opt", "prompt_field": "relative_caption", "rewrite_field": "multi_gpt-3.5_opt"}
    rewriter = FileRewriter.read(path, **fields)
    requests = [(caption, record["relative_caption"]) for record in records for caption in record["multi_caption_opt"]]
    answers = rewriter.rewrite(*map(list, zip(*requests, strict=True)))  # type: ignore[arg-type]
    assert len(requests) == 800 * 15
    first = dict(reversed([(pair, rewrite) for pair, rewrite in zip(requests, flat(records), strict=True)]))
    assert answers == [first[pair].strip() if pair in first else "" for pair in requests]
    single = FileRewriter.read(
        path, caption_field="blip2_caption", prompt_field="relative_caption", rewrite_field="gpt-3.5-turbo"
    )
    assert single.rewrite([records[9]["blip2_caption"]], [records[9]["relative_caption"]]) == [records[9]["gpt-3.5-turbo"]]
    captioner = FileCaptioner.read(path, id_field="reference_img_id", caption_field="multi_caption_opt")
    queries = named(*(f"{record['reference_img_id']:012d}.jpg" for record in records))
    assert [len(several) for several in captioner.captions(queries, 15)] == [15] * 800
    with pytest.raises(OptionError, match="reference_img_id and id could each be the id"):
        FileCaptioner.read(path)


def flat(records: list[dict[str, Any]]) -> list[str]:
    return [rewrite for record in records for rewrite in record["multi_gpt-3.5_opt"]]


def test_descriptions_and_roles_come_from_files(tmp_path: Path) -> None:
    described = [
        {"id": 1, "prompt": "in red", "target": "a red dog", "reference": "a dog"},
        {"id": 2, "prompt": "in red", "target": "a red cat"},
        {"id": 2, "prompt": "in blue", "target": None},
    ]
    path = write(tmp_path / "d.json", described)
    requests = [*named("2", "0001.jpg"), ComposerInput(prompt="in blue", id="2")]
    expected = [Description("a red cat"), Description("a red dog", "a dog"), Description(None)]
    assert FileDescriber.read(path).describe(requests) == expected
    with pytest.raises(MMRetrieveError, match=r"1 of 2 descriptions are missing or ambiguous: 'in red' of 3"):
        FileDescriber.read(path).describe(named("2", "3"))
    assert FileDescriber.read(path, allow_missing=True).describe(named("3", "2")) == [Description(None), expected[0]]

    roles = [{"prompt": "in red", "global": "a red dog", "desired": ["red"], "forbidden": "cat"}]
    compiler = FileCompiler.read(write(tmp_path / "r.jsonl", json.dumps(roles[0])))
    assert compiler.compile([ComposerInput(prompt="in red")]) == [Roles("a red dog", ("red",), (), ("cat",))]
    with pytest.raises(MMRetrieveError, match="1 of 1 roles are missing or ambiguous: 'no sleeves'"):
        compiler.compile([ComposerInput(prompt="no sleeves")])
    ids = FileCompiler.read(write(tmp_path / "r.json", [{"id": 1, **roles[0]}, {"id": 2, **roles[0], "global": "a red cat"}]))
    assert [one.whole for one in ids.compile(named("2", "1"))] == ["a red cat", "a red dog"]
    with pytest.raises(OptionError, match="expected any of global, desired, preserve, forbidden, got prompt, id"):
        FileCompiler.read(write(tmp_path / "r.json", [{"prompt": "x", "id": 1}]))


# Options


def test_options_build_the_named_implementations(encoder: mm.Encoder, server: Server, tmp_path: Path) -> None:
    plain = LanguageOptions()
    assert (captioner_from(plain, encoder), rewriter_from(plain, encoder), describer_from(plain)) == (None, None, None)
    assert isinstance(captioner_from(LanguageOptions("tagger"), encoder), Tagger)
    assert isinstance(rewriter_from(LanguageOptions(rewriter="template"), encoder), TemplateRewriter)
    assert isinstance(rewriter_from(LanguageOptions(rewriter="swap"), encoder), SwapRewriter)
    assert isinstance(compiler_from(plain), RuleCompiler)

    asking = LanguageOptions(
        *["endpoint"] * 4, endpoint=server.address, model="m", key="sk-secret", memory=tmp_path / "m.jsonl", timeout=7
    )
    implementations = [
        captioner_from(asking, encoder),
        rewriter_from(asking, encoder),
        compiler_from(asking),
        describer_from(asking),
    ]
    assert [type(implementation) for implementation in implementations] == [
        EndpointCaptioner,
        EndpointRewriter,
        EndpointCompiler,
        EndpointDescriber,
    ]
    assert {id(implementation.endpoint) for implementation in implementations} == {id(asking.chat_endpoint)}  # type: ignore[attr-defined]
    assert asking.chat_endpoint == ChatEndpoint("m", server.address, "sk-secret", asking.cache, timeout=7)
    assert "sk-secret" not in repr(asking)

    local = captioner_from(LanguageOptions("transformers:some/model", memory=tmp_path / "m.jsonl"), encoder)
    assert isinstance(local, TransformersCaptioner)
    assert local.model == "some/model"
    assert local.cache is not None
    assert local.cache.path == tmp_path / "m.jsonl"


def test_options_name_the_fields_of_files(encoder: mm.Encoder, photos: Path, tmp_path: Path) -> None:
    words = [{"id": 1, "c": "a dog", "p": "in red", "rewrite": "a red dog", "target": "a dog in red", "desired": ["red"]}]
    path = str(write(tmp_path / "w.json", words))
    options = LanguageOptions(*[path] * 4, id_field="id", caption_field="c", prompt_field="p", allow_missing=True)
    image = encoder.encode_images([sorted(photos.rglob("*.png"))[0]])[0]
    other = ComposerInput(image, "in blue", id="2")
    answers, tagged = captioner_from(options, encoder).captions([*named("1"), other])
    assert answers == ["a dog"]
    assert tagged == captioner_from(LanguageOptions("tagger"), encoder).captions([other])[0]
    assert rewriter_from(options, encoder).rewrite(["a dog", "a dog"], ["in red", "in blue"]) == ["a red dog", ""]
    assert compiler_from(options).compile(named("1")) == [Roles(None, ("red",))]
    assert describer_from(options).describe([*named("1"), other]) == [Description("a dog in red"), Description(None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captioner": "template"}, "unknown captioner 'template'; choose from: tagger, endpoint, transformers:MODEL, a file"),
        ({"describer": "tagger"}, "unknown describer 'tagger'; choose from: endpoint, a file"),
        ({"rewriter": "lost.json"}, "--rewriter lost.json: no such file"),
        ({"captioner": "transformers:"}, "unknown captioner 'transformers:'"),
        ({"rewriter": "endpoint"}, "an endpoint needs --model NAME"),
        (
            {"model": "m", "endpoint": "http://x"},
            "--endpoint, --model given, but no captioner, rewriter, paraphraser, compiler, describer, editor or judge is the endpoint",
        ),
        (
            {"memory": "m.jsonl"},
            "--memory given, but no captioner, rewriter, paraphraser, compiler, describer, editor or judge is a model",
        ),
        (
            {"allow_missing": True},
            "--allow-missing given, but no captioner, rewriter, paraphraser, compiler, describer, editor or judge is a file",
        ),
        (
            {"caption_field": "x"},
            "--caption-field given, but no captioner, rewriter, paraphraser, compiler, describer, editor or judge is a file",
        ),
        ({"rewriter": "endpoint", "model": "m", "offline": True}, "--offline needs --memory FILE"),
    ],
)
def test_contradicting_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        LanguageOptions(**options)


def test_options_load_no_heavy_package() -> None:
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import mmretrieve.language.options"],
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in traced.splitlines()}
    assert not loaded & {"torch", "open_clip", "openai", "transformers", "numpy", "PIL"}


# A captioner with real weights


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner as public ones are saved, with random weights: a ViT that a GPT-2 of 45 words looks at."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("captioner")
    words = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", *(f"word{i}" for i in range(41))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sees = transformers.ViTConfig(image_size=32, patch_size=16, initializer_range=1.0, **small)
    says = transformers.GPT2Config(
        vocab_size=45, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=3, initializer_range=1.0
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(sees, says)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    torch.manual_seed(1)
    transformers.VisionEncoderDecoderModel(config=config).save_pretrained(folder)
    return folder


def test_a_local_model_captions_pictures(tiny_model: Path, cache: AnswerCache, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))[:3]
    queries = [ComposerInput(prompt="x", image=path) for path in (*paths, paths[0])]
    news: list[int] = []
    captioner = TransformersCaptioner(str(tiny_model), "cpu", cache, max_new_tokens=6, batch=2, progress=news.append)
    answers = captioner.captions(queries, 4)
    assert [len(several) for several in answers] == [4] * 4
    assert answers[0] == answers[3]
    assert len({several[0] for several in answers}) > 1  # it looks
    assert all(re.fullmatch(r"(word\d+ ?)+", caption) for several in answers for caption in several)
    assert sum(news) == 4
    assert len(cache) == 3
    alone = TransformersCaptioner(str(tiny_model), "cpu", max_new_tokens=6)
    assert [alone.captions([query], 4)[0] for query in queries] == answers  # no neighbour changes a caption
    assert alone.captions(queries) == [several[:1] for several in answers]
    searched = TransformersCaptioner(str(tiny_model), "cpu", max_new_tokens=6, sampled=False).captions(queries[:2], 4)
    assert [len(set(several)) for several in searched] == [4, 4]
    gone = TransformersCaptioner(str(tiny_model), "cpu", AnswerCache(cache.path), max_new_tokens=6)
    object.__setattr__(gone, "_loaded", None)  # a call of the model fails now
    assert gone.captions(queries, 4) == answers


def test_a_model_that_cannot_be_loaded_fails_at_once(tmp_path: Path) -> None:
    for name in ("nobody/nothing", str(tmp_path)):
        with pytest.raises(MMRetrieveError, match=f"{name}: the captioner could not be loaded .*safetensors"):
            TransformersCaptioner(name, "cpu").captions([ComposerInput(prompt="x", image=Image.new("RGB", (9, 9)))])
    assert logging.root.manager.disable == 0
