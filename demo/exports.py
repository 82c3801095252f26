"""A whole ranking as a file: CSV, JSON, or a zip of its first pictures with the CSV beside them."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from mmretrieve import Hit, Ranking
from mmretrieve.options import Choice

ZIPPED, ZIPPED_BYTES = 100, 200_000_000  # a zip holds the first pictures only, up to so many and so large
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run what begins so


class ExportFormat(Choice):
    CSV = "csv"
    JSON = "json"
    ZIP = "zip"


@dataclass(frozen=True)
class ExportFile:
    name: str
    media_type: str
    content: bytes


Fields = Mapping[str, Any]


def export(ranking: Ranking, fields: list[Fields], form: ExportFormat, picture: Callable[[str], bytes]) -> ExportFile:
    """The ranking and the fields of its items, in that form. `picture` gives the bytes of an item as JPEG."""
    if form is ExportFormat.CSV:
        return ExportFile("ranking.csv", "text/csv; charset=utf-8", _csv(ranking, fields))
    if form is ExportFormat.JSON:
        return ExportFile("ranking.json", "application/json", _json(ranking, fields))
    return ExportFile("ranking.zip", "application/zip", _zip(ranking, fields, picture))


def _csv(ranking: Ranking, fields: list[Fields]) -> bytes:
    terms, names = list(ranking.weights), sorted({name for known in fields for name in known})
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["rank", "id", "score", *(f"gave {term}" for term in terms), *names])
    for hit, known in zip(ranking, fields, strict=True):
        gave = [hit.contributions[term] for term in terms]
        table.writerow([hit.rank, _cell(hit.id), hit.score, *gave, *(_cell(known.get(name)) for name in names)])
    return text.getvalue().encode("utf-8-sig")  # the mark tells spreadsheets the encoding


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _json(ranking: Ranking, fields: list[Fields]) -> bytes:
    hits = [_hit(hit) | {"fields": dict(known)} for hit, known in zip(ranking, fields, strict=True)]
    about = ranking.query | {"hidden": dict(ranking.hidden), "hits": hits}
    return json.dumps(about, ensure_ascii=False, indent=1).encode()


def _hit(hit: Hit) -> dict[str, Any]:
    return {name: value for name, value in asdict(hit).items() if name != "path"}


def _zip(ranking: Ranking, fields: list[Fields], picture: Callable[[str], bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for hit in ranking[:ZIPPED]:
            name = re.sub(r"[^\w.-]+", "-", PurePosixPath(hit.id).stem)[:80]
            file.writestr(f"{hit.rank:03}-{name}.jpg", picture(hit.id))
            if held.tell() > ZIPPED_BYTES:
                break
        file.writestr("ranking.csv", _csv(ranking, fields), zipfile.ZIP_DEFLATED)
    return held.getvalue()
