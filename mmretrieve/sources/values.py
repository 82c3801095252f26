"""What a field's value may be, and how whatever people write becomes one. Nothing is rounded, and nothing is lost unsaid."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import folded
from mmretrieve.sources.base import Value

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
LONGEST_NUMBER = 400  # digits; no 64-bit number is written with more


def value_of(raw: object) -> Value:
    """Any value of JSON or parquet → a text, a number of 64 bits, or None.

    True → 1, dates and times → ISO text, lists and objects → JSON text, whole numbers beyond 64 bits → text,
    NaN → None, infinities → "inf" and "-inf", decimals → a number where none of their digits is lost, else text.
    Raises GalleryError for a text that is not Unicode.
    """
    value = _value(raw)
    if isinstance(value, str) and not is_text(value):
        raise GalleryError(f"{value!r:.60} is not valid text")
    return value


def number_of(text: str) -> int | float | None:
    """The number that a text is, or None where it is no number, or a 64-bit one would not be equal to it.

    "7" → 7, "9.50" → 9.5; "007", "+7", "-0", " 7", "1e5000", "0.1234567890123456789" → None.
    """
    found = NUMBER.fullmatch(text) if len(text) <= LONGEST_NUMBER else None
    if found is None:
        return None
    if found[2] is None and found[3] is None:
        whole = int(text)
        return whole if _fits(whole) and text != "-0" else None
    number = float(text)
    return number if math.isfinite(number) and Decimal(text) == Decimal(repr(number)) else None


def fields_of(record: Mapping[str, object], where: str) -> dict[str, Value]:
    """The fields of one record. GalleryError, starting with `where`, for a name or a value that cannot be kept."""
    fields: dict[str, Value] = {}
    for name, raw in zip(field_names(record, where), record.values(), strict=True):
        try:
            fields[name] = value_of(raw)
        except GalleryError as error:
            raise GalleryError(f"{where}: the field {name!r} cannot be kept: {error}") from error
    return fields


def field_names(names: Iterable[str], where: str) -> tuple[str, ...]:
    """The names without blanks around them. GalleryError where one is empty, not text, or differs from another only in case."""
    seen: dict[str, str] = {}
    for number, raw in enumerate(names, start=1):
        name = raw.strip()
        if not name or not is_text(name):
            raise GalleryError(
                f"{where}: column {number} has {'no name' if not name else f'the name {name!r}, which is no text'}"
            )
        if folded(name) in seen:
            raise GalleryError(f"{where}: the columns {seen[folded(name)]!r} and {name!r} have the same name")
        seen[folded(name)] = name
    return tuple(seen.values())


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: what no file name outside UTF-8, and no half of a pair of surrogates, can be."""
    return text.isascii() or text.encode(errors="replace").decode() == text


def _value(raw: object) -> Value:
    if raw is None or isinstance(raw, str):
        return raw
    if isinstance(raw, int):
        return int(raw) if _fits(raw) else str(raw)
    if isinstance(raw, float):
        return None if math.isnan(raw) else raw if math.isfinite(raw) else str(raw)
    if isinstance(raw, Decimal):
        number = number_of(str(raw))
        return str(raw) if number is None else number
    if isinstance(raw, date | time):
        return raw.isoformat()
    if isinstance(raw, timedelta):
        return str(raw)
    return json.dumps(_nested(raw), ensure_ascii=False)


def _nested(raw: object) -> object:
    """What JSON can say of it."""
    if isinstance(raw, Mapping):
        return {str(name): _nested(value) for name, value in raw.items()}
    if isinstance(raw, list | tuple):
        return [_nested(value) for value in raw]
    return raw if isinstance(raw, int) else _value(raw)


def _fits(number: int) -> bool:
    return -(2**63) <= number < 2**63
