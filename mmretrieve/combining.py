"""One query of several references and several prompts, from one composition for each pair of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from mmretrieve.composition import Composition, joined_remarks, numbered, role_of
from mmretrieve.directions import Term
from mmretrieve.errors import OptionError
from mmretrieve.vectors import Float32

_Key = tuple[str, str, str, int]  # role, name, whose it is, and a number where there are several
SAME = 1e-4  # what the same words may differ by from one batch to another


def combined(
    parts: Sequence[Sequence[Composition]], reference_weights: Sequence[float], strengths: Sequence[float]
) -> Composition:
    """Compositions by reference and prompt → one, under the rule of the first and with the remarks of all.

    The references' weights are scaled to sum to 1. The directions of the prompts add, each times its strength, which
    may be negative: per reference text + Σ strength_j · (composed_j − text). A single pair at strength 1 stays as it is.
    OptionError for weights of references that are below 0 or all 0.
    """
    if len(parts) == len(parts[0]) == 1 and strengths[0] == 1 and 0 < reference_weights[0] < inf:
        return parts[0][0]
    total = float(sum(reference_weights))
    if not isfinite(total) or total <= 0 or min(reference_weights) < 0:
        raise OptionError(f"the weights of references must be 0 or more, and not all 0; got {list(reference_weights)}")
    rows: dict[_Key, _Row] = {}
    for i, (row, weight) in enumerate(zip(parts, reference_weights, strict=True)):
        for j, (part, strength) in enumerate(zip(row, strengths, strict=True)):
            _collect(rows, part, _Pair(i, j, weight / total, strength, len(strengths), 1 - sum(strengths)))
    names = _numbered_by_role([role for role, *_ in rows])
    return Composition(
        names,
        np.stack([row.vector for row in rows.values()]),
        tuple(row.weight for row in rows.values()),
        {name: row.words for name, row in zip(names, rows.values(), strict=True) if row.words is not None},
        parts[0][0].rule,
        {name: row.share for name, row in zip(names, rows.values(), strict=True)},
        joined_remarks(*(part.remark for row in parts for part in row)),
    )


@dataclass
class _Row:
    vector: Float32
    words: str | None
    weight: float = 0.0
    share: float = 0.0


@dataclass(frozen=True)
class _Pair:
    """One reference and one prompt of several. `left` is what the strengths of all prompts leave to `text`."""

    reference: int
    prompt: int
    weight: float
    strength: float
    prompts: int
    left: float

    def place(self, role: str) -> tuple[str, float]:
        """Whose term it is, and how much of it this pair brings: what is the reference's alone is shared by all prompts."""
        if role in (Term.IMAGE, Term.TEXT):
            return f"reference {self.reference}", self.weight / self.prompts
        owner = f"prompt {self.prompt}" if role == Term.PROMPT else f"{self.reference}, {self.prompt}"
        return owner, self.weight * self.strength


def _collect(rows: dict[_Key, _Row], part: Composition, pair: _Pair) -> None:
    """Adds the terms of one pair to those of the others."""
    for name, vector, weight in zip(part.names, part.terms, part.weights, strict=True):
        role = role_of(name)
        owner, factor = pair.place(role)
        row = _row(rows, (role, name, owner), _Row(vector, part.words.get(name)))
        row.share += part.shares.get(name, 1.0) * factor
        row.weight += weight * factor
        if role == Term.TEXT and Term.COMPOSED in part.names:
            row.weight += part.weighing[Term.COMPOSED] * pair.left * factor


def _row(rows: dict[_Key, _Row], place: tuple[str, str, str], new: _Row) -> _Row:
    """The row at that place with the same vector. LDRE says a reference anew for each prompt: then it has several, each with its part."""
    number = 0
    while (*place, number) in rows and not np.allclose(rows[(*place, number)].vector, new.vector, rtol=0, atol=SAME):
        number += 1
    return rows.setdefault((*place, number), new)


def _numbered_by_role(roles: Sequence[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    names = []
    for role in roles:
        names.append(numbered(role, seen.setdefault(role, 0)))
        seen[role] += 1
    return tuple(names)
