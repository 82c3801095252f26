"""Finding what a file says of a query: by an id that others may spell differently, and by the prompt."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from mmretrieve.composer_input import ComposerInput
from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.images import SUFFIXES

V = TypeVar("V")
NAMED = 3  # missing entries that a message names
logger = logging.getLogger(__name__)


class IdLookup:
    """Finds the id that a file means: the same text, else the same bare name where only one id of the file has it.

    A bare name has no folder, no ending of a picture file and no leading zeros: "images/021179.jpg" and "21179" are one.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = frozenset(ids)
        self._bare: dict[str, list[str]] = {}
        for one in sorted(self._ids):
            self._bare.setdefault(bare_name(one), []).append(one)

    def find(self, name: str) -> str | None:
        """The file's own id, or None where it has none for this name, or more than one."""
        if name in self._ids:
            return name
        alike = self._bare.get(bare_name(name), [])
        return alike[0] if len(alike) == 1 else None


def bare_name(name: str) -> str:
    path = PurePosixPath(name.strip())
    short = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return short.lstrip("0") or short[-1:]


@dataclass(frozen=True)
class RequestLookup(Generic[V]):
    """What a file says of queries, by prompt, and by the reference's id too where the file has ids."""

    path: Path
    entries: Mapping[tuple[str | None, str], V] = field(repr=False)

    def find(self, queries: Sequence[ComposerInput], what: str, *, allow_missing: bool) -> list[V | None]:
        """The entry of each query, None for a missing one where that is allowed. Else MMRetrieveError counts and names them."""
        keys = [(id_of(query) if self._names else None, query.words()) for query in queries]
        found = [self.entries.get((self._known(name), prompt)) for name, prompt in keys]
        lacking = [key for key, entry in zip(keys, found, strict=True) if entry is None]
        missing = [repr(prompt) if name is None else f"{prompt!r} of {name}" for name, prompt in lacking]
        settle_missing(self.path, what, missing, len(queries), allowed=allow_missing)
        return found

    def _known(self, name: str | None) -> str | None:
        """The file's own id; "" where it has none, for None is what all ids are in a file without them."""
        return None if name is None or self._names is None else self._names.find(name) or ""

    @cached_property
    def _names(self) -> IdLookup | None:
        ids = [name for name, _ in self.entries if name is not None]
        return IdLookup(ids) if ids else None


def id_of(query: ComposerInput) -> str:
    """What a file may call the query's reference: its id, else the path of its picture. OptionError where it has neither."""
    if query.id is not None:
        return query.id
    if isinstance(query.image, str | Path):
        return str(query.image)
    raise OptionError("words from a file are found by the id of the reference, and this query has none; give it one")


def settle_missing(path: Path, what: str, missing: Sequence[str], asked: int, *, allowed: bool) -> None:
    """Counts what is missing and names the first: in a warning where that is allowed, else in MMRetrieveError."""
    if not missing:
        return
    first = "; ".join(missing[:NAMED]) + ("; …" if len(missing) > NAMED else "")
    said = f"{path}: {len(missing)} of {asked} {what} are missing or not certain: {first}"
    if not allowed:
        raise MMRetrieveError(f"{said}; add them, or allow missing ones")
    logger.warning("%s", said)
