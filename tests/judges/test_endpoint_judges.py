"""Judges behind real HTTP servers that speak vLLM's protocols, faults included."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import signal
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
from starlette.testclient import TestClient

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.errors import EndpointError, OptionError
from mmretrieve.judges.base import judge_logits, log_odds
from mmretrieve.judges.endpoint import ListwiseJudge, PointwiseJudge, RerankJudge
from mmretrieve.judges.factory import register_judge_of
from mmretrieve.judges.order import OrderEffect, measure_order_effect
from mmretrieve.language.llm.cache import AnswerCache
from mmretrieve.language.llm.endpoint import ChatEndpoint
from mmretrieve.language.options import LanguageOptions
from mmretrieve.registry import JUDGES
from mmretrieve.server.app import create_app

Body = dict[str, Any]
CERTAIN = log_odds(0.9)  # of an answer without log-probabilities
COLORS = [(230, 20, 20), (200, 60, 60), (128, 128, 128), (20, 20, 230)]
QUERY = {"image": Image.new("RGB", (64, 64), (0, 0, 255)), "text": "in red"}
DOCUMENTS = [{"image": Image.new("RGB", (64, 64), color)} for color in COLORS]


class ModelServer:
    """Serves `/v1/chat/completions` and `/v1/rerank`. `answer(path, body)` returns a JSON value, or raises to hang up."""

    def __init__(self, answer: Callable[[str, Body], object]) -> None:
        self.answer, self.bodies, self.closing = answer, list[Body](), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                try:
                    content = json.dumps(server.answer(self.path, body)).encode()
                except ConnectionError:
                    self.close_connection = True
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str, Body], object]], ModelServer]]:
    servers: list[ModelServer] = []

    def start(answer: Callable[[str, Body], object]) -> ModelServer:
        servers.append(ModelServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def endpoint(server: ModelServer, cache: AnswerCache | None = None, **settings: Any) -> ChatEndpoint:
    return ChatEndpoint("m", server.address, cache=cache, **{"timeout": 10, "retries": 0, **settings})


def parts_of(content: Any) -> list[Body]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def images_of(content: Any) -> list[Image.Image]:
    urls = [part["image_url"]["url"] for part in parts_of(content) if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def redness(image: Image.Image) -> float:
    red, green, blue = image.resize((1, 1)).getpixel((0, 0))
    return (red - (green + blue) / 2) / 255


def completion(text: str, logprobs: dict[str, float] | None = None) -> Body:
    choice: Body = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if logprobs is not None:
        top = [{"token": token, "logprob": logprob} for token, logprob in logprobs.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": max(logprobs.values()), "top_logprobs": top}]}
    return {"id": "1", "object": "chat.completion", "choices": [choice]}


def yes_if_red(_: str, body: Body) -> object:
    """As a vision-language model on vLLM: log-probabilities of tokens in several spellings."""
    assert body["logprobs"] is True
    reference, candidate = images_of(body["messages"][-1]["content"])
    assert redness(reference) < 0
    p = (redness(candidate) + 1) / 2 * 0.98 + 0.01
    return completion("Yes", {"Yes": math.log(p * 0.75), "yes": math.log(p * 0.25), " No": math.log(1 - p), "Maybe": -20.0})


# Pointwise


def test_yes_and_no_of_all_spellings_make_the_logit(serve: Any) -> None:
    server = serve(yes_if_red)
    logits = judge_logits(PointwiseJudge(endpoint(server)), QUERY, DOCUMENTS)
    probabilities = [(redness(document["image"]) + 1) / 2 * 0.98 + 0.01 for document in DOCUMENTS]
    assert logits == pytest.approx([math.log(p / (1 - p)) for p in probabilities], abs=0.1)  # JPEG
    assert "Prompt: in red" in parts_of(server.bodies[0]["messages"][-1]["content"])[-1]["text"]


def test_the_order_of_candidates_does_not_matter(serve: Any) -> None:
    judge = PointwiseJudge(endpoint(serve(yes_if_red)))
    forwards, backwards = judge_logits(judge, QUERY, DOCUMENTS), judge_logits(judge, QUERY, DOCUMENTS[::-1])
    assert forwards.tolist() == backwards[::-1].tolist()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (completion("Yes."), CERTAIN),
        (completion("<think>blue? no, red</think> No, it is blue"), -CERTAIN),
        (completion("yes", {"yes": -0.1, "the": -3.0}), 2.9),  # "no" is rarer than all that are listed
        (completion("**Yes**", {"**": -0.1}), CERTAIN),
    ],
)
def test_servers_answer_in_several_ways(serve: Any, reply: Body, expected: float) -> None:
    logits = judge_logits(PointwiseJudge(endpoint(serve(lambda *_: reply))), {"text": "in red"}, DOCUMENTS[:1])
    assert logits.tolist() == pytest.approx([expected], abs=1e-5)


def test_candidates_without_an_answer_have_no_score(serve: Any) -> None:
    def answer(path: str, body: Body) -> object:
        return (
            completion("I cannot tell")
            if redness(images_of(body["messages"][-1]["content"])[1]) > 0.7
            else yes_if_red(path, body)
        )

    logits = judge_logits(PointwiseJudge(endpoint(serve(answer))), QUERY, DOCUMENTS)
    assert [math.isnan(logit) for logit in logits] == [True, False, False, False]


def test_calls_and_seconds_are_bounded(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda path, body: (time.sleep(0.3), yes_if_red(path, body))[1])
    judge = PointwiseJudge(endpoint(server), max_calls=3)
    assert [math.isnan(logit) for logit in judge_logits(judge, QUERY, DOCUMENTS)] == [False, False, False, True]
    assert len(server.bodies) == 3
    cache = AnswerCache(tmp_path / "answers.sqlite")
    judge = PointwiseJudge(endpoint(server, cache, concurrency=1), seconds=0.8)
    started = time.monotonic()
    logits = judge_logits(judge, QUERY, DOCUMENTS)
    assert time.monotonic() - started < 2
    assert 1 <= sum(not math.isnan(logit) for logit in logits) <= 3


@pytest.mark.parametrize("judge", [PointwiseJudge, ListwiseJudge, RerankJudge])
def test_a_search_survives_a_server_that_hangs_up(serve: Any, retriever: mm.Retriever, judge: Any) -> None:
    def hang_up(*_: object) -> object:
        raise ConnectionError

    query = {"reference_id": retriever.gallery.ids[0], "prompt": "in red", "k": 6}
    judged = retriever.search(**query, judge=judge(endpoint(serve(hang_up))))
    assert judged.ids == retriever.search(**query).ids
    assert judged.note is not None
    assert judge.__name__ in judged.note
    assert "this is the order without the judge" in judged.note


def test_a_server_that_never_answers_costs_the_budget_only(serve: Any, retriever: mm.Retriever) -> None:
    server = serve(lambda *_: (server_closing.wait(20), {})[1])
    server_closing = server.closing
    started = time.monotonic()
    judged = retriever.search(prompt="in red", k=3, judge=PointwiseJudge(endpoint(server), seconds=0.5))
    assert time.monotonic() - started < 5
    assert judged.note is not None
    assert "no answer within 0.5 s in all" in judged.note


# Listwise


def test_a_list_keeps_each_item_once(serve: Any, retriever: mm.Retriever) -> None:
    """Repeated, missing and invented numbers: what is named comes first in its order, the rest keeps the old order."""
    server = serve(lambda *_: completion('Sure: {"order": [4, 2, 4, 99, 0, -1, "3", 2.5, 5]}'))
    first = retriever.search(reference_id=retriever.gallery.ids[5], prompt="in red", k=6)
    judged = retriever.search(
        reference_id=retriever.gallery.ids[5],
        prompt="in red",
        k=6,
        judge=ListwiseJudge(endpoint(server)),
        judge_k=6,
        judge_weight=math.inf,
    )
    assert judged.ids == tuple(first.ids[i] for i in (3, 1, 4, 0, 2, 5))
    assert judged.note == "the judge scored 3 of the 6 items; the others count as the worst of these"
    assert len(images_of(server.bodies[0]["messages"][-1]["content"])) == 7  # the reference and six candidates


@pytest.mark.parametrize("answer", ["the red one", '{"order": "1, 2"}', '{"order": []}'])
def test_a_list_that_cannot_be_read_leaves_the_first_stage(serve: Any, retriever: mm.Retriever, answer: str) -> None:
    judged = retriever.search(prompt="in red", k=5, judge=ListwiseJudge(endpoint(serve(lambda *_: completion(answer)))))
    assert judged.ids == retriever.search(prompt="in red", k=5).ids
    assert judged.note is not None
    assert "ListwiseJudge scored none of the 20 items" in judged.note


# Rerank


def relevance(_: str, body: Body) -> object:
    """vLLM's `/v1/rerank`: results by relevance, not by index."""
    assert len(images_of(body["query"]["content"])) == 1
    images = [images_of(document["content"])[0] for document in body["documents"]]
    results = [{"index": i, "relevance_score": (redness(image) + 1) / 2} for i, image in enumerate(images)]
    return {"id": "1", "model": "m", "results": sorted(results, key=lambda one: -one["relevance_score"])}


def test_a_rerank_server_scores_all_candidates_in_one_call(serve: Any, tmp_path: Path) -> None:
    cache, server = AnswerCache(tmp_path / "answers.sqlite"), serve(relevance)
    judge = RerankJudge(endpoint(server, cache))
    expected = [log_odds((redness(document["image"]) + 1) / 2) for document in DOCUMENTS]
    assert judge_logits(judge, QUERY, DOCUMENTS[:2]) == pytest.approx(expected[:2], abs=0.1)
    assert judge_logits(judge, QUERY, DOCUMENTS) == pytest.approx(expected, abs=0.3)
    assert [len(body["documents"]) for body in server.bodies] == [2, 2]  # the second time, only what is new
    server.close()
    offline = RerankJudge(ChatEndpoint("m", cache=AnswerCache(cache.path), offline=True))
    assert judge_logits(offline, QUERY, DOCUMENTS) == pytest.approx(expected, abs=0.3)
    with pytest.raises(EndpointError, match="4 of 4 scores of m are not cached"):
        offline.rank({"text": "in blue"}, DOCUMENTS)


@pytest.mark.parametrize("body", [{"data": []}, [], {"results": [{"index": 0}]}, {"results": None}])
def test_a_rerank_server_that_answers_something_else_is_named(serve: Any, body: object) -> None:
    server = serve(lambda *_: body)
    with pytest.raises(EndpointError, match=rf"{re.escape(server.address)} \(m\): the response has no results with index"):
        RerankJudge(endpoint(server)).rank(QUERY, DOCUMENTS)


# The cache


def test_answers_are_cached_and_replayed_offline(serve: Any, tmp_path: Path) -> None:
    cache, server = AnswerCache(tmp_path / "answers.sqlite"), serve(yes_if_red)
    judged = judge_logits(PointwiseJudge(endpoint(server, cache)), QUERY, DOCUMENTS)
    server.close()
    offline = PointwiseJudge(ChatEndpoint("m", cache=AnswerCache(cache.path), offline=True))
    assert judge_logits(offline, QUERY, DOCUMENTS).tolist() == judged.tolist()
    partly = judge_logits(offline, QUERY, [*DOCUMENTS, {"image": Image.new("RGB", (64, 64), (9, 9, 9))}])
    assert partly[:4].tolist() == judged.tolist()
    assert math.isnan(partly[4])


RUN = """
import sys
from PIL import Image
from mmretrieve.judges.endpoint import PointwiseJudge
from mmretrieve.language.llm.cache import AnswerCache
from mmretrieve.language.llm.endpoint import ChatEndpoint

endpoint = ChatEndpoint("m", sys.argv[1], cache=AnswerCache(sys.argv[2]), concurrency=4)
documents = [{"image": Image.new("RGB", (64, 64), (i * 6, 0, 0))} for i in range(40)]
print(len(PointwiseJudge(endpoint).rank({"text": "in red"}, documents)))
"""


def test_a_killed_judge_resumes(serve: Any, tmp_path: Path) -> None:
    def slowly(_: str, body: Body) -> object:
        time.sleep(0.05)
        seen.append(images_of(body["messages"][-1]["content"])[0].getpixel((0, 0)))
        return completion("yes")

    seen: list[object] = []
    server, memory = serve(slowly), tmp_path / "answers.sqlite"
    run = [sys.executable, "-c", RUN, server.address, str(memory)]
    with subprocess.Popen(run, stdout=subprocess.DEVNULL) as killed:
        while len(seen) < 17:
            assert killed.poll() is None
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
    assert len(set(seen)) < 40
    finished = subprocess.run(run, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "40"
    times = Counter(seen)
    assert len(times) == 40
    assert max(times.values()) <= 2
    assert sum(count == 2 for count in times.values()) <= 4  # those under way at the kill


# Orders


def test_several_orders_cancel_a_preference_for_the_first(serve: Any) -> None:
    """A model that lists candidates as it sees them: in two orders, all means are equal."""
    server = serve(lambda *_: completion('{"order": [1, 2, 3, 4]}'))
    first = ListwiseJudge(endpoint(server))
    assert measure_order_effect(first, QUERY, DOCUMENTS, orders=2) == OrderEffect(2, -1, 0)
    assert judge_logits(ListwiseJudge(endpoint(server), orders=2), QUERY, DOCUMENTS).tolist() == pytest.approx([0] * 4)
    assert [len(images_of(body["messages"][-1]["content"])) for body in server.bodies] == [5] * 4
    with pytest.raises(OptionError, match="orders must be a whole number of at least 1, got 0"):
        ListwiseJudge(endpoint(server), orders=0)


def test_a_pointwise_judge_does_not_depend_on_the_order(serve: Any) -> None:
    judge = PointwiseJudge(endpoint(serve(yes_if_red)))
    assert measure_order_effect(judge, QUERY, DOCUMENTS) == OrderEffect(4, 1, 1)


# By name, in the shell and on a server


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("name", "answer", "reason"),
    [
        ("endpoint", "it is a nice picture", "failed (EndpointError"),
        ("endpoint-listwise", "the third one", "scored none of the 4 items that it saw"),
        ("endpoint-listwise", '{"order": [99, 120]}', "scored none of the 4 items that it saw"),
        ("endpoint-rerank", "prose", "the response has no results"),
        ("endpoint", None, "no answer within 0.3 s in all"),
        ("endpoint-rerank", None, "no answer within 0.3 s in all"),
    ],
)
def test_the_shell_keeps_the_first_stage(
    serve: Any, capsys: pytest.CaptureFixture[str], name: str, answer: str | None, reason: str
) -> None:
    server: ModelServer = serve(lambda *_: server.closing.wait(20) if answer is None else completion(answer))
    search = ["search", "wardrobe", "--prompt", "in red", "-k", "4"]
    assert main(search) == 0
    first = capsys.readouterr().out
    model = ["--judge-k", "4", "--endpoint", server.address, "--model", "m", "--timeout", "5"]
    assert main([*search, "--judge", name, *model, "--judge-seconds", "0.3" if answer is None else "9"]) == 0
    out, err = capsys.readouterr()
    assert out == first
    (line,) = [line for line in err.splitlines() if "the order without the judge" in line]
    assert reason in line


@pytest.mark.usefixtures("registered")
def test_a_shell_search_is_judged_and_replayed_offline(serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = serve(lambda *_: completion('{"order": [3, 1, 2, 4]}'))
    search = ["search", "wardrobe", "--prompt", "in red", "-k", "4", "--json"]
    main(search)
    first = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    search += [
        "--judge",
        "endpoint-listwise",
        "--judge-k",
        "4",
        "--judge-weight",
        "inf",
        "--model",
        "m",
        "--memory",
        str(tmp_path / "a.sqlite"),
    ]
    JUDGES._entries = dict(entries := JUDGES._entries)
    assert main([*search, "--endpoint", server.address]) == 0
    judged = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    assert judged == [first[i] for i in (2, 0, 1, 3)]
    server.close()
    JUDGES._entries = entries
    assert main([*search, "--offline"]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == judged


def test_clients_name_only_judges_of_the_server(registered: None, serve: Any, retriever: mm.Retriever) -> None:  # noqa: ARG001
    server = serve(lambda *_: completion('{"order": [2, 1]}'))
    with TestClient(create_app(retriever), base_url="http://127.0.0.1") as client:

        def search(judge: str) -> Any:
            return client.post("/api/search", json={"prompt": "in red", "k": 3, "judge_k": 3, "judge": judge})

        for name in ("endpoint", "endpoint-listwise", "transformers:some/model", f"cross-encoder:{server.address}"):
            response = search(name)
            assert response.status_code in (400, 422)
            assert response.json()["error"].startswith("unknown judge")
        assert server.bodies == []
        register_judge_of(LanguageOptions(judge="endpoint-listwise", model="m", endpoint=server.address))
        body = search("endpoint-listwise").json()
        assert body["note"] == "the judge scored 2 of the 3 items; the others count as the worst of these"
        assert search("endpoint").json()["error"].startswith("unknown judge 'endpoint'")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--judge", "endpont", "--model", "m"], "unknown judge 'endpont'; did you mean 'endpoint'?"),
        (["--judge", "endpoint"], "an endpoint needs --model NAME"),
        (
            ["--model", "m"],
            "--model given, but no captioner, rewriter, paraphraser, compiler, describer, editor or judge is the endpoint",
        ),
        (["--judge", "transformers:/nowhere"], "the judge could not be loaded"),
    ],
)
def test_a_judge_that_cannot_be_made_is_an_error(options: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "wardrobe", "--prompt", "in red", *options]) in (1, 2)
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert reason in err
