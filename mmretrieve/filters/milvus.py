"""A filter as an expression of Milvus that holds for the same items, those with missing values included.

SQL has three truths, and servers differ in what they make of a missing value. So each part becomes two expressions, one that
holds where the part is true and one that holds where it is false, made of comparisons that a missing value never fulfils. NOT
exchanges the two, and no server is asked to negate anything that could be unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mmretrieve.errors import OptionError
from mmretrieve.filters.expression import (
    And,
    Between,
    Column,
    Comparator,
    Comparison,
    Expression,
    In,
    IsNull,
    Like,
    Literal,
    Matcher,
    Not,
    Or,
    Scalar,
)
from mmretrieve.filters.sqlite import joined, refusal, resolve

ALWAYS, NEVER = "row >= 0", "row < 0"
SIGNS = {
    Comparator.EQ: "==",
    Comparator.NE: "!=",
    Comparator.LT: "<",
    Comparator.LE: "<=",
    Comparator.GT: ">",
    Comparator.GE: ">=",
}
OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
TURNED = {"==": "==", "!=": "!=", "<": ">", ">=": "<=", ">": "<", "<=": ">="}


class FilterColumn(Protocol):
    """A column of a Milvus collection.

    `key` is its name there, `folded` that of its text in small letters, as LIKE compares it; `given` holds where it has a value.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_field(self) -> bool: ...

    @property
    def is_text(self) -> bool: ...

    @property
    def key(self) -> str: ...

    @property
    def folded(self) -> str: ...

    @property
    def given(self) -> str: ...

    def pattern(self, text: str) -> str:
        """A pattern of LIKE as the folded text is compared with it."""


@dataclass(frozen=True)
class Truth:
    """Where a part of a filter is true and where it is false, as expressions of Milvus; elsewhere it is unknown."""

    true: str
    false: str

    @property
    def negated(self) -> Truth:
        return Truth(self.false, self.true)


UNKNOWN = Truth(NEVER, NEVER)


def to_milvus(expression: Expression, columns: Iterable[FilterColumn]) -> str:
    """The expression of Milvus for a filter. `columns`: all that can be named.

    Raises OptionError, naming the part, for what Milvus could not tell exactly as SQLite does. `price < 20` is
    `(n_price < 20)` where the prices are kept under `n_price`.
    """
    return _Translator(expression, columns).truth(expression).true


def one_of(key: str, values: Sequence[str | int | float]) -> str:
    """The expression that a column that every row has is one of those."""
    return f"{key} in [{', '.join(map(_literal, values))}]"


class _Translator:
    def __init__(self, whole: Expression, columns: Iterable[FilterColumn]) -> None:
        self._whole = whole
        self._columns = {("fields" if column.is_field else "items", column.name): column for column in columns}

    def truth(self, node: Expression) -> Truth:
        match node:
            case Not(operand):
                return self.truth(operand).negated
            case And(operands):
                return self._all(list(map(self.truth, operands)))
            case Or(operands):
                return self._any(list(map(self.truth, operands)))
            case IsNull(operand):
                return self._is_null(operand)
            case Like(Matcher.LIKE, operand, pattern, None):
                return self._like(operand, pattern)
            case In(operand, values):
                return self._in(operand, values)
            case Between(operand, low, high):
                return self._all([self._compare(">=", operand, low), self._compare("<=", operand, high)])
            case Comparison(operator, left, right) if operator in SIGNS:
                return self._compare(SIGNS[operator], left, right)
            case Literal():
                return self._constant(_number(node.value), "!=", 0)
            case Column():
                return self._compare("!=", node, Literal(0))
        raise self._without(node)

    def _all(self, truths: Sequence[Truth]) -> Truth:
        return Truth(joined("and", [one.true for one in truths]), joined("or", [one.false for one in truths]))

    def _any(self, truths: Sequence[Truth]) -> Truth:
        return Truth(joined("or", [one.true for one in truths]), joined("and", [one.false for one in truths]))

    def _compare(self, sign: str, left: Expression, right: Expression) -> Truth:
        match left, right:
            case Literal(one), Literal(other):
                return self._constant(_number(one), sign, _number(other))
            case Literal(value), Column():
                return self._with(self._column(right), TURNED[sign], _number(value))
            case Column(), Literal(value):
                return self._with(self._column(left), sign, _number(value))
            case Column(one), Column(other):
                self._column(left), self._column(right)
                raise self._wrong(f"Milvus does not compare two fields ({one!r} and {other!r})")
        for side in (left, right):
            if not isinstance(side, Column | Literal | Comparison | In | Like | IsNull | Not | And | Or | Between):
                raise self._without(side)
        raise self._wrong("Milvus compares a field with a value, not with what another comparison gives")

    def _with(self, column: FilterColumn, sign: str, value: str | int | float | None) -> Truth:
        if value is None:
            return UNKNOWN
        if isinstance(value, str) is not column.is_text:
            raise self._wrong(f"{column.name!r} holds {_kind(column)}, which Milvus does not compare with {value!r}")
        return Truth(_comparison(column.key, sign, value), _comparison(column.key, OPPOSITE[sign], value))

    def _constant(self, one: str | int | float | None, sign: str, other: str | int | float | None) -> Truth:
        if one is None or other is None:
            return UNKNOWN
        if isinstance(one, str) is not isinstance(other, str):
            raise self._wrong(f"{one!r} and {other!r} are a text and a number: compare equals")
        smaller, larger = one < other, one > other  # type: ignore[operator]
        fulfilled = {"==": not smaller and not larger, "!=": smaller or larger, "<": smaller, ">": larger}
        holds = fulfilled | {"<=": not larger, ">=": not smaller}
        return Truth(ALWAYS, NEVER) if holds[sign] else Truth(NEVER, ALWAYS)

    def _in(self, operand: Expression, values: tuple[Expression, ...]) -> Truth:
        """One of them is equal, or all of them are not; an empty list holds nothing, not even what is unknown."""
        if isinstance(operand, Column) and len(values) > 1 and all(isinstance(one, Literal) for one in values):
            return self._one_of(operand, [_number(one.value) for one in values if isinstance(one, Literal)])
        equal = [self._compare("==", operand, value) for value in values]
        return self._any(equal) if equal else Truth(NEVER, ALWAYS)

    def _one_of(self, column: Column, values: Sequence[str | int | float | None]) -> Truth:
        """Lists of one type each, which servers look through much faster than through comparisons."""
        truths = [self._compare("==", column, Literal(value)) for value in values]  # refuses what cannot be compared
        there, given = self._column(column), [value for value in values if value is not None]
        lists = [[value for value in given if type(value) is kind] for kind in (int, float, str)]
        matches = joined("or", [f"({one_of(there.key, some)})" for some in lists if some]) if given else NEVER
        unknown = UNKNOWN in truths  # NULL is in the list: then nothing is surely not in it
        return Truth(matches, NEVER if unknown else f"({there.given} and (not {matches}))")

    def _is_null(self, operand: Expression) -> Truth:
        if isinstance(operand, Literal):
            return Truth(ALWAYS, NEVER) if operand.value is None else Truth(NEVER, ALWAYS)
        if not isinstance(operand, Column):
            raise self._wrong("Milvus knows IS NULL of a field only")
        given = self._column(operand).given
        return Truth(f"(not {given})", given)

    def _like(self, operand: Expression, pattern: Expression) -> Truth:
        """SQLite's LIKE takes a and A for one, so the folded text is looked at."""
        if not isinstance(operand, Column) or not isinstance(pattern, Literal):
            raise self._wrong("Milvus knows LIKE of a field and a pattern only")
        column = self._column(operand)
        if pattern.value is None:
            return UNKNOWN
        if not isinstance(pattern.value, str) or not column.is_text:
            raise self._wrong(f"LIKE is for texts; {column.name!r} holds {_kind(column)}, the pattern is {pattern.value!r}")
        like, given = f"({column.folded} like {_literal(column.pattern(pattern.value))})", f'{column.folded} >= ""'
        return Truth(like, f"({given} and (not {like}))")

    def _column(self, column: Column) -> FilterColumn:
        fields = [name for table, name in self._columns if table == "fields"]
        resolved = resolve(column, self._whole, fields)
        if resolved not in self._columns:
            raise self._wrong(f"Milvus has no column {column.name}")
        return self._columns[resolved]

    def _without(self, node: Expression) -> OptionError:
        """What Milvus has no equal of, by its name in SQL."""
        name = getattr(node, "name", None) or getattr(node, "operator", None) or type(node).__name__
        return self._wrong(f"Milvus has no {name} that gives what SQL gives")

    def _wrong(self, what: str) -> OptionError:
        return refusal(self._whole, what)


def _number(value: Scalar) -> str | int | float | None:
    """Truth values as the numbers that they are."""
    return int(value) if isinstance(value, bool) else value


def _kind(column: FilterColumn) -> str:
    return "texts" if column.is_text else "numbers"


def _comparison(key: str, sign: str, value: str | int | float) -> str:
    """Unequal is smaller or larger: a missing value is neither, whatever a server thinks of `!=`."""
    text = _literal(value)
    return f"({key} < {text} or {key} > {text})" if sign == "!=" else f"({key} {sign} {text})"


def _literal(value: str | int | float) -> str:
    if not isinstance(value, str):
        return repr(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'
