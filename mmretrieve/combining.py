"""Combines the compositions of several references and several prompts into one query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from mmretrieve.composition import Composition, join_remarks, role_of, term_name
from mmretrieve.directions import ORIGINS, Term
from mmretrieve.errors import OptionError
from mmretrieve.vectors import Float32

_Key = tuple[str, str, str, int]  # role, name, the reference or prompt it belongs to, and a counter
SAME_VECTOR_TOLERANCE = 1e-4  # vectors of the same text may differ by this much between batches


def combine(
    compositions: Sequence[Sequence[Composition]], reference_weights: Sequence[float], strengths: Sequence[float]
) -> Composition:
    """Combines one composition per pair of reference and prompt into one.

    The directions of the prompts add up, each times its strength: per reference text + Σ strength_j · (composed_j − text), and
    image + Σ strength_j · (joint_j − image), or with imagined_j.
    A single pair with strength 1 is returned unchanged. The rule is that of the first composition.

    Parameters
    ----------
    compositions : sequence of sequences of Composition
        Indexed by reference, then by prompt.
    reference_weights : sequence of float
        At least 0, not all 0; scaled to sum to 1.
    strengths : sequence of float
        The strength of each prompt; may be negative.

    Raises
    ------
    OptionError
        A reference weight is negative or not finite, or all are 0.
    """
    if len(compositions) == len(compositions[0]) == 1 and strengths[0] == 1 and 0 < reference_weights[0] < inf:
        return compositions[0][0]
    total = float(sum(reference_weights))
    if not isfinite(total) or total <= 0 or min(reference_weights) < 0:
        raise OptionError(f"the weights of references must be 0 or more, and not all 0; got {list(reference_weights)}")
    rows: dict[_Key, _Row] = {}
    for i, (row, weight) in enumerate(zip(compositions, reference_weights, strict=True)):
        for j, (composition, strength) in enumerate(zip(row, strengths, strict=True)):
            _add_terms(rows, composition, _Pair(i, j, weight / total, strength, len(strengths), 1 - sum(strengths)))
    names = _numbered_names([role for role, *_ in rows])
    return Composition(
        names,
        np.stack([row.vector for row in rows.values()]),
        tuple(row.weight for row in rows.values()),
        {name: row.words for name, row in zip(names, rows.values(), strict=True) if row.words is not None},
        compositions[0][0].rule,
        {name: row.share for name, row in zip(names, rows.values(), strict=True)},
        join_remarks(*(composition.remark for row in compositions for composition in row)),
    )


@dataclass
class _Row:
    """A term of the combined query."""

    vector: Float32
    words: str | None
    weight: float = 0.0
    share: float = 0.0


@dataclass(frozen=True)
class _Pair:
    """One reference and one prompt. `origin_factor` is 1 − Σ strengths, the part of `composed` that `text` compensates."""

    reference: int
    prompt: int
    weight: float
    strength: float
    prompts: int
    origin_factor: float

    def owner_and_factor(self, role: str) -> tuple[str, float]:
        """The owner of a term and the factor of this pair: terms of a reference are shared by all of its prompts."""
        if role in (Term.IMAGE, Term.TEXT):
            return f"reference {self.reference}", self.weight / self.prompts
        owner = f"prompt {self.prompt}" if role == Term.PROMPT else f"{self.reference}, {self.prompt}"
        return owner, self.weight * self.strength


def _add_terms(rows: dict[_Key, _Row], composition: Composition, pair: _Pair) -> None:
    """Adds the terms of one pair to the rows."""
    for name, vector, weight in zip(composition.names, composition.terms, composition.weights, strict=True):
        role = role_of(name)
        owner, factor = pair.owner_and_factor(role)
        row = _find_row(rows, (role, name, owner), _Row(vector, composition.words.get(name)))
        row.share += composition.shares.get(name, 1.0) * factor
        row.weight += weight * factor
        for end, origin in ORIGINS.items():
            if role == origin and end in composition.names:
                row.weight += composition.term_weights[end] * pair.origin_factor * factor


def _find_row(rows: dict[_Key, _Row], key: tuple[str, str, str], new: _Row) -> _Row:
    """The row with that key and vector, or the new one. LDRE captions a reference once per prompt, so vectors may differ."""
    number = 0
    while (*key, number) in rows and not _is_same_vector(rows[(*key, number)], new):
        number += 1
    return rows.setdefault((*key, number), new)


def _is_same_vector(a: _Row, b: _Row) -> bool:
    return np.allclose(a.vector, b.vector, rtol=0, atol=SAME_VECTOR_TOLERANCE)


def _numbered_names(roles: Sequence[str]) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    names = []
    for role in roles:
        names.append(term_name(role, counts.setdefault(role, 0)))
        counts[role] += 1
    return tuple(names)
