"""The manifest of a collection, kept as JSON in one of its properties."""

from __future__ import annotations

import json

from mmretrieve.errors import GalleryError
from mmretrieve.gallery.manifest import Manifest

FORMAT = 1


def to_text(manifest: Manifest) -> str:
    return json.dumps({**manifest.to_dict(), "format": FORMAT}, ensure_ascii=False)


def from_text(text: str | None, location: object) -> Manifest:
    """GalleryError, naming the place, for a collection that is not one of ours, or of another format."""
    if text is None:
        raise GalleryError(
            f"{location}: this collection is not a gallery of mmretrieve; name another, `mmretrieve push` makes it"
        )
    try:
        data = json.loads(text)
        format_ = data["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise GalleryError(f"{location}: the manifest cannot be read ({error})") from error
    if format_ != FORMAT:
        raise GalleryError(f"{location}: gallery format {format_}, this version reads format {FORMAT}; push it again")
    return Manifest.from_dict(data, location)
