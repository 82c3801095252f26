"""Balanced weights: image, text, composed and prompt weighed without labels, from how their scores spread over a gallery.

PDV leaves its knobs to be tuned, and raw weights do not carry over from one encoder to the next: the scores of words and
of pictures spread differently (the modality gap). So each term is first brought to the same spread, σ; and then

    w_image    = √(1 − ρ²) / σ_image        less of the picture where its caption already says it
    w_text     = −(ρ / 2) / σ_text          and half of what picture and caption share is taken away again
    w_composed = 1 / σ_composed
    w_prompt   = r² / σ_prompt              r: how far the rewrite still says what the caption said

with ρ the correlation of the scores of `image` and `text`, and all of it scaled so that `composed` weighs 1. It is linear: one vector, one search. docs/weights.md says how it
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
LEAST = 1e-6  # a smaller spread is none: a gallery of one item, a prompt that is taken away again
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
        return sqrt(max(0.0, float(vector @ self.covariance @ vector)))

    def correlation(self, a: Float32, b: Float32) -> float:
        """The correlation, over the gallery, of two (d,) terms' scores."""
        both = self.deviation(a) * self.deviation(b)
        return float(np.clip(a @ self.covariance @ b / both, -1, 1)) if both > LEAST**2 else 0.0


def balanced(composition: Composition, spread: Spread) -> Composition:
    """The same terms under balanced weights. OptionError where image, text, composed and prompt are not all there."""
    if missing := [term for term in FOUR if term not in composition.roles]:
        raise OptionError(f"balanced weights are for image, text, composed and prompt; this query has no {', '.join(missing)}")
    rows = {term: composition.weighted({term: 1.0}).vector for term in FOUR}
    spreads = {term: spread.deviation(row) for term, row in rows.items()}
    if spreads[Term.COMPOSED] < LEAST:  # a gallery of one item, say: nothing to balance by
        spreads = dict.fromkeys(FOUR, 1.0)
    shared, said = spread.correlation(rows[Term.IMAGE], rows[Term.TEXT]), composition.words
    repeats = said.get(Term.COMPOSED, "").startswith(said.get(Term.TEXT, ""))
    sizes = {
        Term.IMAGE: sqrt(1 - shared**2),
        Term.TEXT: -shared / 2,
        Term.COMPOSED: 1.0,
        Term.PROMPT: KEPT if repeats else REPLACED,
    }
    unit = spreads[Term.COMPOSED]
    return composition.with_weights(
        {term: size * unit / spreads[term] if spreads[term] >= LEAST else 0.0 for term, size in sizes.items()}
    )
