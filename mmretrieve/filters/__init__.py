"""Filters over the fields of items: one structure, read from SQL or JSON and translated to SQLite and Milvus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

from mmretrieve.concurrency import FORK_GATE
from mmretrieve.filters.expression import STRUCTURE_KEYS, Expression, check_size, columns, from_dict, from_fields, to_dict
from mmretrieve.filters.milvus import to_milvus
from mmretrieve.filters.sqlite import to_sqlite

__all__ = ["Expression", "columns", "from_dict", "from_fields", "parse", "read_filter", "to_dict", "to_milvus", "to_sqlite"]

Where = str | Expression | Mapping[str, Any]
"""A filter as a caller gives it: SQL, values by field (`{"colour": "red"}`), an expression, or its structure (see `to_dict`)."""


def parse(sql: str) -> Expression:
    """The expression of an SQL text, with the meaning that it has in SQLite.

    Raises OptionError, in one line that names the part, for anything but one expression over columns with the functions of
    `expression.FUNCTIONS`, and for text that is too long or too deep.

    >>> parse("price < 20")
    Operation(operator='<', operands=(Column(name='price', table=None), Literal(value=20)))
    """
    with FORK_GATE.no_fork():
        from mmretrieve.filters.parser import parse_text  # loads sqlglot with the first filter of a process

    return parse_text(sql)


@overload
def read_filter(where: None) -> None: ...
@overload
def read_filter(where: Where) -> Expression: ...
def read_filter(where: Where | None) -> Expression | None:
    """The expression of a filter in any of its forms, or None. Raises OptionError if it is not a filter."""
    if where is None:
        return None
    if isinstance(where, Expression):
        return check_size(where)
    if not isinstance(where, Mapping):
        return parse(where)
    return from_dict(where) if STRUCTURE_KEYS & where.keys() else from_fields(where)
