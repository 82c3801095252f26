"""Whether a gallery has what a query asks for: how far its best hits stand out from those of other queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composition import Composition, direction_of
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.encoders.checked import encode_texts
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

    def of(self, compositions: Sequence[Composition], spread: Spread, best_of_each: Sequence[Float32]) -> list[float | None]:
        """How well the gallery fits each query, from 0 (nothing fits) to 1; comparable between queries and galleries.

        A logistic regression on queries with and without targets weighs two things: the automatic score of the hits, and how much
        nearer they are to the prompt than to other words, in standard deviations over these words.

        Parameters
        ----------
        compositions : list of Composition
            The queries.
        spread : Spread
            The mean and the deviations of the gallery.
        best_of_each : list of ndarray of shape (n, d), float32
            For each query the unit vectors of its best hits, best first.

        Returns
        -------
        list of float or None
            None for a query without hits, for one with neither an image nor a prompt, and for one of a joint embedder, whose
            scores the regression has not seen.

        Source
        ------
        docs/guides/answerable.md
        """
        evidence = self.evidence(compositions, spread, best_of_each)
        return [
            None if one is None else _probability(composition, *one)
            for composition, one in zip(compositions, evidence, strict=True)
        ]

    def evidence(
        self, compositions: Sequence[Composition], spread: Spread, best_of_each: Sequence[Float32]
    ) -> list[tuple[float, float] | None]:
        """(lead, score) of each query, the inputs of the regression. The lead is 0 without a prompt. None as in `of`."""
        merged = [_merged(composition) for composition in compositions]
        best = [best_nd[:JUDGED_HITS] for best_nd in best_of_each]
        judged = [i for i, rows in enumerate(merged) if rows and len(best[i])]
        scores = _scores([merged[i] for i in judged], spread, [best[i] for i in judged])
        leads = self._leads([merged[i] for i in judged], [best[i] for i in judged])
        found = dict(zip(judged, zip(leads, scores, strict=True), strict=True))
        return [found.get(i) for i in range(len(compositions))]

    def _leads(self, merged: Sequence[Mapping[str, Float32]], best_of_each: Sequence[Float32]) -> list[float]:
        """How much nearer hits are to their prompt than to other words, in standard deviations over these; 0 without a prompt."""
        prompts = {i: rows.get(Term.PROMPT, rows.get(Term.COMPOSED)) for i, rows in enumerate(merged)}
        prompted = {i: prompt for i, prompt in prompts.items() if prompt is not None}
        if not prompted:
            return [0.0] * len(merged)
        words = self._words
        hits = np.concatenate([best_of_each[i] for i in prompted])
        asked = np.repeat(np.stack(list(prompted.values())) - words.mean, [len(best_of_each[i]) for i in prompted], axis=0)
        ahead = np.einsum("hd,hd->h", hits, asked) / np.maximum(words.deviations(hits), MIN_DEVIATION)
        means = dict(zip(prompted, _means(ahead, [len(best_of_each[i]) for i in prompted]), strict=True))
        return [means.get(i, 0.0) for i in range(len(merged))]

    @cached_property
    def _words(self) -> Spread:
        """The distribution of the vectors of ordinary words."""
        words = [word for group in Vocabulary.read(GENERAL).groups for word in group.words if word]
        return Spread.of(encode_texts(self.encoder, words[:: max(1, len(words) // WORDS)]))


def _probability(composition: Composition, lead: float, score: float) -> float:
    """The logistic regression for the kind of the query."""
    roles = set(composition.roles)
    by_lead, by_score, constant = (
        PROMPT_ALONE if Term.IMAGE not in roles else IMAGE_AND_PROMPT if roles & PROMPTED else IMAGE_ALONE
    )
    return 1 / (1 + exp(-(by_lead * lead + by_score * score + constant)))


def _scores(merged: Sequence[Mapping[str, Float32]], spread: Spread, best_of_each: Sequence[Float32]) -> list[float]:
    """The mean of the hits under automatic weights with the prompt in full: hits that match only the reference score low."""
    if not merged:
        return []
    counts = [len(rows) for rows in merged]
    amounts = np.array([APPEND_AMOUNTS[Term(role)] for rows in merged for role in rows])
    terms = np.stack([row for rows in merged for row in rows.values()])
    deviations = spread.deviations(terms)
    centers = np.repeat(np.stack([best_nd.mean(axis=0) for best_nd in best_of_each]) - spread.mean, counts, axis=0)
    varies = deviations >= MIN_DEVIATION
    z = np.einsum("td,td->t", terms, centers) * varies / np.where(varies, deviations, 1.0)
    return [mean / size for mean, size in zip(_means(amounts * z, counts), _means(np.abs(amounts), counts), strict=True)]


def _means(values: NDArray[np.float64], counts: Sequence[int]) -> list[float]:
    """The mean of each run of `counts` values."""
    starts = np.cumsum([0, *counts[:-1]])
    return [float(mean) for mean in np.add.reduceat(values, starts) / counts]


def _merged(composition: Composition) -> dict[str, Float32]:
    """Role → the (d,) unit vector of all its terms, so that several prompts count as one; without what is avoided or liked.

    Nothing for a query that cannot be judged: one without image and prompt, and one with `joint`, which says what they say.
    """
    if Term.JOINT in composition.roles:
        return {}
    rows = {str(role): _direction_of_role(composition, role) for role in STANDARD_TERMS if role in composition.roles}
    rows = {role: row for role, row in rows.items() if row.any()}
    return rows if set(rows) - {Term.TEXT} else {}


def _direction_of_role(composition: Composition, role: str) -> Float32:
    """(d,) the unit vector of all terms of a role."""
    is_one_term = role in composition.names and composition.roles.count(role) == 1 and composition.share(role) == 1
    return composition[role] if is_one_term else direction_of(composition.of_role(role))
