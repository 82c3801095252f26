"""From an SQL expression to one of Milvus that holds for the same items, those with missing values included.

SQL has three truths, and servers differ in what they make of a missing value. So each part becomes two expressions, one that
holds where the part is true and one that holds where it is false, made of comparisons that a missing value never fulfils. NOT
exchanges the two, and no server is asked to negate anything that could be unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmretrieve.errors import OptionError
from mmretrieve.gallery.store.fields import FieldType
from mmretrieve.milvus.schema import OWN, MilvusColumn, as_liked, columns, is_given
from mmretrieve.milvus.sql import read_where
from mmretrieve.milvus.tree import All, Any, Compare, In, IsNull, Like, Literal, Name, Node, Not
from mmretrieve.sources.base import Value
from mmretrieve.sources.values import folded

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


def translated(where: str, fields: Mapping[str, FieldType]) -> str:
    """The expression of Milvus for a filter over those fields and the items' own columns.

    `translated("price < 20", {"price": Kind.NUMBER})` is `(n_price < 20)`. OptionError, naming the part, for what is no
    expression, or what Milvus could not tell exactly as SQLite does.
    """
    return _Translator(where, columns(fields)).truth(read_where(where)).true


class _Translator:
    def __init__(self, where: str, known: Mapping[str, MilvusColumn]) -> None:
        self._where, self._columns = where, known

    def truth(self, node: Node) -> Truth:
        match node:
            case Not(inner):
                return self.truth(inner).negated
            case All(parts):
                told = list(map(self.truth, parts))
                return Truth(_joined("and", [one.true for one in told]), _joined("or", [one.false for one in told]))
            case Any(parts):
                told = list(map(self.truth, parts))
                return Truth(_joined("or", [one.true for one in told]), _joined("and", [one.false for one in told]))
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
            case Literal(value), Name():
                return self._with(self._column(right), TURNED[sign], value)
            case Name(), Literal(value):
                return self._with(self._column(left), sign, value)
            case Name(one), Name(other):
                raise self._wrong(f"Milvus does not compare two fields ({one!r} and {other!r})")
        raise self._wrong("Milvus compares a field with a value, not with what another comparison gives")

    def _with(self, column: MilvusColumn, sign: str, value: Value) -> Truth:
        if value is None:
            return UNKNOWN
        if isinstance(value, str) is not (column.kind is FieldType.TEXT):
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
        if isinstance(left, Name) and len(values) > 1 and all(isinstance(one, Literal) for one in values):
            return self._one_of(left, [one.value for one in values if isinstance(one, Literal)])
        equal = [self._compare("==", left, value) for value in values]
        if not equal:
            return Truth(NEVER, ALWAYS)
        return Truth(_joined("or", [one.true for one in equal]), _joined("and", [one.false for one in equal]))

    def _one_of(self, name: Name, values: list[Value]) -> Truth:
        """Lists of one type each, which servers look through much faster than through comparisons."""
        told = [self._compare("==", name, Literal(value)) for value in values]  # refuses what cannot be compared
        column, given = self._column(name), [value for value in values if value is not None]
        lists = [[value for value in given if type(value) is kind] for kind in (int, float, str)]
        found = _joined("or", [f"({one_of(column.key, some)})" for some in lists if some]) if given else NEVER
        unknown = UNKNOWN in told  # NULL is in the list: then nothing is surely not in it
        return Truth(found, NEVER if unknown else f"({is_given(column)} and (not {found}))")

    def _is_null(self, left: Node) -> Truth:
        if isinstance(left, Literal):
            return Truth(ALWAYS, NEVER) if left.value is None else Truth(NEVER, ALWAYS)
        if not isinstance(left, Name):
            raise self._wrong("Milvus knows IS NULL of a field only")
        given = is_given(self._column(left))
        return Truth(f"(not {given})", given)

    def _like(self, left: Node, pattern: Node) -> Truth:
        """SQLite's LIKE takes a and A for one, so the folded text is looked at."""
        if not isinstance(left, Name) or not isinstance(pattern, Literal):
            raise self._wrong("Milvus knows LIKE of a field and a pattern only")
        column = self._column(left)
        if pattern.value is None:
            return UNKNOWN
        if not isinstance(pattern.value, str) or column.kind is not FieldType.TEXT:
            raise self._wrong(f"LIKE is for texts; {column.name!r} holds {column.kind}s, the pattern is {pattern.value!r}")
        like, there = f"({column.folded} like {_literal(as_liked(pattern.value))})", f'{column.folded} >= ""'
        return Truth(like, f"({there} and (not {like}))")

    def _column(self, said: Name) -> MilvusColumn:
        name, column = said.name, self._columns.get(folded(said.name))
        if column is None or (said.of_fields and not column.is_field):
            there = ", ".join(known.name for known in self._columns.values())
            raise self._wrong(f"no such column: {name}; there are the fields {there}")
        if column.is_field and folded(name) in OWN and not said.of_fields:
            raise self._wrong(f"ambiguous column name: {name}")
        return column

    def _wrong(self, what: str) -> OptionError:
        return OptionError(f"where {self._where!r}: {what}")


def _joined(word: str, parts: list[str]) -> str:
    """All parts, halved again and again: a server that reads from left to right goes as deep as a chain is long."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return f"({_joined(word, parts[:half])} {word} {_joined(word, parts[half:])})"


def _comparison(key: str, sign: str, value: str | int | float) -> str:
    """Unequal is smaller or larger: a missing value is neither, whatever a server thinks of `!=`."""
    told = _literal(value)
    return f"({key} < {told} or {key} > {told})" if sign == "!=" else f"({key} {sign} {told})"


def _literal(value: str | int | float) -> str:
    if not isinstance(value, str):
        return repr(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def one_of(key: str, values: Sequence[str | int | float]) -> str:
    """The expression that a column that every row has is one of those."""
    return f"{key} in [{', '.join(map(_literal, values))}]"
