"""The vocabulary of a gallery: made from chosen fields, or detected automatically in the fields of its items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmretrieve.errors import GalleryError, OptionError, VocabularyError
from mmretrieve.gallery.store.records import RESTORE, FieldType, find_field
from mmretrieve.language.fields import vocabulary_from_fields
from mmretrieve.language.vocabulary import Vocabulary

KEY = "vocabulary"  # in the metadata of the ledger
MAX_ITEMS = 20_000  # of the sample whose fields are read
MAX_CHANGE = 0.1  # share of items; if the size changes by more, the vocabulary is detected again


@dataclass(frozen=True)
class GalleryVocabulary:
    """A vocabulary and the fields chosen for it. `fields` is empty if it was detected automatically.

    `vocabulary` is None if no field contains words.
    """

    vocabulary: Vocabulary | None
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line: `"a photo of a {colour} {article}", from fields article, colour`."""
        if self.vocabulary is None:
            return "none"
        origin = f"from fields {', '.join(self.fields)}" if self.fields else "found automatically"
        return f'"{self.vocabulary.sentence}", {origin}'

    def to_dict(self) -> dict[str, Any]:
        """For JSON files."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], location: object) -> GalleryVocabulary:
        """From what `to_dict` returns. Raises GalleryError, with the location, for anything else."""
        try:
            return cls(Vocabulary.from_dict(data["vocabulary"]), tuple(data["fields"]))
        except (KeyError, TypeError, AttributeError, VocabularyError) as error:
            raise GalleryError(f"{location}: the stored vocabulary is damaged; {RESTORE}") from error


@dataclass(frozen=True)
class AutomaticVocabulary:
    """A detected vocabulary, with the fields and the number of items of the gallery at that time."""

    vocabulary: Vocabulary | None
    types: Mapping[str, FieldType]
    items: int

    @classmethod
    def detect(cls, sample: Sequence[Mapping[str, object]], types: Mapping[str, FieldType], items: int) -> AutomaticVocabulary:
        """Detects the vocabulary of a gallery in the fields of a sample of its items."""
        return cls(vocabulary_from_fields(sample) if types else None, types, items)

    def is_valid_for(self, types: Mapping[str, FieldType], items: int) -> bool:
        """Returns whether it still describes a gallery with these fields and this number of items."""
        return self.types == types and abs(items - self.items) <= MAX_CHANGE * self.items


def make_vocabulary(
    sample: Sequence[Mapping[str, object]], types: Mapping[str, FieldType], fields: Sequence[str]
) -> GalleryVocabulary:
    """Makes the vocabulary from exactly these fields of a sample of items; upper and lower case are equal.

    Raises OptionError for a field that no item has, with the names of all fields, and for a field without words.
    """
    if isinstance(fields, str):
        raise OptionError(f"expected a list of fields, got one string {fields!r}")
    chosen = [find_field(types, name) for name in fields]
    return GalleryVocabulary(vocabulary_from_fields(sample, chosen), tuple(chosen))
