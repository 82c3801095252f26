"""A composed query: named unit vectors (terms), a weight for each, and the score rule that combines their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmretrieve import notebook
from mmretrieve.directions import ORIGINS, PDV, Term, automatic_alpha_image
from mmretrieve.errors import OptionError, VectorError, did_you_mean
from mmretrieve.options import CaptionSource
from mmretrieve.rules import LINEAR, Linear, ScoreRule, check_roles
from mmretrieve.scoring import linear_contributions
from mmretrieve.vectors import Float32, check_unit, unit

REMARK_SEPARATOR = "; "
TOTALS_BATCH_SIZE = 16_384  # items whose scores a rule combines at once: they stay in the caches of a processor
MIN_LENGTH = 1e-6  # the direction of a shorter sum of unit vectors is rounding error
UNKNOWN_TRUST = 0.5  # of a caption whose source is unknown


class Caption(str):
    """A caption with its source and `trust`, the probability (0 to 1) that all of its words are correct.

    It is a str, and can be used wherever text is accepted. Methods of str, such as `strip`, return a plain str. Trust is
    rounded to two digits, because the scores of an encoder vary slightly with the batch.
    Raises OptionError for a trust outside [0, 1] and for an unknown source.

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


class AvoidedPhrase(str):
    """A phrase to avoid, and the `trust` (0 to 1) in the caption of the reference that states it; 0 if the caption does not.

    >>> AvoidedPhrase("stripes", trust=0.9).trust
    0.9
    """

    trust: float

    def __new__(cls, text: str, *, trust: float) -> AvoidedPhrase:
        phrase = super().__new__(cls, text)
        phrase.trust = trust
        return phrase

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (str(self),), {"trust": self.trust}


@dataclass(frozen=True, repr=False, eq=False)
class Composition:
    """A composed query: named terms, their weights, and a score rule.

    Parameters
    ----------
    names : tuple of str
        The name of each term: its role (`image`, `composed`, …), followed by a number if a role has several terms
        (`composed 2`).
    terms : ndarray of shape (t, d), float32
        Unit rows, one per term.
    weights : tuple of float
        The weight of each term.
    words : mapping of str to str
        Term → the text (or id) it encodes.
    rule : ScoreRule, default=LINEAR
        Combines the term scores.
    shares : mapping of str to float
        Term → its share of the weight of its role; 1 by default.
    remark : str, optional
        Remarks on how the terms were made, for the reader of the result.
    means : mapping of str to float
        Term → the score that counts as 0; 0 by default. Automatic weights use the mean score of the gallery.
    why : str, optional
        How the weights were chosen, in one line.

    Raises
    ------
    VectorError
        The numbers of names, terms and weights differ, a row is not a unit vector, a name is repeated, or a weight is not
        finite.
    OptionError
        The rule requires a role that is not there.

    Examples
    --------
    >>> import numpy as np
    >>> from mmretrieve import PDV, Composition
    >>> terms = np.eye(3, dtype=np.float32)
    >>> query = Composition(("image", "text", "composed"), terms, (0.0, 0.0, 1.0))
    >>> query.with_pdv(PDV(beta=0.5)).term_weights
    {'image': 0.5, 'text': -0.5, 'composed': 1.0}
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
        if isinstance(self.names, str):  # type: ignore[unreachable]
            raise VectorError(f"names must be a list with the name of each term, got one string {self.names!r}")
        object.__setattr__(self, "terms", check_unit(self.terms, "terms"))
        object.__setattr__(self, "names", tuple(map(str, self.names)))
        for attribute in ("words", "shares", "means"):
            values = {str(name): value for name, value in getattr(self, attribute).items()}
            object.__setattr__(self, attribute, values)
        if not len(self.names) == len(self.terms) == len(self.weights):
            raise VectorError(
                f"expected equal numbers of names, terms and weights, "
                f"got {len(self.names)}, {len(self.terms)} and {len(self.weights)}"
            )
        if len(set(self.names)) != len(self.names):
            raise VectorError(f"every term needs its own name, got {list(self.names)}")
        _check_finite(self.weights)
        check_roles(self.rule, self.roles)

    def __getitem__(self, name: str) -> Float32:
        """The (d,) term of that name."""
        return np.asarray(self.terms[self.names.index(name)])

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """The role of each term."""
        return tuple(map(role_of, self.names))

    @property
    def term_weights(self) -> dict[str, float]:
        """Term → weight."""
        return dict(zip(self.names, self.weights, strict=True))

    @property
    def vector(self) -> Float32:
        """(d,) Σ weight · term, not normalized: its inner product with an item is the linear score of the item."""
        return _weighted_sum(self.weights, self.terms)

    @property
    def direction(self) -> Float32:
        """(d,) the unit vector along Σ weight · term for weights of any size; zeros if the sum is zero."""
        weights = np.array(self.weights) / (np.abs(self.weights).max() or 1.0)
        return direction_of(weights @ self.terms.astype(np.float64))

    @property
    def is_linear(self) -> bool:
        """Whether the score is the inner product with `vector`."""
        return isinstance(self.rule, Linear)

    @property
    def supports_pdv(self) -> bool:
        """Whether PDV weights apply: the rule uses weights, and there are terms image, text and composed."""
        return self.rule.uses_weights and {Term.IMAGE, Term.TEXT, Term.COMPOSED} <= set(self.roles)

    @property
    def is_base(self) -> bool:
        """Whether these are the weights of PDV's base method: `composed` alone."""
        return self.supports_pdv and np.allclose(self.weights, self.with_pdv(PDV()).weights, rtol=0, atol=1e-9)

    def contributions(self, scores_tn: Float32) -> NDArray[np.float64]:
        """The contribution of each term to the score of each item.

        Parameters
        ----------
        scores_tn : ndarray of shape (t, n), float32
            The term scores.

        Returns
        -------
        ndarray of shape (t, n), float64
            Their sum over the terms is the score of each item under the rule.
        """
        scores_tn = self._above_means(scores_tn)
        weighted = linear_contributions(scores_tn, self.weights)
        if self.is_linear:
            return weighted
        by_role = {role: linear_contributions(scores_tn, self._role_weights({role: 1.0})) for role in set(self.roles)}
        slopes = self.rule.slopes(weighted.sum(axis=0), {role: scores.sum(axis=0) for role, scores in by_role.items()})
        return sum((slope * by_role[role] for role, slope in slopes.roles.items()), slopes.weighted * weighted)

    def totals(self, scores_tn: Float32) -> Float32:
        """(n,) float32 the score of each item: the sum of its contributions, within the rounding of float32."""
        if self.is_linear:
            mean = sum(weight * self.means.get(name, 0.0) for name, weight in zip(self.names, self.weights, strict=True))
            return np.asarray(self.weights, np.float32) @ scores_tn - np.float32(mean)
        roles = tuple(dict.fromkeys(self.roles))
        weights = np.array([self.weights, *(self._role_weights({role: 1.0}) for role in roles)], np.float32)
        totals = np.empty(scores_tn.shape[1], np.float32)
        for start in range(0, len(totals), TOTALS_BATCH_SIZE):
            batch = slice(start, start + TOTALS_BATCH_SIZE)
            weighted, *role_scores = weights @ self._above_means(scores_tn[:, batch]).astype(np.float32, copy=False)
            by_role = dict(zip(roles, role_scores, strict=True))
            slopes = self.rule.slopes(weighted, by_role)
            totals[batch] = slopes.weighted * weighted
            for role, slope in slopes.roles.items():
                totals[batch] += slope * by_role[role]
        return totals

    def _above_means(self, scores_tn: NDArray[np.floating]) -> NDArray[np.floating]:
        """The scores minus the mean of each term."""
        return scores_tn - np.array([[self.means.get(name, 0.0)] for name in self.names]) if self.means else scores_tn

    def __repr__(self) -> str:
        terms = ", ".join(f"{name} × {weight:.3g}" for name, weight in self.term_weights.items())
        return f"<Composition of {self.terms.shape[1]} dimensions: {terms}; {self.rule.name}>"

    def _repr_html_(self) -> str:
        rows = ((name, f"{weight:+.3f}", self.words.get(name, "")) for name, weight in self.term_weights.items())
        head = ("term", "weight", "words")
        return notebook.fragment(notebook.table([head, *rows]), remarks=[f"rule: {self.rule.name}", self.why, self.remark])

    def weighted(self, weights: Mapping[str, float]) -> Composition:
        """The same terms with other weights by role; roles that are not named get 0. Raises OptionError for unknown roles.

        Several terms of a role share its weight. With several prompts, `text` is weighted so that the directions add up:
        text + Σ strength_i · (composed_i − text); so is `image` beside `joint` or `imagined`.
        """
        return self._changed(weights=_check_finite(self._role_weights(weights)))

    def reweighted(
        self, weights: Sequence[float], *, means: Mapping[str, float] | None = None, why: str | None = None
    ) -> Composition:
        """The same terms with a weight for each, a mean for each (0 by default), and an explanation. Raises VectorError unless finite."""
        return self._changed(weights=_check_finite(tuple(weights)), means=dict(means or {}), why=why)

    def of_role(self, role: str) -> Float32:
        """(d,) the sum of the terms of a role, each times its share: the vector of `weighted({role: 1})`."""
        return _weighted_sum(self._role_weights({role: 1.0}), self.terms)

    def _role_weights(self, weights: Mapping[str, float]) -> tuple[float, ...]:
        """The weight of each term for weights by role."""
        for role in weights:
            if role not in self.roles:
                only = ", ".join(dict.fromkeys(self.roles))
                raise OptionError(f"weights name {role!r}, but this query has only: {only}{did_you_mean(role, self.roles)}")
        by_role = dict(weights)
        for end, origin in ORIGINS.items():
            if origin in self.roles and end in by_role:
                by_role[origin] = by_role.get(origin, 0.0) + by_role[end] * (1 - self.total_share(end))
        return tuple(
            float(by_role.get(role, 0.0) * self.share(name)) for name, role in zip(self.names, self.roles, strict=True)
        )

    def with_pdv(self, setting: PDV) -> Composition:
        """The same terms with PDV weights; terms whose name is not one of `Term` keep theirs.

        Raises OptionError if image, text or composed is missing, or the rule ignores weights.
        """
        if self.rule.uses_weights and not self.supports_pdv:
            has_direction = any(ORIGINS.get(Term(role)) == Term.IMAGE for role in self.roles if role in set(Term))
            other = "use strength" if has_direction else "use the 'captions' composer"
            raise OptionError(f"PDV weighs image, text and composed; this query has only {', '.join(self.names)} ({other})")
        return self.with_weights(dict(zip((Term.IMAGE, Term.TEXT, Term.COMPOSED), setting.weights, strict=True)))

    def with_weights(self, weights: Mapping[str, float]) -> Composition:
        """`weighted`, but terms whose name is not one of `Term` keep their weight if they are not named."""
        if not self.rule.uses_weights:
            raise OptionError(
                f"the {str(self.rule.name)!r} rule has no weights: leave out weights, alpha_image, alpha_text and beta"
            )
        unchanged = {role for role in self.roles if role not in set(Term) and role not in weights}
        rows = zip(self.roles, self.weights, self.weighted(weights).weights, strict=True)
        new_weights = tuple(old if role in unchanged else new for role, old, new in rows)
        return self.reweighted(new_weights)

    def with_rule(self, rule: ScoreRule) -> Composition:
        """The same terms and weights with another rule. Raises OptionError if the rule requires a role that is missing."""
        check_roles(rule, self.roles)
        return self._changed(rule=rule)

    def with_role(self, role: str, vectors: Float32, weight: float, words: Sequence[str]) -> Composition:
        """Adds the terms of `Composition.of(role, vectors, weight, words)`."""
        return self.with_terms(Composition.of(role, vectors, weight, words))

    def with_terms(self, other: Composition) -> Composition:
        """Adds the terms of another composition. Raises VectorError if a name is in both."""
        return replace(
            self,
            names=self.names + other.names,
            terms=np.concatenate([self.terms, other.terms]),
            weights=self.weights + other.weights,
            words={**self.words, **other.words},
            shares={**self.shares, **other.shares},
            means={**self.means, **other.means},
        )

    def with_remarks(self, *remarks: str | None) -> Composition:
        """Adds sentences to the remark, each once; None is skipped."""
        return self._changed(remark=join_remarks(self.remark, *remarks)) if any(remarks) else self

    def _changed(self, **values: Any) -> Composition:
        """A copy with other values of fields that need no check, or have had theirs; the terms are not checked again."""
        copy = object.__new__(Composition)
        copy.__dict__.update(self.__dict__ | values)
        return copy

    @classmethod
    def of_vector(cls, vector: object, dim: int) -> Composition:
        """The query of one vector of any length but 0: a term `vector` of weight 1, so that scores are cosines.

        Raises VectorError unless the vector has `dim` finite numbers that are not all 0.

        >>> Composition.of_vector([3, 4], 2).term_weights
        {'vector': 1.0}
        """
        array = np.asarray(vector)
        if array.shape != (dim,):
            raise VectorError(f"a query vector must have shape ({dim},), got {array.shape}")
        return cls(("vector",), unit(array[None], "query vector"), (1.0,))

    @classmethod
    def of(cls, role: str, vectors: Float32, weight: float, words: Sequence[str]) -> Composition:
        """(n, d) terms of one role, which share its weight equally, and the text (or id) of each."""
        count = len(vectors)
        names = tuple(term_name(role, i) for i in range(count))
        words_by_name, shares = dict(zip(names, words, strict=True)), dict.fromkeys(names, 1 / count)
        return cls(names, vectors, (weight / count,) * count, words_by_name, shares=shares)

    def automatic_alpha_image(self) -> float:
        """`mmretrieve.automatic_alpha_image` of the terms of this query."""
        terms = (self.of_role(role)[None] for role in (Term.IMAGE, Term.TEXT, Term.COMPOSED))
        return float(automatic_alpha_image(*terms)[0])

    def share(self, name: str) -> float:
        """The share of a term in the weight of its role."""
        return self.shares.get(name, 1.0)

    def total_share(self, role: str) -> float:
        """The sum of the shares of a role's terms."""
        return sum(self.share(name) for name, own_role in zip(self.names, self.roles, strict=True) if own_role == role)


def check_composition(value: object, alternative: str = "") -> Composition:
    """The composition. Raises OptionError, which names the alternative, for anything else."""
    if not isinstance(value, Composition):
        raise OptionError(f"expected a Composition, such as what Retriever.compose returns{alternative}, got {value!r:.80}")
    return value


def as_composition(value: object, dim: int) -> Composition:
    """The composition, or that of a vector of `dim` numbers. Raises OptionError for anything else, VectorError for another vector."""
    if isinstance(value, list | tuple) or (hasattr(value, "__array__") and not isinstance(value, Composition)):
        return Composition.of_vector(value, dim)
    return check_composition(value, f", or a vector of {dim} numbers")


def _check_finite(weights: tuple[float, ...]) -> tuple[float, ...]:
    """The weights. Raises VectorError if one is not finite."""
    if not all(map(isfinite, weights)):
        raise VectorError(f"weights must be finite, got {list(weights)}")
    return weights


def direction_of(vector: ArrayLike) -> Float32:
    """(d,) the unit vector along a sum of unit vectors; zeros if the sum is zero."""
    exact = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(exact))
    return np.asarray(exact / length if length > MIN_LENGTH else 0 * exact, dtype=np.float32)


def _weighted_sum(weights: Sequence[float], terms: Float32) -> Float32:
    return np.asarray(np.array(weights) @ terms.astype(np.float64), dtype=np.float32)


def join_remarks(*remarks: str | None) -> str | None:
    """The distinct sentences of several remarks in one; None if there is none.

    >>> join_remarks("the prompt is long; it was cut", None, "it was cut")
    'the prompt is long; it was cut'
    """
    sentences = [sentence for remark in remarks if remark for sentence in remark.split(REMARK_SEPARATOR)]
    return REMARK_SEPARATOR.join(dict.fromkeys(sentences)) or None


def term_name(role: str, index: int) -> str:
    """The name of the term of a role at that index.

    >>> term_name("composed", 0), term_name("composed", 1)
    ('composed', 'composed 2')
    """
    return str(role) if index == 0 else f"{role} {index + 1}"


def role_of(name: str) -> str:
    """The role in the name of a term.

    >>> role_of("composed 2")
    'composed'
    """
    role, _, number = name.rpartition(" ")
    return role if number.isdigit() else name
