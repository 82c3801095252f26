"""Every method of the field on one ground: the same encoder, the same words, and PDV-F as published on each that takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mmretrieve import PDV, PUBLISHED, ComposerName, Encoder, Parts, RuleName
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.vocabulary import default_vocabulary


@dataclass(frozen=True)
class Method:
    """One row of the table. `pdv` is the published setting for such terms; None where a method has its own weights.

    `given` takes the captions that a benchmark brings; ensembles have 15 of their own. `swap` rewrites by vocabulary,
    otherwise by the template. `balanced` measures the label-free weights on it, too.
    """

    label: str
    composer: ComposerName
    pdv: PDV | None = None
    rule: RuleName | None = None
    swap: bool = True
    given: bool = True
    balanced: bool = False


CIREVL, LDRE, SEARLE = PUBLISHED["cirevl"], PUBLISHED["ldre"], PUBLISHED["searle-base"]
METHODS = (
    Method("image only", ComposerName.IMAGE),
    Method("prompt only", ComposerName.PROMPT),
    Method("image + prompt", ComposerName.SUM),
    Method("Slerp", ComposerName.SLERP),
    Method("product (BASIC)", ComposerName.SUM, rule=RuleName.PRODUCT),
    Method("product − Harris", ComposerName.SUM, rule=RuleName.HARRIS),
    Method("captions, template", ComposerName.CAPTIONS, CIREVL, swap=False, balanced=True),
    Method("captions, swap (CIReVL's shape)", ComposerName.CAPTIONS, CIREVL, balanced=True),
    Method("SDR-CIR", ComposerName.SDR),
    Method("role-aware (MulVec, global)", ComposerName.ROLES),
    Method("captions + SoFT", ComposerName.CAPTIONS, CIREVL, RuleName.SOFT),
    Method("LDRE, 15 captions", ComposerName.LDRE, LDRE, given=False, balanced=True),
    Method("SEIZE, 15 captions", ComposerName.SEIZE, LDRE, given=False, balanced=True),
    Method("SEARLE-OTI", ComposerName.SEARLE_OTI, SEARLE, balanced=True),
    Method("LinCIR", ComposerName.LINCIR, SEARLE, balanced=True),
)


def parts_for(method: Method, encoder: Encoder, more: Parts) -> Parts:
    """What the method is built of: `more`, and the rewriter it names unless `more` brings one."""
    rewriter = more.rewriter or (SwapRewriter(more.vocabulary or default_vocabulary(encoder)) if method.swap else None)
    return replace(more, rewriter=rewriter)
