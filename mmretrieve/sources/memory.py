"""JSON objects: a record of a JSONL file, what lies beside a picture in a tar."""

from __future__ import annotations

import json

from mmretrieve.errors import GalleryError


def read_object(text: str) -> dict[str, object]:
    """The object that a text is. GalleryError, one line without a place, where it is none or names a key twice."""
    try:
        found = json.loads(text, object_pairs_hook=_pairs)
    except GalleryError:
        raise
    except json.JSONDecodeError as error:
        raise GalleryError(f"not JSON ({error.msg}, at character {error.pos + 1})") from error
    except (RecursionError, ValueError) as error:  # ValueError: a number of more digits than Python converts
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise GalleryError(f"not JSON that can be read ({reason})") from error
    if not isinstance(found, dict):
        raise GalleryError(f"expected an object, not {text.strip()!r:.60}")
    return found


def _pairs(items: list[tuple[str, object]]) -> dict[str, object]:
    whole = dict(items)
    if len(whole) != len(items):
        names = [name for name, _ in items]
        raise GalleryError(f"the key {next(name for name in names if names.count(name) > 1)!r} comes twice")
    return whole
