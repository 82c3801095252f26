"""The path and the method of a request as routes see them, whatever proxy or client sent it."""

from __future__ import annotations

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmretrieve.errors import OptionError

ONE_FORM = ("/api/", "/docs/", "/mcp/", "/metrics/")  # paths of the server itself, which are the same with a slash at their end


def parse_root_path(text: str) -> str:
    """The path under which a proxy offers the server, without a slash at its end. Raises OptionError unless it begins with one.

    >>> parse_root_path("/shop/"), parse_root_path("/")
    ('/shop', '')
    """
    if text and (not text.startswith("/") or text.startswith("//") or any(character in text for character in "\\?#% ")):
        raise OptionError(f"root_path must be the path of the server behind a proxy, such as /shop, got {text!r}")
    return text.rstrip("/")


def route_path(scope: Scope) -> str:
    """The path of a request below the root path.

    >>> route_path({"path": "/shop/api/search", "root_path": "/shop"})
    '/api/search'
    """
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class PathMiddleware:
    """Completes the path of a request by the root path, drops a slash at its end, and answers HEAD as GET without the body.

    A proxy may pass the root path on or remove it. A redirect would lead clients to the address behind the proxy.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app, self._root = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif self._root and scope["path"] == self._root:  # relative links of a page need the slash
            query = scope["query_string"].decode("latin-1")
            await RedirectResponse(f"{self._root}/{'?' if query else ''}{query}")(scope, receive, send)
        else:
            is_head = scope.get("method") == "HEAD"
            changes = {"root_path": self._root, "path": self._complete(scope["path"])} | ({"method": "GET"} if is_head else {})
            await self._app({**scope, **changes}, receive, _without_body(send) if is_head else send)

    def _complete(self, path: str) -> str:
        below = path.removeprefix(self._root) if path.startswith(f"{self._root}/") else path
        return self._root + (below.rstrip("/") if below.startswith(ONE_FORM) else below)


def _without_body(send: Send) -> Send:
    async def answer(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return answer
