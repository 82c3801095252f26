"""JSON that strangers wrote: whatever is wrong with it is a ValueError, so that its reader can name the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

TOO_DEEP = "nested too deeply"


def load_json(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], object] | None = None) -> Any:
    """The value of a JSON text; `pairs` makes an object of its names and values.

    Raises json.JSONDecodeError, and ValueError for lists that are nested too deeply and for numbers of too many digits.

    >>> load_json('{"price": 20}')
    {'price': 20}
    >>> load_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deeply
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def decode_json(decoder: json.JSONDecoder, text: str, start: int) -> tuple[Any, int]:
    """The JSON value that starts at a position, and where it ends. Raises as `load_json`."""
    try:
        return decoder.raw_decode(text, start)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
