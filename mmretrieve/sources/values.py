"""Values of metadata fields: text, 64-bit numbers or None, and their conversion from JSON, Parquet and CSV.

Conversion is exact: a finite value that no 64-bit number represents becomes text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import fold_case

Value = str | int | float | None
"""The value of a metadata field."""
WHITESPACE = re.compile(r"[ \t\n\r]*")  # of JSON
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
MAX_NUMBER_LENGTH = 400  # characters; 64-bit numbers are never written with more


def value_of(raw: object) -> Value:
    """Converts a value of JSON or Parquet to text, a 64-bit number, or None.

    True becomes 1, dates and times ISO text, lists and objects JSON text, whole numbers beyond 64 bits text, NaN and
    infinities None; decimals become a number if no digit is lost, otherwise text; any other object its `str`.
    Raises GalleryError for text that is not valid Unicode, for bytes, and for lists that are nested too deeply.

    >>> value_of(True), value_of([1, 2]), value_of(2**64)
    (1, '[1, 2]', '18446744073709551616')
    """
    try:
        value = _value(raw)
    except RecursionError as error:
        raise GalleryError("lists or objects are nested too deeply") from error
    if isinstance(value, str) and not is_text(value):
        raise GalleryError(f"{value!r:.60} is not valid text")
    return value


def number_of(text: str) -> int | float | None:
    """The number that a text denotes; None if it is not a number, or not exactly representable in 64 bits.

    >>> number_of("7"), number_of("9.50")
    (7, 9.5)
    >>> [number_of(text) for text in ("007", "+7", "-0", " 7", "1e5000", "0.1234567890123456789")]
    [None, None, None, None, None, None]
    """
    match = NUMBER.fullmatch(text) if len(text) <= MAX_NUMBER_LENGTH else None
    if match is None:
        return None
    if match[2] is None and match[3] is None:
        whole = int(text)
        return whole if _fits(whole) and text != "-0" else None
    number = float(text)
    return number if math.isfinite(number) and Decimal(text) == Decimal(repr(number)) else None


def fields_of(record: Mapping[str, object], where: str) -> dict[str, Value]:
    """The fields of one record. Raises GalleryError, starting with `where`, for a name or a value that cannot be stored."""
    fields: dict[str, Value] = {}
    for name, raw in zip(field_names(record, where), record.values(), strict=True):
        try:
            fields[name] = value_of(raw)
        except GalleryError as error:
            raise GalleryError(f"{where}: the field {name!r} cannot be stored: {error}") from error
    return fields


def field_names(names: Iterable[str], where: str) -> tuple[str, ...]:
    """The names, stripped. Raises GalleryError if a name is empty, not valid text, or equal to another except for its case."""
    seen: dict[str, str] = {}
    for number, raw in enumerate(names, start=1):
        name = raw.strip()
        if not name or not is_text(name):
            raise GalleryError(
                f"{where}: column {number} has {'no name' if not name else f'the name {name!r}, which is not valid text'}"
            )
        if fold_case(name) in seen:
            raise GalleryError(
                f"{where}: the columns {seen[fold_case(name)]!r} and {name!r} have the same name (case is ignored)"
            )
        seen[fold_case(name)] = name
    return tuple(seen.values())


def is_text(text: str) -> bool:
    """Whether a string can be encoded as UTF-8. Lone surrogates, as in file names that are not UTF-8, cannot."""
    return text.isascii() or text.encode(errors="replace").decode() == text


def read_object(text: str) -> dict[str, object]:
    """Parses a JSON object. Raises GalleryError, in one line without a position, if it is not one or repeats a key.

    >>> read_object('{"price": 20}')
    {'price': 20}
    """
    parsed, end = decode_object(text, WHITESPACE.match(text).end())  # type: ignore[union-attr]
    if text[end:].strip():
        raise GalleryError(f"not JSON (Extra data, at character {end + 1})")
    if not isinstance(parsed, dict):
        raise GalleryError(f"expected a JSON object, got {text.strip()!r:.60}")
    return parsed


def decode_object(text: str, position: int) -> tuple[object, int]:
    """Parses the JSON value that starts at a position. Returns it and where it ends. Raises GalleryError as `read_object`."""
    try:
        return DECODER.raw_decode(text, position)
    except GalleryError:
        raise
    except json.JSONDecodeError as error:
        raise GalleryError(f"not JSON ({error.msg}, at character {error.pos + 1})") from error
    except RecursionError:
        raise GalleryError("JSON that cannot be read (nested too deeply)") from None
    except ValueError as error:  # a number with more digits than Python converts
        raise GalleryError(f"JSON that cannot be read ({error})") from error


def _unique_pairs(items: list[tuple[str, object]]) -> dict[str, object]:
    pairs = dict(items)
    if len(pairs) != len(items):
        names = [name for name, _ in items]
        raise GalleryError(f"duplicate key {next(name for name in names if names.count(name) > 1)!r}")
    return pairs


DECODER = json.JSONDecoder(object_pairs_hook=_unique_pairs)


def _value(raw: Any) -> Value:
    if getattr(raw, "ndim", None) == 0:  # a scalar of numpy
        raw = raw.item()
    if raw is None or isinstance(raw, str):
        return raw
    if isinstance(raw, int):
        return int(raw) if _fits(raw) else str(raw)
    if isinstance(raw, float):
        return raw if math.isfinite(raw) else None
    if isinstance(raw, Decimal):
        number = number_of(str(raw))
        return str(raw) if number is None else number
    if isinstance(raw, date | time):
        return raw.isoformat()
    if isinstance(raw, bytes | bytearray | memoryview):
        raise GalleryError("bytes are not text")
    if isinstance(raw, Mapping | list | tuple):
        return json.dumps(_nested(raw), ensure_ascii=False)
    return str(raw)


def _nested(raw: object) -> object:
    """The value as JSON can represent it."""
    if isinstance(raw, Mapping):
        return {str(name): _nested(value) for name, value in raw.items()}
    if isinstance(raw, list | tuple):
        return [_nested(value) for value in raw]
    return raw if isinstance(raw, int) else _value(raw)  # of any size


def _fits(number: int) -> bool:
    return -(2**63) <= number < 2**63
