"""A ranking as columns, which CSV files and the data frames of pandas, polars and Arrow have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mmretrieve.errors import MMRetrieveError
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
            column = f"field {name}" if name in values else name
            values[column] = [str(value) if kind is str and value is not None else value for value in own]
            types[column] = kind
        return cls(values, types)


def to_pandas(table: Table) -> Any:
    """A `pandas.DataFrame`."""
    pandas = _package("pandas")
    dtypes = {int: "int64", float: "float64", str: "object"}
    return pandas.DataFrame({name: pandas.Series(own, dtype=dtypes[table.types[name]]) for name, own in table.values.items()})


def to_polars(table: Table) -> Any:
    """A `polars.DataFrame`."""
    polars = _package("polars")
    dtypes = {int: polars.Int64, float: polars.Float64, str: polars.String}
    return polars.DataFrame(dict(table.values), schema={name: dtypes[kind] for name, kind in table.types.items()})


def to_arrow(table: Table) -> Any:
    """A `pyarrow.Table`."""
    pyarrow = _package("pyarrow")
    dtypes = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    return pyarrow.table(
        dict(table.values), schema=pyarrow.schema([(name, dtypes[kind]) for name, kind in table.types.items()])
    )


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MMRetrieveError(f"this needs the package {name}; install it with: pip install {name}") from error
