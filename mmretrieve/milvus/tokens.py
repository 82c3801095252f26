"""The words, signs, texts and numbers of an SQL expression, one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mmretrieve.errors import OptionError

TOKENS = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*') | (?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
    | (?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![0-9A-Za-z_.])
    | (?P<word>[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]*) | (?P<sign><=|>=|<>|!=|==|\|\||<<|>>|->>?|[-+*/%<>=(),.&|~]))""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Token:
    kind: str
    text: str

    @property
    def word(self) -> str:
        """What it is to the grammar: a keyword in small letters, a sign, or nothing."""
        return self.text.lower() if self.kind == "word" else self.text if self.kind == "sign" else ""

    @property
    def name(self) -> str:
        """Without its quotation marks."""
        if self.kind != "quoted":
            return self.text
        mark, inner = self.text[-1], self.text[1:-1]
        return inner if mark == "]" else inner.replace(mark * 2, mark)


def tokens_of(where: str) -> Iterator[Token]:
    """OptionError from where on it holds none."""
    at, end = 0, len(where.rstrip())
    while at < end:
        found = TOKENS.match(where, at)
        if found is None or found.lastgroup is None:
            raise OptionError(f"where {where!r}: cannot be read from {where[at : at + 20].strip()!r} on")
        yield Token(found.lastgroup, found[found.lastgroup])
        at = found.end()
