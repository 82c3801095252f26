"""What can be chosen, and what is chosen when nothing is said: once, for functions, shell and page. Nothing heavy here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from mmretrieve.errors import unknown

DEFAULT_K = 10
AUTO = "auto"
DEFAULT_ENCODER = "ViT-B-32/laion2b_s34b_b79k"
BUILT_IN = "wardrobe"
BUILT_IN_MODEL = Path(__file__).parent / "wardrobe" / "model"


class ComposerName(StrEnum):
    """Every way to compose a query."""

    IMAGE = "image"
    PROMPT = "prompt"
    SUM = "sum"
    SLERP = "slerp"
    CAPTIONS = "captions"

    @classmethod
    def _missing_(cls, value: object) -> ComposerName:
        raise unknown("composer", value, cls)


class Decode(StrEnum):
    """`exact` decodes every pixel; `fast` lets JPEG shrink while decoding (about twice the speed, slightly other vectors)."""

    EXACT = "exact"
    FAST = "fast"

    @classmethod
    def _missing_(cls, value: object) -> Decode:
        raise unknown("decode", value, cls)
