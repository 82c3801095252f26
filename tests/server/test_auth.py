"""Who may come in: every way to knock at a real server, and what is text at the door."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from live_server import served

import mmretrieve as mm
from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.server.app import create_app
from mmretrieve.server.auth import Auth, cookie_name, parse_auth
from mmretrieve.server.limits import Limits
from mmretrieve.server.middleware import SecurityMiddleware
from mmretrieve.server.run import bind

TOKEN, PASSWORD = "correct-horse", "battery-staple"
MOST = 100_000
ROUTES = (
    "/",
    "/api/health",
    "/api/info",
    "/api/items",
    "/api/item?id=a",
    "/api/thumbnail?id=a",
    "/api/image?id=a",
    "/api/uploads/a",
    "/api/openapi.json",
    "/metrics",
    "/mcp",
    "/nothing",
)


def site(retriever: mm.Retriever, **auth: Any) -> Iterator[str]:
    with served(create_app(retriever, auth=Auth(**auth), limits=Limits(body_bytes=MOST))) as link:
        yield link


@pytest.fixture(scope="module")
def open_site(retriever: mm.Retriever) -> Iterator[str]:
    yield from site(retriever)


@pytest.fixture(scope="module")
def by_token(retriever: mm.Retriever) -> Iterator[str]:
    yield from site(retriever, token=TOKEN)


@pytest.fixture(scope="module")
def by_password(retriever: mm.Retriever) -> Iterator[str]:
    yield from site(retriever, user=("ann", PASSWORD))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("credentials", [{}, {"Authorization": "Bearer wrong-horse"}, {"Cookie": "COOKIE"}])
def test_every_route_requires_the_token(by_token: str, route: str, credentials: dict[str, str]) -> None:
    if "Cookie" in credentials:  # neither another value nor the token itself
        name = cookie_name(urlsplit(by_token).port or 0)
        credentials = {"Cookie": f"{name}={TOKEN}; mmretrieve-token={TOKEN}; {name}0={Auth(token=TOKEN).session(1)}"}
    answer = httpx.get(by_token + route, headers=credentials)
    assert (answer.status_code, answer.json()) == (401, {"error": "this server requires a token"})
    assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx.post(by_token + route, headers=credentials, json={"prompt": "in red"}).status_code == 401


def test_the_token_is_accepted_in_a_header(by_token: str) -> None:
    for kind in ("Bearer", "bearer"):
        assert httpx.get(f"{by_token}/api/health", headers={"Authorization": f"{kind} {TOKEN}"}).status_code == 200
    assert httpx.get(f"{by_token}/api/health", headers={"Authorization": f"Basic {TOKEN}"}).status_code == 401


def test_a_link_sets_a_cookie_and_removes_the_token_from_the_url(by_token: str) -> None:
    with httpx.Client(base_url=by_token) as browser:
        answer = browser.get(f"/api/items?limit=3&token={TOKEN}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/api/items?limit=3")
        cookie = answer.headers["set-cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/"))
        assert "Secure" not in cookie  # a browser would not send it without TLS
        assert TOKEN not in cookie
        assert cookie.startswith(cookie_name(urlsplit(by_token).port or 0) + "=")
        assert len(browser.get(answer.headers["location"]).json()["items"]) == 3
    assert httpx.get(f"{by_token}/api/items?token=wrong-horse").status_code == 401
    assert httpx.post(f"{by_token}/api/search?token={TOKEN}", json={"prompt": "in red"}).status_code == 401


def test_behind_tls_the_cookie_is_sent_over_tls_alone(by_token: str) -> None:
    answer = httpx.get(f"{by_token}/?token={TOKEN}", headers={"X-Forwarded-Proto": "https"})  # the proxy is on this machine
    assert answer.status_code == 303
    assert "Secure" in answer.headers["set-cookie"]


def test_the_cookie_of_one_port_is_of_no_use_at_another(by_token: str, retriever: mm.Retriever) -> None:
    value = httpx.get(f"{by_token}/?token={TOKEN}").cookies[cookie_name(urlsplit(by_token).port or 0)]
    with served(create_app(retriever, auth=Auth(token=TOKEN))) as other:
        name = cookie_name(urlsplit(other).port or 0)
        assert httpx.get(f"{other}/api/health", headers={"Cookie": f"{name}={value}"}).status_code == 401


@pytest.mark.parametrize("path", ["//evil.example/", "/%5C%5Cevil.example/", "///evil.example"])
def test_a_link_never_leads_to_another_site(by_token: str, path: str) -> None:
    status, headers, _ = asked(by_token, "GET", f"{path}?token={TOKEN}")
    assert status == 303
    assert re.match(r"/[^/\\]", headers["location"])


def test_user_and_password(by_password: str) -> None:
    assert httpx.get(f"{by_password}/api/health", auth=("ann", PASSWORD)).status_code == 200
    for wrong in (("ann", "battery-stapler"), ("bob", PASSWORD), ("", "")):
        answer = httpx.get(f"{by_password}/api/health", auth=wrong)
        assert (answer.status_code, answer.json()) == (401, {"error": "this server requires a user and a password"})
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
    for broken in ("Basic", "Basic ***", "Basic Og==", "Basic \xff"):
        status, _, _ = asked(by_password, "GET", "/api/health", {"Authorization": broken})
        assert status == 401


def test_a_browser_without_the_token_gets_a_page_with_instructions(by_token: str) -> None:
    answer = httpx.get(by_token, headers={"Accept": "text/html,*/*"})
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert "ends in <code>?token=" in answer.text
    assert TOKEN not in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "192.168.1.7", "", "[::", "[::2]:80"]
)
def test_an_open_server_refuses_other_host_names(open_site: str, host: str) -> None:
    status, _, text = asked(open_site, "GET", "/api/health", {"Host": host})
    assert status in (400, 421)
    assert "items" not in text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:99", "127.0.0.2", "[::1]:7860", "LOCALHOST"])
def test_an_open_server_accepts_loopback_names(open_site: str, host: str) -> None:
    assert asked(open_site, "GET", "/api/health", {"Host": host})[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://127.0.0.1:1"])
def test_cross_origin_requests_are_refused(open_site: str, by_password: str, origin: str) -> None:
    for link in (open_site, by_password):
        for method, path in (("POST", "/api/search"), ("POST", "/mcp"), ("DELETE", "/mcp")):
            answer = httpx.request(
                method, link + path, headers={"Origin": origin}, auth=("ann", PASSWORD), json={"prompt": "a"}
            )
            assert (answer.status_code, answer.json()) == (403, {"error": "a page of another site may not use this server"})


def test_embedding_by_other_sites_is_refused(open_site: str) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert httpx.get(f"{open_site}/api/items", headers=headers | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert httpx.get(f"{open_site}/api/items", headers=headers | {"Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_an_incomplete_body_times_out(retriever: mm.Retriever) -> None:
    with served(create_app(retriever, limits=Limits(seconds=1))) as link, socket.create_connection(urlsplit(link).netloc.split(":")) as client:  # fmt: skip
        client.sendall(b"POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        assert b" 408 " in client.recv(4_096).splitlines()[0]


def test_same_origin_requests_are_accepted(open_site: str) -> None:
    assert httpx.post(f"{open_site}/api/search", headers={"Origin": open_site}, json={"prompt": "in red"}).status_code == 200


@pytest.mark.parametrize("length", [str(MOST + 1), "9" * 19])
def test_a_body_that_is_announced_too_large_is_refused_unread(open_site: str, length: str) -> None:
    place = urlsplit(open_site)
    with socket.create_connection((place.hostname, place.port), timeout=10) as line:
        line.sendall(f"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
        text = ""
        while "}" not in text:
            text += line.recv(10_000).decode()
    assert text.startswith("HTTP/1.1 413")
    assert "more than 100,000 bytes in one request" in text


@pytest.mark.parametrize("path", ["/api/search", "/api/search/form", "/api/uploads", "/api/batch", "/mcp"])
def test_an_endless_body_is_cut_off_at_the_limit(open_site: str, path: str) -> None:
    place = urlsplit(open_site)
    kind = {"/api/search/form": "multipart/form-data; boundary=x", "/api/uploads": "application/octet-stream"}
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind.get(path, 'application/json')}\r\n"
    head += "Accept: application/json, text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    start = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' if path.endswith("form") else b""
    with socket.create_connection((place.hostname, place.port), timeout=10) as line:
        line.sendall(head.encode())
        for part in (start, b" " * (MOST - len(start)), b" "):
            if part:
                line.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        text = b"".join(iter(lambda: line.recv(10_000), b"")).decode()  # until the server hangs up
    assert text.startswith("HTTP/1.1 413")
    assert text.endswith('{"error":"more than 100,000 bytes in one request; send a smaller one"}')


@pytest.mark.parametrize("path", ["/", "/api/health", "/api/thumbnail?id=none", "/nothing", "/metrics", "/mcp"])
def test_every_response_has_security_headers(open_site: str, by_token: str, path: str) -> None:
    for link in (open_site, by_token):
        headers = httpx.get(link + path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] in ("same-origin", "no-referrer")
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["frame-ancestors"], policy["object-src"]) == ("'self'", "'self'", "'none'")
        assert "http" not in headers["content-security-policy"]
        assert headers.get_list("server") == ["uvicorn"] or "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_websockets_require_authorization() -> None:
    def closed(auth: Auth, headers: dict[str, str]) -> bool:
        sent: list[Any] = []

        async def app(*_: Any) -> None:
            sent.append({"type": "let in"})

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": pairs}
        asyncio.run(SecurityMiddleware(app, auth, Limits())(scope, receive, send))
        return sent == [{"type": "websocket.close", "code": 1008}]

    assert closed(Auth(token=TOKEN), {"Host": "localhost"})
    assert closed(Auth(), {"Host": "evil.example"})
    assert closed(Auth(), {"Host": "localhost", "Origin": "https://evil.example"})
    assert not closed(Auth(), {"Host": "localhost", "Origin": "http://localhost"})
    assert not closed(Auth(token=TOKEN), {"Host": "localhost", "Authorization": f"Bearer {TOKEN}"})


@pytest.mark.parametrize("token", ["", "short", "seven77", "with a space", "umlaut-äöü", "line\nbreak"])
def test_a_weak_token_is_refused(token: str) -> None:
    with pytest.raises(OptionError, match="at least 8 printable ASCII characters"):
        parse_auth(token, None)
    with pytest.raises(OptionError, match=r"at least 8 printable ASCII characters"):
        parse_auth(None, f"ann:{token}")


def test_auth_is_parsed_from_the_options() -> None:
    first, second = parse_auth("auto", None), parse_auth("auto", None)
    assert first.token != second.token
    assert len(first.token or "") >= 32
    assert parse_auth(None, "ann:pass:word") == Auth(user=("ann", "pass:word"))
    assert parse_auth(None, None).is_open
    for wrong in ("ann", ":password", ""):
        with pytest.raises(OptionError, match="NAME:PASSWORD"):
            parse_auth(None, wrong)
    with pytest.raises(OptionError, match="not both"):
        parse_auth(TOKEN, f"ann:{PASSWORD}")


def test_an_open_server_binds_only_to_loopback() -> None:
    for host in ("0.0.0.0", "192.168.1.7", "::", "shop.example", ""):
        with pytest.raises(OptionError, match="give --token or --user"):
            bind(host, 0, Auth())
    with bind("127.0.0.2", 0, Auth()), bind("0.0.0.0", 0, Auth(token=TOKEN)):
        pass


def test_sockets_do_not_delay_small_packets() -> None:
    with bind("127.0.0.1", 0, Auth()) as ours, socket.create_connection(ours.getsockname()):
        theirs, _ = ours.accept()
        with theirs:
            assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use_is_an_error() -> None:
    with bind("127.0.0.1", None, Auth()) as first:
        port = first.getsockname()[1]
        with pytest.raises(MMRetrieveError, match=rf"cannot listen at 127\.0\.0\.1, port {port}: .*; name another with --port"):
            bind("127.0.0.1", port, Auth())
        with bind("127.0.0.1", None, Auth()) as second:
            assert second.getsockname()[1] > port


def asked(link: str, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of a request that goes out exactly as written."""
    place = urlsplit(link)
    line = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    line.putrequest(method, path, skip_host=bool(headers and "Host" in headers))
    for name, value in (headers or {}).items():
        line.putheader(name, value)
    line.endheaders()
    answer = line.getresponse()
    text = answer.read().decode()
    line.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text
