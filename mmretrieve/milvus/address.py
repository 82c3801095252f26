"""Addresses of collections: `milvus://[USER:PASSWORD@]HOST[:PORT]/[DATABASE/]COLLECTION`, `milvuss://` over TLS."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mmretrieve.errors import OptionError

SCHEMES = {"milvus": "http", "milvuss": "https"}
PORT = 19530
TOKEN = "MILVUS_TOKEN"
MAX_TOKEN_LENGTH = 4_096  # the limit of a header, far above any token
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


@dataclass(frozen=True)
class MilvusAddress:
    """A collection on a server. Its text omits the password, so it can be shown."""

    host: str
    collection: str
    port: int = PORT
    database: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    scheme: str = "milvus"

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{user}{host}:{self.port}/{self.database and f'{self.database}/'}{self.collection}"

    @property
    def uri(self) -> str:
        """The address that the client connects to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEMES[self.scheme]}://{host}:{self.port}"

    @property
    def token(self) -> str:
        """USER:PASSWORD if the address has them, otherwise the environment variable MILVUS_TOKEN.

        Raises OptionError if the token cannot be sent.
        """
        token = f"{self.user}:{self.password}" if self.password else os.environ.get(TOKEN, "")
        if not token.isprintable() or len(token) > MAX_TOKEN_LENGTH:
            raise OptionError(
                f"{TOKEN} is not a token: expected up to {MAX_TOKEN_LENGTH:,} printable characters, without line ends"
            )
        return token

    @classmethod
    def read(cls, text: str) -> MilvusAddress:
        """Parses an address. Raises OptionError, without the password, if it is invalid."""
        try:
            parts = urlsplit(text)
            names, port = (
                [unquote(name) for name in parts.path.strip("/").split("/")],
                PORT if parts.port is None else parts.port,
            )
        except ValueError:
            parts, names, port = urlsplit(""), [], PORT
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        is_unusable = parts.query or parts.fragment or not port or not (user + password).isprintable()
        is_named = parts.scheme in SCHEMES and parts.hostname and 1 <= len(names) <= 2 and all(map(NAME.fullmatch, names))
        if is_unusable or not is_named:
            shown = re.sub(r"//.*@", "//***@", text, flags=re.DOTALL)
            raise OptionError(
                f"expected an address such as milvus://localhost:{PORT}/collection (letters, digits and _ in its name), got {shown!r}"
            )
        database, collection = ["", *names][-2:]
        return cls(parts.hostname or "", collection, port, database, user, password, parts.scheme)


def is_address(path: str | Path) -> bool:
    """Returns whether this is the address of a collection and not a folder."""
    return isinstance(path, str) and path.partition("://")[0] in SCHEMES and "://" in path
