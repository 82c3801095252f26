"""Reads one SQL expression over an item's fields into a tree, as SQLite would, as far as Milvus could follow.

What SQLite knows and Milvus does not is refused here, or by `where`, by name: nothing is left out in silence.
"""

from __future__ import annotations

from math import isfinite

from mmretrieve.errors import OptionError
from mmretrieve.gallery.store.fields import INT64
from mmretrieve.gallery.store.filters import check_where
from mmretrieve.milvus.tokens import Token, tokens_of
from mmretrieve.milvus.tree import All, Any, Compare, In, IsNull, Like, Literal, Name, Node, Not

KEYWORDS = frozenset(["and", "or", "not", "in", "between", "like", "is", "null", "isnull", "notnull", "true", "false"])
REFUSED = frozenset(
    ["glob", "regexp", "match", "escape", "collate", "case", "cast", "exists", "distinct", "when", "then", "else", "end"]
)
COMPARISONS = {"=": "==", "==": "==", "<>": "!=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
DEEPEST = 100


def read_where(where: str) -> Node:
    """`read_where("price < 20")` is `Compare("<", Name("price"), Literal(20))`. OptionError where it is no such expression."""
    return _Reader(check_where(where)).whole()


class _Reader:
    """Goes through the tokens once; each method reads what binds at least as tightly as its name says."""

    def __init__(self, where: str) -> None:
        self._where, self._tokens, self._at, self._depth = where, list(tokens_of(where)), 0, 0

    def whole(self) -> Node:
        node = self._either()
        if self._at < len(self._tokens):
            raise self._wrong(f"did not expect {self._tokens[self._at].text!r} there")
        return node

    def _either(self) -> Node:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return Any(tuple(parts)) if len(parts) > 1 else parts[0]

    def _both(self) -> Node:
        parts = [self._negated()]
        while self._take("and"):
            parts.append(self._negated())
        return All(tuple(parts)) if len(parts) > 1 else parts[0]

    def _negated(self) -> Node:
        if not self._take("not"):
            return self._equality()
        with self._deeper():
            return Not(self._negated())

    def _equality(self) -> Node:
        """=, IN, LIKE, BETWEEN and IS bind equally, from left to right; < and its like bind tighter."""
        node = self._order()
        for _ in range(DEEPEST):
            if sign := self._take("=", "==", "<>", "!="):
                node = Compare(COMPARISONS[sign], node, self._order())
            elif self._take("is"):
                negated = bool(self._take("not"))
                self._need("null", "IS is known with NULL only")
                node = _unless(negated, IsNull(node))
            elif self._take("isnull"):
                node = IsNull(node)
            elif self._take("notnull"):
                node = Not(IsNull(node))
            elif self._peek(1) in ("in", "like", "between", "null") and self._take("not"):
                node = Not(IsNull(node)) if self._take("null") else Not(self._tested(node))
            elif self._peek() in ("in", "like", "between"):
                node = self._tested(node)
            else:
                return node
        raise self._wrong(f"more than {DEEPEST} comparisons of one another")

    def _tested(self, left: Node) -> Node:
        if self._take("like"):
            return Like(left, self._order())
        if self._take("between"):
            low = self._order()
            self._need("and", "BETWEEN needs an AND")
            return All((Compare(">=", left, low), Compare("<=", left, self._order())))
        self._need("in", "expected IN")
        self._need("(", "IN needs a list in parentheses")
        values: list[Node] = []
        while not self._take(")"):
            values.append(self._operand())
            if not self._take(","):
                self._need(")", "the list of IN is not closed")
                break
        return In(left, tuple(values))

    def _order(self) -> Node:
        node = self._operand()
        for _ in range(DEEPEST):
            if not (sign := self._take("<", "<=", ">", ">=")):
                return node
            node = Compare(COMPARISONS[sign], node, self._operand())
        raise self._wrong(f"more than {DEEPEST} comparisons of one another")

    def _operand(self) -> Node:
        if self._take("("):
            with self._deeper():
                node = self._either()
            self._need(")", "a parenthesis is not closed")
        else:
            node = self._value()
        if (sign := self._peek()) and sign not in KEYWORDS and sign not in COMPARISONS and sign not in "(),":
            raise self._wrong(f"Milvus has no {self._tokens[self._at].text!r} that gives what SQL gives")
        return node

    def _value(self) -> Node:
        if self._at >= len(self._tokens):
            raise self._wrong("the expression ends too soon")
        token = self._tokens[self._at]
        self._at += 1
        if token.kind == "number":
            return Literal(self._number(token.text))
        if token.kind == "text":
            return Literal(token.text[1:-1].replace("''", "'"))
        if token.kind == "quoted":
            return Name(token.name)
        if token.word in ("-", "+"):
            return self._signed(token.word)
        if token.word == "fields" and self._take("."):
            return Name(self._field().name, of_fields=True)
        if token.word in ("null", "true", "false"):
            return Literal({"null": None, "true": 1, "false": 0}[token.word])
        if token.kind == "sign" or token.word in KEYWORDS:
            raise self._wrong(f"did not expect {token.text!r} there")
        if token.word in REFUSED or self._peek() in ("(", "."):
            raise self._wrong(f"Milvus has no {token.text!r} that gives what SQL gives")
        return Name(token.text)

    def _field(self) -> Token:
        if self._at >= len(self._tokens) or self._tokens[self._at].kind not in ("quoted", "word"):
            raise self._wrong("expected a name after fields.")
        self._at += 1
        return self._tokens[self._at - 1]

    def _signed(self, sign: str) -> Node:
        with self._deeper():
            inner = self._value()
        if not isinstance(inner, Literal) or not isinstance(inner.value, int | float):
            raise self._wrong(f"{sign!r} is known before a number only")
        return Literal(self._fitting(-inner.value if sign == "-" else inner.value))

    def _number(self, text: str) -> int | float:
        if text[:2].lower() == "0x":
            return int(text, 16)
        return self._fitting(int(text) if text.isdecimal() else float(text))

    def _fitting(self, number: int | float) -> int | float:
        """As SQLite keeps it: what is too large for a whole number of 64 bits is a fraction."""
        fitting = number if isinstance(number, float) or -INT64 <= number < INT64 else float(number)
        if isinstance(fitting, float) and not isfinite(fitting):
            raise self._wrong("a number is too large")
        return fitting

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at].word if at < len(self._tokens) else ""

    def _take(self, *words: str) -> str:
        """The next word where it is one of these, which is then behind us; else nothing."""
        if (word := self._peek()) not in words or not word:
            return ""
        self._at += 1
        return word

    def _need(self, word: str, otherwise: str) -> None:
        if not self._take(word):
            raise self._wrong(otherwise)

    def _deeper(self) -> _Reader:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(f"more than {DEEPEST} parentheses in one another")
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._depth -= 1

    def _wrong(self, what: str) -> OptionError:
        return OptionError(f"where {self._where!r}: {what}")


def _unless(negated: bool, node: Node) -> Node:
    return Not(node) if negated else node
