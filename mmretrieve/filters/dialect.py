"""The grammar of filters for sqlglot: expressions of SQLite without statements, queries, comments and parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, takewhile
from typing import Any, ClassVar

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import ParseError, TokenError
from sqlglot.parsers.sqlite import SQLiteParser

from mmretrieve.errors import OptionError
from mmretrieve.filters.expression import MAX_LENGTH
from mmretrieve.filters.sqlite import text_error

MAX_PARENTHESES = 30  # nested
# fmt: off
WORDS = {word: TokenType[word] for word in (
    "AND", "OR", "NOT", "IN", "IS", "NULL", "ISNULL", "NOTNULL", "LIKE", "GLOB", "BETWEEN", "ESCAPE", "TRUE", "FALSE", "COLLATE",
    "CASE", "WHEN", "THEN", "ELSE", "END",
)} | {"AS": TokenType.ALIAS}
SIGNS = {sign: SQLite.Tokenizer.KEYWORDS[sign] for sign in ("==", "<>", "!=", "<=", ">=", "||")}
NAME_TOKENS = (TokenType.VAR, TokenType.IDENTIFIER)
ALLOWED_TOKENS = frozenset((*WORDS.values(), *SIGNS.values(), *NAME_TOKENS, *(TokenType[name] for name in (
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
COMPARISON_TOKENS = tuple(TokenType[name] for name in ("EQ", "NEQ", "LT", "LTE", "GT", "GTE", "LIKE", "GLOB"))
END_TOKENS = (TokenType.AND, TokenType.OR, TokenType.R_PAREN, TokenType.COMMA)
NULL_TEST_TOKENS = (TokenType.ISNULL, TokenType.NOTNULL)
QUERY_WORDS = frozenset(["SELECT", "VALUES", "WITH"])
HEXADECIMAL = re.compile(r"0[xX]0*[0-9a-fA-F]{1,16}")

UNARY_PLUS = "unary plus"  # sqlglot would drop it, but SQLite compares `+price` without the column's type


class FilterDialect(SQLite):
    """SQLite without statements: every word that is not in WORDS is a name; functions are a name and arguments, nothing else."""

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
            TokenType.PLUS: lambda self: self.expression(exp.Anonymous(this=UNARY_PLUS, expressions=[self._parse_unary()])),
        }

        def _parse_paren(self) -> exp.Expr | None:
            """Marks the parentheses of the text, because sqlglot adds others."""
            node = super()._parse_paren()
            if isinstance(node, exp.Paren):
                node.meta["written"] = True
            return node


DIALECT = FilterDialect()


def parse_tree(sql: str) -> tuple[exp.Expr, list[Token]]:
    """The tree of sqlglot for a text, and its tokens. Raises OptionError unless the text is one expression of allowed length."""
    if not isinstance(sql, str) or not sql.strip():
        raise OptionError(f"where must be an SQL expression such as \"price < 20 AND colour = 'red'\", got {sql!r:.80}")
    if len(sql) > MAX_LENGTH or "\0" in sql:
        raise OptionError(f"where must be text of up to {MAX_LENGTH:,} characters without NUL, got {len(sql):,}")
    tokens = _tokenize(sql)
    try:
        trees = DIALECT.parser().parse_into(exp.Condition, tokens, sql)
    except ParseError as error:
        raise _syntax_error(sql, tokens, error) from None
    if len(trees) != 1 or trees[0] is None:
        raise text_error(sql, "there is no expression in it")
    return trees[0], tokens


def _tokenize(sql: str) -> list[Token]:
    """The tokens of a text. Raises OptionError for tokens that filters must not have and for parentheses that do not match."""
    try:
        tokens = DIALECT.tokenize(sql)
    except TokenError:
        opened = "a comment" if "/*" in sql else "a quotation mark"
        raise text_error(sql, f"{opened} is never closed") from None
    if not tokens:
        raise text_error(sql, "there is no expression in it")
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if reason := _reason_to_refuse(token, None if following is None else following.token_type, _source(sql, [token])):
            raise text_error(sql, reason)
    steps = [(token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN) for token in tokens]
    depths = list(accumulate(steps, initial=0))
    if depths[-1] or min(depths) < 0:
        raise text_error(sql, "parentheses do not match")
    if max(depths) > MAX_PARENTHESES:
        raise text_error(sql, f"parentheses nested more than {MAX_PARENTHESES} deep")
    return tokens


def _reason_to_refuse(token: Token, following: TokenType | None, source: str) -> str | None:
    """Why a token is refused, judged by its type and that of the following token; None if it is allowed."""
    kind, text = token.token_type, token.text
    if token.comments:
        return "a comment is not allowed; leave it out"
    if kind in FORBIDDEN_TOKENS or (kind is TokenType.VAR and text[0] == "$"):
        return f"{FORBIDDEN_TOKENS.get(kind, 'a parameter')} ({text}) is not allowed; write one expression"
    if kind is TokenType.VAR and text.upper() in QUERY_WORDS:
        return f"a query ({text}) is not allowed; write one expression"
    if kind is TokenType.HEX_STRING and not HEXADECIMAL.fullmatch(source):
        return f"unexpected {source:.40}; a number has up to 64 bits, and bytes are not supported"
    if kind is TokenType.IN and following is not TokenType.L_PAREN:
        return "IN needs a list in parentheses"
    if kind not in ALLOWED_TOKENS or (kind is TokenType.NOT and (text == "!" or following in NULL_TEST_TOKENS)):
        return f"unexpected {source!r}"
    return None


def _cast(parser: SQLiteParser) -> exp.Expr:
    operand = parser._parse_disjunction()
    if not parser._match(TokenType.ALIAS):
        parser.raise_error("CAST needs AS and a type")
    return parser.expression(exp.Cast(this=operand, to=parser._parse_id_var()))


def _syntax_error(sql: str, tokens: Sequence[Token], error: ParseError) -> OptionError:
    """The error of a text that sqlglot cannot parse: what to write if quotation marks seem to be missing, else the place."""
    first = error.errors[0] if error.errors else {}
    place = first.get("highlight") or "the end"
    return text_error(sql, quotes_hint(sql, tokens) or f"syntax error near {place!r}")


def quotes_hint(sql: str, tokens: Sequence[Token]) -> str:
    """For `colour = dark green`, the same with quotes; "" if every comparison is followed by one name or value only."""
    for i, (name, sign, first) in enumerate(zip(tokens, tokens[1:], tokens[2:], strict=False)):
        if (
            name.token_type in NAME_TOKENS
            and sign.token_type in COMPARISON_TOKENS
            and first.token_type in (TokenType.VAR, TokenType.STAR)
        ):
            words = list(takewhile(lambda token: token.token_type not in END_TOKENS, tokens[i + 2 :]))
            if len(words) > 1 and all(word.token_type is not TokenType.STRING for word in words):
                return f"put text in quotes: {_source(sql, [name, sign])} '{_source(sql, words)}'"
    return ""


def _source(sql: str, tokens: Sequence[Token]) -> str:
    """The text of tokens in one line."""
    return " ".join(sql[tokens[0].start : tokens[-1].end + 1].split())
