"""Whether a gallery has what a query asks for: how far its best hits stand out from those of other queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import exp

import numpy as np

from mmretrieve.composition import Composition, direction_of
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.language.vocabulary import GENERAL, Vocabulary
from mmretrieve.vectors import Float32
from mmretrieve.weighting import APPEND_AMOUNTS, MIN_DEVIATION, STANDARD_TERMS, Spread

JUDGED_HITS = 3  # the best hits, by which a ranking is judged
WORDS = 160  # of the general vocabulary, which a prompt is compared with
# log-odds of a prompt's lead, the hits' score and 1: with a reference and a prompt, and with either alone (docs/guides/answerable.md)
IMAGE_AND_PROMPT = (0.7, 1.5, -3.7)
PROMPT_ALONE = (1.2, 0.0, -2.6)
IMAGE_ALONE = (0.0, 3.0, -5.7)  # any picture is near to something: what fits large galleries would refuse small ones
PROMPTED = frozenset({Term.PROMPT, Term.COMPOSED})


@dataclass(frozen=True)
class Answerability:
    """Judges rankings of one encoder. The words that prompts are compared with are encoded once, on first use."""

    encoder: Encoder

    def of(self, composition: Composition, spread: Spread, best_nd: Float32) -> float | None:
        """How well the gallery fits a query, from 0 (nothing fits) to 1; comparable between queries and galleries.

        A logistic regression on queries with and without targets weighs two things: the automatic score of the hits, and how much
        nearer they are to the prompt than to other words, in standard deviations over these words.

        Parameters
        ----------
        composition : Composition
            The query.
        spread : Spread
            The mean and the deviations of the gallery.
        best_nd : (n, d) float32
            The unit vectors of the best hits, best first.

        Returns
        -------
        float or None
            None without hits, and for a query with neither an image nor a prompt.

        Source
        ------
        docs/guides/answerable.md
        """
        if (evidence := self.evidence(composition, spread, best_nd)) is None:
            return None
        lead, score = evidence
        roles = set(composition.roles)
        by_lead, by_score, constant = (
            PROMPT_ALONE if Term.IMAGE not in roles else IMAGE_AND_PROMPT if roles & PROMPTED else IMAGE_ALONE
        )
        return 1 / (1 + exp(-(by_lead * lead + by_score * score + constant)))

    def evidence(self, composition: Composition, spread: Spread, best_nd: Float32) -> tuple[float, float] | None:
        """(lead, score), the inputs of the regression. The lead is 0 without a prompt. None as in `of`."""
        rows, best = _merged(composition), best_nd[:JUDGED_HITS]
        if not rows or not len(best):
            return None
        role = next((role for role in (Term.PROMPT, Term.COMPOSED) if role in rows), None)
        return 0.0 if role is None else self._lead(rows[role], best), _score(rows, spread, best)

    def _lead(self, prompt: Float32, best_nd: Float32) -> float:
        """How much nearer the hits are to the (d,) prompt than to other words, in standard deviations over these."""
        words = self._words
        return float(np.mean(best_nd @ (prompt - words.mean) / np.maximum(words.deviations(best_nd), MIN_DEVIATION)))

    @cached_property
    def _words(self) -> Spread:
        """The distribution of the vectors of ordinary words."""
        words = [word for group in Vocabulary.read(GENERAL).groups for word in group.words if word]
        return Spread.of(self.encoder.encode_texts(words[:: max(1, len(words) // WORDS)]))


def _score(rows: Mapping[str, Float32], spread: Spread, best_nd: Float32) -> float:
    """The mean of the hits under automatic weights with the prompt in full: hits that match only the reference score low."""
    amounts = np.array([APPEND_AMOUNTS[Term(role)] for role in rows])
    terms = np.stack(list(rows.values()))
    deviations = spread.deviations(terms)
    varies = deviations >= MIN_DEVIATION
    z = terms[varies] @ (best_nd.mean(axis=0) - spread.mean) / deviations[varies]
    return float(amounts[varies] @ z / np.abs(amounts).sum())


def _merged(composition: Composition) -> dict[str, Float32]:
    """Role → the (d,) unit vector of all its terms, so that several prompts count as one; without what is avoided or liked."""
    rows = {str(role): direction_of(composition.of_role(role)) for role in STANDARD_TERMS if role in composition.roles}
    rows = {role: row for role, row in rows.items() if row.any()}
    return rows if set(rows) - {Term.TEXT} else {}
