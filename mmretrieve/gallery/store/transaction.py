"""One write to the ledger. Every change of a row goes through it and adjusts the checksum of the ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmretrieve.errors import GalleryError
from mmretrieve.filters.sqlite import quote_name
from mmretrieve.gallery.store import ledger_checksum
from mmretrieve.gallery.store.ledger_checksum import LedgerChecksum
from mmretrieve.gallery.store.records import FieldType, ItemRecord, kind_of
from mmretrieve.gallery.store.statements import MAX_FIELDS, ROW, RecordReader, meta_of, put_meta


class LedgerTransaction:
    """Begins a new generation. Raises GalleryError, with nothing written, if the metadata or an entry to be changed is damaged."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        checksum = ledger_checksum.stored(db)
        if checksum is None:
            raise GalleryError(f"{path}: {ledger_checksum.DAMAGED}; nothing was written")
        self._db, self._path, self._row_sum = db, path, checksum.row_sum
        db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
        self.meta: dict[str, Any] = meta_of(db)

    def close(self) -> None:
        """Writes the checksum of the new content; the last statement of a transaction."""
        put_meta(self._db, {ledger_checksum.KEY: LedgerChecksum.of(self._db, self._row_sum).to_dict()})

    def set_meta(self, **values: object) -> None:
        put_meta(self._db, values)
        self.meta |= values

    def insert(self, record: ItemRecord) -> None:
        """Inserts a row that does not exist yet."""
        values, checksum = record.values, record.checksum
        self._db.execute(f"INSERT INTO items VALUES ({', '.join('?' * len(values))}, ?)", (*values, checksum))
        fields = {name: value for name, value in record.item.fields.items() if value is not None}
        if fields:
            names = ", ".join(map(quote_name, fields))
            self._db.execute(
                f"INSERT INTO fields ({ROW}, {names}) VALUES (?{', ?' * len(fields)})", (record.row, *fields.values())
            )
        self._row_sum += checksum

    def remove(self, row: int) -> ItemRecord:
        """Removes a row and returns its record."""
        (record,) = self._checked([row])
        self._db.execute("DELETE FROM items WHERE row = ?", (row,))
        self._db.execute(f"DELETE FROM fields WHERE {ROW} = ?", (row,))
        self._row_sum -= record.checksum
        return record

    def replace(self, record: ItemRecord) -> None:
        self.remove(record.row)
        self.insert(record)

    def kill(self, rows: Sequence[int]) -> None:
        """Marks items as deleted in this generation; their rows stay."""
        for record in self._checked(rows):
            dead = replace(record, died=self.meta["generation"])
            self._db.execute("UPDATE items SET died = ?, seal = ? WHERE row = ?", (dead.died, dead.checksum, dead.row))
            self._row_sum += dead.checksum - record.checksum

    def remove_dead(self) -> None:
        for (row,) in self._db.execute("SELECT row FROM items WHERE died > 0").fetchall():
            self.remove(row)

    def live_rows(self) -> list[int]:
        return [row for (row,) in self._db.execute("SELECT row FROM items WHERE died = 0 ORDER BY row")]

    def add_fields(self, records: Iterable[ItemRecord]) -> None:
        """Adds columns for new fields. The column of a number has no type, so that integers stay integers."""
        fields = self.meta["fields"]
        values = {name: value for record in records for name, value in record.item.fields.items() if value is not None}
        new = {name: kind_of(name, value) for name, value in values.items() if name not in fields}
        if len(fields) + len(new) > MAX_FIELDS:
            raise GalleryError(
                f"field {list(new)[-1]!r} would be number {len(fields) + len(new):,}; a gallery has up to {MAX_FIELDS:,}"
            )
        for name, kind in new.items():
            self._db.execute(f"ALTER TABLE fields ADD COLUMN {quote_name(name)} {'TEXT' if kind is FieldType.TEXT else ''}")
        if new:
            self.set_meta(fields=fields | new)

    def _checked(self, rows: Sequence[int]) -> Iterator[ItemRecord]:
        """Yields the records of rows. Raises GalleryError for one that is not what was committed: a write must not hide damage."""
        for record in RecordReader(self._db).records(rows):
            if not record.is_intact:
                raise GalleryError(
                    f"{self._path}: the entry of {record.item.id!r} (row {record.row}) is not the one that was committed; nothing was written"
                )
            yield record
