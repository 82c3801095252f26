"""Who may come in: what a client must know, and where it may say it."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from starlette.datastructures import Headers

from mmretrieve.errors import OptionError

LEAST = 8  # characters of a token or a password
COOKIE, PARAMETER = "mmretrieve-token", "token"


@dataclass(frozen=True)
class Auth:
    """What a client must know: a token, or a user and a password; nothing where neither is given. OptionError for short ones."""

    token: str | None = None
    user: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.token is not None and self.user is not None:
            raise OptionError("give a token or a user and a password, not both")
        secret = self.token if self.user is None else self.user[1]
        if secret is not None and (len(secret) < LEAST or not secret.isascii() or not secret.isprintable() or " " in secret):
            raise OptionError(f"a token or password needs at least {LEAST} printable characters of ASCII, without spaces")

    @property
    def is_open(self) -> bool:
        return self.token is None and self.user is None

    def admits(self, headers: Headers) -> bool:
        """Whether these headers bring what it asks for."""
        if self.is_open:
            return True
        kind, _, value = headers.get("authorization", "").partition(" ")
        if self.token is not None:
            return (kind.lower() == "bearer" and _same(value.strip(), self.token)) or _same(_cookie(headers), self.token)
        return kind.lower() == "basic" and _same(_decoded(value), ":".join(self.user or ()))

    def admits_link(self, query: bytes) -> bool:
        """Whether an address brings the token."""
        given = dict(parse_qsl(query.decode("latin-1"))).get(PARAMETER, "")
        return self.token is not None and _same(given, self.token)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, that nobody else can reach."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _cookie(headers: Headers) -> str:
    try:
        kept = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if kept is None else kept.value


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return ""
