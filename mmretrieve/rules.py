"""Score rules: how the scores of a query's terms become one score an item, and what each term gave to it.

A rule says at which slope each score counts, for each item; slope × score is what the score gave, and the sum over all
of them is the rule's published formula. Where a rule is linear that is weight × term score. Elsewhere it is the
Aumann–Shapley value: the rule's gradient by that score, averaged on the straight way from all scores 0 to what they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mmretrieve.errors import OptionError
from mmretrieve.options import RuleName
from mmretrieve.registry import RULES

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Slopes:
    """For each item: the slope of the weighted sum of all terms, and of the score of single roles beside it."""

    weighted: float | Floats = 0.0
    roles: Mapping[str, Floats] = field(default_factory=dict)


class ScoreRule(Protocol):
    """Folds term scores. `needs` names the roles it cannot do without; where not `weighs`, weights mean nothing to it."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> Collection[str]: ...

    @property
    def weighs(self) -> bool: ...

    def slopes(self, weighted: Floats, roles: Mapping[str, Floats]) -> Slopes:
        """(n,) weighted sum and role → (n,) scores → slopes; Σ slope × score is the score of each item."""
        ...


@dataclass(frozen=True)
class Linear:
    """Σ weight × term score: all of PDV, sums, Slerp, SDR-CIR, role-aware scores. One vector, so one search of any index."""

    name: ClassVar[RuleName] = RuleName.LINEAR
    needs: ClassVar[Collection[str]] = ()
    weighs: ClassVar[bool] = True

    def slopes(self, weighted: Floats, roles: Mapping[str, Floats]) -> Slopes:  # noqa: ARG002
        return Slopes(1.0)


@dataclass(frozen=True)
class Hinge:
    """SEIZE's editing increment: s + n · min(0, D) + p · max(0, D), with D = s_composed − s_text and s the weighted sum.

    An item that the prompt makes less likely loses more than one that it makes more likely gains. p is `gain`, n is
    `loss`. Source: SEIZE (ACM MM 2024); for CIRR with ViT-bigG it has p .22, n 1.0.
    """

    gain: float = 0.13
    loss: float = 2.1
    name: ClassVar[RuleName] = RuleName.HINGE
    needs: ClassVar[Collection[str]] = ("text", "composed")
    weighs: ClassVar[bool] = True

    def slopes(self, weighted: Floats, roles: Mapping[str, Floats]) -> Slopes:  # noqa: ARG002
        slope = np.where(roles["composed"] < roles["text"], self.loss, self.gain)
        return Slopes(1.0, {"composed": slope, "text": -slope})


@dataclass(frozen=True)
class Soft:
    """SoFT's soft filter: (1 − l) · s + l · s · (s_reward + 1 − s_penalty) / 2, with s the weighted sum.

    `reward` says what a target must show, `penalty` what it must not; one that the query does not have counts 0.
    l is `strength`: 1.0 for caption methods, 0.2 for textual inversion. Source: SoFT, "soft filtering with textual constraints".
    """

    strength: float = 1.0
    name: ClassVar[RuleName] = RuleName.SOFT
    needs: ClassVar[Collection[str]] = ()
    weighs: ClassVar[bool] = True

    def slopes(self, weighted: Floats, roles: Mapping[str, Floats]) -> Slopes:
        half, none = self.strength / 2, np.zeros_like(weighted)
        filtered = roles.get("reward", none) - roles.get("penalty", none)
        share = half * weighted / 2  # of a product of two scores each factor gave one half
        signed = {name: sign * share for name, sign in (("reward", 1), ("penalty", -1)) if name in roles}
        return Slopes(1 - half + half * filtered / 2, signed)


@dataclass(frozen=True)
class Product:
    """BASIC's core: s_image · s_prompt, both clamped at 0, minus harris · (s_image + s_prompt)². It has no weights.

    An item must be like both; the Harris term (0.1) asks for balance. Source: BASIC (i-CIR, NeurIPS 2025).
    """

    harris: float = 0.0
    needs: ClassVar[Collection[str]] = ("image", "prompt")
    weighs: ClassVar[bool] = False

    @property
    def name(self) -> RuleName:
        return RuleName.HARRIS if self.harris else RuleName.PRODUCT

    def slopes(self, weighted: Floats, roles: Mapping[str, Floats]) -> Slopes:  # noqa: ARG002
        image, prompt = np.maximum(roles["image"], 0), np.maximum(roles["prompt"], 0)
        lost = self.harris * (image + prompt)
        return Slopes(0.0, {"image": (prompt / 2 - lost) * (image > 0), "prompt": (image / 2 - lost) * (prompt > 0)})


LINEAR = Linear()


def make_rule(name: str, *, learned_words: bool = False) -> ScoreRule:
    """The rule of that name with its published constants; `learned_words` for methods of textual inversion."""
    rule: ScoreRule = RULES[name].build(learned_words)
    return rule


def make_linear(learned_words: bool) -> ScoreRule:  # noqa: ARG001
    return LINEAR


def make_hinge(learned_words: bool) -> ScoreRule:  # noqa: ARG001
    return Hinge()


def make_soft(learned_words: bool) -> ScoreRule:
    return Soft(0.2 if learned_words else 1.0)


def make_product(learned_words: bool) -> ScoreRule:  # noqa: ARG001
    return Product()


def make_product_harris(learned_words: bool) -> ScoreRule:  # noqa: ARG001
    return Product(harris=0.1)


def check_roles(rule: ScoreRule, roles: Collection[str]) -> None:
    """OptionError where the rule reads a role that is not among these."""
    if missing := sorted(set(rule.needs) - set(roles)):
        raise OptionError(
            f"the {str(rule.name)!r} rule reads {', '.join(missing)}; this query has only {', '.join(dict.fromkeys(roles))}"
        )
