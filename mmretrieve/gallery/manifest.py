"""The manifest of a gallery, in a folder or on a server: what made its vectors, and the defaults of its searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from mmretrieve.directions import PDV
from mmretrieve.encoders.base import EncoderIdentity
from mmretrieve.errors import GalleryError, MMRetrieveError
from mmretrieve.gallery import vocabularies
from mmretrieve.gallery.captions import CaptionBlend
from mmretrieve.gallery.store.records import FieldType
from mmretrieve.gallery.store.store import MAX_DIM, Store
from mmretrieve.gallery.vocabularies import GalleryVocabulary
from mmretrieve.options import OLD_COLORS, Colors, Decode, Dtype

TITLE_FIELDS = ("title", "name", "product", "label", "headline", "caption", "description")  # the first that a gallery has
MAX_CACHED_TITLES = 16_384  # of ids: 2 MB


@dataclass(frozen=True)
class Manifest:
    """`setting`: the PDV parameters with which searches start. `vocabulary` and `title_field`: the chosen ones, None if none was chosen.

    `fields` grows as items are added; encoder, dim, decode, colors, dtype and captions never change. `dtype` is None if it was not stored,
    `captions` if they do not count.
    """

    encoder: EncoderIdentity
    dim: int
    decode: Decode = Decode.EXACT
    setting: PDV | None = None
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    vocabulary: GalleryVocabulary | None = None
    title_field: str | None = None
    colors: Colors = Colors.SRGB
    dtype: Dtype | None = None
    captions: CaptionBlend | None = None

    def without_folder(self) -> Manifest:
        """The same manifest, which does not tell where the encoder is on this machine."""
        return replace(self, encoder=self.encoder.without_folder())

    def check_same_vectors(self, location: object, other: Manifest, other_location: object) -> None:
        """Raises GalleryError, with what differs, unless the vectors of both galleries were made in the same way and can be compared."""
        differences = []
        if self.encoder != other.encoder:
            names = f"{self.encoder.model} and {other.encoder.model}"
            differences.append(f"encoder ({names}): {self.encoder.difference(other.encoder)}")
        for name in ("dim", "decode", "colors"):
            if (value := getattr(self, name)) != (other_value := getattr(other, name)):
                differences.append(f"{name} {value} and {other_value}")
        if None not in (self.dtype, other.dtype) and self.dtype != other.dtype:
            differences.append(f"dtype {self.dtype} and {other.dtype}")
        if self.captions != other.captions:
            differences.append(f"captions ({self.captions or 'none'} and {other.captions or 'none'})")
        if differences:
            raise GalleryError(
                f"{location} and {other_location} differ in {'; '.join(differences)}; only vectors that were made in the same way can "
                "be in one gallery"
            )

    @classmethod
    def of(cls, store: Store) -> Manifest:
        """Reads the current manifest of a store."""
        return cls.from_dict(store.ledger.meta(), store.ledger.path)

    def create_store(self, folder: Path) -> Store:
        """Creates an empty store with this manifest. Raises GalleryError if the folder is not empty or cannot be written."""
        return Store.create(
            folder, {name: value for name, value in self.to_dict().items() if name != "fields" and value is not None}
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], location: object) -> Manifest:
        """From what `to_dict` returns, or the metadata of a store. Raises GalleryError, with the location, for anything else."""
        try:
            setting, vocabulary, dim = data.get("setting"), data.get(vocabularies.KEY), data["dim"]
            captions = data.get("captions")
            if type(dim) is not int or not 0 < dim <= MAX_DIM:
                raise ValueError(f"dim is {dim!r:.60}")
            encoder = EncoderIdentity(**data["encoder"])
            if not all(isinstance(text, str) for text in (*asdict(encoder).values(), data.get("title_field") or "")):
                raise TypeError("the identity of the encoder and the title field must be texts")
            return cls(
                encoder,
                dim,
                Decode(data["decode"]),
                None if setting is None else PDV(**setting),
                {name: FieldType(kind) for name, kind in data.get("fields", {}).items()},
                None if vocabulary is None else GalleryVocabulary.from_dict(vocabulary, location),
                data.get("title_field"),
                Colors(data.get("colors", OLD_COLORS)),
                None if data.get("dtype") is None else Dtype(data["dtype"]),
                None if captions is None else CaptionBlend.of(captions["field"], captions["weight"]),
            )
        except GalleryError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MMRetrieveError) as error:
            raise GalleryError(f"{location}: the manifest cannot be read ({error!s:.300})") from error


def detect_title_field(types: Mapping[str, FieldType]) -> str | None:
    """Returns the text field that names the items, by its own name; upper and lower case are equal. None if there is none.

    >>> detect_title_field({"Name": FieldType.TEXT, "Title": FieldType.TEXT, "price": FieldType.NUMBER})
    'Title'
    """
    names = {name.casefold(): name for name, kind in types.items() if kind is FieldType.TEXT}
    return next((names[name] for name in TITLE_FIELDS if name in names), None)


@lru_cache(MAX_CACHED_TITLES)
def readable_id(id_: str) -> str:
    """Returns an id as readable words.

    >>> readable_id("summer/red-dress_7.png")
    'red dress 7'
    """
    return " ".join(PurePosixPath(id_).stem.replace("-", " ").replace("_", " ").split()) or id_
