"""A filter as an expression of Milvus that keeps the same items as in SQLite, also those with missing values.

SQL has three truth values, and servers differ in how they compare missing values. Therefore each part becomes two expressions:
one that holds where the part is true, and one that holds where it is false. Both consist of comparisons that a missing value
never fulfills. NOT exchanges the two, so no server negates a comparison with an unknown result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmretrieve.errors import OptionError
from mmretrieve.filters.expression import Column, Expression, Literal, Operation, Scalar, fold_case
from mmretrieve.filters.sqlite import filter_error, join_balanced, resolve_column

GIVEN = "given"  # the column with the keys of the values that an item has
ALWAYS, NEVER = "row >= 0", "row < 0"
COMPARISONS = {"=": "==", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
NEGATED = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
MIRRORED = {"==": "==", "!=": "!=", "<": ">", ">=": "<=", ">": "<", "<=": ">="}
TRUTH_OPERATORS = frozenset((*COMPARISONS, "is", "is not", "in", "like", "glob", "is null", "not", "and", "or", "between"))
PLAIN_NAME = re.compile(r"[a-z0-9_]+")
BACKSLASH = "\ufdd0"  # replaces a backslash in LIKE, which servers treat differently; a noncharacter, in no text


@dataclass(frozen=True)
class MilvusColumn:
    """A column of SQL and its keys in a Milvus collection.

    Parameters
    ----------
    name : its name in SQL.
    is_text : whether it contains texts; otherwise numbers.
    is_field : whether it is a field; otherwise a column that every item has.
    """

    name: str
    is_text: bool
    is_field: bool = True

    @property
    def key(self) -> str:
        """The key of the value."""
        return f"{'t' if self.is_text else 'n'}_{self._escaped}" if self.is_field else self.name

    @property
    def folded(self) -> str:
        """The key of the text in lower case, of a to z only, as SQLite's LIKE compares."""
        return f"f_{self._escaped}" if self.is_field else f"own_{self.name}"

    @property
    def given(self) -> str:
        """The expression that a value exists. Every row has the column `given`, so the expression can be negated."""
        return f'array_contains({GIVEN}, "{self.key}")'

    def pattern(self, text: str) -> str:
        """A text or pattern as LIKE compares it: case of a to z is ignored, and a backslash has no special meaning."""
        return fold_case(text).replace("\\", BACKSLASH)

    @property
    def _escaped(self) -> str:
        """A name that any server accepts: `price` stays, other names are written in hexadecimal digits."""
        lower = fold_case(self.name)
        return f"_{lower}" if PLAIN_NAME.fullmatch(lower) else f"x_{lower.encode().hex()}"


@dataclass(frozen=True)
class Truth:
    """Where a part of a filter is true and where it is false, as expressions of Milvus; elsewhere it is unknown."""

    true: str
    false: str


UNKNOWN = Truth(NEVER, NEVER)


def to_milvus(expression: Expression, columns: Iterable[MilvusColumn]) -> str:
    """The expression of Milvus for a filter: `price < 20` becomes `(n__price < 20)`.

    Raises OptionError, naming the part, for what Milvus cannot evaluate exactly as SQLite does.

    Parameters
    ----------
    expression : the filter.
    columns : all columns that it can name.

    >>> from mmretrieve.filters import parse
    >>> to_milvus(parse("price < 20"), [MilvusColumn("price", is_text=False)])
    '(n__price < 20)'
    """
    return _Translator(expression, columns).truth(expression).true


def one_of(key: str, values: Sequence[str | int | float]) -> str:
    """The expression that a column that every row has is one of some values."""
    return f"{key} in [{', '.join(map(_literal, values))}]"


class _Translator:
    """Translates the parts of one filter, `whole`, which its errors quote."""

    def __init__(self, whole: Expression, columns: Iterable[MilvusColumn]) -> None:
        self._whole = whole
        self._columns = {("fields" if column.is_field else "items", column.name): column for column in columns}

    def truth(self, node: Expression) -> Truth:
        match node:
            case Operation("not", (operand,)):
                truth = self.truth(operand)
                return Truth(truth.false, truth.true)
            case Operation("and", operands):
                return _conjunction(list(map(self.truth, operands)))
            case Operation("or", operands):
                return _disjunction(list(map(self.truth, operands)))
            case Operation("is null", (operand,)):
                return self._is_null(operand)
            case Operation("like", (operand, pattern)):
                return self._like(operand, pattern)
            case Operation("in", (operand, *values)):
                return self._in(operand, values)
            case Operation("between", (operand, low, high)):
                return _conjunction([self._compare(">=", operand, low), self._compare("<=", operand, high)])
            case Operation(operator, (left, right)) if operator in COMPARISONS:
                return self._compare(COMPARISONS[operator], left, right)
            case Literal():
                return self._compare_values(_number(node.value), "!=", 0)
            case Column():
                return self._compare("!=", node, Literal(0))
        raise self._unsupported(node)

    def _compare(self, sign: str, left: Expression, right: Expression) -> Truth:
        match left, right:
            case Literal(one), Literal(other):
                return self._compare_values(_number(one), sign, _number(other))
            case Literal(value), Column():
                return self._compare_column(self._column(right), MIRRORED[sign], _number(value))
            case Column(), Literal(value):
                return self._compare_column(self._column(left), sign, _number(value))
            case Column(one), Column(other):
                self._column(left), self._column(right)
                raise self._error(f"Milvus does not compare two fields ({one!r} and {other!r})")
        for side in (left, right):
            if isinstance(side, Operation) and side.operator not in TRUTH_OPERATORS:
                raise self._unsupported(side)
        raise self._error("Milvus compares a field with a value, not with the result of another comparison")

    def _compare_column(self, column: MilvusColumn, sign: str, value: str | int | float | None) -> Truth:
        if value is None:
            return UNKNOWN
        if isinstance(value, str) is not column.is_text:
            raise self._error(f"{column.name!r} contains {_kind(column)}, which Milvus does not compare with {value!r}")
        return Truth(_comparison(column.key, sign, value), _comparison(column.key, NEGATED[sign], value))

    def _compare_values(self, one: str | int | float | None, sign: str, other: str | int | float | None) -> Truth:
        if one is None or other is None:
            return UNKNOWN
        if isinstance(one, str) is not isinstance(other, str):
            raise self._error(f"{one!r} and {other!r} are a text and a number; compare values of the same type")
        is_less, is_greater = one < other, one > other  # type: ignore[operator]
        results = {"==": not is_less and not is_greater, "!=": is_less or is_greater, "<": is_less, ">": is_greater}
        results |= {"<=": not is_greater, ">=": not is_less}
        return Truth(ALWAYS, NEVER) if results[sign] else Truth(NEVER, ALWAYS)

    def _in(self, operand: Expression, values: Sequence[Expression]) -> Truth:
        """True if one value is equal, false if all values are unequal; nothing is in an empty list, not even NULL."""
        equal = [self._compare("==", operand, value) for value in values]
        if isinstance(operand, Column) and len(values) > 1 and all(isinstance(value, Literal) for value in values):
            literals = [_number(value.value) for value in values if isinstance(value, Literal)]
            return self._in_literals(self._column(operand), literals)
        return _disjunction(equal) if equal else Truth(NEVER, ALWAYS)

    def _in_literals(self, column: MilvusColumn, values: Sequence[str | int | float | None]) -> Truth:
        """Lists of one type each, which servers evaluate much faster than comparisons."""
        lists = [[value for value in values if type(value) is kind] for kind in (int, float, str)]
        matches = [f"({one_of(column.key, literals)})" for literals in lists if literals]
        match = join_balanced("or", matches) if matches else NEVER
        return Truth(match, NEVER if None in values else f"({column.given} and (not {match}))")  # NULL may equal any value

    def _is_null(self, operand: Expression) -> Truth:
        if isinstance(operand, Literal):
            return Truth(ALWAYS, NEVER) if operand.value is None else Truth(NEVER, ALWAYS)
        if not isinstance(operand, Column):
            raise self._error("Milvus supports IS NULL of a field only")
        is_given = self._column(operand).given
        return Truth(f"(not {is_given})", is_given)

    def _like(self, operand: Expression, pattern: Expression) -> Truth:
        """Compares the text in lower case, because SQLite's LIKE ignores the case of a to z."""
        if not isinstance(operand, Column) or not isinstance(pattern, Literal):
            raise self._error("Milvus supports LIKE of a field and a pattern only")
        column = self._column(operand)
        if pattern.value is None:
            return UNKNOWN
        if not isinstance(pattern.value, str) or not column.is_text:
            raise self._error(
                f"LIKE compares texts; {column.name!r} contains {_kind(column)}, the pattern is {pattern.value!r}"
            )
        like, is_given = f"({column.folded} like {_literal(column.pattern(pattern.value))})", f'{column.folded} >= ""'
        return Truth(like, f"({is_given} and (not {like}))")

    def _column(self, column: Column) -> MilvusColumn:
        fields = [name for table, name in self._columns if table == "fields"]
        resolved = resolve_column(column, self._whole, fields)
        if resolved not in self._columns:
            raise self._error(f"Milvus has no column {column.name}")
        return self._columns[resolved]

    def _unsupported(self, node: Operation) -> OptionError:
        """The error of an operation, by its name in SQL."""
        return self._error(
            f"Milvus has no {node.operator} that gives the same results as SQL; "
            "store the value as a field, or pull the gallery and search the folder"
        )

    def _error(self, reason: str) -> OptionError:
        return filter_error(self._whole, reason)


def _conjunction(truths: Sequence[Truth]) -> Truth:
    return Truth(join_balanced("and", [truth.true for truth in truths]), join_balanced("or", [truth.false for truth in truths]))


def _disjunction(truths: Sequence[Truth]) -> Truth:
    return Truth(join_balanced("or", [truth.true for truth in truths]), join_balanced("and", [truth.false for truth in truths]))


def _number(value: Scalar) -> str | int | float | None:
    """Truth values as the numbers 0 and 1; other values as they are."""
    return int(value) if isinstance(value, bool) else value


def _kind(column: MilvusColumn) -> str:
    return "texts" if column.is_text else "numbers"


def _comparison(key: str, sign: str, value: str | int | float) -> str:
    """Unequal is written as less or greater, because a missing value is neither, on every server."""
    text = _literal(value)
    return f"({key} < {text} or {key} > {text})" if sign == "!=" else f"({key} {sign} {text})"


def _literal(value: str | int | float) -> str:
    if not isinstance(value, str):
        return repr(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'
