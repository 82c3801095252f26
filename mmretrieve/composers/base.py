"""The `Composer` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Composition


class Composer(Protocol):
    """Turns references and prompts into compositions.

    Examples
    --------
    >>> import numpy as np
    >>> from mmretrieve.composers.simple import ImageOnly
    >>> composer: Composer = ImageOnly()
    >>> composer.compose([ComposerInput(vector=np.array([0.6, 0.8], np.float32))])[0].term_weights
    {'image': 1.0}
    """

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        """Composes many queries in one call, so that texts are encoded in batches.

        Parameters
        ----------
        inputs : sequence of ComposerInput
            One reference and one prompt each.

        Returns
        -------
        list of Composition
            One composition for each query, in order, with the base weights of the method.

        Raises
        ------
        OptionError
            A query lacks a reference, a prompt or an image that the method needs.
        """
        ...
