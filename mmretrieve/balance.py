"""Balanced weights: image, text, composed and prompt weighed without labels, from how their scores spread over a gallery.

PDV leaves its knobs to be tuned, and raw weights do not carry over from one encoder to the next: the scores of words and
of pictures spread differently (the modality gap). So each term is first brought to the same spread, σ; and then

    w_image    = √(1 − ρ²) / σ_image        less of the picture where its caption already says it
    w_text     = −(ρ / 2) / σ_text          and half of what picture and caption share is taken away again
    w_composed = 1 / σ_composed
    w_prompt   = r² / σ_prompt              r: how far the rewrite still says what the caption said

with ρ the correlation of the scores of `image` and `text`. It is linear: one vector, one search. docs/weights.md says how it
was found, what it was measured against, and where it loses.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.errors import OptionError
from mmretrieve.vectors import Float32

KEPT, REPLACED = 0.72, 0.37  # r² where a rewrite repeats its caption, and where it replaces words of it
LEAST = 1e-6  # of a spread: a gallery of one item has none
FOUR = (Term.IMAGE, Term.TEXT, Term.COMPOSED, Term.PROMPT)


@dataclass(frozen=True)
class Spread:
    """How the vectors of a gallery lie about their mean: their (d, d) covariance."""

    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, vectors: Float32) -> Spread:
        """Of (n, d) vectors."""
        centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64) if len(vectors) else vectors
        return cls(np.asarray(centred.T @ centred / max(1, len(vectors)), dtype=np.float64))

    def deviation(self, vector: Float32) -> float:
        """The standard deviation, over the gallery, of a (d,) term's scores."""
        return max(LEAST, sqrt(max(0.0, float(vector @ self.covariance @ vector))))

    def correlation(self, a: Float32, b: Float32) -> float:
        """The correlation, over the gallery, of two (d,) terms' scores."""
        return float(np.clip(a @ self.covariance @ b / (self.deviation(a) * self.deviation(b)), -1, 1))


def balanced(composition: Composition, spread: Spread) -> Composition:
    """The same terms under balanced weights. OptionError where image, text, composed and prompt are not all there."""
    if missing := [term for term in FOUR if term not in composition.roles]:
        raise OptionError(f"balanced weights are for image, text, composed and prompt; this query has no {', '.join(missing)}")
    image, text, composed, prompt = (composition.weighted({term: 1.0}).vector for term in FOUR)
    shared = spread.correlation(image, text)
    said = composition.words
    repeats = KEPT if said.get(Term.COMPOSED, "").startswith(said.get(Term.TEXT, "")) else REPLACED
    return composition.with_weights(
        {
            Term.IMAGE: sqrt(1 - shared**2) / spread.deviation(image),
            Term.TEXT: -shared / 2 / spread.deviation(text),
            Term.COMPOSED: 1 / spread.deviation(composed),
            Term.PROMPT: repeats / spread.deviation(prompt),
        }
    )
