"""A ranking as columns, which CSV files and the data frames of pandas, polars and Arrow have in common."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmretrieve.errors import MissingError, optional_package
from mmretrieve.ranking.hits import Ranking

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """The columns of a ranking by name, each with the type of its values: int, float or str; None stands for a value that is missing.

    They are rank, id, score, a contribution of each term, path, and the fields of the items. A field with the name of another column is
    "field NAME". A field that has a text anywhere is text; so is an empty one.
    """

    values: Mapping[str, Sequence[Any]]
    types: Mapping[str, type]

    @classmethod
    def of(cls, ranking: Ranking, fields: Sequence[Fields]) -> Table:
        """The columns of a ranking and of the fields of each hit."""
        terms = dict.fromkeys([*ranking.weights, *(name for hit in ranking for name in hit.contributions)])
        values: dict[str, Sequence[Any]] = {
            "rank": [hit.rank for hit in ranking],
            "id": list(ranking.ids),
            "score": [hit.score for hit in ranking],
            **{f"contribution {term}": [hit.contributions.get(term) for hit in ranking] for term in terms},
            "path": [hit.path for hit in ranking],
        }
        types: dict[str, type] = {**dict.fromkeys(values, float), "rank": int, "id": str, "path": str}
        kinds = getattr(getattr(ranking.gallery, "manifest", None), "fields", {})
        for name in sorted({*kinds, *(name for of_hit in fields for name in of_hit)}):
            own = [of_hit.get(name) for of_hit in fields]
            is_number = kinds.get(name) == "number" or any(value is not None for value in own)
            kind = float if is_number and not any(isinstance(value, str) for value in own) else str
            column = free_name(name, values)
            values[column] = [str(value) if kind is str and value is not None else value for value in own]
            types[column] = kind
        return cls(values, types)


def free_name(name: str, taken: Container[str]) -> str:
    """The name of a column for a field: its own, or "field NAME" if another column has that.

    >>> free_name("price", {"id"}), free_name("id", {"id", "field id"})
    ('price', 'field field id')
    """
    while name in taken:
        name = f"field {name}"
    return name


def read_fields(gallery: Any, ids: Sequence[str]) -> dict[str, Fields]:
    """Id → the fields of its item, read in one call; none for an item that was deleted since."""
    try:
        return {item.id: item.fields for item in gallery.items(ids)}
    except MissingError:
        return {id_: _fields_of(gallery, id_) for id_ in ids}


def to_pandas(table: Table) -> Any:
    """A `pandas.DataFrame`."""
    pandas = optional_package("pandas")
    dtypes = {int: "int64", float: "float64", str: "object"}
    return pandas.DataFrame({name: pandas.Series(own, dtype=dtypes[table.types[name]]) for name, own in table.values.items()})


def to_polars(table: Table) -> Any:
    """A `polars.DataFrame`."""
    polars = optional_package("polars")
    dtypes = {int: polars.Int64, float: polars.Float64, str: polars.String}
    return polars.DataFrame(_typed(table), schema={name: dtypes[kind] for name, kind in table.types.items()})


def to_arrow(table: Table) -> Any:
    """A `pyarrow.Table`."""
    pyarrow = optional_package("pyarrow")
    dtypes = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    return pyarrow.table(_typed(table), schema=pyarrow.schema([(name, dtypes[kind]) for name, kind in table.types.items()]))


def _typed(table: Table) -> dict[str, list[Any]]:
    """The values in the types of their columns. A whole number of a field may be so large that Arrow refuses to round it."""
    return {name: [value if value is None else table.types[name](value) for value in own] for name, own in table.values.items()}


def _fields_of(gallery: Any, id_: str) -> Fields:
    try:
        fields: Fields = gallery.item(id_).fields
        return fields
    except MissingError:
        return {}
