"""Role-aware composition: each phrase of the prompt is a separate term, with the sign of its role.

On global vectors the score of MulVec (arXiv 2608.25305) is linear:

    θ_G · s_composed + θ_D · mean s_desired + θ_P · (½ mean s_preserve + ½ s_image) − θ_F · mean s_forbidden

Roles without phrases are dropped, and the other weights are scaled so that their absolute values sum to 1. The image always
preserves: without a `preserve` phrase it gets all of θ_P. The paper gives no θ for global vectors; ROLE_WEIGHTS are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers.base import Composer
from mmretrieve.composers.fitting import cut_remarks
from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.encoders.checked import encode_texts
from mmretrieve.language.answers import compile_prompts
from mmretrieve.language.base import RoleCompiler, Roles
from mmretrieve.language.role_compiler import RuleCompiler

ROLE_WEIGHTS = {"global": 0.4, "desired": 0.3, "preserve": 0.2, "forbidden": 0.1}


@dataclass(frozen=True)
class RoleAware:
    """The terms of the composer `inner` (image, text, composed, prompt), and a term for each phrase of each role.

    If the compiler describes the whole target, that description is `composed`.
    """

    encoder: Encoder
    inner: Composer
    compiler: RoleCompiler = field(default_factory=RuleCompiler)
    weights: Mapping[str, float] = field(default_factory=lambda: ROLE_WEIGHTS)

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        compiled = compile_prompts(self.compiler, inputs)
        return [
            self._add_roles(composition, roles) for composition, roles in zip(self.inner.compose(inputs), compiled, strict=True)
        ]

    def _add_roles(self, composition: Composition, roles: Roles) -> Composition:
        weights = {
            role: weight
            for role, weight in self.weights.items()
            if role == "global" or getattr(roles, role) or role == "preserve"
        }
        scale = 1 / sum(weights.values())
        if roles.whole is not None:
            composition = _replace_composed(composition, self.encoder, roles.whole)
        preserve_weight = weights.get("preserve", 0.0) * scale * (0.5 if roles.preserve else 1.0)
        composition = composition.weighted({Term.COMPOSED: weights["global"] * scale, Term.IMAGE: preserve_weight})
        for role, sign in (("desired", 1), ("preserve", 1), ("forbidden", -1)):
            phrases = getattr(roles, role)
            if phrases:
                weight = preserve_weight if role == "preserve" else sign * weights[role] * scale
                composition = _add_phrases(composition, self.encoder, role, weight, phrases)
        return composition


@dataclass(frozen=True)
class Constrained:
    """The terms of another composer, and the terms `reward` and `penalty` of SoFT's rule, with weight 0."""

    encoder: Encoder
    inner: Composer
    compiler: RoleCompiler = field(default_factory=RuleCompiler)

    def compose(self, inputs: Sequence[ComposerInput]) -> list[Composition]:
        compiled = compile_prompts(self.compiler, inputs)
        return [
            self._add_constraints(composition, roles)
            for composition, roles in zip(self.inner.compose(inputs), compiled, strict=True)
        ]

    def _add_constraints(self, composition: Composition, roles: Roles) -> Composition:
        constraints = {"reward": ", ".join((*roles.desired, *roles.preserve)), "penalty": ", ".join(roles.forbidden)}
        for name, words in constraints.items():
            if words:
                composition = _add_phrases(composition, self.encoder, name, 0.0, [words])
        return composition


def _add_phrases(composition: Composition, encoder: Encoder, role: str, weight: float, phrases: Sequence[str]) -> Composition:
    """Adds a term for each phrase of a role, and a remark if one of them is cut."""
    extended = composition.with_role(role, encode_texts(encoder, phrases), weight, phrases)
    return extended.with_remarks(*cut_remarks(encoder, phrases, f"a {role} phrase"))


def _replace_composed(composition: Composition, encoder: Encoder, whole: str) -> Composition:
    """The same query with another text for `composed`."""
    terms = composition.terms.copy()
    terms[composition.names.index(Term.COMPOSED)] = encode_texts(encoder, [whole])[0]
    replaced = replace(composition, terms=terms, words={**composition.words, Term.COMPOSED: whole})
    return replaced.with_remarks(*cut_remarks(encoder, [whole], "the description of the target"))
