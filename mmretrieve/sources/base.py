"""What a source of pictures is: something that can be counted and gone through, always in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mmretrieve.sources.location import Location

Value = str | int | float | None


@dataclass(frozen=True, slots=True)
class SourceItem:
    """A picture to add: its id is the path below the source with forward slashes, unless a table names another."""

    id: str
    location: Location
    fields: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """What a source holds but cannot give: a broken member, a record without a picture."""

    id: str
    reason: str


Entry = SourceItem | UnreadableItem


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table hold the pictures and their ids; None leaves the choice to the table's names."""

    image: str | None = None
    id: str | None = None

    def __bool__(self) -> bool:
        """Whether either is named."""
        return self.image is not None or self.id is not None


class Source(Protocol):
    """`name` says which source it is, and is the same whenever the same one is read again: `sync` looks for it."""

    name: str

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Entry]: ...
