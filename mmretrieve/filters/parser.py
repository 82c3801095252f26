"""Reads the text of a filter as SQLite would. With `dialect`, all that loads sqlglot."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlglot import TokenType, exp

from mmretrieve.errors import OptionError
from mmretrieve.filters.dialect import MAX_PARENTHESES, PLUS, ParsedText, parse_tree, quotes_hint, wrong
from mmretrieve.filters.expression import (
    FUNCTIONS,
    INT64,
    MAX_DEPTH,
    And,
    Arithmetic,
    Between,
    Cast,
    Collate,
    Column,
    Comparator,
    Comparison,
    Expression,
    Function,
    In,
    IsNull,
    Like,
    Literal,
    Matcher,
    Not,
    Operator,
    Or,
    Sign,
    Unary,
    check_size,
)
from mmretrieve.filters.sqlite import to_text

COMPARATORS: dict[type[exp.Expr], Comparator] = {
    exp.EQ: Comparator.EQ,
    exp.NEQ: Comparator.NE,
    exp.LT: Comparator.LT,
    exp.LTE: Comparator.LE,
    exp.GT: Comparator.GT,
    exp.GTE: Comparator.GE,
    exp.Is: Comparator.IS,
    exp.NullSafeEQ: Comparator.IS,
    exp.NullSafeNEQ: Comparator.IS_NOT,
}
OPERATORS: dict[type[exp.Expr], Operator] = {
    exp.Add: Operator.ADD,
    exp.Sub: Operator.SUBTRACT,
    exp.Mul: Operator.MULTIPLY,
    exp.Div: Operator.DIVIDE,
    exp.Mod: Operator.MODULO,
    exp.DPipe: Operator.CONCATENATE,
    exp.BitwiseAnd: Operator.BIT_AND,
    exp.BitwiseOr: Operator.BIT_OR,
    exp.BitwiseLeftShift: Operator.SHIFT_LEFT,
    exp.BitwiseRightShift: Operator.SHIFT_RIGHT,
}
RANKS: tuple[tuple[type[exp.Expr], ...], ...] = (  # what binds more loosely comes first, as SQLite has it
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
RANK = {kind: rank for rank, kinds in enumerate(RANKS) for kind in kinds}
WHOLE_NUMBER = re.compile(r"[0-9]+")


def parse_text(sql: str) -> Expression:
    """See `mmretrieve.filters.parse`."""
    try:
        return check_size(_Reader(parse_tree(sql)).whole())
    except RecursionError:
        raise wrong(sql, "expressions nested too deep; write it with fewer parentheses") from None


class _Reader:
    """From the tree of sqlglot to ours, node by node; what is not named here is refused."""

    def __init__(self, parsed: ParsedText) -> None:
        self._parsed, self._depth = parsed, 0
        self._separators = sum(token.token_type in (TokenType.AND, TokenType.THEN) for token in parsed.tokens)

    def whole(self) -> Expression:
        expression = self._node(self._parsed.tree)
        if self._separators:  # sqlglot reads `a BETWEEN 1 2` and `CASE WHEN 1 2 END` too
            raise self._wrong("BETWEEN needs an AND, and each WHEN a THEN")
        return expression

    def _node(self, node: object) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH + MAX_PARENTHESES:
            raise self._wrong(f"expressions nested more than {MAX_DEPTH} deep")
        try:
            return self._read(node)
        finally:
            self._depth -= 1

    def _read(self, node: object) -> Expression:
        self._check_precedence(node)
        match node:
            case exp.Paren():
                return self._node(node.this)
            case exp.And() | exp.Or():
                return self._chain(node)
            case exp.Not():
                return Not(self._node(node.this))
            case exp.Column():
                return self._column(node)
            case exp.Literal() | exp.Null() | exp.Boolean():
                return self._literal(node)
            case exp.Is(expression=exp.Null()):
                return _negated(node, IsNull(self._node(node.this)))
            case exp.In() if not (node.args.get("query") or node.args.get("field") or node.args.get("unnest")):
                return In(self._node(node.this), self._nodes(node.expressions))
            case exp.Between() if node.args.get("symmetric") is None:
                self._separators -= 1
                return Between(*(self._node(node.args[name]) for name in ("this", "low", "high")))
            case exp.Like() | exp.Glob() | exp.Escape():
                return self._like(node)
            case exp.Case():
                return self._case(node)
            case exp.Anonymous():
                return self._function(node)
            case exp.Neg(this=exp.Literal(this=digits)) if digits == str(INT64):  # the least number of 64 bits
                return Literal(-INT64)
            case exp.Neg() | exp.BitwiseNot():
                return self._signed(Sign.MINUS if isinstance(node, exp.Neg) else Sign.BIT_NOT, self._node(node.this))
            case exp.Collate() if isinstance(node.expression, exp.Var | exp.Identifier | exp.Column):
                return Collate(self._node(node.this), node.expression.name)
            case exp.Cast():
                return Cast(self._node(node.this), node.to.name)
            case exp.Binary() if type(node) in COMPARATORS:
                comparison = Comparison(COMPARATORS[type(node)], self._node(node.left), self._node(node.right))
                return _negated(node, comparison)
            case exp.Binary() if type(node) in OPERATORS:
                return Arithmetic(OPERATORS[type(node)], self._node(node.left), self._node(node.right))
            case exp.Tuple():
                raise self._wrong("a list in parentheses stands only after IN")
            case exp.In():
                raise self._wrong("IN needs a list in parentheses")
        hint = quotes_hint(self._parsed.sql, self._parsed.tokens)
        raise self._wrong(f"{type(node).__name__.lower()} is not allowed in a filter{hint}")

    def _check_precedence(self, node: object) -> None:
        """OptionError where sqlglot groups operators otherwise than SQLite would: LIKE, IN and BETWEEN before < and =."""
        rank = RANK.get(type(node))  # type: ignore[arg-type]
        if rank is None or not isinstance(node, exp.Expr):
            return
        first, *others = [child for child in node.iter_expressions() if child.arg_key != "expressions"]
        prefix = isinstance(node, exp.Not | exp.Neg | exp.BitwiseNot)
        for child in [child for child in (first, *others) if _rank(child) < rank + (child is not first and not prefix)]:
            raise self._wrong(f"what belongs together is not clear at {to_text(self._node(child))!r:.80}; add parentheses")

    def _chain(self, node: exp.Expr) -> Expression:
        """A chain of ANDs, or of ORs, at once: it leans to the left and may be as long as the text."""
        kind, parts = type(node), list[object]()
        current: object = node
        while isinstance(current, exp.Connector) and type(current) is kind:
            parts.append(current.right)
            current = current.left
        operands = self._nodes([current, *reversed(parts)])
        if kind is exp.And:
            self._separators -= len(parts)
        return And(operands) if kind is exp.And else Or(operands)

    def _nodes(self, nodes: Sequence[object]) -> tuple[Expression, ...]:
        return tuple(map(self._node, nodes))

    def _column(self, node: exp.Column) -> Column:
        name, table = node.this, node.args.get("table")
        if not isinstance(name, exp.Identifier) or node.args.get("db"):
            raise self._wrong(f'{node.name or "*"!r} is not the name of a column; write a name as price or "price"')
        if table is not None and table.name.lower() not in ("items", "fields"):
            raise self._wrong(f"no such column: {table.name}.{name.name}")
        return Column(name.name, table.name.lower() if table is not None else None)

    def _literal(self, node: exp.Expr) -> Literal:
        if isinstance(node, exp.Null):
            return Literal(None)
        if isinstance(node, exp.Boolean):
            return Literal(bool(node.this))
        if node.is_string:
            return Literal(node.name)
        text = node.name
        try:
            whole = WHOLE_NUMBER.fullmatch(text) is not None and float(text) < 2 * INT64
            return Literal(int(text) if whole else float(text))
        except (ValueError, OptionError):
            raise self._wrong(f"{text:.40} is too large, or no number") from None

    def _like(self, node: exp.Expr) -> Expression:
        test, escape = (node.this, node.expression) if isinstance(node, exp.Escape) else (node, None)
        if not isinstance(test, exp.Like | exp.Glob):
            raise self._wrong("ESCAPE stands only behind the pattern of LIKE")
        matcher = Matcher.GLOB if isinstance(test, exp.Glob) else Matcher.LIKE
        ending = None if escape is None else self._node(escape)
        return _negated(test, Like(matcher, self._node(test.this), self._node(test.expression), ending))

    def _case(self, node: exp.Case) -> Expression:
        """CASE as the `iif`s that it is short for."""
        branches, default = node.args["ifs"], node.args.get("default")
        self._separators -= len(branches)
        result: Expression = Literal(None) if default is None else self._node(default)
        for branch in reversed(branches):
            test = self._node(branch.this)
            if node.this is not None:
                test = Comparison(Comparator.EQ, self._node(node.this), test)
            result = Function("iif", (test, self._node(branch.args["true"]), result))
        return result

    def _function(self, node: exp.Anonymous) -> Expression:
        if node.this == PLUS:
            return self._signed(Sign.PLUS, self._node(node.expressions[0]))
        if node.name.lower() not in FUNCTIONS:
            raise self._wrong(f"not authorized to use function: {node.name}; there are: {', '.join(FUNCTIONS)}")
        return Function(node.name, self._nodes(node.expressions))

    def _signed(self, sign: Sign, operand: Expression) -> Expression:
        """A number with its sign is a number."""
        value = operand.value if isinstance(operand, Literal) else None
        if sign is Sign.BIT_NOT or isinstance(value, bool | str | None):
            return Unary(sign, operand)
        if sign is Sign.PLUS:
            return operand
        return Literal(-value)

    def _wrong(self, what: str) -> OptionError:
        return wrong(self._parsed.sql, what)


def _rank(node: exp.Expr) -> int:
    """How tightly a node binds; `a NOT IN (1)` binds as `a IN (1)` does."""
    while isinstance(node, exp.Paren) and "written" not in node.meta:
        node = node.this
    if isinstance(node, exp.Not) and RANK.get(type(node.this)) == RANK[exp.In]:
        node = node.this
    return RANK.get(type(node), len(RANKS))


def _negated(node: exp.Expr, expression: Expression) -> Expression:
    return Not(expression) if node.args.get("negate") else expression
