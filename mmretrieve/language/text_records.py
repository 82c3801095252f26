"""Records of texts from JSON, JSON lines and CSV files, with fields recognized by name."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.options import check_regular, load_json

Row = Mapping[str, object]
# fmt: off
ID_FIELDS = (
    "id", "image", "image_id", "img_id", "reference", "reference_img_id", "reference_image", "candidate",
    "file", "filename", "file_name",
)
# fmt: on
CAPTION_FIELDS = ("caption", "captions", "text", "texts", "sentence", "sentences")
PROMPT_FIELDS = ("prompt", "relative_caption", "instruction", "modification")
REWRITE_FIELDS = ("rewrite", "rewrites", "rewritten", "target_caption")
TARGET_FIELDS = ("target", "description", "target_description")
EDITED_FIELDS = ("edited", "edited_image", "imagined", "output", "path")
PARAPHRASE_FIELDS = ("paraphrase", "paraphrases", "wording", "wordings")


@dataclass(frozen=True)
class TextRecords:
    """The records of one file, in its order."""

    path: Path
    rows: tuple[Row, ...]

    @classmethod
    def read(cls, path: str | Path) -> TextRecords:
        """Read a .json file (a list of records, or {id: caption, captions or record}), .jsonl (a record a line) or .csv (with a header).

        Raises
        ------
        OptionError : if the file has another suffix.
        MMRetrieveError : if the file cannot be read, or has no records.
        """
        path = Path(path)
        if path.suffix.lower() not in READERS:
            raise OptionError(f"{path}: expected a file that ends in {', '.join(READERS)}")
        try:
            rows = READERS[path.suffix.lower()](check_regular(path).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise MMRetrieveError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        if not rows:
            raise MMRetrieveError(f"{path}: the file has no records")
        return cls(path, tuple(rows))

    @cached_property
    def fields(self) -> list[str]:
        """The names of all fields, in the order of their first occurrence."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def field(self, role: str, names: Sequence[str], chosen: str | None = None) -> str:
        """The name of the field with a role.

        Parameters
        ----------
        role : "id", "caption", "prompt" or "rewrite".
        names : names by which the field is recognized.
        chosen : name of the field, if the user chose it.

        Raises
        ------
        OptionError : if no field, or more than one, is recognized; the message lists the fields of the file.
        """
        result = self.find_field(role, names, chosen)
        if result is None:
            raise OptionError(
                f"{self.path}: no field for the {role}; give --{role}-field NAME, one of: {', '.join(self.fields)}"
            )
        return result

    def find_field(self, role: str, names: Sequence[str], chosen: str | None = None) -> str | None:
        """As `field`, but None if no field is recognized."""
        if chosen is not None and chosen not in self.fields:
            raise OptionError(f"{self.path}: no field {chosen!r}; give --{role}-field NAME, one of: {', '.join(self.fields)}")
        matches = [chosen] if chosen is not None else [name for name in self.fields if name.lower() in names]
        if len(matches) > 1:
            raise OptionError(
                f"{self.path}: {' and '.join(matches)} could each be the {role}; choose one with --{role}-field NAME"
            )
        return matches[0] if matches else None

    def error(self, number: int, reason: str) -> MMRetrieveError:
        """The error about a record, by its number from 1."""
        return MMRetrieveError(f"{self.path}, record {number}: {reason}")

    def text(self, number: int, name: str) -> str:
        """A value as stripped text; integers become text. Raises MMRetrieveError for another type."""
        value = self.rows[number - 1].get(name)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.error(number, f"expected text in {name!r}, got {value!r}"[:200])
        return str(value).strip()

    def texts(self, number: int, name: str) -> list[str]:
        """A value that is text or a list of texts, as a list; [] if it is absent. Raises MMRetrieveError for another type."""
        value = self.rows[number - 1].get(name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        texts = [each.strip() for each in values if isinstance(each, str)]
        if len(texts) != len(values):
            raise self.error(number, f"expected text or a list of texts in {name!r}, got {value!r}"[:200])
        return texts


def _parse_json(text: str) -> list[Row]:
    rows = load_json(text)
    if isinstance(rows, Mapping):
        rows = [
            {"id": name, **value} if isinstance(value, Mapping) else {"id": name, "caption": value}
            for name, value in rows.items()
        ]
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("expected a list of records, or an object with an id for each caption")
    return rows


def _parse_jsonl(text: str) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.extend(_parse_json(f"[{line}]"))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return rows


def _parse_csv(text: str) -> list[Row]:
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise ValueError(f"record {number} does not have as many columns as the header")
    return list(rows)


READERS: dict[str, Callable[[str], list[Row]]] = {".json": _parse_json, ".jsonl": _parse_jsonl, ".csv": _parse_csv}
