"""Filters as a person sets them: choices of field values → one expression."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mmretrieve.filters import Expression
from mmretrieve.filters.expression import And, Column, Comparator, Comparison, In, Literal
from mmretrieve.server.schemas import check_public


class FieldFilter(BaseModel):
    """What one field must be: one of several texts, or a number between two, either of which may be left open."""

    model_config = ConfigDict(extra="forbid")

    field: Annotated[str, AfterValidator(check_public)] = Field(max_length=200)
    any_of: list[str] = Field(default_factory=list, max_length=200)
    at_least: float | None = Field(default=None, allow_inf_nan=False)
    at_most: float | None = Field(default=None, allow_inf_nan=False)


def expression(filters: Iterable[FieldFilter], where: Expression | None = None) -> Expression | None:
    """All filters, and `where` beside them, as one expression; None if there are none."""
    parts = [part for one in filters for part in _conditions(one)] + ([where] if where else [])
    return And(tuple(parts)) if len(parts) > 1 else next(iter(parts), None)


def _conditions(one: FieldFilter) -> Iterable[Expression]:
    field = Column(one.field, "fields")
    if one.any_of:
        yield In(field, tuple(map(Literal, one.any_of)))
    if one.at_least is not None:
        yield Comparison(Comparator.GE, field, Literal(one.at_least))
    if one.at_most is not None:
        yield Comparison(Comparator.LE, field, Literal(one.at_most))
