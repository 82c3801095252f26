"""From an SQL expression to one of Milvus that holds for the same items, those with missing values included.

SQL has three truths, and servers differ in what they make of a missing value. So each part becomes two expressions, one that
holds where the part is true and one that holds where it is false, made of comparisons that a missing value never fulfils. NOT
exchanges the two, and no server is asked to negate anything that could be unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmretrieve.errors import OptionError
from mmretrieve.gallery.milvus.rows import OWN, Column, as_liked, columns, is_given
from mmretrieve.gallery.milvus.sql import read_where
from mmretrieve.gallery.milvus.tree import Both, Compare, Either, In, IsNull, Like, Literal, Name, Node, Not
from mmretrieve.gallery.sources.base import Value
from mmretrieve.gallery.sources.values import folded
from mmretrieve.gallery.store.fields import Kind

ALWAYS, NEVER = "row >= 0", "row < 0"
OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
TURNED = {"==": "==", "!=": "!=", "<": ">", ">=": "<=", ">": "<", "<=": ">="}


@dataclass(frozen=True)
class Truth:
    """Where a part of a filter is true and where it is false, as expressions of Milvus; elsewhere it is unknown."""

    true: str
    false: str

    @property
    def negated(self) -> Truth:
        return Truth(self.false, self.true)


UNKNOWN = Truth(NEVER, NEVER)


def translated(where: str, fields: Mapping[str, Kind]) -> str:
    """The expression of Milvus for a filter over those fields and the items' own columns.

    `translated("price < 20", {"price": Kind.NUMBER})` is `(n_price < 20)`. OptionError, naming the part, for what is no
    expression, or what Milvus could not tell exactly as SQLite does.
    """
    return _Translator(where, columns(fields)).truth(read_where(where)).true


class _Translator:
    def __init__(self, where: str, known: Mapping[str, Column]) -> None:
        self._where, self._columns = where, known

    def truth(self, node: Node) -> Truth:
        match node:
            case Not(inner):
                return self.truth(inner).negated
            case Both(left, right):
                one, other = self.truth(left), self.truth(right)
                return Truth(f"({one.true} and {other.true})", f"({one.false} or {other.false})")
            case Either(left, right):
                one, other = self.truth(left), self.truth(right)
                return Truth(f"({one.true} or {other.true})", f"({one.false} and {other.false})")
            case IsNull(left):
                return self._is_null(left)
            case Like(left, pattern):
                return self._like(left, pattern)
            case In(left, values):
                return self._in(left, values)
            case Compare(sign, left, right):
                return self._compare(sign, left, right)
            case Literal(value):
                return self._constant(value, "!=", 0)
            case Name():
                return self._compare("!=", node, Literal(0))

    def _compare(self, sign: str, left: Node, right: Node) -> Truth:
        match left, right:
            case Literal(one), Literal(other):
                return self._constant(one, sign, other)
            case Literal(value), Name(name):
                return self._with(self._column(name), TURNED[sign], value)
            case Name(name), Literal(value):
                return self._with(self._column(name), sign, value)
            case Name(one), Name(other):
                raise self._wrong(f"Milvus does not compare two fields ({one!r} and {other!r})")
        raise self._wrong("Milvus compares a field with a value, not with what another comparison gives")

    def _with(self, column: Column, sign: str, value: Value) -> Truth:
        if value is None:
            return UNKNOWN
        if isinstance(value, str) is not (column.kind is Kind.TEXT):
            raise self._wrong(f"{column.name!r} holds {column.kind}s, which Milvus does not compare with {value!r}")
        return Truth(_comparison(column.key, sign, value), _comparison(column.key, OPPOSITE[sign], value))

    def _constant(self, one: Value, sign: str, other: Value) -> Truth:
        if one is None or other is None:
            return UNKNOWN
        if isinstance(one, str) is not isinstance(other, str):
            raise self._wrong(f"{one!r} and {other!r} are a text and a number: compare equals")
        smaller, larger = one < other, one > other  # type: ignore[operator]
        fulfilled = {"==": not smaller and not larger, "!=": smaller or larger, "<": smaller, ">": larger}
        holds = fulfilled | {"<=": not larger, ">=": not smaller}
        return Truth(ALWAYS, NEVER) if holds[sign] else Truth(NEVER, ALWAYS)

    def _in(self, left: Node, values: tuple[Node, ...]) -> Truth:
        """One of them is equal, or all of them are not; an empty list holds nothing, not even what is unknown."""
        equal = [self._compare("==", left, value) for value in values]
        if not equal:
            return Truth(NEVER, ALWAYS)
        return Truth(f"({' or '.join(one.true for one in equal)})", f"({' and '.join(one.false for one in equal)})")

    def _is_null(self, left: Node) -> Truth:
        if isinstance(left, Literal):
            return Truth(ALWAYS, NEVER) if left.value is None else Truth(NEVER, ALWAYS)
        if not isinstance(left, Name):
            raise self._wrong("Milvus knows IS NULL of a field only")
        given = is_given(self._column(left.name))
        return Truth(f"(not {given})", given)

    def _like(self, left: Node, pattern: Node) -> Truth:
        """SQLite's LIKE takes a and A for one, so the folded text is looked at."""
        if not isinstance(left, Name) or not isinstance(pattern, Literal):
            raise self._wrong("Milvus knows LIKE of a field and a pattern only")
        column = self._column(left.name)
        if pattern.value is None:
            return UNKNOWN
        if not isinstance(pattern.value, str) or column.kind is not Kind.TEXT:
            raise self._wrong(f"LIKE is for texts; {column.name!r} holds {column.kind}s, the pattern is {pattern.value!r}")
        like, there = f"({column.folded} like {_literal(as_liked(pattern.value))})", f'{column.folded} >= ""'
        return Truth(like, f"({there} and (not {like}))")

    def _column(self, name: str) -> Column:
        column = self._columns.get(folded(name))
        if column is None:
            there = ", ".join(known.name for known in self._columns.values())
            raise self._wrong(f"no such column: {name}; there are the fields {there}")
        if column.is_field and folded(name) in OWN:
            raise self._wrong(f"ambiguous column name: {name}")
        return column

    def _wrong(self, what: str) -> OptionError:
        return OptionError(f"where {self._where!r}: {what}")


def _comparison(key: str, sign: str, value: str | int | float) -> str:
    """Unequal is smaller or larger: a missing value is neither, whatever a server thinks of `!=`."""
    told = _literal(value)
    return f"({key} < {told} or {key} > {told})" if sign == "!=" else f"({key} {sign} {told})"


def _literal(value: str | int | float) -> str:
    if not isinstance(value, str):
        return repr(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def one_of(key: str, values: list[str] | list[int]) -> str:
    """The expression that a column that every row has is one of those."""
    return f"{key} in [{', '.join(map(_literal, values))}]"
