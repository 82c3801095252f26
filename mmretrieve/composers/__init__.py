"""What makes terms: every way to compose a query, by name."""

from __future__ import annotations

from pathlib import Path

from mmretrieve.composers.base import Composer
from mmretrieve.composers.captions import Captions, Tagger
from mmretrieve.composers.simple import ImageOnly, PromptOnly, Slerp, Sum
from mmretrieve.composers.vocabulary import Vocabulary
from mmretrieve.encoders.base import Encoder
from mmretrieve.options import ComposerName

GENERAL = Path(__file__).with_name("vocabulary.json")


def make_composer(name: ComposerName | str, encoder: Encoder, *, vocabulary: Vocabulary | None = None) -> Composer:
    """The composer of that name. `vocabulary` is for the tagger of "captions"; by default the encoder's own, else a general one."""
    match ComposerName(name):
        case ComposerName.IMAGE:
            return ImageOnly()
        case ComposerName.PROMPT:
            return PromptOnly(encoder)
        case ComposerName.SUM:
            return Sum(encoder)
        case ComposerName.SLERP:
            return Slerp(encoder)
        case ComposerName.CAPTIONS:
            return Captions(encoder, Tagger(encoder, vocabulary or default_vocabulary(encoder)))


def default_vocabulary(encoder: Encoder) -> Vocabulary:
    """`vocabulary.json` in the encoder's own folder where there is one, else the general vocabulary of the package."""
    folder = getattr(encoder, "folder", None)
    own = folder / "vocabulary.json" if folder is not None else GENERAL
    return Vocabulary.read(own if own.is_file() else GENERAL)
