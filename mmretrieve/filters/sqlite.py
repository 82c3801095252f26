"""A filter as SQL: for SQLite with its columns resolved and its values bound, for people as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mmretrieve.errors import OptionError, did_you_mean
from mmretrieve.filters.expression import (
    And,
    Arithmetic,
    Between,
    Cast,
    Collate,
    Column,
    Comparison,
    Expression,
    Function,
    In,
    IsNull,
    Like,
    Literal,
    Not,
    Or,
    Scalar,
    Unary,
    columns,
    folded,
    walk,
)

ITEM_COLUMNS = (
    "id",
    "path",
    "width",
    "height",
    "source",
    "row",
    "part",
    "hash",
    "stamp",
)  # what filters may name beside fields
NAMED_COLUMNS = 5  # of those, which an error lists


@dataclass(frozen=True)
class SqliteFilter:
    """An expression of SQLite over the tables `items` and `fields`: `sql` with a ? for each of `parameters`.

    `reads` are the columns that it may read, as (table, column).
    """

    sql: str
    parameters: tuple[Scalar, ...]
    reads: frozenset[tuple[str, str]]


def to_sqlite(expression: Expression, fields: Iterable[str]) -> SqliteFilter:
    """The same filter for SQLite. `fields`: the names of the gallery's fields.

    Raises OptionError for a column that is none of them, nor one of ITEM_COLUMNS, and for one that could be both.

    >>> from mmretrieve.filters import parse
    >>> to_sqlite(parse("price < 20"), ["price"]).sql
    '(fields."price" < ?)'
    """
    there = list(fields)
    resolved = {column: resolve(column, expression, there) for column in columns(expression)}
    parameters: list[Scalar] = []

    def value(literal: Literal) -> str:
        if isinstance(literal.value, bool) or literal.value is None:
            return _constant(literal.value)
        parameters.append(literal.value)
        return "?"

    def name(column: Column) -> str:
        table, own = resolved[column]
        return f"{table}.{quoted(own)}"

    sql = _Printer(name, value).text(expression)
    return SqliteFilter(sql, tuple(parameters), frozenset(resolved.values()))


def to_text(expression: Expression) -> str:
    """The filter as SQL that a person reads.

    >>> from mmretrieve.filters import parse
    >>> to_text(parse("colour = 'red' OR price < 20 AND width > 90"))
    "colour = 'red' OR (price < 20 AND width > 90)"
    """

    def name(column: Column) -> str:
        plain = column.name.isidentifier() and column.name.isascii()
        return (f"{column.table}." if column.table else "") + (column.name if plain else quoted(column.name))

    return _bare(expression, _TextPrinter(name, lambda literal: _constant(literal.value)).text(expression))


def resolve(column: Column, expression: Expression, fields: Sequence[str]) -> tuple[str, str]:
    """The table and the name of a column of that expression. OptionError, with a hint, where there is none, or are two."""
    own = {name: ("items", name) for name in ITEM_COLUMNS if column.table != "fields"}
    named = {folded(name): ("fields", name) for name in fields if column.table != "items"}
    key, shown = folded(column.name), column.name if column.name.isprintable() else repr(column.name)
    if key in own and key in named:
        raise refusal(expression, f"ambiguous column name: {shown}; write fields.{shown} or items.{shown}")
    if key in own or key in named:
        return own[key] if key in own else named[key]
    there = ", ".join((*ITEM_COLUMNS[:NAMED_COLUMNS], *fields))
    hint = _quotes_hint(column, expression) or did_you_mean(column.name, (*own, *fields)) or ";"
    raise refusal(expression, f"no such column: {shown}{hint}{'' if hint[-1] in ';?' else ';'} there are the fields {there}")


def refusal(expression: Expression, what: str) -> OptionError:
    """The error of a filter as a whole, which it quotes."""
    return OptionError(f"where {shortened(to_text(expression))!r}: {what}")


def shortened(text: str) -> str:
    """What an error quotes of a filter."""
    return text if len(text) <= 200 else text[:200] + "…"


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def joined(word: str, parts: Sequence[str]) -> str:
    """All parts, halved again and again: who reads from left to right goes as deep as a chain is long."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return f"({joined(word, parts[:half])} {word} {joined(word, parts[half:])})"


@dataclass(frozen=True)
class _Printer:
    """Writes every operator with its parentheses, so that no precedence matters."""

    name: Callable[[Column], str]
    value: Callable[[Literal], str]

    def text(self, node: Expression) -> str:
        match node:
            case Column():
                return self.name(node)
            case Literal():
                return self.value(node)
            case Comparison(operator, left, right) | Arithmetic(operator, left, right):
                return f"({self.text(left)} {operator.upper()} {self.text(right)})"
            case In(operand, values):
                return f"({self.text(operand)} IN ({self._list(values)}))"
            case Like(operator, operand, pattern, escape):
                test = f"{self.text(operand)} {operator.upper()} {self.text(pattern)}"
                return f"({test} ESCAPE {self.text(escape)})" if escape else f"({test})"
            case Between(operand, low, high):
                return f"({self.text(operand)} BETWEEN {self.text(low)} AND {self.text(high)})"
            case IsNull(operand):
                return f"({self.text(operand)} IS NULL)"
            case Not(operand):
                return f"(NOT {self.text(operand)})"
            case And(operands):
                return self.chain("AND", operands)
            case Or(operands):
                return self.chain("OR", operands)
            case Unary(sign, operand):
                return f"({sign} {self.text(operand)})"
            case Function(name, arguments):
                return f"{name}({self._list(arguments)})"
            case Collate(operand, collation):
                return f"({self.text(operand)} COLLATE {collation})"
            case Cast(operand, to):
                return f"CAST({self.text(operand)} AS {to})"
        raise TypeError(f"no such node: {type(node).__name__}")

    def chain(self, word: str, operands: Sequence[Expression]) -> str:
        return joined(word, list(map(self.text, operands)))

    def _list(self, nodes: Sequence[Expression]) -> str:
        return ", ".join(map(self.text, nodes))


class _TextPrinter(_Printer):
    """The same with fewer parentheses."""

    def chain(self, word: str, operands: Sequence[Expression]) -> str:
        parts = [self.text(one) if isinstance(one, And | Or) else _bare(one, self.text(one)) for one in operands]
        return f"({f' {word} '.join(parts)})"


def _bare(node: Expression, text: str) -> str:
    return text if isinstance(node, Column | Literal | Function | Cast) else text[1:-1]


def _constant(value: Scalar) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return {None: "NULL", True: "TRUE", False: "FALSE"}[value] if value is None or isinstance(value, bool) else repr(value)


def _quotes_hint(column: Column, expression: Expression) -> str:
    """What to write where an unknown name is compared with a column, as text without quotes would be."""
    if column.table:
        return ""
    for node, _ in walk(expression):
        match node:
            case Comparison(operator, Column() as left, right) if right == column:
                return f"; put text in quotes: {to_text(left)} {operator} {_constant(column.name)}"
            case Like(operator, Column() as left, pattern) if pattern == column:
                return f"; put text in quotes: {to_text(left)} {operator.upper()} {_constant(column.name)}"
            case In(Column() as left, values) if column in values:
                return f"; put text in quotes: {to_text(left)} IN ({_constant(column.name)})"
    return ""
