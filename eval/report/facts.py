"""Where a record came from, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.report.records import PartRecord, SourceRecord


def facts(source: SourceRecord) -> list[tuple[str, str]]:
    """Everything needed to repeat a run or a sweep, as names and texts."""
    encoder = source.encoder
    rows = [
        ("record", source.name),
        ("encoder", f"{encoder.model}, weights {encoder.weights[:12]}, {encoder.preprocessing}"),
        *((name, _flat(value)) for name, value in source.provenance.items()),
        ("options", _flat(source.options)),
    ]
    rows += [
        (name, f"{part.queries:,} queries, {part.gallery:,} images, annotations {part.checksum[:12]}{_kept(part)}")
        for name, part in source.parts.items()
    ]
    remarks = [*(f"{part.remark}" for part in source.parts.values() if part.remark), *source.remarks]
    return [*rows, *(("remark", remark) for remark in dict.fromkeys(remarks))]


def _kept(part: PartRecord) -> str:
    return {True: ", reference in the ranking", False: ", reference not in the ranking", None: ""}[part.keeps_reference]


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(map(_flat, value)) or "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)
