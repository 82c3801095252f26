"""Reads SQL filters with the meaning that they have in SQLite. Only this module and `dialect` load sqlglot."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sqlglot import Token, TokenType, exp

from mmretrieve.errors import OptionError
from mmretrieve.filters.dialect import DIALECT, MAX_PARENTHESES, UNARY_PLUS, parse_tree, quotes_hint
from mmretrieve.filters.expression import (
    FUNCTIONS,
    INT64,
    MAX_DEPTH,
    Column,
    Expression,
    Literal,
    Operation,
    check_size,
    not_a_function,
)
from mmretrieve.filters.sqlite import text_error, to_text

BINARY_OPERATORS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.Is: "is",
    exp.NullSafeEQ: "is",
    exp.NullSafeNEQ: "is not",
    exp.Like: "like",
    exp.Glob: "glob",
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
    exp.DPipe: "||",
    exp.BitwiseAnd: "&",
    exp.BitwiseOr: "|",
    exp.BitwiseLeftShift: "<<",
    exp.BitwiseRightShift: ">>",
}
PRECEDENCE: tuple[tuple[type[exp.Expr], ...], ...] = (  # of SQLite, from the loosest to the tightest
    (exp.Or,),
    (exp.And,),
    (exp.Not,),
    (exp.EQ, exp.NEQ, exp.Is, exp.NullSafeEQ, exp.NullSafeNEQ, exp.In, exp.Like, exp.Glob, exp.Escape, exp.Between),
    (exp.LT, exp.LTE, exp.GT, exp.GTE),
    (exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseLeftShift, exp.BitwiseRightShift),
    (exp.Add, exp.Sub),
    (exp.Mul, exp.Div, exp.Mod),
    (exp.DPipe,),
    (exp.Collate,),
    (exp.Neg, exp.BitwiseNot),
)
RANKS = {kind: rank for rank, kinds in enumerate(PRECEDENCE) for kind in kinds}
WHOLE_NUMBER = re.compile(r"[0-9]+")


def parse_text(sql: str) -> Expression:
    """See `mmretrieve.filters.parse`."""
    try:
        tree, tokens = parse_tree(sql)
        return check_size(_TreeReader(sql, tokens).read_all(tree))
    except RecursionError:
        raise text_error(sql, "expressions nested too deep; write it with fewer parentheses") from None


class _TreeReader:
    """Converts the tree of sqlglot to an expression, node by node, and refuses the nodes that it does not name."""

    def __init__(self, sql: str, tokens: Sequence[Token]) -> None:
        self._sql, self._tokens, self._depth = sql, tokens, 0
        # The ANDs and THENs of the text that no node accounts for: sqlglot reads `a BETWEEN 1 2` and `CASE WHEN 1 2 END` too.
        self._separators = sum(token.token_type in (TokenType.AND, TokenType.THEN) for token in tokens)

    def read_all(self, tree: exp.Expr) -> Expression:
        expression = self._read(tree)
        if self._separators:
            raise self._error("BETWEEN needs an AND, and each WHEN a THEN")
        return expression

    def _read(self, node: object) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH + MAX_PARENTHESES:
            raise self._error(f"expressions nested more than {MAX_DEPTH} deep")
        try:
            return self._convert(node)
        finally:
            self._depth -= 1

    def _operation(self, operator: str, operands: Iterable[object]) -> Operation:
        return Operation(operator, tuple(map(self._read, operands)))

    def _convert(self, node: object) -> Expression:
        self._check_precedence(node)
        match node:
            case exp.Paren():
                return self._read(node.this)
            case exp.And() | exp.Or():
                return self._chain(node)
            case exp.Not():
                return self._operation("not", [node.this])
            case exp.Column():
                return self._column(node)
            case exp.Literal() | exp.Null() | exp.Boolean():
                return self._literal(node)
            case exp.Is(expression=exp.Null()):
                return _negate_if_marked(node, self._operation("is null", [node.this]))
            case exp.In() if not (node.args.get("query") or node.args.get("field") or node.args.get("unnest")):
                return self._operation("in", [node.this, *node.expressions])
            case exp.Between() if node.args.get("symmetric") is None:
                self._separators -= 1
                return self._operation("between", [node.args[name] for name in ("this", "low", "high")])
            case exp.Escape(this=exp.Like() as like):
                return _negate_if_marked(like, self._operation("like", [like.this, like.expression, node.expression]))
            case exp.Escape():
                raise self._error("ESCAPE stands only after the pattern of LIKE")
            case exp.Case():
                return self._case(node)
            case exp.Anonymous():
                return self._function(node)
            case exp.Neg(this=exp.Literal(this=digits)) if digits == str(INT64):  # the least number of 64 bits
                return Literal(-INT64)
            case exp.Neg():
                return self._sign("-", node.this)
            case exp.BitwiseNot():
                return self._operation("~", [node.this])
            case exp.Collate() if isinstance(node.expression, exp.Var | exp.Identifier | exp.Column):
                return Operation("collate", (self._read(node.this), Literal(node.expression.name)))
            case exp.Cast():
                return Operation("cast", (self._read(node.this), Literal(node.to.name)))
            case exp.Binary() if type(node) in BINARY_OPERATORS:
                return _negate_if_marked(node, self._operation(BINARY_OPERATORS[type(node)], [node.left, node.right]))
            case exp.Tuple():
                raise self._error("a list in parentheses stands only after IN")
            case exp.In():
                raise self._error("IN needs a list in parentheses")
            case exp.Concat():
                raise self._error(f"{_source(*node.expressions)} is not allowed in a filter; join texts with ||")
            case exp.Expr():
                raise self._error(quotes_hint(self._sql, self._tokens) or f"{_source(node)} is not allowed in a filter")
        raise self._error("an operand is missing")

    def _check_precedence(self, node: object) -> None:
        """Raises OptionError if sqlglot groups operators unlike SQLite: LIKE, IN and BETWEEN before < and =."""
        rank = RANKS.get(type(node))  # type: ignore[arg-type]
        if rank is None or not isinstance(node, exp.Expr):
            return
        first, *others = [child for child in node.iter_expressions() if child.arg_key != "expressions"]
        is_prefix = isinstance(node, exp.Not | exp.Neg | exp.BitwiseNot)
        for child in (first, *others):
            if _rank(child) < rank + (child is not first and not is_prefix):
                raise self._error(f"precedence is ambiguous near {to_text(self._read(child))!r:.80}; add parentheses")

    def _chain(self, node: exp.Expr) -> Expression:
        """A chain of ANDs or of ORs as one node: it leans to the left and may be as long as the text."""
        kind, operands = type(node), list[object]()
        current: object = node
        while isinstance(current, exp.Connector) and type(current) is kind:
            operands.append(current.right)
            current = current.left
        if kind is exp.And:
            self._separators -= len(operands)
        return self._operation("and" if kind is exp.And else "or", [current, *reversed(operands)])

    def _column(self, node: exp.Column) -> Column:
        name, table = node.this, node.args.get("table")
        if not isinstance(name, exp.Identifier) or node.args.get("db"):
            raise self._error(f'{node.name or "*"!r} is not the name of a column; write a name as price or "price"')
        if table is not None and table.name.lower() not in ("items", "fields"):
            raise self._error(f"no such column: {table.name}.{name.name}")
        return Column(name.name, table.name.lower() if table is not None else None)

    def _literal(self, node: exp.Expr) -> Literal:
        if isinstance(node, exp.Null):
            return Literal(None)
        if isinstance(node, exp.Boolean):
            return Literal(bool(node.this))
        text = node.name
        if node.is_string:
            return Literal(text)
        try:
            is_whole = WHOLE_NUMBER.fullmatch(text) is not None and float(text) < 2 * INT64
            return Literal(int(text) if is_whole else float(text))
        except (ValueError, OptionError):
            raise self._error(f"{text:.40} is too large, or no number") from None

    def _case(self, node: exp.Case) -> Expression:
        """CASE as nested calls of `iif`."""
        branches, default = node.args["ifs"], node.args.get("default")
        self._separators -= len(branches)
        result: Expression = Literal(None) if default is None else self._read(default)
        for branch in reversed(branches):
            condition = self._read(branch.this)
            if node.this is not None:
                condition = Operation("=", (self._read(node.this), condition))
            result = Operation("iif", (condition, self._read(branch.args["true"]), result))
        return result

    def _function(self, node: exp.Anonymous) -> Expression:
        name, operands = node.name.lower(), node.expressions
        if node.this == UNARY_PLUS:
            return self._sign("+", operands[0])
        if name not in FUNCTIONS:
            raise self._error(not_a_function(node.name))
        if name in ("like", "glob") and len(operands) > 1:  # like(pattern, text) is text LIKE pattern
            operands = [operands[1], operands[0], *operands[2:]]
        return self._operation(name, operands)

    def _sign(self, sign: str, operand: object) -> Expression:
        """A sign before an operand; a number with its sign is one literal."""
        expression = self._read(operand)
        value = expression.value if isinstance(expression, Literal) else None
        if isinstance(value, bool | str | None):
            return Operation(sign, (expression,))
        return Literal(-value) if sign == "-" else expression

    def _error(self, reason: str) -> OptionError:
        return text_error(self._sql, reason)


def _source(*nodes: exp.Expr) -> str:
    """The SQL of nodes, as an error quotes it."""
    return f"{' '.join(node.sql(DIALECT) for node in nodes)!r:.80}"


def _rank(node: exp.Expr) -> int:
    """How tightly a node binds; `a NOT IN (1)` binds as `a IN (1)` does."""
    while isinstance(node, exp.Paren) and "written" not in node.meta:
        node = node.this
    if isinstance(node, exp.Not) and RANKS.get(type(node.this)) == RANKS[exp.In]:
        node = node.this
    return RANKS.get(type(node), len(PRECEDENCE))


def _negate_if_marked(node: exp.Expr, expression: Expression) -> Expression:
    return Operation("not", (expression,)) if node.args.get("negate") else expression
