"""Thumbnails inside the page, so that it stays one file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

from mmretrieve import MMRetrieveError
from mmretrieve.images import ImageLike, open_image, thumbnail

Pictures = Callable[[str, str], ImageLike]
"""(part, id) → the picture: `lambda part, id_: benchmarks[part].picture(id_)`."""
SIDE = 176  # shown at half of it: sharp on a dense screen


class Thumbnails:
    """Data URIs of pictures by part and id, each read once; `missing` names those that could not be read."""

    def __init__(self, load: Pictures | None) -> None:
        self.load = load
        self.missing: list[str] = []
        self._known: dict[tuple[str, str], str | None] = {}

    def uri(self, part: str, id_: str) -> str | None:
        """None where there is nothing to load from, or the picture cannot be read."""
        if self.load is None:
            return None
        if (part, id_) not in self._known:
            self._known[part, id_] = self._made(self.load, part, id_)
        return self._known[part, id_]

    def _made(self, load: Pictures, part: str, id_: str) -> str | None:
        try:
            return data_uri(thumbnail(open_image(load(part, id_)), SIDE), "image/jpeg")
        except (MMRetrieveError, OSError, LookupError):
            self.missing.append(id_)
            return None


def data_uri(content: bytes, kind: str) -> str:
    """ "data:image/png;base64,…"."""
    return f"data:{kind};base64,{b64encode(content).decode('ascii')}"
