"""What a gallery says of itself, wherever it is stored: which encoder made its vectors, and what searches start from."""

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
    """`setting`: the PDV weights that searches start from. `vocabulary`: the one that was chosen; None where none was.

    `fields` grows with what is added; encoder, dim and decode never change.
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
        """Whether the vectors of both were made in the same way, so that they can be compared."""
        return (self.encoder, self.dim, self.decode) == (other.encoder, other.dim, other.decode)

    @property
    def choices(self) -> dict[str, Any]:
        """What a store keeps in its meta data besides encoder, dim and decode, as JSON can hold it."""
        setting = {} if self.setting is None else {"setting": asdict(self.setting)}
        return setting if self.vocabulary is None else setting | {vocabularies.KEY: self.vocabulary.to_dict()}

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], location: object) -> Manifest:
        """From what `to_dict` returns, or the meta data of a store. GalleryError, naming the place, for anything else."""
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
