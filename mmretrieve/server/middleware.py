"""One door before page, API, pictures, metrics and MCP alike: who is refused, how much is read, what every answer carries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from html import escape
from time import monotonic
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmretrieve.server.auth import COOKIE, PARAMETER, Auth, is_loopback
from mmretrieve.server.limits import Limits

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # the page is Gradio's, which writes scripts and styles into the page; nothing comes from elsewhere
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
}
logger = logging.getLogger(__name__)


class SecurityMiddleware:
    """An application behind a guard, with bounded bodies, and headers that keep browsers to this server alone."""

    def __init__(self, app: ASGIApp, guard: Auth, limits: Limits) -> None:
        self._app, self._guard, self._limits = app, guard, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif refusal is not None:
            await refusal(scope, receive, _with_headers(send))
        else:
            await self._pass(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Through to the application; what it did not expect is a line for the client, and a traceback in the log alone."""
        body, begun = _BoundedBody(receive, self._limits), False

        async def answer(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await _with_headers(send)(message)

        try:
            await self._app(scope, body, answer)
        except (_BodyTooLargeError, _BodyTimeoutError) as error:
            await _error(error.status_code, error.detail, error.headers)(scope, receive, answer)
        except ClientDisconnect:
            logger.info("%s %s: the client left", scope.get("method"), scope.get("path"))
        except Exception:
            logger.exception("%s %s failed", scope.get("method"), scope.get("path"))
            if begun:
                raise
            await _error(500, "something went wrong here; the server's log says what")(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if self._guard.is_open and not is_loopback(_name(headers.get("host", ""))):
            return _error(421, "this server answers to this machine's own names alone, such as 127.0.0.1")
        if (_foreign(headers) and (scope["type"] == "websocket" or scope["method"] not in SAFE)) or _embeds(headers):
            return _error(403, "a page of another site may not ask this server")
        if scope["type"] == "http" and _length(headers) > self._limits.body_bytes:
            return _error(413, f"more than {self._limits.body_bytes:,} bytes in one request")
        if self._guard.admits(headers):
            return None
        if scope["type"] == "http" and scope["method"] == "GET" and self._guard.admits_link(scope["query_string"]):
            return self._welcome(scope)
        return self._stop(headers)

    def _welcome(self, scope: Scope) -> Response:
        """The same address without the token, which the browser keeps from now on."""
        rest = [(name, value) for name, value in parse_qsl(scope["query_string"].decode("latin-1"), True) if name != PARAMETER]
        path = "/" + scope["path"].lstrip("/\\")  # two slashes would lead to another site
        response = RedirectResponse(path + (f"?{urlencode(rest)}" if rest else ""), 303)
        response.set_cookie(
            COOKIE, self._guard.token or "", httponly=True, samesite="strict", secure=scope["scheme"] == "https"
        )
        return response

    def _stop(self, headers: Headers) -> Response:
        asked = "a token" if self._guard.token is not None else "a user and a password"
        line = f"this server asks for {asked}"
        challenge = "Bearer" if self._guard.token is not None else 'Basic realm="mmretrieve", charset="UTF-8"'
        if "text/html" in headers.get("accept", ""):
            told = "Open the address that the server printed, which ends in <code>?token=…</code>." if self._guard.token else ""
            page = f"<!doctype html><html lang=en><title>mmretrieve</title><p>{escape(line.capitalize())}. {told}</p></html>"
            return HTMLResponse(page, 401, {"WWW-Authenticate": challenge})
        return _error(401, line, {"WWW-Authenticate": challenge})


class _BodyTooLargeError(HTTPException):
    """A body that goes on beyond what is read of one; of a kind that whoever reads it lets through."""


class _BodyTimeoutError(HTTPException):
    """A body that does not come."""


class _BoundedBody:
    """What comes in, counted and timed until it is there; what the application waits for afterwards is its own affair."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._most, self._left = receive, limits.body_bytes, limits.body_bytes
        self._seconds, self._until, self._whole = limits.seconds, monotonic() + limits.seconds, False

    async def __call__(self) -> Message:
        try:
            message = await asyncio.wait_for(self._receive(), None if self._whole else self._until - monotonic())
        except TimeoutError as error:
            raise _BodyTimeoutError(
                408, f"the request was not whole after {self._seconds:g} seconds", {"Connection": "close"}
            ) from error
        self._whole = self._whole or not message.get("more_body", False)
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise _BodyTooLargeError(413, f"more than {self._most:,} bytes in one request", {"Connection": "close"})
        return message


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return answer


def _error(status: int, line: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": line}, status, headers)


def _foreign(headers: Headers) -> bool:
    """Whether a browser says that the page behind this request came from somewhere else."""
    origin = headers.get("origin")
    return origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()


def _embeds(headers: Headers) -> bool:
    """Whether a page of another site fetches, or shows, what is here. A link that a person follows is no such thing."""
    return headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate"


def _name(host: str) -> str:
    """`"127.0.0.1:7860"` → `"127.0.0.1"`, `"[::1]:7860"` → `"::1"`."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _length(headers: Headers) -> float:
    """The bytes that are announced; 0 where none are."""
    try:
        return float(headers.get("content-length", "0"))
    except ValueError:
        return 0.0
