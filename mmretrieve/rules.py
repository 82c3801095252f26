"""Score rules: how the scores of a query's terms become one score per item, and the contribution of each term.

A rule returns slopes: score = Σ slope × term score for every item, which equals the published formula. For a linear rule
the slope is the weight of the term. For other rules slope × term score is the Aumann–Shapley value of the term: the gradient
of the rule averaged over the straight line from all scores 0 to the given scores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import OptionError
from mmretrieve.options import RuleName
from mmretrieve.registry import RULES

Floats = NDArray[np.floating]  # float64 for exact scores, float32 for approximate ones


@dataclass(frozen=True)
class Slopes:
    """The slopes of a rule: of the weighted sum of all terms, and of the scores of single roles in addition to it.

    Parameters
    ----------
    weighted : float or ndarray of shape (n,)
    roles : mapping of str to ndarray of shape (n,)
    """

    weighted: float | Floats = 0.0
    roles: Mapping[str, Floats] = field(default_factory=dict)


class ScoreRule(Protocol):
    """Combines term scores into one score per item.

    `name` is the one in `RULES`; `make_rule` sets it. `required_roles` are the roles without which the rule is undefined. If `uses_weights` is False, the rule ignores weights.
    """

    @property
    def name(self) -> str: ...

    @property
    def required_roles(self) -> Collection[str]: ...

    @property
    def uses_weights(self) -> bool: ...

    def slopes(self, weighted: Floats, roles: Mapping[str, Floats]) -> Slopes:
        """The slopes for a weighted sum of shape (n,) and the scores of each role, (n,). Σ slope × score is the score."""
        ...


@dataclass(frozen=True)
class Linear:
    """Σ weight × term score: PDV, sums, Slerp, SDR-CIR and role-aware scores. One vector, so one search of any index."""

    name: ClassVar[RuleName] = RuleName.LINEAR
    required_roles: ClassVar[Collection[str]] = ()
    uses_weights: ClassVar[bool] = True

    def slopes(self, weighted: Floats, roles: Mapping[str, Floats]) -> Slopes:  # noqa: ARG002
        return Slopes(1.0)


@dataclass(frozen=True)
class Hinge:
    """SEIZE's editing increment: s + loss · min(0, D) + gain · max(0, D), with D = s_composed − s_text and weighted sum s.

    An item that the prompt makes less likely loses more than an item that it makes more likely gains. Source: SEIZE (ACM MM
    2024). For CIRR with ViT-bigG the paper uses gain 0.22 and loss 1.0.
    """

    gain: float = 0.13
    loss: float = 2.1
    name: ClassVar[RuleName] = RuleName.HINGE
    required_roles: ClassVar[Collection[str]] = ("text", "composed")
    uses_weights: ClassVar[bool] = True

    def slopes(self, weighted: Floats, roles: Mapping[str, Floats]) -> Slopes:
        slope = np.where(roles["composed"] < roles["text"], self.loss, self.gain).astype(weighted.dtype, copy=False)
        return Slopes(1.0, {"composed": slope, "text": -slope})


@dataclass(frozen=True)
class Soft:
    """SoFT's soft filter: (1 − l) · s + l · s · (s_reward + 1 − s_penalty) / 2, with strength l and weighted sum s.

    `reward` encodes what a target must show, `penalty` what it must not show; a missing one scores 0. The strength is 1.0 for
    captions and 0.2 for textual inversion. Source: SoFT, "soft filtering with textual constraints".
    """

    strength: float = 1.0
    name: ClassVar[RuleName] = RuleName.SOFT
    required_roles: ClassVar[Collection[str]] = ()
    uses_weights: ClassVar[bool] = True

    def slopes(self, weighted: Floats, roles: Mapping[str, Floats]) -> Slopes:
        half, zeros = self.strength / 2, np.zeros_like(weighted)
        filtered = roles.get("reward", zeros) - roles.get("penalty", zeros)
        share = half * weighted / 2  # each factor of a product of two scores contributes one half
        signed = {name: sign * share for name, sign in (("reward", 1), ("penalty", -1)) if name in roles}
        return Slopes(1 - half + half * filtered / 2, signed)


@dataclass(frozen=True)
class Product:
    """BASIC's core: s_image · s_prompt, both clamped at 0, minus harris · (s_image + s_prompt)². It ignores weights.

    An item must match both; the Harris term (0.1) favors balance. Source: BASIC (i-CIR, NeurIPS 2025).
    """

    harris: float = 0.0
    name: ClassVar[RuleName] = RuleName.PRODUCT
    required_roles: ClassVar[Collection[str]] = ("image", "prompt")
    uses_weights: ClassVar[bool] = False

    def slopes(self, weighted: Floats, roles: Mapping[str, Floats]) -> Slopes:  # noqa: ARG002
        image, prompt = np.maximum(roles["image"], 0), np.maximum(roles["prompt"], 0)
        penalty = self.harris * (image + prompt)
        return Slopes(0.0, {"image": (prompt / 2 - penalty) * (image > 0), "prompt": (image / 2 - penalty) * (prompt > 0)})


LINEAR = Linear()


def make_rule(name: str, *, learned_words: bool = False) -> ScoreRule:
    """The rule of that name, whose `name` is the registered one. Built-in rules have their published constants.

    Parameters
    ----------
    name : RuleName or str
        A name in `RULES`, registered ones included.
    learned_words : bool, default=False
        Whether the terms come from textual inversion, for which SoFT uses another strength.

    Raises
    ------
    OptionError
        The name is unknown.

    Examples
    --------
    >>> make_rule("product-harris")
    Product(harris=0.1)
    """
    rule: ScoreRule = RULES.build(name, learned_words)
    if getattr(rule, "name", None) == name:
        return rule
    renamed = copy(rule)
    try:
        object.__setattr__(renamed, "name", str(name))  # rules are frozen
    except AttributeError as error:
        raise OptionError(
            f"rule {name!r}: the name of a {type(rule).__name__} cannot be set; leave `name` out of it"
        ) from error
    return renamed


def make_linear(_learned_words: bool) -> ScoreRule:
    return LINEAR


def make_hinge(_learned_words: bool) -> ScoreRule:
    return Hinge()


def make_soft(learned_words: bool) -> ScoreRule:
    return Soft(0.2 if learned_words else 1.0)


def make_product(_learned_words: bool) -> ScoreRule:
    return Product()


def make_product_harris(_learned_words: bool) -> ScoreRule:
    return Product(harris=0.1)


def check_roles(rule: ScoreRule, roles: Collection[str]) -> None:
    """Raises OptionError if the rule requires a role that is not among these."""
    if missing := sorted(set(rule.required_roles) - set(roles)):
        raise OptionError(
            f"the {str(rule.name)!r} rule needs {', '.join(missing)}; this query has only {', '.join(dict.fromkeys(roles))}: choose another rule"
        )
