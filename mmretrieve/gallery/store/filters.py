"""What `--where` may be: one SQL expression over an item's fields. Whatever could be more than that is refused before SQLite sees it."""

from __future__ import annotations

import re

from mmretrieve.errors import OptionError

# what is quoted, as SQLite reads it; a quote without its end is left over and refused
QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]""")
QUERIES = re.compile(r"\b(?:SELECT|VALUES|WITH)\b", re.IGNORECASE)
MAX_LENGTH = 10_000


def check_where(where: str) -> str:
    """The expression as it came. OptionError unless it is one, closed in itself: no second statement, comment or parameter.

    `check_where("price < 20 AND colour = 'red'")` passes; `"1); DROP TABLE items"` does not.
    """
    if not isinstance(where, str) or not where.strip():
        raise OptionError(f"where must be an SQL expression such as \"price < 20 AND colour = 'red'\", got {where!r}")
    if len(where) > MAX_LENGTH or "\0" in where:
        raise OptionError(f"where must be text of up to {MAX_LENGTH} characters, got {len(where)}")
    bare = QUOTED.sub("''", where)
    for mark, what in ((";", "a second statement"), ("--", "a comment"), ("/*", "a comment"), ("?", "a parameter")):
        if mark in bare:
            raise OptionError(f"where must be one expression, but {where!r} holds {what} ({mark})")
    if found := QUERIES.search(bare):
        raise OptionError(f"where must be one expression, but {where!r} holds a query of its own ({found[0]})")
    if bare.replace("''", "").count("'") or '"' in bare or "`" in bare or "[" in bare:
        raise OptionError(f"where {where!r}: a quotation mark is never closed")
    depth = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
    if depth:
        raise OptionError(f"where {where!r}: parentheses do not match")
    return where


def without_text(where: str) -> str:
    """What is left of an expression without the text in it: names, in quotation marks or not, numbers and signs."""
    return QUOTED.sub(lambda quoted: "''" if quoted[0].startswith("'") else quoted[0], where)


def strict(where: str) -> str:
    """The same expression, its names in the quotation marks that SQLite never takes for text: `"colur"` is unknown, not a word."""
    return QUOTED.sub(lambda quoted: _name(quoted[0]) if quoted[0].startswith('"') else quoted[0], where)


def _name(quoted: str) -> str:
    return "`" + quoted[1:-1].replace('""', '"').replace("`", "``") + "`"
