"""The `Composer` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Composition


class Composer(Protocol):
    """Turns references and prompts into compositions. One call takes many queries, so that texts are encoded in batches."""

    def compose(self, queries: Sequence[ComposerInput]) -> list[Composition]:
        """One composition per query, in order, with the base weights of the method."""
        ...
