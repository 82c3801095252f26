"""Role-aware composition: each phrase of the prompt is a term of its own, with the sign of its role.

On global vectors the score of MulVec (arXiv 2608.25305) is linear:

    θ_G · s_composed + θ_D · mean s_desired + θ_P · (½ mean s_preserve + ½ s_image) − θ_F · mean s_forbidden

Roles that a query does not have are dropped, and the weights of the others scaled so that their sizes sum to 1. The picture
itself always preserves: where no phrase says what to keep, it takes all of θ_P. The paper gives no θ for global vectors; those
of ROLE_WEIGHTS are ours.
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
from mmretrieve.language.base import RoleCompiler, Roles
from mmretrieve.language.role_compiler import RuleCompiler

ROLE_WEIGHTS = {"global": 0.4, "desired": 0.3, "preserve": 0.2, "forbidden": 0.1}


@dataclass(frozen=True)
class RoleAware:
    """The terms of `words` (image, text, composed, prompt), and beside them the phrases of each role.

    Where the compiler describes the whole target, that description is `composed`.
    """

    encoder: Encoder
    words: Composer
    compiler: RoleCompiler = field(default_factory=RuleCompiler)
    weights: Mapping[str, float] = field(default_factory=lambda: ROLE_WEIGHTS)

    def compose(self, queries: Sequence[ComposerInput]) -> list[Composition]:
        compiled = self.compiler.compile(queries)
        return [
            self._with_roles(composition, roles)
            for composition, roles in zip(self.words.compose(queries), compiled, strict=True)
        ]

    def _with_roles(self, composition: Composition, roles: Roles) -> Composition:
        sizes = {
            role: weight
            for role, weight in self.weights.items()
            if role == "global" or getattr(roles, role) or role == "preserve"
        }
        scale = 1 / sum(sizes.values())
        if roles.whole is not None:
            composition = _described(composition, self.encoder, roles.whole)
        kept = sizes.get("preserve", 0.0) * scale * (0.5 if roles.preserve else 1.0)
        composition = composition.weighted({Term.COMPOSED: sizes["global"] * scale, Term.IMAGE: kept})
        for role, sign in (("desired", 1), ("preserve", 1), ("forbidden", -1)):
            phrases = getattr(roles, role)
            if phrases:
                weight = kept if role == "preserve" else sign * sizes[role] * scale
                composition = _plus(composition, self.encoder, role, weight, phrases)
        return composition


@dataclass(frozen=True)
class Constrained:
    """The terms of another composer, and beside them what SoFT's rule reads: `reward` and `penalty`, of weight 0."""

    encoder: Encoder
    inner: Composer
    compiler: RoleCompiler = field(default_factory=RuleCompiler)

    def compose(self, queries: Sequence[ComposerInput]) -> list[Composition]:
        compiled = self.compiler.compile(queries)
        return [
            self._with_constraints(composition, roles)
            for composition, roles in zip(self.inner.compose(queries), compiled, strict=True)
        ]

    def _with_constraints(self, composition: Composition, roles: Roles) -> Composition:
        said = {"reward": ", ".join((*roles.desired, *roles.preserve)), "penalty": ", ".join(roles.forbidden)}
        for name, words in said.items():
            if words:
                composition = _plus(composition, self.encoder, name, 0.0, [words])
        return composition


def _plus(composition: Composition, encoder: Encoder, role: str, weight: float, phrases: Sequence[str]) -> Composition:
    """With the phrases of a role beside the other terms, and a remark if one of them is cut."""
    more = composition.plus(role, encoder.encode_texts(phrases), weight, phrases)
    return more.remarked(*cut_remarks(encoder, phrases, f"a {role} phrase"))


def _described(composition: Composition, encoder: Encoder, whole: str) -> Composition:
    """The same query with `composed` said anew."""
    terms = composition.terms.copy()
    terms[composition.names.index(Term.COMPOSED)] = encoder.encode_texts([whole])[0]
    described = replace(composition, terms=terms, words={**composition.words, Term.COMPOSED: whole})
    return described.remarked(*cut_remarks(encoder, [whole], "the description of the target"))
