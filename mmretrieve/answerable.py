"""Whether a gallery has what a query asks for: how far the best hits stand out from what the gallery gives to anything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.language.vocabulary import GENERAL, Vocabulary
from mmretrieve.vectors import Float32
from mmretrieve.weighting import LEAST, Spread, automatic

BEST = 3  # hits that are looked at
WORDS = 160  # of the general vocabulary that a prompt is held against
BOTH = (0.7, 2.2, -5.1)  # of a prompt's lead, the hits' score and 1, as log-odds: with a reference and a prompt
PROMPT_ALONE = (1.2, 0.0, -2.0)
IMAGE_ALONE = (0.0, 3.0, -5.7)
PROMPTED = frozenset({Term.PROMPT, Term.COMPOSED})


@dataclass(frozen=True)
class Answerability:
    """Judges rankings of one encoder. The words that prompts are held against are encoded once, when they are first needed."""

    encoder: Encoder

    def of(self, composition: Composition, spread: Spread, best_nd: Float32) -> float | None:
        """From 0 (nothing fits) to 1, comparable between queries and galleries: of a query and the (n, d) vectors of its best hits.

        Two things count, as a logistic regression on queries with and without targets weighs them: the `automatic` score of the
        hits, and how far they say the prompt rather than other words, in standard deviations over these words. None where there
        are no hits, or neither an image nor a prompt.
        """
        if (evidence := self.evidence(composition, spread, best_nd)) is None:
            return None
        lead, score = evidence
        roles = set(composition.roles)
        by_lead, by_score, constant = (
            PROMPT_ALONE if Term.IMAGE not in roles else BOTH if roles & PROMPTED else IMAGE_ALONE
        )
        return 1 / (1 + exp(-(by_lead * lead + by_score * score + constant)))

    def evidence(self, composition: Composition, spread: Spread, best_nd: Float32) -> tuple[float, float] | None:
        """The two things that count, (lead, score): a lead of 0 where nothing is said. None as in `of`."""
        roles = set(composition.roles)
        if not len(best_nd) or not roles & {Term.IMAGE, *PROMPTED}:
            return None
        lead = self._lead(composition, best_nd[:BEST]) if roles & PROMPTED else 0.0
        return lead, _score(composition, spread, best_nd[:BEST])

    def _lead(self, composition: Composition, best_nd: Float32) -> float:
        """How far the hits say each prompt rather than other words; of several prompts the one they say least."""
        others = best_nd @ self._words.T
        said = [best_nd @ composition[name] for name in _said(composition)]
        leads = [np.mean((scores - others.mean(axis=1)) / np.maximum(others.std(axis=1), LEAST)) for scores in said]
        return float(min(leads))

    @cached_property
    def _words(self) -> Float32:
        words = [word for group in Vocabulary.read(GENERAL).groups for word in group.words if word]
        return self.encoder.encode_texts(words[:: max(1, len(words) // WORDS)])


def _said(composition: Composition) -> Sequence[str]:
    """The terms that say what is asked: prompts, or without any what they were made of."""
    for role in (Term.PROMPT, Term.COMPOSED):
        if names := [name for name, of in zip(composition.names, composition.roles, strict=True) if of == role]:
            return names
    return ()


def _score(composition: Composition, spread: Spread, best_nd: Float32) -> float:
    """The mean `automatic` score of the hits, with the terms of one role taken for one: many prompts make no query harder."""
    counts = Counter(composition.roles)
    shares = {name: 1 / counts[role] for name, role in zip(composition.names, composition.roles, strict=True)}
    composition = replace(composition, shares=shares)
    scores: NDArray[np.float64] = automatic(composition, spread).contributions(composition.terms @ best_nd.T).sum(axis=0)
    return float(scores.mean())
