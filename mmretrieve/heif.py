"""Boxes of ISO media files, which AVIF, HEIC and JPEG XL images are, and files of the color and of the transparency of an image.

A decoder that composes both needs 12 to 19 bytes a pixel for them; one after the other, they need at most 12 in 8 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

Box = tuple[bytes, int, int]  # kind, and where its content starts and ends
TO_ALPHA, TO_PREMULTIPLIED = b"auxl", b"prem"  # kinds of references between the images of a file
IGNORED = b"skip"
MAX_BOXES = 10_000  # that an image has; a file of 80 MB could have ten million


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yields the boxes of this part of a file, up to the first that is damaged, and at most MAX_BOXES."""
    end = len(data) if end is None else end
    for _ in range(MAX_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 16 if size == 1 else 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, start + 8)
        size = end - start if size == 0 else size
        if size < header or start + size > end:
            return
        yield kind, start + header, start + size
        start += size


def split_alpha(data: bytes) -> tuple[bytes, bytes] | None:
    """Returns the file without its transparency, and the file whose image is the transparency. None if they cannot be told apart.

    That is so for files with several auxiliary images, with colors that are multiplied by the transparency, and for damaged files.
    """
    try:
        (meta,) = (box for box in boxes(data) if box[0] == b"meta")
        parts = {kind: start for kind, start, _ in boxes(data, meta[1] + 4, meta[2])}
        primary_at, references_at = parts[b"pitm"], parts[b"iref"]
        primary = ">I" if data[primary_at] else ">H"
        reference = ">I" if data[references_at] else ">H"
        (end,) = (end for kind, _, end in boxes(data, meta[1] + 4, meta[2]) if kind == b"iref")
        references = list(boxes(data, references_at + 4, end))
        ((_, start, _),) = (box for box in references if box[0] == TO_ALPHA)
        if any(kind == TO_PREMULTIPLIED for kind, _, _ in references):
            return None
        (alpha_id,) = struct.unpack_from(reference, data, start)
        color = bytearray(data)
        color[start - 4 : start] = IGNORED
        alpha = bytearray(color)
        struct.pack_into(primary, alpha, primary_at + 4, alpha_id)
    except (KeyError, ValueError, IndexError, struct.error):
        return None
    return bytes(color), bytes(alpha)
