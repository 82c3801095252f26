"""Paths and methods as proxies and clients send them: under a prefix, with a slash at the end, HEAD; and the API for people."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from live_server import served
from starlette.types import ASGIApp, Receive, Scope, Send

import mmretrieve as mm
from mmretrieve.errors import OptionError
from mmretrieve.server.app import create_app
from mmretrieve.server.auth import Auth
from mmretrieve.server.paths import parse_root_path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PREFIX, TOKEN = "/shop", "correct-horse"
HOP = {b"transfer-encoding", b"connection", b"content-encoding", b"content-length"}
TOOLS = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"Accept": "application/json, text/event-stream"}


def proxy_to(link: str, keeps_prefix: bool) -> ASGIApp:
    """A proxy that offers a server under PREFIX, and nothing else; it passes the prefix on, or removes it."""

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        path = scope["raw_path"].decode()
        inside = path.startswith(f"{PREFIX}/") or path == PREFIX
        target = path if keeps_prefix else path.removeprefix(PREFIX)
        async with httpx.AsyncClient(timeout=60) as client:
            url = httpx.URL(link + target if inside else f"{link}/outside").copy_with(query=scope["query_string"] or None)
            answer = await client.request(scope["method"], url, content=body, headers=scope["headers"])
        headers = [(name, value) for name, value in answer.headers.raw if name.lower() not in HOP]
        await send({"type": "http.response.start", "status": answer.status_code if inside else 404, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content})

    return proxy


@contextmanager
def behind_proxy(retriever: mm.Retriever, keeps_prefix: bool, **options: Any) -> Iterator[str]:
    with served(create_app(retriever, root_path=PREFIX, **options)) as link, served(proxy_to(link, keeps_prefix)) as outside:
        yield outside + PREFIX


@pytest.fixture(scope="module")
def link(retriever: mm.Retriever) -> Iterator[str]:
    with served(create_app(retriever)) as link:
        yield link


@pytest.mark.parametrize("path", ["/api/search", "/api/batch"])
def test_a_slash_at_the_end_changes_nothing(link: str, path: str) -> None:
    body: dict[str, Any] = {"prompt": "in red", "k": 3}
    body = {"requests": [body]} if path.endswith("batch") else body
    answers = [httpx.post(link + path + slash, json=body) for slash in ("", "/")]
    assert [answer.status_code for answer in answers] == [200, 200]
    first, second = ([hit["id"] for hit in (answer.json().get("answers") or [answer.json()])[0]["hits"]] for answer in answers)
    assert first == second


def test_mcp_and_reads_answer_with_a_slash_too(link: str) -> None:
    assert httpx.post(f"{link}/mcp/", json=TOOLS, headers=ACCEPT).json()["result"]["tools"]
    for path in ("/api/items/", "/api/info/", "/metrics/", "/docs/", "/api/openapi.json/"):
        assert httpx.get(link + path).status_code == 200, path
    assert httpx.get(f"{link}/api/nothing/").status_code == 404


def test_no_route_answers_with_a_redirect_to_another_slash(link: str) -> None:
    for path in ("/api/search", "/api/search/", "/mcp", "/mcp/", "/nothing/", "/api/"):
        for method in ("GET", "POST", "HEAD"):
            assert httpx.request(method, link + path).status_code in (400, 404, 405, 406, 415), (method, path)


@pytest.mark.parametrize(
    "path", ["/", "/api/health", "/api/items?limit=2", "/api/thumbnail", "/metrics", "/docs", "/api/openapi.json"]
)
def test_head_has_the_headers_of_get_and_no_body(link: str, retriever: mm.Retriever, path: str) -> None:
    parameters = {"id": retriever.gallery.ids[3]} if path.endswith("thumbnail") else None
    get, head = (httpx.request(method, link + path, params=parameters) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (200, b"")
    assert get.headers["content-type"] == head.headers["content-type"]
    if path != "/metrics":  # which counts this request, too
        assert int(head.headers["content-length"]) == len(get.content)
    assert httpx.head(f"{link}/api/search").status_code == 405
    assert httpx.head(f"{link}/api/item?id=none").status_code == 404


def test_the_docs_come_from_this_server_alone(link: str) -> None:
    page = httpx.get(f"{link}/docs")
    assert page.headers["content-type"].startswith("text/html")
    addresses = re.findall(r"""(?:src|href)="([^"]+)""", page.text)
    assert len(addresses) == 3
    for address in addresses:
        assert address.startswith("/docs/assets/")
        assert len(httpx.get(link + address).content) > 1_000
    assert "http" not in page.text.replace("xmlns", "")
    assert httpx.get(link).json()["docs"] == "/docs"


def test_the_docs_require_the_token_as_everything_does(retriever: mm.Retriever) -> None:
    with served(create_app(retriever, auth=Auth(token=TOKEN))) as link:
        for path in ("/docs", "/docs/", "/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css"):
            assert httpx.get(link + path).status_code == 401
            assert httpx.head(link + path).status_code == 401
            assert httpx.get(link + path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert (
            httpx.get(f"{link}/docs/assets/..%2f__init__.py", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 404
        )


@pytest.mark.parametrize("keeps_prefix", [True, False])
def test_a_proxy_may_offer_the_server_under_a_path(retriever: mm.Retriever, keeps_prefix: bool) -> None:
    expected = retriever.search(prompt="in red", k=3).ids
    with behind_proxy(retriever, keeps_prefix) as link:
        for path in ("/api/search", "/api/search/"):
            answer = httpx.post(link + path, json={"prompt": "in red", "k": 3})
            assert tuple(hit["id"] for hit in answer.json()["hits"]) == expected
        assert httpx.post(f"{link}/mcp/", json=TOOLS, headers=ACCEPT).json()["result"]["tools"]
        openapi = httpx.get(f"{link}/api/openapi.json").json()
        assert [server["url"] for server in openapi["servers"]] == [PREFIX]
        for address in re.findall(r"""(?:src|href)="([^"]+)""", httpx.get(f"{link}/docs").text):
            assert httpx.get(link.removesuffix(PREFIX) + address).status_code == 200


@pytest.mark.parametrize("keeps_prefix", [True, False])
def test_a_link_with_a_token_stays_under_the_path(retriever: mm.Retriever, keeps_prefix: bool) -> None:
    with behind_proxy(retriever, keeps_prefix, auth=Auth(token=TOKEN)) as link, httpx.Client() as browser:
        answer = browser.get(f"{link}/api/items?limit=3&token={TOKEN}")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{PREFIX}/api/items?limit=3")
        assert f"Path={PREFIX}" in answer.headers["set-cookie"]  # the cookie of another gallery at this host stays
        assert len(browser.get(f"{link}/api/items?limit=3").json()["items"]) == 3


def test_the_path_without_its_slash_leads_to_the_page(retriever: mm.Retriever) -> None:
    with behind_proxy(retriever, keeps_prefix=True) as link:
        assert httpx.get(f"{link}?q=1").headers["location"] == f"{PREFIX}/?q=1"


FORWARDED = {
    "X-Forwarded-Host": "evil.example", "X-Gradio-Server": "http://evil.example", "Forwarded": "host=evil.example",
    "X-Forwarded-Prefix": "/evil.example", "X-Forwarded-Port": "666", "X-Forwarded-Proto": "https",
}  # fmt: skip


@pytest.mark.parametrize(("trusted", "scheme"), [("127.0.0.1", "https"), ("10.0.0.1", "http")])
def test_the_page_names_no_host_that_a_client_forwards(
    retriever: mm.Retriever, trusted: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy passes on such headers of its clients, so even those of a trusted one are not read, but for the scheme, which it sets."""
    from demo.app import page

    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    with behind_proxy(retriever, keeps_prefix=True, page=page) as link:
        answer = httpx.get(f"{link}/", headers=FORWARDED)
        assert answer.status_code == 200
        assert not re.search("evil|666", answer.text)
        assert set(re.findall(r'"root": ?"(\w+)://', answer.text)) == {scheme}


@pytest.mark.parametrize("text", ["shop", "//evil.example", "/a?b", "http://a/b", "/a b", "/\\evil"])
def test_a_root_path_is_a_path(text: str) -> None:
    with pytest.raises(OptionError, match="root_path must be the path of the server behind a proxy, such as /shop"):
        parse_root_path(text)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("keeps_prefix", [True, False])
def test_page_and_docs_work_in_a_browser_under_a_path(retriever: mm.Retriever, keeps_prefix: bool) -> None:
    from playwright.sync_api import sync_playwright

    from demo.app import page

    with behind_proxy(retriever, keeps_prefix, page=page, auth=Auth(token=TOKEN)) as link, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab, outside, failed = browser.new_page(), [], []
        tab.on(
            "request",
            lambda request: outside.append(request.url) if not request.url.startswith((link, "data:", "blob:")) else None,
        )
        tab.on("response", lambda response: failed.append(response.url) if response.status >= 400 else None)
        tab.goto(f"{link}/?token={TOKEN}")
        tab.fill("#prompt", "a red dress")
        tab.press("#prompt", "Enter")
        tab.wait_for_function("[...document.querySelectorAll('#results img')].some(image => image.naturalWidth > 0)")
        assert tab.url.startswith(f"{link}/")
        assert not failed
        tab.goto(f"{link}/docs")
        tab.get_by_text("Search with reference images and prompts").click()
        with tab.expect_response("**/api/search") as executed:
            tab.get_by_text("Execute").click()
        assert executed.value.url == f"{link}/api/search"
        assert executed.value.json()["hits"]  # the example of the page is a request
        assert not outside
        browser.close()
