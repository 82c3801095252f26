"""A composed query is a set of named unit vectors (terms) and a weight for each; a score rule folds their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmretrieve.directions import PDV, Term, automatic_alpha_image
from mmretrieve.errors import OptionError, VectorError
from mmretrieve.options import CaptionSource, RuleName
from mmretrieve.rules import LINEAR, ScoreRule, check_roles
from mmretrieve.scoring import linear_contributions
from mmretrieve.vectors import Float32, check_unit

REMARK_SEPARATOR = "; "
CANCELLED = 1e-6  # a sum of unit vectors that is shorter has no direction but rounding
UNKNOWN_TRUST = 0.5  # of words that say neither where they come from nor how sure that is


class Caption(str):
    """A caption with its source and `trust`, a number from 0 to 1: how likely it is that all of its words are right.

    It is a str, so everything that takes text takes it. Methods of str, such as `strip`, return a plain str. Trust is kept to two
    digits: what lies beyond is rounding of the encoder, which differs from one batch to another.
    Raises OptionError for a trust outside 0 to 1 and for an unknown source.

    >>> caption = Caption("a photo of a dress", trust=0.9, source="tagger")
    >>> caption
    'a photo of a dress'
    >>> caption.trust, str(caption.source)
    (0.9, 'tagger')
    """

    trust: float
    source: CaptionSource

    def __new__(cls, text: str, *, trust: float, source: CaptionSource | str) -> Caption:
        if not 0 <= trust <= 1:
            raise OptionError(f"the trust of a caption must be a number from 0 to 1, got {trust!r}")
        caption = super().__new__(cls, text)
        caption.trust, caption.source = round(float(trust), 2), CaptionSource(source)
        return caption

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (str(self),), {"trust": self.trust, "source": self.source}


@dataclass(frozen=True)
class Composition:
    """A composed query: (t, d) unit float32 `terms`, their `names`, one weight for each, and the `words` behind them.

    A name is a role (`image`, `composed`, …), with a number where the query has several of them (`composed 2`).
    `shares` says what part of its role's weight such a term carries; unnamed ones carry all of it. `rule` folds the
    term scores, which count from `means` (0 where a term has none): under automatic weights from what the gallery's average
    item scores. `remark` is what a reader of the result should know of how the terms were made, `why` what was chosen and why.
    Raises VectorError where the lengths do not agree, a row is not unit, or a name comes twice; OptionError for a rule
    that needs other terms.
    """

    names: tuple[str, ...]
    terms: Float32
    weights: tuple[float, ...]
    words: Mapping[str, str] = field(default_factory=dict)
    rule: ScoreRule = LINEAR
    shares: Mapping[str, float] = field(default_factory=dict)
    remark: str | None = None
    means: Mapping[str, float] = field(default_factory=dict)
    why: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", check_unit(self.terms, "terms"))
        object.__setattr__(self, "names", tuple(map(str, self.names)))
        for said in ("words", "shares", "means"):
            object.__setattr__(self, said, {str(name): value for name, value in getattr(self, said).items()})
        if not len(self.names) == len(self.terms) == len(self.weights):
            raise VectorError(
                f"{len(self.names)} names, {len(self.terms)} terms and {len(self.weights)} weights must be equally many"
            )
        if len(set(self.names)) != len(self.names):
            raise VectorError(f"every term needs its own name, got {list(self.names)}")
        if not all(isfinite(weight) for weight in self.weights):
            raise VectorError(f"weights must be finite, got {list(self.weights)}")
        check_roles(self.rule, self.roles)

    def __getitem__(self, name: str) -> Float32:
        """The (d,) term of that name."""
        return np.asarray(self.terms[self.names.index(name)])

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """The role of each term."""
        return tuple(map(role_of, self.names))

    @property
    def weighing(self) -> dict[str, float]:
        """Term → weight."""
        return dict(zip(self.names, self.weights, strict=True))

    @property
    def vector(self) -> Float32:
        """(d,) Σ weight · term, not normalised: its inner product with an item is the item's linear score."""
        return _sum(self.weights, self.terms)

    @property
    def direction(self) -> Float32:
        """(d,) the unit vector along Σ weight · term, however large the weights are; zeros where it cancels."""
        weights = np.array(self.weights) / (np.abs(self.weights).max() or 1.0)
        return direction_of(weights @ self.terms.astype(np.float64))

    @property
    def is_linear(self) -> bool:
        """Whether the score is one inner product, with `vector`."""
        return self.rule.name == RuleName.LINEAR

    @property
    def takes_pdv(self) -> bool:
        return self.rule.weighs and {Term.IMAGE, Term.TEXT, Term.COMPOSED} <= set(self.roles)

    @property
    def is_base(self) -> bool:
        """Whether these are the weights of PDV's base method: `composed` alone."""
        return self.takes_pdv and np.allclose(self.weights, self.with_pdv(PDV()).weights, rtol=0, atol=1e-9)

    def contributions(self, scores_tn: Float32) -> NDArray[np.float64]:
        """(t, n) term scores → (t, n) what each term gives each item under the rule; the sum over terms is the score."""
        if self.means:
            scores_tn = scores_tn - np.array([[self.means.get(name, 0.0)] for name in self.names])
        weighted = linear_contributions(scores_tn, self.weights)
        if self.is_linear:
            return weighted
        reading = {role: linear_contributions(scores_tn, self._weights({role: 1.0})) for role in set(self.roles)}
        slopes = self.rule.slopes(weighted.sum(axis=0), {role: gave.sum(axis=0) for role, gave in reading.items()})
        return sum((slope * reading[role] for role, slope in slopes.roles.items()), slopes.weighted * weighted)

    def weighted(self, weights: Mapping[str, float]) -> Composition:
        """The same terms under other weights, by role; a role not named weighs 0. Unknown roles raise OptionError.

        Where several terms share a role, each takes its share. `text` also gives back what the strengths of several
        prompts add to `composed`, so that their directions add: text + Σ strength_i · (composed_i − text).
        """
        return replace(self, weights=self._weights(weights))

    def of_role(self, role: str) -> Float32:
        """(d,) the sum of the terms of a role, each with its share: what `weighted({role: 1})` is the vector of."""
        return _sum(self._weights({role: 1.0}), self.terms)

    def _weights(self, weights: Mapping[str, float]) -> tuple[float, ...]:
        if strange := set(weights) - set(self.roles):
            raise OptionError(f"no term named {', '.join(sorted(strange))}; this query has: {', '.join(self.names)}")
        asked = sum(self.share(name) for name, role in zip(self.names, self.roles, strict=True) if role == Term.COMPOSED)
        per_role = dict(weights)
        if Term.TEXT in self.roles and Term.COMPOSED in per_role:
            per_role[Term.TEXT] = per_role.get(Term.TEXT, 0.0) + per_role[Term.COMPOSED] * (1 - asked)
        spread = (per_role.get(role, 0.0) * self.share(name) for name, role in zip(self.names, self.roles, strict=True))
        return tuple(map(float, spread))

    def with_pdv(self, setting: PDV) -> Composition:
        """The same terms under PDV weights; terms beside image, text, composed and prompt keep theirs.

        OptionError where `image`, `text` and `composed` are not all there, or the rule has no weights.
        """
        if self.rule.weighs and not self.takes_pdv:
            raise OptionError(
                f"PDV weighs image, text and composed; this query has only {', '.join(self.names)} (use the 'captions' composer)"
            )
        return self.with_weights(dict(zip((Term.IMAGE, Term.TEXT, Term.COMPOSED), setting.weights, strict=True)))

    def with_weights(self, weights: Mapping[str, float]) -> Composition:
        """`weighted`, but terms beside image, text, composed and prompt keep theirs where they are not named."""
        if not self.rule.weighs:
            raise OptionError(
                f"the {str(self.rule.name)!r} rule has no weights: leave out weights, alpha_image, alpha_text and beta"
            )
        own = {role for role in self.roles if role not in set(Term) and role not in weights}
        told = zip(self.roles, self.weights, self.weighted(weights).weights, strict=True)
        return replace(self, weights=tuple(old if role in own else new for role, old, new in told), means={}, why=None)

    def with_rule(self, rule: ScoreRule) -> Composition:
        """The same terms and weights under another rule. OptionError where the rule reads a term that is not there."""
        return replace(self, rule=rule)

    def plus(self, role: str, vectors: Float32, weight: float, words: Sequence[str]) -> Composition:
        """With the terms of `Composition.of` beside its own."""
        return self.joined(Composition.of(role, vectors, weight, words))

    def joined(self, more: Composition) -> Composition:
        """With the terms of another beside its own. VectorError where both have one of a name."""
        return replace(
            self,
            names=self.names + more.names,
            terms=np.concatenate([self.terms, more.terms]),
            weights=self.weights + more.weights,
            words={**self.words, **more.words},
            shares={**self.shares, **more.shares},
            means={**self.means, **more.means},
        )

    def remarked(self, *remarks: str | None) -> Composition:
        """With more sentences in its remark, each once; None adds nothing."""
        return replace(self, remark=joined_remarks(self.remark, *remarks)) if any(remarks) else self

    @classmethod
    def of(cls, role: str, vectors: Float32, weight: float, words: Sequence[str]) -> Composition:
        """(n, d) terms of one role, which share its weight equally, and the words (or ids) behind each."""
        count = len(vectors)
        names = tuple(numbered(role, i) for i in range(count))
        words_of, shares = dict(zip(names, words, strict=True)), dict.fromkeys(names, 1 / count)
        return cls(names, vectors, (weight / count,) * count, words_of, shares=shares)

    def automatic_alpha_image(self) -> float:
        """`automatic_alpha_image` of this query's own terms."""
        terms = (self.of_role(role)[None] for role in (Term.IMAGE, Term.TEXT, Term.COMPOSED))
        return float(automatic_alpha_image(*terms)[0])

    def share(self, name: str) -> float:
        """The part of its role's weight that a term carries."""
        return self.shares.get(name, 1.0)


def direction_of(vector: ArrayLike) -> Float32:
    """(d,) the unit vector along a sum of unit vectors; zeros where it cancels."""
    whole = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(whole))
    return np.asarray(whole / length if length > CANCELLED else 0 * whole, dtype=np.float32)


def _sum(weights: Sequence[float], terms: Float32) -> Float32:
    return np.asarray(np.array(weights) @ terms.astype(np.float64), dtype=np.float32)


def joined_remarks(*remarks: str | None) -> str | None:
    """The distinct sentences of several remarks in one; None if there is none.

    >>> joined_remarks("the prompt is long; it was cut", None, "it was cut")
    'the prompt is long; it was cut'
    """
    sentences = [sentence for remark in remarks if remark for sentence in remark.split(REMARK_SEPARATOR)]
    return REMARK_SEPARATOR.join(dict.fromkeys(sentences)) or None


def numbered(role: str, index: int) -> str:
    """The name of the term of that role at that place: `composed`, `composed 2`, …"""
    return str(role) if index == 0 else f"{role} {index + 1}"


def role_of(name: str) -> str:
    """The role in a term's name: `"composed 2"` → `"composed"`."""
    role, _, number = name.rpartition(" ")
    return role if number.isdigit() else name
