"""Recognizes images of a source that are in the gallery already, under another id and from another source.

A table of the images of a folder that was indexed before thus adds its fields to the items of the folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from mmretrieve.gallery.store.records import Item, ItemRecord
from mmretrieve.gallery.store.store import Store

SAME_FILE = 1_000  # likeness: above any number of common folders
MAX_COPIES = 256  # of one image, among which the most similar path is searched


class KnownFiles:
    """Matches new items of one source with items of other sources, each of these at most once."""

    def __init__(self, store: Store, source: str) -> None:
        self._store, self._source = store, source
        self._taken: set[str] = set()  # ids, which stay when a row is replaced

    def take(self, records: Iterable[ItemRecord]) -> None:
        """Excludes records that items of the source have matched by their ids."""
        self._taken |= {record.item.id for record in records}

    def records_of(self, items: Sequence[Item]) -> dict[str, ItemRecord]:
        """Returns for the id of each item that is recognized the record that it matches. Only items with equal content match."""
        candidates = self._store.ledger.records_of_other_sources({item.hash for item in items}, self._source)
        pairs = [
            (likeness, item.id, record)
            for item in items
            for record in _nearest(item, candidates.get(item.hash, ()))
            if (likeness := _likeness(item, record.item)) is not None
        ]
        matched: dict[str, ItemRecord] = {}
        for _, id_, record in sorted(pairs, key=lambda pair: (-pair[0], pair[2].row)):
            if id_ not in matched and record.item.id not in self._taken:
                matched[id_] = record
                self._taken.add(record.item.id)
        return matched


def _nearest(item: Item, records: Sequence[ItemRecord]) -> Sequence[ItemRecord]:
    """Returns the record of the same file, otherwise the first records."""
    same = [record for record in records if record.item.location == item.location]
    return same or records[:MAX_COPIES]


def _likeness(new: Item, known: Item) -> int | None:
    """Returns how sure it is that two items with equal content are one: by the file, else by the common end of their paths.

    Items of different files are one only if the new one adds fields and both are files of their own, not members of archives: equal images
    of two archives, or with other values of the same fields, are two items, unless their files have the same name.
    """
    if new.location == known.location:
        return SAME_FILE
    if not new.fields or new.location.member is not None or known.location.member is not None:
        return None
    common = _common_end(PurePath(new.path).parts, PurePath(known.path).parts)
    return common if common or not _contradict(new, known) else None


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns the number of equal parts at the end of two paths.

    >>> _common_end(("a", "1", "front.jpg"), ("b", "1", "front.jpg"))
    2
    """
    pairs = enumerate(zip(reversed(one), reversed(other), strict=False))
    return next((count for count, (left, right) in pairs if left != right), min(len(one), len(other)))


def _contradict(new: Item, known: Item) -> bool:
    """Returns whether a field has two values."""
    return any(known.fields.get(name, value) != value for name, value in new.fields.items())
