"""What every composer is: from a reference image and a prompt to named terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Composition


class Composer(Protocol):
    """Makes terms. One call takes many queries, so that texts are encoded in batches."""

    def compose(self, queries: Sequence[ComposerInput]) -> list[Composition]:
        """One composition a query, in order, under the method's own base weights."""
        ...
