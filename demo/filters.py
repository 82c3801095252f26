"""Filters as a person sets them: choices of field values → one SQL expression."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mmretrieve.gallery.store.statements import quoted
from mmretrieve.server.schemas import without_locations


class FieldFilter(BaseModel):
    """What one field must be: one of several texts, or a number between two, either of which may be left open."""

    model_config = ConfigDict(extra="forbid")

    field: Annotated[str, AfterValidator(without_locations)] = Field(max_length=200)
    any_of: list[str] = Field(default_factory=list, max_length=200)
    at_least: float | None = Field(default=None, allow_inf_nan=False)
    at_most: float | None = Field(default=None, allow_inf_nan=False)


def expression(filters: Iterable[FieldFilter], where: str | None = None) -> str | None:
    """The SQL expression that all filters, and `where` beside them, make together; None where there is nothing to fulfil."""
    parts = [part for one in filters for part in _conditions(one)]
    if where and where.strip():
        parts.append(f"({where})")
    return " AND ".join(parts) or None


def _conditions(one: FieldFilter) -> Iterable[str]:
    name = quoted(one.field)
    if one.any_of:
        yield f"{name} IN ({', '.join(map(_text, one.any_of))})"
    if one.at_least is not None:
        yield f"{name} >= {one.at_least!r}"
    if one.at_most is not None:
        yield f"{name} <= {one.at_most!r}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
