"""What a filter is: a small tree of comparisons over the fields of an item, closed to everything else, and bounded.

Text (`parse`), a structure of JSON (`from_dict`) and Python build the same tree; SQLite and Milvus get what is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from math import isfinite
from typing import Any

from mmretrieve.errors import OptionError, unknown
from mmretrieve.options import Choice

MAX_LENGTH = 10_000  # characters of text
MAX_DEPTH = 100  # nodes from the root to a leaf
MAX_NODES = 5_000
MAX_PATTERN_BYTES = 500  # of one LIKE or GLOB: the time that one takes grows with its length times that of the text
MAX_PATTERN_BYTES_IN_ALL = 2_000
INT64 = 2**63
COLLATIONS = ("BINARY", "NOCASE", "RTRIM")
CAST_TYPES = ("INTEGER", "NUMERIC", "REAL", "TEXT")
# fmt: off
FUNCTIONS = (  # only functions with bounded time and output
    "abs", "ceil", "ceiling", "char", "coalesce", "date", "datetime", "floor", "glob", "ifnull", "iif", "instr", "julianday", "length",
    "like", "lower", "ltrim", "max", "min", "mod", "nullif", "pow", "power", "round", "rtrim", "sign", "sqrt", "strftime", "substr",
    "substring", "time", "trim", "trunc", "typeof", "unicode", "unixepoch", "upper",
)
# fmt: on
Scalar = str | int | float | bool | None


class Comparator(Choice):
    """How two values are compared; `is` also holds for NULL and NULL."""

    EQ = "="
    NE = "<>"
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    IS = "is"
    IS_NOT = "is not"


class Matcher(Choice):
    """How a text is compared with a pattern: LIKE ignores the case of A to Z, GLOB does not."""

    LIKE = "like"
    GLOB = "glob"


class Operator(Choice):
    """What makes one value of two."""

    ADD = "+"
    SUBTRACT = "-"
    MULTIPLY = "*"
    DIVIDE = "/"
    MODULO = "%"
    CONCATENATE = "||"
    BIT_AND = "&"
    BIT_OR = "|"
    SHIFT_LEFT = "<<"
    SHIFT_RIGHT = ">>"


class Sign(Choice):
    """What stands before one value. `+` changes nothing, but a column behind it is compared as it is, without conversion."""

    MINUS = "-"
    PLUS = "+"
    BIT_NOT = "~"


@dataclass(frozen=True)
class Expression:
    """A filter, or a part of one. Equal expressions hold for the same items."""


@dataclass(frozen=True)
class Column(Expression):
    """A field, or what every item has (`id`, `width`). `table`: "fields" or "items", where both have one of that name."""

    name: str
    table: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise OptionError(f"where: a column needs a name, got {self.name!r:.80}")
        if self.table not in (None, "fields", "items"):
            raise unknown("table", self.table, ("fields", "items"))


@dataclass(frozen=True, eq=False)
class Literal(Expression):
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
            object.__setattr__(self, "value", float(value))  # as SQLite reads it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and repr(self.value) == repr(other.value)  # 5 / 2 is not 5 / 2.0

    def __hash__(self) -> int:
        return hash(repr(self.value))


@dataclass(frozen=True)
class Comparison(Expression):
    operator: Comparator
    left: Expression
    right: Expression

    def __post_init__(self) -> None:
        object.__setattr__(self, "operator", Comparator(self.operator))


@dataclass(frozen=True)
class In(Expression):
    operand: Expression
    values: tuple[Expression, ...]


@dataclass(frozen=True)
class Like(Expression):
    operator: Matcher
    operand: Expression
    pattern: Expression
    escape: Expression | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "operator", Matcher(self.operator))


@dataclass(frozen=True)
class Between(Expression):
    operand: Expression
    low: Expression
    high: Expression


@dataclass(frozen=True)
class IsNull(Expression):
    operand: Expression


@dataclass(frozen=True)
class Not(Expression):
    operand: Expression


@dataclass(frozen=True)
class And(Expression):
    operands: tuple[Expression, ...]

    def __post_init__(self) -> None:
        _check_operands(self.operands)


@dataclass(frozen=True)
class Or(Expression):
    operands: tuple[Expression, ...]

    def __post_init__(self) -> None:
        _check_operands(self.operands)


@dataclass(frozen=True)
class Arithmetic(Expression):
    operator: Operator
    left: Expression
    right: Expression

    def __post_init__(self) -> None:
        object.__setattr__(self, "operator", Operator(self.operator))


@dataclass(frozen=True)
class Unary(Expression):
    operator: Sign
    operand: Expression

    def __post_init__(self) -> None:
        object.__setattr__(self, "operator", Sign(self.operator))


@dataclass(frozen=True)
class Function(Expression):
    name: str
    arguments: tuple[Expression, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", str(self.name).lower())
        if self.name not in FUNCTIONS:
            raise OptionError(f"where: not authorized to use function: {self.name:.80}; there are: {', '.join(FUNCTIONS)}")


@dataclass(frozen=True)
class Collate(Expression):
    """Compared in another order: NOCASE takes A and a for one."""

    operand: Expression
    collation: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "collation", _one_of("collation", self.collation, COLLATIONS))


@dataclass(frozen=True)
class Cast(Expression):
    operand: Expression
    to: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "to", _one_of("type", self.to, CAST_TYPES))


NODES: Mapping[str, type[Expression]] = {kind.__name__.lower(): kind for kind in Expression.__subclasses__()}


def folded(name: str) -> str:
    """Equal for the names that SQLite takes for one: those that differ in the case of A to Z."""
    return name.encode(errors="surrogatepass").lower().decode(errors="surrogatepass")


def columns(expression: Expression) -> frozenset[Column]:
    """All columns that a filter reads, as it names them.

    >>> from mmretrieve.filters import parse
    >>> sorted(column.name for column in columns(parse("price < 20 AND lower(colour) = 'red'")))
    ['colour', 'price']
    """
    return frozenset(node for node, _ in walk(expression) if isinstance(node, Column))


def walk(expression: Expression) -> Iterator[tuple[Expression, int]]:
    """Every node with its depth, counted from 1."""
    waiting = [(expression, 1)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        for value in vars(node).values():
            parts = value if isinstance(value, tuple) else (value,)
            waiting += [(part, depth + 1) for part in parts if isinstance(part, Expression)]


def check_size(expression: Expression) -> Expression:
    """The same expression. OptionError where it is too deep, has too many nodes or too long patterns."""
    pattern_bytes = 0
    for count, (node, depth) in enumerate(walk(expression), start=1):
        if depth > MAX_DEPTH:
            raise _too_deep()
        if count > MAX_NODES:
            raise _too_many()
        pattern_bytes += _pattern_bytes(node)
    if pattern_bytes > MAX_PATTERN_BYTES_IN_ALL:
        raise OptionError(
            f"where: the patterns of LIKE and GLOB take {pattern_bytes:,} bytes together, up to {MAX_PATTERN_BYTES_IN_ALL:,} are"
            f" allowed (a computed pattern counts as {MAX_PATTERN_BYTES})"
        )
    return expression


def to_dict(expression: Expression) -> dict[str, Any]:
    """The structure as JSON can hold it; `from_dict` reads it.

    >>> to_dict(Comparison(Comparator.LT, Column("price"), Literal(20)))["left"]
    {'type': 'column', 'name': 'price'}
    """
    structure: dict[str, Any] = {"type": type(expression).__name__.lower()}
    for name, value in vars(expression).items():
        if isinstance(value, tuple):
            structure[name] = [to_dict(part) for part in value]
        elif value is not None or name == "value":
            structure[name] = to_dict(value) if isinstance(value, Expression) else value
    return structure


def from_dict(structure: object) -> Expression:
    """The expression of a structure as `to_dict` makes it. OptionError, naming the part, for any other, or one that is too large.

    >>> from_dict({"type": "isnull", "operand": {"type": "column", "name": "price"}})
    IsNull(operand=Column(name='price', table=None))
    """
    return check_size(_StructureReader().node(structure, 1))


class _StructureReader:
    """Reads nested objects into nodes, and stops as soon as there are too many."""

    def __init__(self) -> None:
        self._count = 0

    def node(self, structure: object, depth: int) -> Expression:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_NODES:
            raise _too_deep() if depth > MAX_DEPTH else _too_many()
        if not isinstance(structure, Mapping):
            raise OptionError(f"where: expected an object with a type, one of {', '.join(NODES)}, got {structure!r:.80}")
        node = NODES.get(structure["type"]) if isinstance(structure.get("type"), str) else None
        if node is None:
            raise unknown("type of expression", structure.get("type"), NODES)
        given = {name: value for name, value in structure.items() if name != "type"}
        expected = {field.name: field for field in fields(node)}
        absent = [name for name, field in expected.items() if field.default is MISSING and name not in given]
        if wrong := [*absent, *(str(name) for name in given if name not in expected)]:
            raise OptionError(f"where: {structure['type']} takes {', '.join(expected)}; check {wrong[0]!r:.80}")
        return node(**{name: self._part(str(expected[name].type), value, depth) for name, value in given.items()})

    def _part(self, kind: str, value: object, depth: int) -> object:
        """What stands in one place of a node, by the type that is declared there."""
        if kind.startswith("tuple"):
            if not isinstance(value, list | tuple):
                raise OptionError(f"where: expected a list of expressions, got {value!r:.80}")
            return tuple(self.node(part, depth + 1) for part in value)
        if kind == "Expression" or (kind == "Expression | None" and value is not None):
            return self.node(value, depth + 1)
        return value


def _too_deep() -> OptionError:
    return OptionError(f"where: expressions nested more than {MAX_DEPTH} deep; write it with fewer parentheses or parts")


def _too_many() -> OptionError:
    return OptionError(f"where: more than {MAX_NODES:,} names, values and operators; write a shorter filter")


def _check_operands(operands: tuple[Expression, ...]) -> None:
    if len(operands) < 2:
        raise OptionError(f"where: AND and OR join two expressions or more, got {len(operands)}")


def _one_of(what: str, value: object, choices: tuple[str, ...]) -> str:
    if str(value).upper() not in choices:
        raise unknown(what, value, choices)
    return str(value).upper()


def _pattern_bytes(node: Expression) -> int:
    """How long the pattern is that a node compares with; 0 where it has none."""
    match node:
        case (
            Like(pattern=Literal(value=str(pattern)))
            | Function(name="like" | "glob", arguments=(Literal(value=str(pattern)), *_))
        ):
            length = len(pattern.encode(errors="replace"))
        case Like() | Function(name="like" | "glob"):
            return MAX_PATTERN_BYTES
        case _:
            return 0
    if length > MAX_PATTERN_BYTES:
        raise OptionError(
            f"where: a pattern of LIKE or GLOB has up to {MAX_PATTERN_BYTES} bytes, got {length:,}: {pattern:.40}…"
        )
    return length
