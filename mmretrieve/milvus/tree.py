"""What an SQL filter says, as a tree: fields, values, and how they are compared."""

from __future__ import annotations

from dataclasses import dataclass

from mmretrieve.sources.base import Value


@dataclass(frozen=True)
class Name:
    """A field, or a column of every item, as it was written; with `fields.` before it, surely a field."""

    name: str
    of_fields: bool = False


@dataclass(frozen=True)
class Literal:
    value: Value


@dataclass(frozen=True)
class Compare:
    sign: str  # as Milvus writes it
    left: Node
    right: Node


@dataclass(frozen=True)
class In:
    left: Node
    values: tuple[Node, ...]


@dataclass(frozen=True)
class Like:
    left: Node
    pattern: Node


@dataclass(frozen=True)
class IsNull:
    left: Node


@dataclass(frozen=True)
class Not:
    inner: Node


@dataclass(frozen=True)
class All:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Any:
    parts: tuple[Node, ...]


Node = Name | Literal | Compare | In | Like | IsNull | Not | All | Any
