"""Security of all routes: which requests are refused, and the headers of every response."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from html import escape
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmretrieve.server.auth import PARAMETER, Auth, cookie_name, is_loopback
from mmretrieve.server.bodies import Bodies, BodyError
from mmretrieve.server.limits import Limits

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # the page is Gradio's, which writes scripts and styles into the page; nothing comes from other sites
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
}
UNREAD = frozenset({
    b"cookie",  # parsing those of others can take seconds
    # Gradio would write them into the page, whoever sent them; uvicorn has read those of trusted proxies
    b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-proto",
    b"x-gradio-server",
})  # fmt: skip
logger = logging.getLogger(__name__)


class SecurityMiddleware:
    """Authentication, bounded bodies, and headers that restrict browsers to this server, for a whole application."""

    def __init__(self, app: ASGIApp, auth: Auth, limits: Limits) -> None:
        self._app, self._auth, self._limits, self._bodies = app, auth, limits, Bodies(limits)

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
        """Runs the application; an unexpected error is one line for the client, and a traceback in the log."""
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await _with_headers(send)(message)

        try:
            with self._bodies.reading(receive, Headers(scope=scope)) as body:
                _remove_unread_headers(scope)
                await self._app(scope, body, answer)
        except BodyError as error:
            await _error(error.status_code, error.detail, error.headers)(scope, receive, answer)
        except asyncio.CancelledError:  # by uvicorn, which ends
            if started:
                raise
            line = "the server ends; send the request again when it has started"
            await asyncio.wait_for(_error(503, line)(scope, receive, answer), 1)
        except ClientDisconnect:
            logger.info("%s %s: the client left", scope.get("method"), scope.get("path"))
        except Exception:
            logger.exception("%s %s failed", scope.get("method"), scope.get("path"))
            if started:
                raise
            await _error(500, "an unexpected error; the log of the server has the details")(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if self._auth.is_open and not is_loopback(_name(headers.get("host", ""))):
            return _error(421, "this server answers only to names of this machine, such as 127.0.0.1")
        if (_is_cross_origin(headers) and (scope["type"] == "websocket" or scope["method"] not in SAFE)) or _is_embedded(
            headers
        ):
            return _error(403, "a page of another site may not use this server")
        if scope["type"] == "http" and _length(headers) > self._limits.body_bytes:
            return _error(413, self._bodies.too_large())
        if self._auth.is_authorized(headers, _port(scope)):
            return None
        if scope["type"] == "http" and scope["method"] == "GET" and self._auth.is_authorized_link(scope["query_string"]):
            return self._accept_link(scope)
        return self._challenge(headers)

    def _accept_link(self, scope: Scope) -> Response:
        """A redirect to the same URL without the token, which becomes a cookie."""
        rest = [(name, value) for name, value in parse_qsl(scope["query_string"].decode("latin-1"), True) if name != PARAMETER]
        path = "/" + scope["path"].lstrip("/\\")  # two slashes would lead to another site
        response = RedirectResponse(path + (f"?{urlencode(rest)}" if rest else ""), 303)
        response.set_cookie(
            cookie_name(_port(scope)),
            self._auth.session(_port(scope)),
            path=scope.get("root_path") or "/",
            httponly=True,
            samesite="strict",
            secure=scope["scheme"] == "https",
        )
        return response

    def _challenge(self, headers: Headers) -> Response:
        secret = "a token" if self._auth.token is not None else "a user and a password"
        line = f"this server requires {secret}"
        challenge = "Bearer" if self._auth.token is not None else 'Basic realm="mmretrieve", charset="UTF-8"'
        if "text/html" in headers.get("accept", ""):
            hint = "Open the URL that the server printed, which ends in <code>?token=…</code>." if self._auth.token else ""
            page = f"<!doctype html><html lang=en><title>mmretrieve</title><p>{escape(line.capitalize())}. {hint}</p></html>"
            return HTMLResponse(page, 401, {"WWW-Authenticate": challenge})
        return _error(401, line, {"WWW-Authenticate": challenge})


def _remove_unread_headers(scope: Scope) -> None:
    """Removes the headers that the application must not read from a request, once the authentication has read the cookies.

    The scope is changed, not copied, as the metrics read the route from it.
    """
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in UNREAD]


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


def _is_cross_origin(headers: Headers) -> bool:
    """Whether a browser says that the page behind this request is of another origin."""
    origin = headers.get("origin")
    return origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()


def _is_embedded(headers: Headers) -> bool:
    """Whether a page of another site fetches or embeds what is here. Following a link is neither."""
    return headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate"


def _name(host: str) -> str:
    """`"127.0.0.1:7860"` → `"127.0.0.1"`, `"[::1]:7860"` → `"::1"`."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _port(scope: Scope) -> int:
    """The port at which the server listens; 0 if it is not known."""
    return (scope.get("server") or ("", 0))[1] or 0


def _length(headers: Headers) -> float:
    """The announced length; 0 if there is none."""
    try:
        return float(headers.get("content-length", "0"))
    except ValueError:
        return 0.0
