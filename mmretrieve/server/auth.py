"""Authentication: what a client must send, and where."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.datastructures import Headers

from mmretrieve.errors import OptionError
from mmretrieve.options import MIN_SECRET_CHARACTERS

PARAMETER = "token"


@dataclass(frozen=True)
class Auth:
    """What a client must send: a token, or a user and a password; nothing if neither is given. Raises OptionError for weak ones."""

    token: str | None = None
    user: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.token is not None and self.user is not None:
            raise OptionError("give a token or a user and a password, not both")
        secret = self.token if self.user is None else self.user[1]
        if secret is not None and (
            len(secret) < MIN_SECRET_CHARACTERS or not secret.isascii() or not secret.isprintable() or " " in secret
        ):
            raise OptionError(
                f"a token or password needs at least {MIN_SECRET_CHARACTERS} printable ASCII characters, without spaces"
            )

    @property
    def is_open(self) -> bool:
        return self.token is None and self.user is None

    def is_authorized(self, headers: Headers, port: int) -> bool:
        """Whether these headers carry the token, the session of a browser at this port, or the user and the password."""
        if self.is_open:
            return True
        kind, _, value = headers.get("authorization", "").partition(" ")
        if self.token is not None:
            return (kind.lower() == "bearer" and _equal(value.strip(), self.token)) or _equal(
                _cookie(headers, cookie_name(port)), self.session(port)
            )
        return kind.lower() == "basic" and _equal(_decoded(value), ":".join(self.user or ()))

    def session(self, port: int) -> str:
        """The value of the cookie: it stands for the token at one port, and does not tell the token.

        A browser sends a cookie to all ports of a host, so another program there may see it.
        """
        return hmac.digest((self.token or "").encode(), cookie_name(port).encode(), "sha256").hex()

    def is_authorized_link(self, query: bytes) -> bool:
        """Whether the query string of a URL carries the token."""
        given = dict(parse_qsl(query.decode("latin-1"))).get(PARAMETER, "")
        return self.token is not None and _equal(given, self.token)


def parse_auth(token: str | None, user: str | None) -> Auth:
    """From the shell's options: a token, "auto" for a new one, or "name:password". Raises OptionError for anything else."""
    if user is None:
        return Auth(secrets.token_urlsafe(24) if token == "auto" else token)
    name, colon, password = user.partition(":")
    if not name or not colon:
        raise OptionError("expected a user as NAME:PASSWORD, with a name and a colon")
    return Auth(token, (name, password))


def cookie_name(port: int) -> str:
    """The name of the cookie of the server at a port: several servers of one host do not replace each other's cookies."""
    return f"mmretrieve-session-{port}"


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, which others cannot reach."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _cookie(headers: Headers, name: str) -> str:
    """The value of one cookie as it was sent. The cookies of others are not parsed: http.cookies can take seconds for one of them."""
    cookies = (cookie.partition("=") for cookie in headers.get("cookie", "").split(";"))
    return next((value.strip() for key, _, value in cookies if key.strip() == name), "")


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return ""
