"""What a collection says of itself: which encoder made its vectors, how pictures were decoded, and which fields its items have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mmretrieve.directions import PDV
from mmretrieve.encoders.base import EncoderIdentity
from mmretrieve.errors import GalleryError, MMRetrieveError
from mmretrieve.gallery.store.fields import FieldType
from mmretrieve.gallery.vocabularies import GalleryVocabulary
from mmretrieve.options import Decode

FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """Kept as JSON in a property of the collection; `fields` grows with what is pushed, the rest never changes.

    `vocabulary` is the one that was chosen in the folder that was pushed last; None, also in older collections, for none.
    """

    encoder: EncoderIdentity
    dim: int
    decode: Decode
    setting: PDV | None = None
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    vocabulary: GalleryVocabulary | None = None

    @property
    def text(self) -> str:
        return json.dumps({**asdict(self), "format": FORMAT}, ensure_ascii=False)

    @classmethod
    def read(cls, text: str | None, place: object) -> Manifest:
        """GalleryError, naming the place, for a collection that is not one of ours, or of another format."""
        if text is None:
            raise GalleryError(
                f"{place}: this collection is not a gallery of mmretrieve; name another, `mmretrieve push` makes it"
            )
        try:
            told: dict[str, Any] = json.loads(text)
            if told["format"] != FORMAT:
                raise GalleryError(
                    f"{place}: gallery format {told['format']}, this version reads format {FORMAT}; push it again"
                )
            setting = None if told["setting"] is None else PDV(**told["setting"])
            fields = {name: FieldType(kind) for name, kind in told["fields"].items()}
            stored = told.get("vocabulary")
            vocabulary = None if stored is None else GalleryVocabulary.from_dict(stored, place)
            identity, decode = EncoderIdentity(**told["encoder"]), Decode(told["decode"])
            return cls(identity, int(told["dim"]), decode, setting, fields, vocabulary)
        except GalleryError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, MMRetrieveError) as error:
            raise GalleryError(f"{place}: what this collection says of itself cannot be read ({error})") from error
