"""The manifest of a gallery, in a folder or on a server: what made its vectors, and the defaults of its searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mmretrieve.directions import PDV
from mmretrieve.encoders.base import EncoderIdentity
from mmretrieve.errors import GalleryError, MMRetrieveError
from mmretrieve.gallery import vocabularies
from mmretrieve.gallery.store.records import FieldType
from mmretrieve.gallery.vocabularies import GalleryVocabulary
from mmretrieve.options import Decode


@dataclass(frozen=True)
class Manifest:
    """`setting`: the PDV parameters with which searches start. `vocabulary`: the chosen one, None if none was chosen.

    `fields` grows as items are added; encoder, dim and decode never change.
    """

    encoder: EncoderIdentity
    dim: int
    decode: Decode = Decode.EXACT
    setting: PDV | None = None
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    vocabulary: GalleryVocabulary | None = None

    def __str__(self) -> str:
        return f"{self.dim} dimensions by {self.encoder}, decoding {self.decode}"

    def has_vectors_of(self, other: Manifest) -> bool:
        """Returns whether the vectors of both were made in the same way and can be compared."""
        return (self.encoder, self.dim, self.decode) == (other.encoder, other.dim, other.decode)

    @property
    def choices(self) -> dict[str, Any]:
        """What a store keeps in its metadata besides encoder, dim and decode, for JSON."""
        setting = {} if self.setting is None else {"setting": asdict(self.setting)}
        return setting if self.vocabulary is None else setting | {vocabularies.KEY: self.vocabulary.to_dict()}

    def to_dict(self) -> dict[str, Any]:
        """For JSON files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], location: object) -> Manifest:
        """From what `to_dict` returns, or the metadata of a store. Raises GalleryError, with the location, for anything else."""
        try:
            setting, vocabulary = data.get("setting"), data.get(vocabularies.KEY)
            return cls(
                EncoderIdentity(**data["encoder"]),
                int(data["dim"]),
                Decode(data["decode"]),
                None if setting is None else PDV(**setting),
                {name: FieldType(kind) for name, kind in data.get("fields", {}).items()},
                None if vocabulary is None else GalleryVocabulary.from_dict(vocabulary, location),
            )
        except GalleryError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, MMRetrieveError) as error:
            raise GalleryError(f"{location}: the manifest cannot be read ({error})") from error
