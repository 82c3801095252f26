"""A filter as SQL: for SQLite, with resolved columns and bound values, and as text for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mmretrieve.errors import OptionError, did_you_mean
from mmretrieve.filters.expression import OPERATORS, Column, Expression, Literal, Operation, Scalar, columns, fold_case, walk

PRIVATE_COLUMNS = ("path", "source", "stamp")  # they tell where files are; a server refuses them
LISTED_COLUMNS = ("id", "width", "height")  # named by an error
ITEM_COLUMNS = (*LISTED_COLUMNS, *PRIVATE_COLUMNS, "row", "part", "hash")  # of every item, besides its fields
ORDERING = ("<", "<=", ">", ">=", "between")
MAX_QUOTED_LENGTH = 200  # characters of a filter in an error


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

    Raises OptionError for a column that is neither a field nor one of ITEM_COLUMNS, and for one that could be both.

    >>> from mmretrieve.filters import parse
    >>> to_sqlite(parse("price < 20"), ["price"]).sql
    '(fields."price" < ?)'
    """
    names = list(fields)
    read = dict.fromkeys(node for node, _ in walk(expression) if isinstance(node, Column))
    resolved = {column: resolve_column(column, expression, names) for column in read}
    parameters: list[Scalar] = []

    def write_leaf(node: Column | Literal) -> str:
        if isinstance(node, Column):
            table, name = resolved[node]
            return f"{table}.{quote_name(name)}"
        if isinstance(node.value, bool) or node.value is None:
            return _constant(node.value)
        parameters.append(node.value)
        return "?"

    sql = _write(expression, write_leaf)
    return SqliteFilter(sql, tuple(parameters), frozenset(resolved.values()))


def to_text(expression: Expression) -> str:
    """The filter as SQL that a person reads.

    >>> from mmretrieve.filters import parse
    >>> to_text(parse("colour = 'red' OR price < 20 AND width > 90"))
    "colour = 'red' OR (price < 20 AND width > 90)"
    """

    def write_leaf(node: Column | Literal) -> str:
        if isinstance(node, Literal):
            return _constant(node.value)
        is_plain = node.name.isidentifier() and node.name.isascii()
        return (f"{node.table}." if node.table else "") + (node.name if is_plain else quote_name(node.name))

    return _without_parentheses(_write(expression, write_leaf, is_flat=True))


def resolve_column(column: Column, expression: Expression, fields: Sequence[str]) -> tuple[str, str]:
    """The table and the name of a column of an expression. Raises OptionError, with a hint, if there is none or two."""
    item_columns = {name: ("items", name) for name in ITEM_COLUMNS if column.table != "fields"}
    field_columns = {fold_case(name): ("fields", name) for name in fields if column.table != "items"}
    key, name = fold_case(column.name), column.name if column.name.isprintable() else repr(column.name)
    part = _condition_on(column, expression)
    if key in item_columns and key in field_columns:
        raise filter_error(part, f"ambiguous column name: {name}; write fields.{name} or items.{name}")
    if key in item_columns or key in field_columns:
        return (item_columns | field_columns)[key]
    existing = ", ".join(LISTED_COLUMNS) + (f" and the fields {', '.join(fields)}" if fields else "")
    if hint := _quotes_hint(column, expression):
        raise filter_error(part, f"no such column: {name}; {hint}")
    hint = did_you_mean(column.name, (*item_columns, *field_columns)) or ";"
    raise filter_error(part, f"no such column: {name}{hint} the columns are {existing}")


def _condition_on(column: Column, expression: Expression) -> Expression:
    """The first of the conditions that AND joins that names a column: what a person wrote, without what a page has added."""
    while isinstance(expression, Operation) and expression.operator == "and":
        expression = next(operand for operand in expression.operands if column in columns(operand))
    return expression


def check_order(expression: Expression, types: Mapping[str, str]) -> None:
    """Raises OptionError where a filter asks for the order of a text field and a number: "9,90" is not less than 50, but after it.

    types: those of the fields of a gallery, "text" or "number".
    """
    texts = {fold_case(name) for name, kind in types.items() if kind == "text"}
    for node, _ in walk(expression):
        if isinstance(node, Operation) and node.operator in ORDERING and len(node.operands) > 1:
            names = [one.name for one in node.operands if isinstance(one, Column) and one.table != "items"]
            numbers = [one for one in node.operands if isinstance(one, Literal) and type(one.value) in (int, float)]
            if numbers and (wrong := [name for name in names if fold_case(name) in texts]):
                raise filter_error(
                    node,
                    f"{wrong[0]} is text in this gallery, and is not compared with a number; index it as numbers such as 9.90, or write "
                    f"CAST({wrong[0]} AS REAL)",
                )


def filter_error(expression: Expression, reason: str) -> OptionError:
    """The error of a filter or of a condition in it, which it quotes."""
    return text_error(to_text(expression), reason)


def text_error(sql: str, reason: str) -> OptionError:
    """The error of the text of a filter, which it quotes as it is but in one line."""
    text = sql if len(sql) <= MAX_QUOTED_LENGTH else sql[:MAX_QUOTED_LENGTH] + "…"
    return OptionError(f"where {''.join(c if c.isprintable() else ' ' for c in text).strip()}: {reason}")


def quote_name(name: str) -> str:
    """A name as SQL writes it."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def join_balanced(operator: str, parts: Sequence[str]) -> str:
    """All parts joined in balanced pairs, because parsers limit the depth: it grows with the logarithm of the number of parts."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return f"({join_balanced(operator, parts[:half])} {operator} {join_balanced(operator, parts[half:])})"


def _write(node: Expression, write_leaf: Callable[[Column | Literal], str], *, is_flat: bool = False) -> str:
    """SQL in which every operator has parentheses, so that precedence does not matter.

    With `is_flat`, operands of AND and OR have none unless they are AND or OR themselves.
    """
    if not isinstance(node, Operation):
        return write_leaf(node)
    write = partial(_write, write_leaf=write_leaf, is_flat=is_flat)
    match node:
        case Operation("collate", (value, Literal(collation))):
            return f"({write(value)} COLLATE {collation})"
        case Operation("cast", (value, Literal(kind))):
            return f"CAST({write(value)} AS {kind})"
    operator, texts = node.operator.upper(), list(map(write, node.operands))
    match node.operator, texts:
        case "and" | "or", _:
            if not is_flat:
                return join_balanced(operator, texts)
            parts = [
                text if isinstance(operand, Operation) and operand.operator in ("and", "or") else _without_parentheses(text)
                for operand, text in zip(node.operands, texts, strict=True)
            ]
            return f"({f' {operator} '.join(parts)})"
        case "in", [operand, *values]:
            return f"({operand} IN ({', '.join(values)}))"
        case "between", [operand, low, high]:
            return f"({operand} BETWEEN {low} AND {high})"
        case "like", [operand, pattern, escape]:
            return f"({operand} LIKE {pattern} ESCAPE {escape})"
        case "is null", [operand]:
            return f"({operand} IS NULL)"
        case name, [operand] if name in OPERATORS:
            return f"({operator} {operand})"
        case name, [left, right] if name in OPERATORS:
            return f"({left} {operator} {right})"
    return f"{node.operator}({', '.join(texts)})"


def _without_parentheses(text: str) -> str:
    """The text of an operation without its outer parentheses; other texts do not begin with one."""
    return text[1:-1] if text.startswith("(") else text


def _constant(value: Scalar) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return {None: "NULL", True: "TRUE", False: "FALSE"}[value] if value is None or isinstance(value, bool) else repr(value)


def _quotes_hint(column: Column, expression: Expression) -> str:
    """What to write if an unknown name is compared with a column: it may be a text without quotes. Otherwise empty."""
    for node, _ in walk(expression) if column.table is None else ():
        match node:
            case Operation(operator, (Column() as left, *values)) if column in values and operator in OPERATORS:
                text = f"({_constant(column.name)})" if operator == "in" else _constant(column.name)
                return f"put text in quotes: {to_text(left)} {operator.upper()} {text}"
    return ""
