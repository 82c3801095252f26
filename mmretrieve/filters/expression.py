"""The structure of a filter: a bounded tree of operations over the fields of an item.

SQL (`parse`), JSON (`from_dict`) and Python build the same tree, which `to_sqlite` and `to_milvus` translate.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any, cast

from mmretrieve.errors import OptionError, did_you_mean, unknown

MAX_LENGTH = 10_000  # characters of SQL
MAX_DEPTH = 100  # nodes from the root to a leaf
MAX_NODES = 5_000
MAX_PATTERN_BYTES = 500  # of one LIKE or GLOB: its time grows with the length of the pattern times that of the text
COMPARING = ("instr", "trim", "ltrim", "rtrim")  # their time grows with their second argument, too, which SQLite does not limit
MAX_PATTERN_BYTES_IN_ALL = 2_000
INT64 = 2**63
ANY_NUMBER = sys.maxsize  # of operands
MAX_ARGUMENTS = 127  # of a function, in SQLite before 3.48
# fmt: off
BINARY_OPERATORS = (
    "=", "<>", "<", "<=", ">", ">=", "is", "is not", "+", "-", "*", "/", "%", "||", "&", "|", "<<", ">>", "glob",
)
OPERATORS = {  # the least and the greatest number of operands
    **dict.fromkeys(BINARY_OPERATORS, (2, 2)),
    "+": (1, 2), "-": (1, 2), "~": (1, 1), "not": (1, 1), "is null": (1, 1),
    "and": (2, ANY_NUMBER), "or": (2, ANY_NUMBER),
    "in": (1, ANY_NUMBER),  # the operand, then the values
    "like": (2, 3),  # the operand, the pattern, the escape character
    "between": (3, 3),  # the operand, the lower and the upper bound
    "collate": (2, 2), "cast": (2, 2),  # the operand, then one of NAMED_OPERANDS
}
NAMED_OPERANDS = {
    "collate": ("collation", ("BINARY", "NOCASE", "RTRIM")),
    "cast": ("type", ("INTEGER", "NUMERIC", "REAL", "TEXT")),
}
FUNCTIONS = {  # the least and the greatest number of arguments; only functions with bounded time and output
    "abs": (1, 1), "ceil": (1, 1), "ceiling": (1, 1), "char": (0, MAX_ARGUMENTS), "coalesce": (2, MAX_ARGUMENTS),
    "date": (0, MAX_ARGUMENTS), "datetime": (0, MAX_ARGUMENTS), "floor": (1, 1), "glob": (2, 2), "ifnull": (2, 2), "iif": (3, 3),
    "instr": (2, 2), "julianday": (0, MAX_ARGUMENTS), "length": (1, 1), "like": (2, 3), "lower": (1, 1), "ltrim": (1, 2),
    "max": (2, MAX_ARGUMENTS), "min": (2, MAX_ARGUMENTS), "mod": (2, 2), "nullif": (2, 2), "pow": (2, 2), "power": (2, 2),
    "round": (1, 2), "rtrim": (1, 2), "sign": (1, 1), "sqrt": (1, 1), "strftime": (0, MAX_ARGUMENTS), "substr": (2, 3),
    "substring": (2, 3), "time": (0, MAX_ARGUMENTS), "trim": (1, 2), "trunc": (1, 1), "typeof": (1, 1), "unicode": (1, 1),
    "unixepoch": (0, MAX_ARGUMENTS), "upper": (1, 1),
}
# fmt: on
FORMS = "expected {'column': name}, {'value': value} or {'operator': name, 'operands': [...]}"
STRUCTURE_KEYS = frozenset(("column", "table", "operator", "operands"))  # of a structure; other keys, "value" too, are fields
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    """A field, or a column that every item has (`id`, `width`).

    `table` is "fields" or "items"; it is needed only if both have a column of that name.
    """

    name: str
    table: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise OptionError(f"where: a column needs a name, got {self.name!r:.80}")
        if self.table not in (None, "fields", "items"):
            raise unknown("table", self.table, ("fields", "items"))


@dataclass(frozen=True, eq=False)
class Literal:
    """A text, a number, a truth value or NULL (None)."""

    value: Scalar

    def __post_init__(self) -> None:
        value = self.value
        if not isinstance(value, str | int | float | None):
            raise OptionError(f"where: a value is text, a number, true, false or null, got {value!r:.80}")
        if isinstance(value, str) and "\0" in value:
            raise OptionError(f"where: a text must not contain NUL, got {value!r:.80}")
        if isinstance(value, float) and not isfinite(value):
            raise OptionError(f"where: expected a finite number, got {value}")
        if isinstance(value, int) and not -INT64 <= value < INT64:
            try:
                object.__setattr__(self, "value", float(value))  # as SQLite reads it
            except OverflowError:
                raise OptionError("where: expected a number below 1.8e308, got a whole number of more digits") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and repr(self.value) == repr(other.value)  # 5 / 2 is not 5 / 2.0

    def __hash__(self) -> int:
        return hash(repr(self.value))


@dataclass(frozen=True)
class Operation:
    """An operator (a key of `OPERATORS`) or a function (one of `FUNCTIONS`), in lower case, and its operands.

    `is` and `is not` compare as `=` and `<>` do, but NULL is equal to NULL. With one operand, `-` negates, and `+` compares a
    column without the conversion of its declared type.

    >>> Operation("<", (Column("price"), Literal(20)))
    Operation(operator='<', operands=(Column(name='price', table=None), Literal(value=20)))
    """

    operator: str
    operands: tuple[Expression, ...]

    def __post_init__(self) -> None:
        operator, count = self.operator.lower(), len(self.operands)
        object.__setattr__(self, "operator", operator)
        arities = OPERATORS | FUNCTIONS
        if operator not in arities:
            raise OptionError(f"where: {not_a_function(operator, arities)}")
        low, high = arities[operator]
        if not low <= count <= high:
            title, noun = (operator.upper(), "operand") if operator in OPERATORS else (f"{operator}()", "argument")
            raise OptionError(f"where: {title} takes {_counted(low, high, noun)}, got {count}")
        if operator in NAMED_OPERANDS:
            kind, choices = NAMED_OPERANDS[operator]
            operand, name = self.operands
            choice = name.value if isinstance(name, Literal) else None
            if str(choice).upper() not in choices:
                raise unknown(kind, choice, choices)
            object.__setattr__(self, "operands", (operand, Literal(str(choice).upper())))


Expression = Column | Literal | Operation
"""A filter, or a part of one. Equal expressions hold for the same items."""


def not_a_function(name: str, choices: Iterable[str] = FUNCTIONS) -> str:
    """What an error says about a name that is not a function of filters."""
    return f"{name:.80} is not a function of filters{did_you_mean(name, choices) or ';'} choose from: {', '.join(choices)}"


@lru_cache(maxsize=4_096)  # the names of fields are the same in every item
def fold_case(name: str) -> str:
    """The name with A to Z in lower case: SQLite takes names for equal that differ only in the case of these letters."""
    return name.encode(errors="surrogatepass").lower().decode(errors="surrogatepass")


def columns(expression: Expression) -> frozenset[Column]:
    """All columns that a filter reads, as it names them.

    >>> from mmretrieve.filters import parse
    >>> sorted(column.name for column in columns(parse("price < 20 AND lower(colour) = 'red'")))
    ['colour', 'price']
    """
    return frozenset(node for node, _ in walk(expression) if isinstance(node, Column))


def walk(expression: Expression) -> Iterator[tuple[Expression, int]]:
    """Every node with its depth, counted from 1, in reading order."""
    stack = [(expression, 1)]
    while stack:
        node, depth = stack.pop()
        yield node, depth
        if isinstance(node, Operation):
            stack += [(operand, depth + 1) for operand in reversed(node.operands)]


def check_size(expression: Expression) -> Expression:
    """The same expression. Raises OptionError if it is too deep, has too many nodes or its patterns are too long."""
    pattern_bytes = 0
    for count, (node, depth) in enumerate(walk(expression), start=1):
        _check_bounds(depth, count)
        pattern_bytes += _pattern_bytes(node)
    if pattern_bytes > MAX_PATTERN_BYTES_IN_ALL:
        raise OptionError(
            f"where: the patterns of LIKE and GLOB take {pattern_bytes:,} bytes together, up to {MAX_PATTERN_BYTES_IN_ALL:,} are"
            f" allowed (a computed pattern counts as {MAX_PATTERN_BYTES})"
        )
    return expression


def to_dict(expression: Expression) -> dict[str, Any]:
    """The structure as JSON can hold it; `from_dict` reads it.

    >>> to_dict(Operation("<", (Column("price"), Literal(20))))
    {'operator': '<', 'operands': [{'column': 'price'}, {'value': 20}]}
    """
    if isinstance(expression, Column):
        return {"column": expression.name} | ({"table": expression.table} if expression.table else {})
    if isinstance(expression, Literal):
        return {"value": expression.value}
    return {"operator": expression.operator, "operands": list(map(to_dict, expression.operands))}


def from_dict(structure: object) -> Expression:
    """The expression of a structure as `to_dict` makes it.

    Raises OptionError, naming the part, for any other structure and for one that is too large.

    >>> from_dict({"operator": "is null", "operands": [{"column": "price"}]})
    Operation(operator='is null', operands=(Column(name='price', table=None),))
    """
    count = 0

    def read(part: object, depth: int) -> Expression:
        nonlocal count
        count += 1
        _check_bounds(depth, count)
        match part:
            case {"column": str(name), **others} if others.keys() <= {"table"}:
                return Column(name, cast(str | None, others.get("table")))  # checked by Column
            case {"value": value, **others} if not others:
                return Literal(value)
            case {"operator": str(operator), "operands": [*operands], **others} if not others:
                return Operation(operator, tuple(read(operand, depth + 1) for operand in operands))
        raise OptionError(f"where: {FORMS}, got {reprlib.repr(part)}")

    return check_size(read(structure, 1))


def from_fields(values: Mapping[str, object]) -> Expression:
    """The expression of `{field: value}`: every field has its value, one of a list of values, or for None no value.

    Raises OptionError, naming the field, for anything else.

    >>> from_fields({"colour": "red"})
    Operation(operator='=', operands=(Column(name='colour', table=None), Literal(value='red')))
    >>> from_fields({"colour": ["red", "pink"], "price": None}).operator
    'and'
    """
    _check_bounds(1, sum(len(value) if isinstance(value, list | tuple | set | frozenset) else 1 for value in values.values()))
    conditions = [_has_value(Column(name), value) for name, value in values.items()]
    if not conditions:
        raise OptionError("where: the mapping is empty; name a field, as in {'colour': 'red'}, or leave where out")
    return check_size(conditions[0] if len(conditions) == 1 else Operation("and", tuple(conditions)))


def _has_value(column: Column, value: object) -> Operation:
    if value is None:
        return Operation("is null", (column,))
    if isinstance(value, list | tuple | set | frozenset):
        return Operation(
            "in", (column, *map(_literal, sorted(value, key=repr) if isinstance(value, set | frozenset) else value))
        )
    if isinstance(value, Mapping):
        raise OptionError(
            f"where: {column.name!r} must be a value or a list of values, got {reprlib.repr(value)}; write other conditions in SQL"
        )
    return Operation("=", (column, _literal(value)))


def _literal(value: object) -> Literal:
    """The literal of a value; numpy's scalars are those of Python."""
    item = getattr(value, "item", None)
    return Literal(item() if getattr(value, "ndim", None) == 0 and item is not None else cast(Scalar, value))


def _counted(low: int, high: int, noun: str) -> str:
    """The number of operands or arguments that is allowed: "1 or 2 operands"."""
    if high in (ANY_NUMBER, MAX_ARGUMENTS):
        return f"{low} {noun}s or more" if high == ANY_NUMBER else f"{low} to {high} {noun}s"
    return " or ".join(map(str, range(low, high + 1))) + f" {noun}{'' if high == 1 else 's'}"


def _check_bounds(depth: int, count: int) -> None:
    if depth > MAX_DEPTH:
        raise OptionError(f"where: expressions nested more than {MAX_DEPTH} deep; write it with fewer parentheses or parts")
    if count > MAX_NODES:
        raise OptionError(f"where: more than {MAX_NODES:,} names, values and operators; write a shorter filter")


def _pattern_bytes(node: Expression) -> int:
    """The length of the pattern of a LIKE or GLOB, or of what one of COMPARING looks for; 0 for other nodes."""
    match node:
        case Operation("like" | "glob", (_, Literal(str(pattern)), *_)):
            length = len(pattern.encode(errors="replace"))
        case Operation("like" | "glob"):
            return MAX_PATTERN_BYTES
        case Operation(function, (_, second)) if function in COMPARING:
            return _bytes_of_argument(function, second)
        case _:
            return 0
    if length > MAX_PATTERN_BYTES:
        raise OptionError(
            f"where: a pattern of LIKE or GLOB has up to {MAX_PATTERN_BYTES} bytes, got {length:,}: {pattern:.40}…"
        )
    return length


def _bytes_of_argument(function: str, argument: Expression) -> int:
    """The length of the second argument of one of COMPARING. Raises OptionError unless it is a short text or a number."""
    length = len(str(argument.value).encode(errors="replace")) if isinstance(argument, Literal) else MAX_PATTERN_BYTES + 1
    if length > MAX_PATTERN_BYTES:
        raise OptionError(
            f"where: the second argument of {function}() must be a text of up to {MAX_PATTERN_BYTES} bytes, not computed"
            + ("; write LIKE '%' || … || '%'" if function == "instr" else "")
        )
    return length
