"""Every method of the field on one ground: the same encoder, the same words, and PDV-F as published on each that takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eval.runs.compositions import MethodConfig
from mmretrieve import PDV, PUBLISHED, ComposerName, Encoder, Parts, RuleName
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.vocabulary import default_vocabulary


@dataclass(frozen=True)
class Method:
    """One row of the table. `pdv` is the published setting for such terms; None where a method has its own weights.

    `swap` rewrites by vocabulary, otherwise by the template.
    """

    label: str
    way: MethodConfig
    pdv: PDV | None = None
    swap: bool = True

    @property
    def weighs(self) -> bool:
        """Whether it has several terms, and no rule of its own name, so that weights can be chosen."""
        return self.way.rule is None and self.way.composer not in (ComposerName.IMAGE, ComposerName.PROMPT)


CIREVL, LDRE, SEARLE = PUBLISHED["cirevl"], PUBLISHED["ldre"], PUBLISHED["searle-base"]
METHODS = (
    Method("image only", MethodConfig(ComposerName.IMAGE)),
    Method("prompt only", MethodConfig(ComposerName.PROMPT)),
    Method("image + prompt", MethodConfig(ComposerName.SUM)),
    Method("Slerp", MethodConfig(ComposerName.SLERP)),
    Method("product (BASIC)", MethodConfig(ComposerName.SUM, RuleName.PRODUCT)),
    Method("product − Harris", MethodConfig(ComposerName.SUM, RuleName.HARRIS)),
    Method("captions, template", MethodConfig(ComposerName.CAPTIONS), CIREVL, swap=False),
    Method("captions, swap (CIReVL's shape)", MethodConfig(ComposerName.CAPTIONS), CIREVL),
    Method("SDR-CIR", MethodConfig(ComposerName.SDR)),
    Method("role-aware (MulVec, global)", MethodConfig(ComposerName.ROLES)),
    Method("captions + SoFT", MethodConfig(ComposerName.CAPTIONS, RuleName.SOFT), CIREVL),
    Method("LDRE, 15 captions", MethodConfig(ComposerName.LDRE), LDRE),
    Method("SEIZE, 15 captions", MethodConfig(ComposerName.SEIZE), LDRE),
    Method("SEARLE-OTI", MethodConfig(ComposerName.SEARLE_OTI), SEARLE),
    Method("LinCIR", MethodConfig(ComposerName.LINCIR), SEARLE),
)


def method_of(composer: ComposerName) -> Method:
    """The method of the table that composes so, under its own rule."""
    return next(method for method in reversed(METHODS) if method.way.composer is composer and method.way.rule is None)


def parts_for(method: Method, encoder: Encoder, more: Parts) -> Parts:
    """What the method is built of: `more`, and the rewriter it names unless `more` brings one."""
    rewriter = more.rewriter or (SwapRewriter(more.vocabulary or default_vocabulary(encoder)) if method.swap else None)
    return replace(more, rewriter=rewriter)
