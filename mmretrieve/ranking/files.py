"""A ranking as a file: CSV, JSON, or a zip of the first images and the CSV."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mmretrieve.options import OptionEnum
from mmretrieve.ranking.columns import Fields, Table
from mmretrieve.ranking.hits import Ranking

MAX_ZIP_IMAGES, MAX_ZIP_BYTES = 100, 200_000_000
# a spreadsheet runs a text that starts so, in full width too, after spaces and characters that are not seen
MARKS = r"[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@＝＋－＠−]"
FORMULA = re.compile(rf"[\t\r\n]|{MARKS}")
LATER_FORMULA = re.compile(rf"([;|\t\r\n])(?={MARKS})")  # where another separator than the comma splits the text


class ExportFormat(OptionEnum):
    """The formats of an export."""

    CSV = "csv"
    JSON = "json"
    ZIP = "zip"


@dataclass(frozen=True)
class ExportFile:
    """A file to download."""

    name: str
    media_type: str
    content: bytes


def export(ranking: Ranking, fields: Sequence[Fields], format_: ExportFormat, image: Callable[[str], bytes]) -> ExportFile:
    """The ranking and the fields of its items in that format. image: returns an item's image as JPEG bytes."""
    if format_ is ExportFormat.CSV:
        return ExportFile("ranking.csv", "text/csv; charset=utf-8", _csv(ranking, fields))
    if format_ is ExportFormat.JSON:
        return ExportFile("ranking.json", "application/json", _json(ranking, fields))
    return ExportFile("ranking.zip", "application/zip", _zip(ranking, fields, image))


def csv_text(ranking: Ranking, fields: Sequence[Fields]) -> str:
    """The hits as CSV. Paths, which are private, are left out."""
    columns = {name: own for name, own in Table.of(ranking, fields).values.items() if name != "path"}
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(map(_cell, columns))
    table.writerows(map(_cell, row) for row in zip(*columns.values(), strict=True))
    return text.getvalue()


def _csv(ranking: Ranking, fields: Sequence[Fields]) -> bytes:
    return csv_text(ranking, fields).encode("utf-8-sig")  # the byte order mark tells spreadsheets the encoding


def _cell(value: Any) -> Any:
    """A value, with an apostrophe before a text, or a part of it, that a spreadsheet would run."""
    if not isinstance(value, str):
        return value
    return LATER_FORMULA.sub(r"\1'", f"'{value}" if FORMULA.match(value) else value)


def _json(ranking: Ranking, fields: Sequence[Fields]) -> bytes:
    hits = [hit.to_dict() | {"fields": dict(of_hit)} for hit, of_hit in zip(ranking, fields, strict=True)]
    for hit in hits:
        del hit["path"]  # private
    return json.dumps(ranking.query | {"hits": hits}, ensure_ascii=False, indent=1).encode()


def _zip(ranking: Ranking, fields: Sequence[Fields], image: Callable[[str], bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for hit in ranking[:MAX_ZIP_IMAGES]:
            name = re.sub(r"[^\w.-]+", "-", PurePosixPath(hit.id).stem)[:80]
            file.writestr(f"{hit.rank:03}-{name}.jpg", image(hit.id))
            if buffer.tell() > MAX_ZIP_BYTES:
                break
        file.writestr("ranking.csv", _csv(ranking, fields), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
