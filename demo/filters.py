"""Filters as a person sets them: what a gallery's fields hold, and from the choices to an expression over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mmretrieve.gallery.store.statements import quoted
from mmretrieve.server.request_schemas import without_places

SEEN = 2_000  # items that are looked at to say what a field holds
CHOICES = 24  # values of a text field that are offered, the most frequent first


class FieldFilter(BaseModel):
    """What one field must be: one of several texts, or a number between two, either of which may be left open."""

    model_config = ConfigDict(extra="forbid")

    field: Annotated[str, AfterValidator(without_places)] = Field(max_length=200)
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


def expression(filters: Iterable[FieldFilter], where: str | None = None) -> str | None:
    """The SQL expression that all filters, and `where` beside them, make together; None where there is nothing to fulfil."""
    parts = [part for one in filters for part in _conditions(one)]
    if where and where.strip():
        parts.append(f"({where})")
    return " AND ".join(parts) or None


def _facet(name: str, kind: str, values: Sequence[object]) -> Facet:
    if kind == "number":
        numbers = [float(value) for value in values if isinstance(value, int | float)]
        return Facet(name, lowest=min(numbers, default=None), highest=max(numbers, default=None))
    return Facet(name, tuple(Counter(map(str, values)).most_common(CHOICES)))


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
