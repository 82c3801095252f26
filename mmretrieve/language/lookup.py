"""Look-up of texts by image ids, which files spell in different ways, and by prompts."""

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
MAX_NAMED = 3  # missing entries that a message names
logger = logging.getLogger(__name__)


class IdLookup:
    """Finds ids that are spelled differently: the same text, else the same bare name if it is unique among the ids.

    A bare name has no folder, no suffix of an image file and no leading zeros.

    >>> IdLookup(["21179", "dog"]).find("images/021179.jpg")
    '21179'
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = frozenset(ids)
        self._bare: dict[str, list[str]] = {}
        for each in sorted(self._ids):
            self._bare.setdefault(bare_name(each), []).append(each)

    def find(self, name: str) -> str | None:
        """The id for this name; None if there is none, or more than one."""
        if name in self._ids:
            return name
        candidates = self._bare.get(bare_name(name), [])
        return candidates[0] if len(candidates) == 1 else None


def bare_name(name: str) -> str:
    """An image's name without folder, suffix and leading zeros."""
    path = PurePosixPath(name.strip())
    short = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return short.lstrip("0") or short[-1:]


@dataclass(frozen=True)
class RequestLookup(Generic[V]):
    """Entries by prompt, and by the id of the reference if the file has ids."""

    path: Path
    entries: Mapping[tuple[str | None, str], V] = field(repr=False)

    def find(self, queries: Sequence[ComposerInput], what: str, *, allow_missing: bool) -> list[V | None]:
        """The entry of each query.

        Parameters
        ----------
        queries : the queries.
        what : what the entries are, for messages.
        allow_missing : return None for missing entries, with a warning, instead of raising MMRetrieveError.
        """
        keys = [(id_of(query) if self._names else None, query.words()) for query in queries]
        entries = [self.entries.get((self._id(name), prompt)) for name, prompt in keys]
        missing_keys = [key for key, entry in zip(keys, entries, strict=True) if entry is None]
        missing = [repr(prompt) if name is None else f"{prompt!r} of {name}" for name, prompt in missing_keys]
        report_missing(self.path, what, missing, len(queries), allowed=allow_missing)
        return entries

    def _id(self, name: str | None) -> str | None:
        """The id in the file, "" if it is not there; None in a file without ids."""
        return None if name is None or self._names is None else self._names.find(name) or ""

    @cached_property
    def _names(self) -> IdLookup | None:
        ids = [name for name, _ in self.entries if name is not None]
        return IdLookup(ids) if ids else None


def id_of(query: ComposerInput) -> str:
    """The id of a query's reference, else the path of its image.

    Raises
    ------
    OptionError : if it has neither.
    """
    if query.id is not None:
        return query.id
    if isinstance(query.image, str | Path):
        return str(query.image)
    raise OptionError("texts from a file are found by the id of the reference, and this query has none; give it one")


def report_missing(path: Path, what: str, missing: Sequence[str], total: int, *, allowed: bool) -> None:
    """Count missing entries and name the first: in a warning if they are allowed, else in MMRetrieveError."""
    if not missing:
        return
    first = "; ".join(missing[:MAX_NAMED]) + ("; …" if len(missing) > MAX_NAMED else "")
    message = f"{path}: {len(missing)} of {total} {what} are missing or ambiguous: {first}"
    if not allowed:
        raise MMRetrieveError(f"{message}; add them, or allow missing ones")
    logger.warning("%s", message)
