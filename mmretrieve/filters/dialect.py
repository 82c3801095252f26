"""The grammar of filters, for sqlglot: SQLite's expressions, without statements, queries, comments and parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any, ClassVar

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import ParseError, TokenError
from sqlglot.parsers.sqlite import SQLiteParser

from mmretrieve.errors import OptionError
from mmretrieve.filters.expression import MAX_LENGTH
from mmretrieve.filters.sqlite import shortened

MAX_PARENTHESES = 30  # nested
# fmt: off
WORDS = {word: TokenType[word] for word in (
    "AND", "OR", "NOT", "IN", "IS", "NULL", "ISNULL", "NOTNULL", "LIKE", "GLOB", "BETWEEN", "ESCAPE", "TRUE", "FALSE", "COLLATE",
    "CASE", "WHEN", "THEN", "ELSE", "END",
)} | {"AS": TokenType.ALIAS}
SIGNS = {sign: SQLite.Tokenizer.KEYWORDS[sign] for sign in ("==", "<>", "!=", "<=", ">=", "||")}
NAMES = (TokenType.VAR, TokenType.IDENTIFIER)
ALLOWED_TOKENS = frozenset((*WORDS.values(), *SIGNS.values(), *NAMES, *(TokenType[name] for name in (
    "STRING", "NUMBER", "HEX_STRING", "L_PAREN", "R_PAREN", "COMMA", "DOT", "EQ", "LT", "GT", "PLUS", "DASH", "STAR", "SLASH", "MOD",
    "AMP", "PIPE", "TILDE",
))))
# fmt: on
FORBIDDEN_TOKENS = {
    TokenType.SEMICOLON: "a second statement",
    TokenType.PLACEHOLDER: "a parameter",
    TokenType.PARAMETER: "a parameter",
    TokenType.COLON: "a parameter",
}
COMPARING = tuple(TokenType[name] for name in ("EQ", "NEQ", "LT", "LTE", "GT", "GTE", "LIKE", "GLOB"))
ENDING = (TokenType.AND, TokenType.OR, TokenType.R_PAREN, TokenType.COMMA)
NULL_TESTS = (TokenType.ISNULL, TokenType.NOTNULL)
QUERY_WORDS = frozenset(["SELECT", "VALUES", "WITH"])
HEXADECIMAL = re.compile(r"0[xX]0*[0-9a-fA-F]{1,16}")

PLUS = "unary plus"  # sqlglot would drop it, and SQLite compares `+price` otherwise than `price`


class FilterDialect(SQLite):
    """SQLite without statements: every word but WORDS is a name, and every function only its name and arguments."""

    class Tokenizer(SQLite.Tokenizer):
        KEYWORDS = SIGNS | WORDS

    class Parser(SQLiteParser):
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {"CAST": lambda self: _cast(self)}
        NO_PAREN_FUNCTIONS: ClassVar[dict[TokenType, Any]] = {}
        NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {"CASE": SQLiteParser.NO_PAREN_FUNCTION_PARSERS["CASE"]}
        SUBQUERY_PREDICATES: ClassVar[dict[TokenType, Any]] = {}
        UNARY_PARSERS: ClassVar[dict[TokenType, Any]] = {
            **{kind: SQLiteParser.UNARY_PARSERS[kind] for kind in (TokenType.NOT, TokenType.DASH, TokenType.TILDE)},
            TokenType.PLUS: lambda self: self.expression(exp.Anonymous(this=PLUS, expressions=[self._parse_unary()])),
        }

        def _parse_paren(self) -> exp.Expr | None:
            """Marks parentheses that were written: sqlglot adds some of its own."""
            node = super()._parse_paren()
            if isinstance(node, exp.Paren):
                node.meta["written"] = True
            return node


DIALECT = FilterDialect()


@dataclass(frozen=True)
class ParsedText:
    """The tree of sqlglot for a text, and its tokens."""

    sql: str
    tree: exp.Expr
    tokens: Sequence[Token]


def parse_tree(sql: str) -> ParsedText:
    """The one expression that a text is. OptionError where it is none, too long, or could be more than that."""
    if not isinstance(sql, str) or not sql.strip():
        raise OptionError(f"where must be an SQL expression such as \"price < 20 AND colour = 'red'\", got {sql!r:.80}")
    if len(sql) > MAX_LENGTH or "\0" in sql:
        raise OptionError(f"where must be text of up to {MAX_LENGTH:,} characters without NUL, got {len(sql):,}")
    tokens = _tokens(sql)
    try:
        trees = DIALECT.parser().parse_into(exp.Condition, tokens, sql)
    except ParseError as error:
        raise _unreadable(sql, tokens, error) from None
    if len(trees) != 1 or trees[0] is None:
        raise wrong(sql, "there is no expression in it")
    return ParsedText(sql, trees[0], tokens)


def wrong(sql: str, what: str) -> OptionError:
    """The error of a text, which it quotes."""
    return OptionError(f"where {shortened(sql)!r}: {what}")


def _tokens(sql: str) -> list[Token]:
    """The tokens of one expression that is closed in itself. OptionError for whatever could be more than that."""
    try:
        tokens = DIALECT.tokenize(sql)
    except TokenError:
        started = "a comment" if "/*" in sql else "a quotation mark"
        raise wrong(sql, f"{started} is never closed") from None
    if not tokens:
        raise wrong(sql, "there is no expression in it")
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if what := _forbidden(token, None if following is None else following.token_type, _source(sql, [token])):
            raise wrong(sql, what)
    steps = [(token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN) for token in tokens]
    depths = list(accumulate(steps, initial=0))
    if depths[-1] or min(depths) < 0:
        raise wrong(sql, "parentheses do not match")
    if max(depths) > MAX_PARENTHESES:
        raise wrong(sql, f"parentheses nested more than {MAX_PARENTHESES} deep")
    return tokens


def _forbidden(token: Token, following: TokenType | None, source: str) -> str | None:
    """What is wrong with a token, from what it is and what stands behind it; None for one that filters may have."""
    kind, text = token.token_type, token.text
    if token.comments:
        return "holds a comment; leave it out"
    if kind in FORBIDDEN_TOKENS or (kind is TokenType.VAR and text[0] == "$"):
        return f"holds {FORBIDDEN_TOKENS.get(kind, 'a parameter')} ({text}); write one expression"
    if kind is TokenType.VAR and text.upper() in QUERY_WORDS:
        return f"holds a query of its own ({text}); write one expression"
    if kind is TokenType.HEX_STRING and not HEXADECIMAL.fullmatch(source):
        return f"did not expect {source:.40}; a number has up to 64 bits, and bytes are no value"
    if kind is TokenType.IN and following is not TokenType.L_PAREN:
        return "IN needs a list in parentheses"
    if kind not in ALLOWED_TOKENS or (kind is TokenType.NOT and (text == "!" or following in NULL_TESTS)):
        return f"did not expect {source!r}"
    return None


def _cast(parser: SQLiteParser) -> exp.Expr:
    operand = parser._parse_disjunction()
    if not parser._match(TokenType.ALIAS):
        parser.raise_error("CAST needs AS and a type")
    return parser.expression(exp.Cast(this=operand, to=parser._parse_id_var()))


def _unreadable(sql: str, tokens: Sequence[Token], error: ParseError) -> OptionError:
    """Where reading stopped and, where text seems to stand without its quotes, what was meant."""
    first = error.errors[0] if error.errors else {}
    place = first.get("highlight") or "the end"
    hint = quotes_hint(sql, tokens)
    return wrong(sql, f"syntax error near {place!r}{hint}")


def quotes_hint(sql: str, tokens: Sequence[Token]) -> str:
    """`colour = dark green` → what it is with quotes; nothing where all that follows a comparison is one name or value."""
    for at, (name, sign, first) in enumerate(zip(tokens, tokens[1:], tokens[2:], strict=False)):
        if name.token_type in NAMES and sign.token_type in COMPARING and first.token_type in (TokenType.VAR, TokenType.STAR):
            words = list(takewhile(lambda token: token.token_type not in ENDING, tokens[at + 2 :]))
            if len(words) > 1 and all(word.token_type is not TokenType.STRING for word in words):
                return f"; put text in quotes: {_source(sql, [name, sign])} '{_source(sql, words)}'"
    return ""


def _source(sql: str, tokens: Sequence[Token]) -> str:
    return sql[tokens[0].start : tokens[-1].end + 1]
