"""What goes into a gallery: a source, chunk by chunk, each with one commit; or another gallery, vectors and all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np

from mmretrieve.encoders.base import Encoder, Progress
from mmretrieve.errors import OptionError
from mmretrieve.gallery.ingest import AddReport, IngestBatch
from mmretrieve.gallery.store.store import Store
from mmretrieve.images import DEFAULT_IMAGE_SIZE
from mmretrieve.sources.base import Entry, Source, UnreadableItem

CHUNK = 256  # pictures between two commits; fixed, so that an interrupted run repeats the same batches
T = TypeVar("T")


def add_source(
    store: Store, encoder: Encoder, source: Source, *, update: bool, vanish: bool = False, progress: Progress | None = None
) -> AddReport:
    """Adds what a source holds. `vanish` lets items die that came from this source and that it no longer has.

    Where the source itself could not be read whole, nothing vanishes: what was not seen may still be there.
    """
    before, report, whole = store.ledger.moment(), AddReport(), True
    is_seen = np.zeros(before.total, bool)
    for chunk in chunks(source, CHUNK):
        intake = IngestBatch(store, source.name, getattr(encoder, "image_size", DEFAULT_IMAGE_SIZE), update, progress)
        vectors = intake.vectors(chunk, encoder.encode_images)
        if intake.items:
            store.append(intake.items, vectors, intake.thumbnails, intake.instead)
        if intake.refreshed:
            store.ledger.rewrite(intake.refreshed)
        is_seen[[row for row in intake.seen if row < before.total]] = True
        whole = whole and not any(isinstance(item, UnreadableItem) for item in chunk)
        report += intake.report
    if vanish and whole:
        gone = [
            record for record in store.ledger.of_source(source.name) if record.row < before.total and not is_seen[record.row]
        ]
        store.ledger.kill(gone)
        report += AddReport(vanished=len(gone))
    return report


class Shard:
    """The part of a source that one of several machines indexes: whole chunks, so that merging all gives what one would make."""

    def __init__(self, source: Source, number: int, of: int) -> None:
        """`number` counts from 1. OptionError unless it is one of them."""
        if not 1 <= number <= of:
            raise OptionError(f"shard {number}/{of}: expected a number from 1 to {of}")
        count = -(-len(source) // CHUNK)
        self._start, self._end = (CHUNK * (count * n // of) for n in (number - 1, number))
        self._source, self.name = source, source.name

    def __len__(self) -> int:
        return max(0, min(self._end, len(self._source)) - self._start)

    def __iter__(self) -> Iterator[Entry]:
        return islice(iter(self._source), self._start, self._end)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items each, the last one maybe shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
