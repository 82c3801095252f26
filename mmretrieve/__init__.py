"""Zero-shot composed image retrieval: search images with a reference image and a text that says what to change.

Public names are imported on first use, so `import mmretrieve` is fast and loads neither torch nor faiss.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmretrieve import testing, wardrobe
    from mmretrieve.axes import Axis
    from mmretrieve.composers.factory import Parts
    from mmretrieve.composition import Composition
    from mmretrieve.directions import PDV, PUBLISHED, Term, automatic_alpha_image, pdv, pdv_weights
    from mmretrieve.encoders.base import Encoder, EncoderIdentity
    from mmretrieve.encoders.loading import load_encoder
    from mmretrieve.errors import MMRetrieveError
    from mmretrieve.gallery.gallery import Gallery
    from mmretrieve.gallery.ingest import AddReport
    from mmretrieve.language.vocabulary import Vocabulary
    from mmretrieve.opening import open_gallery
    from mmretrieve.options import Colors, ComposerName, Decode, RuleName
    from mmretrieve.ranking import Hit, Ranking
    from mmretrieve.registry import (
        register_captioner,
        register_composer,
        register_encoder,
        register_judge,
        register_paraphraser,
        register_rewriter,
        register_rule,
    )
    from mmretrieve.retriever import Retriever
    from mmretrieve.session import Session, merge_turns
    from mmretrieve.sources import Columns, read_source

__version__ = "0.1.0"

_MODULES = {
    "Colors": "options",
    "ComposerName": "options",
    "Decode": "options",
    "RuleName": "options",
    "Parts": "composers.factory",
    "Vocabulary": "language.vocabulary",
    "Axis": "axes",
    "PDV": "directions",
    "PUBLISHED": "directions",
    "Composition": "composition",
    "Term": "directions",
    "automatic_alpha_image": "directions",
    "pdv": "directions",
    "pdv_weights": "directions",
    "Encoder": "encoders.base",
    "EncoderIdentity": "encoders.base",
    "load_encoder": "encoders.loading",
    "MMRetrieveError": "errors",
    "AddReport": "gallery.ingest",
    "Columns": "sources",
    "read_source": "sources",
    "Gallery": "gallery.gallery",
    "Hit": "ranking",
    "Ranking": "ranking",
    "register_captioner": "registry",
    "register_composer": "registry",
    "register_encoder": "registry",
    "register_judge": "registry",
    "register_paraphraser": "registry",
    "register_rewriter": "registry",
    "register_rule": "registry",
    "Retriever": "retriever",
    "open_gallery": "opening",
    "Session": "session",
    "merge_turns": "session",
}

__all__ = [
    "PDV",
    "PUBLISHED",
    "AddReport",
    "Axis",
    "Colors",
    "Columns",
    "ComposerName",
    "Composition",
    "Decode",
    "Encoder",
    "EncoderIdentity",
    "Gallery",
    "Hit",
    "MMRetrieveError",
    "Parts",
    "Ranking",
    "Retriever",
    "RuleName",
    "Session",
    "Term",
    "Vocabulary",
    "automatic_alpha_image",
    "load_encoder",
    "merge_turns",
    "open_gallery",
    "pdv",
    "pdv_weights",
    "read_source",
    "register_captioner",
    "register_composer",
    "register_encoder",
    "register_judge",
    "register_paraphraser",
    "register_rewriter",
    "register_rule",
    "testing",
    "wardrobe",
]


def __getattr__(name: str) -> Any:
    if name in ("testing", "wardrobe"):
        return import_module(f"mmretrieve.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'mmretrieve' has no attribute {name!r}")
    return getattr(import_module(f"mmretrieve.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
