"""Captions of the items of a gallery: fields of these items, blended into their vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmretrieve.encoders.base import Encoder
from mmretrieve.encoders.checked import encode_texts
from mmretrieve.errors import OptionError
from mmretrieve.filters.expression import fold_case
from mmretrieve.gallery.store.records import Item
from mmretrieve.language.files import FileCaptioner, IdLookup
from mmretrieve.options import DEFAULT_CAPTION_FIELD, DEFAULT_CAPTION_WEIGHT, check_path, is_number
from mmretrieve.sources.base import Entry, ReportingSource, Source, SourceItem, SourceReport, Value
from mmretrieve.sources.values import is_text
from mmretrieve.vectors import Float32, bad_rows

Captions = str | Path | Mapping[str, str]
"""A file that `FileCaptioner` reads, or item id → caption."""


@dataclass(frozen=True)
class CaptionBlend:
    """How captions count in the vectors of a gallery: unit((1 − weight) · image + weight · caption), both unit vectors.

    An item without a caption has the vector of its image. Source: ImageScope (arXiv 2503.10166), XR (arXiv 2601.14245).

    Parameters
    ----------
    field : the field of the items that holds their captions.
    weight : above 0 and up to 1.
    """

    field: str
    weight: float

    @classmethod
    def of(cls, field: str | None, weight: float | None) -> CaptionBlend | None:
        """The blend of a field and a weight, of which one may have its default; None if neither is given, or the weight is 0.

        Raises OptionError for a weight outside [0, 1], and for a field that is not a name.
        """
        if field is None and weight is None:
            return None
        weight = DEFAULT_CAPTION_WEIGHT if weight is None else weight
        field = DEFAULT_CAPTION_FIELD if field is None else field
        if not is_number(weight) or not 0 <= weight <= 1:
            raise OptionError(f"caption_weight must be a number from 0 to 1, got {weight!r:.80}")
        if not isinstance(field, str) or not field.strip() or not is_text(field):
            raise OptionError(f"caption_field must be the name of a field, got {field!r:.80}")
        return cls(field, float(weight)) if weight else None

    def __str__(self) -> str:
        """One line: "0.15 of the field 'caption'"."""
        return f"{self.weight:g} of the field {self.field!r}"

    def caption(self, fields: Mapping[str, Value]) -> str | None:
        """The caption in the fields of an item; upper and lower case of the field are equal. None if it has none.

        >>> CaptionBlend("caption", 0.15).caption({"Caption": "a red dress"})
        'a red dress'
        """
        name = fold_case(self.field)
        value = next((value for field, value in fields.items() if fold_case(field) == name), None)
        return None if value is None else str(value).strip() or None

    def blend(self, encoder: Encoder, items: Sequence[Item], vectors: Float32) -> Float32:
        """The (n, dim) vectors of the images of n items, with their captions. Rows without a direction stay as they are."""
        captions = [self.caption(item.fields) for item in items]
        bad = bad_rows(vectors)
        rows = [row for row, caption in enumerate(captions) if caption is not None and row not in bad]
        if not rows:
            return vectors
        texts = encode_texts(encoder, [str(captions[row]) for row in rows]).astype(np.float64)
        sums = (1 - self.weight) * vectors[rows] + self.weight * texts
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        blended = vectors.copy()
        blended[rows] = sums / np.where(lengths == 0, 1, lengths)
        return blended


class CaptionedSource:
    """A source whose images have captions, as one of their fields. Images without a caption are left as they are."""

    def __init__(self, source: Source, captions: Mapping[str, str], field: str) -> None:
        self._source, self._captions, self._field = source, captions, field
        self._ids, self.name = IdLookup(captions), source.name

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Entry]:
        return map(self._with_caption, self._source)

    def report(self) -> SourceReport:
        """What the source itself noticed."""
        return self._source.report() if isinstance(self._source, ReportingSource) else SourceReport()

    def _with_caption(self, entry: Entry) -> Entry:
        name = self._ids.find(entry.id) if isinstance(entry, SourceItem) else None
        if name is None or not isinstance(entry, SourceItem):
            return entry
        others = {field: value for field, value in entry.fields.items() if fold_case(field) != fold_case(self._field)}
        return replace(entry, fields={**others, self._field: self._captions[name]})


def read_captions(captions: Captions, *, id_field: str | None = None, caption_field: str | None = None) -> dict[str, str]:
    """Item id → caption, the first one of each id. Blank captions are left out.

    Parameters
    ----------
    captions : a .json, .jsonl or .csv file of records with an id and a caption (see `FileCaptioner.read`), or a mapping.
    id_field, caption_field : the fields of the file that hold them; by default they are recognized by their names.

    Raises
    ------
    OptionError : if it is neither a file nor a mapping of texts, or a field is not recognized.
    MMRetrieveError : if the file cannot be read.

    >>> read_captions({"a.png": "a red dress", "b.png": " "})
    {'a.png': 'a red dress'}
    """
    if isinstance(captions, Mapping):
        if others := [pair for pair in captions.items() if not all(isinstance(text, str) for text in pair)]:
            raise OptionError(f"captions must be texts by the ids of items, got {others[0]!r:.80}")
        return {id_: text.strip() for id_, text in captions.items() if text.strip()}
    file = FileCaptioner.read(check_path("captions", captions), id_field=id_field, caption_field=caption_field)
    return {id_: texts[0] for id_, texts in file.by_id.items()}
