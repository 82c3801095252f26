"""Filters as a person sets them: what a gallery's fields hold, and from the choices to an expression over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mmretrieve.filters import Expression
from mmretrieve.filters.expression import And, Column, Comparator, Comparison, In, Literal
from mmretrieve.server.request_schemas import check_public

SEEN = 2_000  # items that are looked at to say what a field holds
CHOICES = 24  # values of a text field that are offered, the most frequent first


class FieldFilter(BaseModel):
    """What one field must be: one of several texts, or a number between two, either of which may be left open."""

    model_config = ConfigDict(extra="forbid")

    field: Annotated[str, AfterValidator(check_public)] = Field(max_length=200)
    any_of: list[str] = Field(default_factory=list, max_length=200)
    at_least: float | None = Field(default=None, allow_inf_nan=False)
    at_most: float | None = Field(default=None, allow_inf_nan=False)


@dataclass(frozen=True)
class Facet:
    """What a field holds, as far as the items that were looked at tell: texts with their counts, or from where to where."""

    field: str
    choices: tuple[tuple[str, int], ...] = ()
    lowest: float | None = None
    highest: float | None = None


def facets(kinds: Mapping[str, str], fields: Collection[Mapping[str, object]]) -> list[Facet]:
    """One facet for each field of that kind that the items have; `fields` are those of some items."""
    return [_facet(name, kind, [of[name] for of in fields if of.get(name) is not None]) for name, kind in kinds.items()]


def expression(filters: Iterable[FieldFilter], where: Expression | None = None) -> Expression | None:
    """What all filters, and `where` beside them, make together; None where there is nothing to fulfil."""
    parts = [part for one in filters for part in _conditions(one)] + ([where] if where else [])
    return And(tuple(parts)) if len(parts) > 1 else next(iter(parts), None)


def _facet(name: str, kind: str, values: Sequence[object]) -> Facet:
    if kind == "number":
        numbers = [float(value) for value in values if isinstance(value, int | float)]
        return Facet(name, lowest=min(numbers, default=None), highest=max(numbers, default=None))
    return Facet(name, tuple(Counter(map(str, values)).most_common(CHOICES)))


def _conditions(one: FieldFilter) -> Iterable[Expression]:
    field = Column(one.field, "fields")
    if one.any_of:
        yield In(field, tuple(map(Literal, one.any_of)))
    if one.at_least is not None:
        yield Comparison(Comparator.GE, field, Literal(one.at_least))
    if one.at_most is not None:
        yield Comparison(Comparator.LE, field, Literal(one.at_most))
