"""Files of records, as others publish them: JSON, JSON lines and CSV, read into rows whose fields are found by name."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmretrieve.errors import MMRetrieveError, OptionError

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


@dataclass(frozen=True)
class TextRecords:
    """The rows of one file, in its order."""

    path: Path
    rows: tuple[Row, ...]

    @classmethod
    def read(cls, path: str | Path) -> TextRecords:
        """Reads .json (a list of records, or {id: caption, captions or record}), .jsonl (a record a line) or .csv (with a header).

        Raises OptionError for another kind of file, MMRetrieveError naming the file for one that cannot be read.
        """
        path = Path(path)
        if path.suffix.lower() not in READERS:
            raise OptionError(f"{path}: expected a file that ends in {', '.join(READERS)}")
        try:
            rows = READERS[path.suffix.lower()](path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise MMRetrieveError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        if not rows:
            raise MMRetrieveError(f"{path}: there is no record in it")
        return cls(path, tuple(rows))

    @cached_property
    def fields(self) -> list[str]:
        """The names of all fields, in the order in which they come."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def field(self, role: str, names: Sequence[str], given: str | None = None) -> str:
        """The field that plays a role: the one `given`, else the only one with one of the `names`.

        Raises OptionError, listing what there is, where there is none or where there are several.
        """
        found = self.find_field(role, names, given)
        if found is None:
            raise OptionError(
                f"{self.path}: no field for the {role}; name it as {role}_field, one of: {', '.join(self.fields)}"
            )
        return found

    def find_field(self, role: str, names: Sequence[str], given: str | None = None) -> str | None:
        """As `field`, but None where there is none."""
        if given is not None and given not in self.fields:
            raise OptionError(f"{self.path}: no field {given!r}; name as {role}_field one of: {', '.join(self.fields)}")
        found = [given] if given is not None else [name for name in self.fields if name.lower() in names]
        if len(found) > 1:
            raise OptionError(f"{self.path}: {' and '.join(found)} could each be the {role}; say which as {role}_field")
        return found[0] if found else None

    def error(self, number: int, wrong: str) -> MMRetrieveError:
        """What is wrong with a record, by its number from 1."""
        return MMRetrieveError(f"{self.path}, record {number}: {wrong}")

    def text(self, number: int, name: str) -> str:
        """One value as text, stripped: ids may be numbers. Raises MMRetrieveError naming the record."""
        value = self.rows[number - 1].get(name)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.error(number, f"expected text in {name!r}, got {value!r}"[:200])
        return str(value).strip()

    def texts(self, number: int, name: str) -> list[str]:
        """A value that is text or a list of texts, as a list; none where it is absent."""
        value = self.rows[number - 1].get(name)
        several = value if isinstance(value, list) else [] if value is None else [value]
        said = [one.strip() for one in several if isinstance(one, str)]
        if len(said) != len(several):
            raise self.error(number, f"expected text or a list of texts in {name!r}, got {value!r}"[:200])
        return said


def _from_json(text: str) -> list[Row]:
    found = json.loads(text)
    if isinstance(found, Mapping):
        found = [
            {"id": name, **value} if isinstance(value, Mapping) else {"id": name, "caption": value}
            for name, value in found.items()
        ]
    if not isinstance(found, list) or not all(isinstance(row, Mapping) for row in found):
        raise ValueError("expected a list of records, or an object with an id for each caption")
    return found


def _from_lines(text: str) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.extend(_from_json(f"[{line}]"))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return rows


def _from_table(text: str) -> list[Row]:
    rows = csv.DictReader(text.splitlines(keepends=True), strict=True)
    try:
        found = list(rows)
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error
    for number, row in enumerate(found, 1):
        if None in row or None in row.values():
            raise ValueError(f"record {number} has not as many columns as the header")
    return list(found)


READERS: dict[str, Callable[[str], list[Row]]] = {".json": _from_json, ".jsonl": _from_lines, ".csv": _from_table}
