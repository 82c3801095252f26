"""Hostile clients: a server answers others while it is attacked, in bounded memory, and ends when it is told to."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import long_text_gallery
from hostile_clients import FILTER, answer_to, attacked, connect, observe, peak_memory, request, status_of
from live_server import SlowRetriever, command, served, until
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from test_server import error_text, metric

import mmretrieve as mm
from mmretrieve.filters import expression
from mmretrieve.gallery.store import statements
from mmretrieve.server import connections, limits, run
from mmretrieve.server.app import create_app
from mmretrieve.server.auth import Auth
from mmretrieve.server.bodies import SMALL_BODY
from mmretrieve.server.limits import Limits

HEAD = b"POST /api/uploads HTTP/1.1\r\nHost: localhost\r\n"
SEARCH = request("/api/search", b'{"prompt": "in red"}', "Connection: close")
HEALTH = request("/api/health", b"", "Connection: close")
MEMORY = 700_000_000  # bytes that an attack may take, besides what a server takes that has answered one search


@pytest.fixture(scope="module")
def long_texts(tmp_path_factory: pytest.TempPathFactory, encoder: mm.Encoder) -> Path:
    return long_text_gallery(tmp_path_factory.mktemp("galleries") / "long.gallery", encoder)


@pytest.fixture
def site(retriever: mm.Retriever) -> Callable[..., AbstractContextManager[str]]:
    """Serves with some limits changed."""

    def serve(**changed: Any) -> AbstractContextManager[str]:
        bounds = Limits(**changed)
        return served(create_app(retriever, limits=bounds), bounds)

    return serve


def seconds_until_closed(client: socket.socket) -> float:
    started = time.monotonic()
    client.settimeout(30)
    with contextlib.suppress(ConnectionError):
        while client.recv(65_536):
            pass
    return time.monotonic() - started


def seconds_until_refused(client: socket.socket) -> float:
    """How long the server takes a byte now and then."""
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - started < 20:
            client.sendall(b"a")
            time.sleep(0.1)
    return time.monotonic() - started


@pytest.mark.timed
def test_others_are_answered_during_an_attack_and_the_process_ends(long_texts: Path) -> None:
    with command("mmretrieve.cli.main", "serve", str(long_texts)) as (process, link):
        assert status_of(link, SEARCH) == 200
        before = peak_memory(process.pid)
        with attacked(link, half_open=600):
            seen = observe(link, 4)
            assert seen.failures == []
            assert seen.health_p99 <= 3  # also on a busy machine; the long form in tests/soak/ allows 0.5
            assert seen.searches
            assert peak_memory(process.pid) - before < MEMORY
            process.terminate()
            started = time.monotonic()
            assert process.wait(20) == 0
            assert time.monotonic() - started <= 10


def test_a_thread_that_never_ends_does_not_keep_the_process(long_texts: Path) -> None:
    with command("mmretrieve.cli.main", "serve", str(long_texts)) as (process, link), connect(link) as client:
        client.sendall(request("/api/search", json.dumps({"prompt": "in red", "where": FILTER}).encode()))
        until(lambda: metric(link, 'mmretrieve_running{gate="filtering"}') == 1)
        started = time.monotonic()
        process.terminate()
        assert b" 503 " in client.recv(4_096).partition(b"\r\n")[0]
        assert process.wait(20) == 0
        assert time.monotonic() - started < run.EXIT_SECONDS + 2


def test_a_worst_filter_is_interrupted_and_frees_its_thread(
    long_texts: Path, encoder: mm.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "WHERE_SECONDS", 0.5)
    app = create_app(mm.Retriever.open(long_texts, encoder=encoder), limits=Limits(filtering=1))
    with served(app) as link:
        for send in (
            lambda: httpx.get(f"{link}/api/items", params={"where": FILTER}, timeout=30),
            lambda: httpx.post(f"{link}/api/search", json={"prompt": "in red", "where": FILTER}, timeout=30),
        ):
            assert "; write a simpler filter" in error_text(send(), 400)
            until(lambda: metric(link, 'mmretrieve_running{gate="filtering"}') == 0)
        assert httpx.get(f"{link}/api/items", params={"where": "text LIKE 'a%'"}).json()["total"] == 60


def test_searches_without_a_filter_do_not_wait_for_filters(retriever: mm.Retriever) -> None:
    slow, where = SlowRetriever(retriever, filtered_only=True), "id LIKE '%'"
    with served(create_app(slow, limits=Limits(filtering=1))) as link, connect(link) as first, connect(link) as second:
        first.sendall(request("/api/search", json.dumps({"prompt": "in red", "where": where}).encode()))
        until(lambda: slow.begun == 1)
        second.sendall(request("/api/batch", json.dumps({"requests": [{"prompt": "a", "where": where}]}).encode()))
        until(lambda: metric(link, 'mmretrieve_waiting{gate="filtering"}') == 1)
        assert status_of(link, SEARCH) == 200
        assert metric(link, 'mmretrieve_running{gate="filtering"}') == 1
        slow.let.set()
        assert b" 200 " in first.recv(4_096).partition(b"\r\n")[0]
        assert b" 200 " in second.recv(4_096).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "spelling", ["'path'", '"path"', "[path]", "`path`", "items.'path'", 'items."PATH"', "items.[Source]", "'stamp'"]
)
@pytest.mark.parametrize("way", ["items", "search", "batch", "session", "form", "mcp", "structure"])
def test_private_columns_are_private_however_they_are_quoted(quoted_site: str, spelling: str, way: str) -> None:
    where = f"{spelling} LIKE '/%'"
    query: dict[str, Any] = {"prompt": "in red", "where": where}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": query}}
    accept = {"Accept": "application/json, text/event-stream"}
    column = spelling.strip("'\"[]`").rpartition(".")[2].strip("'\"[]`")
    structure = {"operator": "like", "operands": [{"column": column, "table": "items"}, {"value": "/%"}]}
    answer = {
        "items": lambda: httpx.get(f"{quoted_site}/api/items", params={"where": where}).json().get("total", "refused"),
        "search": lambda: httpx.post(f"{quoted_site}/api/search", json=query).json().get("searched", "refused"),
        "batch": lambda: httpx.post(f"{quoted_site}/api/batch", json={"requests": [query]}).json()["answers"][0].get("searched", "refused"),
        "session": lambda: httpx.post(f"{quoted_site}/api/session", json={"turns": [query]}).json().get("searched", "refused"),
        "form": lambda: httpx.post(f"{quoted_site}/api/search/form", data={"request": json.dumps(query)}).json().get("searched", "refused"),
        "mcp": lambda: httpx.post(f"{quoted_site}/mcp", json=call, headers=accept).json()["result"].get("structuredContent", {}).get("searched", "refused"),
        "structure": lambda: httpx.post(f"{quoted_site}/api/search", json=query | {"where": structure}).json().get("searched", "refused"),
    }[way]()  # fmt: skip
    assert answer in ("refused", 0)  # a name in single quotes is a text for SQLite, which no path is


@pytest.fixture(scope="module")
def quoted_site(retriever: mm.Retriever) -> Iterator[str]:
    with served(create_app(retriever)) as link:
        yield link


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /api/health HTTP/1.1\r\nX-Slow: ", b"\r\n\r\n", HEALTH.replace(b"close", b"keep-alive")],
    ids=["nothing", "half a header", "empty lines", "one request"],
)
def test_a_connection_without_a_request_is_closed(site: Callable[..., AbstractContextManager[str]], sent: bytes) -> None:
    with site(header_seconds=1) as link, connect(link) as client:
        client.sendall(sent)
        assert seconds_until_closed(client) < 8


def test_a_byte_now_and_then_keeps_no_connection(site: Callable[..., AbstractContextManager[str]]) -> None:
    with site(header_seconds=1) as link, connect(link) as client:
        client.sendall(b"GET /api/health HTTP/1.1\r\nX-Slow: ")
        assert seconds_until_refused(client) < 8


def test_the_rest_of_a_body_that_nobody_reads_keeps_no_connection(site: Callable[..., AbstractContextManager[str]]) -> None:
    with site(header_seconds=1) as link, connect(link) as client:
        client.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        assert seconds_until_refused(client) < 8


def test_an_answer_that_is_not_read_is_forgotten(site: Callable[..., AbstractContextManager[str]]) -> None:
    requests = 400
    many = b"GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * requests
    for bounds in ({"seconds": 1.0}, {"unread_bytes": 60_000}):  # asyncio holds 65,536 before a server pauses
        with site(**bounds) as link, connect(link) as client:
            size = len(httpx.get(f"{link}/api/openapi.json").content)
            with contextlib.suppress(OSError):
                client.sendall(many)
            time.sleep(4)
            client.settimeout(5)
            received = 0
            with contextlib.suppress(OSError):
                while part := client.recv(1_000_000):
                    received += len(part)
            assert received < 0.75 * requests * size  # what the system itself holds for a connection
            assert status_of(link, HEALTH) == 200


def test_connections_are_bounded_and_the_oldest_idle_ones_go_first(site: Callable[..., AbstractContextManager[str]]) -> None:
    with site(connections_of_address=20) as link, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(link)) for _ in range(60)]
        for client in clients:
            client.sendall(b"GET /api/health HTTP/1.1\r\nX-Slow: ")
        assert status_of(link, HEALTH) == 200
        for client in clients:
            client.settimeout(0.1)
        are_open = [is_open(client) for client in clients]
        assert 10 < sum(are_open) <= 20
        assert not any(are_open[:30])
        assert all(are_open[-10:])


def is_open(client: socket.socket) -> bool:
    try:
        return bool(client.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False


def test_requests_in_progress_are_not_closed_for_others(retriever: mm.Retriever) -> None:
    slow, bounds = SlowRetriever(retriever), Limits(connections_of_address=10, workers=2)
    with served(create_app(slow, limits=bounds), bounds) as link, contextlib.ExitStack() as stack:
        client = stack.enter_context(connect(link))
        client.sendall(SEARCH)
        until(lambda: slow.begun == 1)
        for _ in range(40):
            stack.enter_context(connect(link)).sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        assert status_of(link, HEALTH) == 200
        slow.let.set()
        assert client.recv(4_096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "headers", [b"X: " + b"a" * 2 * connections.HEADER_BYTES, b"a:b\r\n" * connections.HEADER_BYTES], ids=["long", "many"]
)
def test_long_headers_are_refused(site: Callable[..., AbstractContextManager[str]], headers: bytes) -> None:
    with site() as link:
        answer = answer_to(link, b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n\r\n")
        assert answer[:12] in (b"", b"HTTP/1.1 400")


def test_a_body_of_tiny_chunks_is_refused(site: Callable[..., AbstractContextManager[str]]) -> None:
    with site() as link:
        head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        small = 2 * connections.MAX_SMALL_CHUNKS
        assert answer_to(link, head + b"1\r\na\r\n" * small + b"0\r\n\r\n") == b""
        allowed = connections.MIN_CHUNK_BYTES
        chunk = f"{allowed:x}\r\n".encode() + b"a" * allowed + b"\r\n"
        assert (
            status_of(link, head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + chunk * small + b"0\r\n\r\n") == 422
        )


@pytest.mark.parametrize("path", ["/api/search", "/api/batch", "/api/session", "/mcp"])
@pytest.mark.parametrize(
    "body", [b"[" + b"[]," * limits.JSON_VALUES + b"[]]", b'{"a":{' + b'"b":0,' * limits.JSON_VALUES + b'"c":0}}']
)
def test_a_body_of_very_many_values_is_refused(quoted_site: str, path: str, body: bytes) -> None:
    for kind in ("application/json", "Application/JSON", "APPLICATION/PROBLEM+JSON; charset=utf-8"):
        answer = httpx.post(quoted_site + path, content=body, headers={"Content-Type": kind})
        assert error_text(answer, 413) == f"more than {limits.JSON_VALUES:,} values in one request; send a smaller one"


def test_values_in_texts_are_counted_however_they_are_escaped(quoted_site: str) -> None:
    line = f"more than {limits.JSON_VALUES:,} values in one request; send a smaller one"
    nested = json.dumps({"prompt": [[]] * limits.JSON_VALUES})
    assert error_text(httpx.post(f"{quoted_site}/api/search/form", data={"request": nested}), 400) == line
    escaped = "".join(f"\\u{ord(character):04x}" for character in json.dumps([[]] * limits.JSON_VALUES))
    call = '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": {"prompt": "%s"}}}'.replace(
        "%s", escaped
    )
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    result = httpx.post(f"{quoted_site}/mcp", content=call, headers=headers).json()["result"]
    assert (result["isError"], result["content"][0]["text"]) == (True, line)
    where = "".join(f"\\u{ord(character):04x}" for character in json.dumps({"a": [[]] * limits.JSON_VALUES}))
    content = '{"prompt": "in red", "where": "%s"}'.replace("%s", where)
    assert line in error_text(httpx.post(f"{quoted_site}/api/search", content=content, headers=headers), 400)


@pytest.mark.parametrize(
    "value",
    [
        {"weights": {f"n{i}": "a" for i in range(20_000)}},
        {"where": {"a": [1] * 20_000}},
        {"where": {f"n{i}": 0 for i in range(20_000)}},
    ],
    ids=["weights", "list", "fields"],
)
def test_many_wrong_values_are_refused_before_each_is_read(
    quoted_site: str, value: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expression, "_has_value", None)
    line = error_text(httpx.post(f"{quoted_site}/api/search", json={"prompt": "in red"} | value), 400)
    assert "up to 100 values, got 20,000" in line or "more than 5,000 names, values and operators" in line


def test_a_request_that_has_arrived_is_read_before_its_connection_is_closed() -> None:
    """Clients of a server that was busy for a moment are all accepted at once."""

    async def stall(_: Any) -> Response:
        time.sleep(1)  # nothing else is done meanwhile
        return Response()

    async def answer(_: Any) -> Response:
        return Response("here you are")

    app = Starlette(routes=[Route("/stall", stall), Route("/", answer)])
    with served(app, Limits(connections_of_address=16)) as link, contextlib.ExitStack() as stack:
        first, *others = [stack.enter_context(connect(link)) for _ in range(9)]
        first.sendall(request("/stall"))
        time.sleep(0.2)
        early = stack.enter_context(connect(link))
        early.sendall(request("/", b"", "Connection: close"))
        others += [stack.enter_context(connect(link)) for _ in range(60)]
        assert b"here you are" in b"".join(iter(lambda: early.recv(4_096), b""))


def test_a_large_image_is_one_value(quoted_site: str) -> None:
    large = io.BytesIO()
    Image.effect_noise((2_400, 2_400), 100).save(large, "PNG")
    image = base64.b64encode(large.getvalue()).decode()
    assert len(image) > 5_000_000
    assert httpx.post(f"{quoted_site}/api/search", json={"image": image, "k": 1}, timeout=60).status_code == 200


def test_large_bodies_share_a_budget_and_small_ones_pass(site: Callable[..., AbstractContextManager[str]]) -> None:
    size = 1_000_000
    with site(all_bodies_bytes=2 * size, seconds=20) as link, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(link)) for _ in range(4)]
        for client in clients:
            client.sendall(HEAD + f"Content-Length: {size + 1}\r\n\r\n".encode() + b"a" * size)
            client.settimeout(1)
        refused = [client.recv(4_096) for client in clients if not is_waiting(client)]
        assert len(refused) in (1, 2)  # two fit, and what every body may have uncounted
        assert all(answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer for answer in refused)
        assert status_of(link, SEARCH) == 200
        assert len(SEARCH) < SMALL_BODY
    with site(all_bodies_bytes=2 * size) as link:
        for _ in range(5):  # what was answered does not count any more
            assert status_of(link, request("/api/uploads", b"a" * size, "Connection: close")) == 422


def is_waiting(client: socket.socket) -> bool:
    """Whether the server has not answered yet."""
    try:
        return not client.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True


def test_an_image_that_is_sent_has_up_to_forty_megapixels(quoted_site: str) -> None:
    def png(width: int, height: int) -> bytes:
        content = io.BytesIO()
        Image.new("1", (width, height)).save(content, "PNG")
        return content.getvalue()

    assert httpx.post(f"{quoted_site}/api/uploads", content=png(8_000, 5_000), timeout=60).status_code == 200
    for send in (
        lambda content: httpx.post(f"{quoted_site}/api/uploads", content=content),
        lambda content: httpx.post(f"{quoted_site}/api/search", json={"image": base64.b64encode(content).decode()}),
        lambda content: httpx.post(f"{quoted_site}/api/search/form", files={"image": content}),
    ):
        assert "above the limit of 40,000,000 pixels" in error_text(send(png(8_001, 5_000)), 422)


def test_websockets_are_not_served(quoted_site: str) -> None:
    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    with connect(quoted_site) as client:
        client.sendall(request("/api/health", b"", *upgrade))
        assert client.recv(4_096).startswith(b"HTTP/1.1 200")


def test_cookies_of_others_cost_no_time(retriever: mm.Retriever) -> None:
    from demo.app import page

    header = {"Cookie": 'a="' + r"\1" * 20_000 + '"'}  # http.cookies takes seconds for it
    for auth, path in ((Auth(), "/"), (Auth(token="correct-horse"), "/api/health")):
        with served(create_app(retriever, auth=auth, page=page)) as link:
            httpx.get(link + path)
            began = time.perf_counter()
            assert httpx.get(link + path, headers=header).status_code == (200 if auth.is_open else 401)
            assert time.perf_counter() - began < 1


def test_routes_of_gradio_that_the_page_does_not_use_are_not_served(retriever: mm.Retriever) -> None:
    from demo.app import page

    names = (
        "queue/join",
        "file=/etc/passwd",
        "upload",
        "process_recording",
        "undo-vibe-edit",
        "run/predict",
        "openapi.json",
        "app_id",
    )
    unused = [
        *(f"/gradio_api/{name}" for name in names),
        "/config",
        "/login",
        "/logout",
        "/monitoring",
        "/custom_component/a/client/b",
    ]
    with served(create_app(retriever, page=page)) as link:
        assert httpx.get(f"{link}/theme.css").status_code == 200
        assert httpx.post(f"{link}/").status_code == 404
        for path in unused:
            for method in ("GET", "POST"):
                assert error_text(httpx.request(method, link + path), 404).startswith("no such route"), path
