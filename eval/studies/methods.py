"""The methods of the comparison: all with the same encoder and texts, and with the published PDV-F setting where one fits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eval.runs.compositions import MethodConfig
from mmretrieve import PDV, PUBLISHED, ComposerName, Encoder, Parts, RuleName
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.vocabulary import default_vocabulary


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Parameters
    ----------
    label : its name in the table.
    config : how queries are composed.
    pdv : the published setting for its terms; None where the method has weights of its own.
    swap : whether captions are rewritten by the vocabulary instead of the template.
    """

    label: str
    config: MethodConfig
    pdv: PDV | None = None
    swap: bool = True

    @property
    def takes_weights(self) -> bool:
        """Whether weights can be chosen: it has several terms and no rule of its own."""
        return self.config.rule is None and self.config.composer not in (ComposerName.IMAGE, ComposerName.PROMPT)


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


def find_method(composer: ComposerName) -> Method:
    """The last method of the table with this composer and the composer's own rule."""
    return next(m for m in reversed(METHODS) if m.config.composer is composer and m.config.rule is None)


def method_parts(method: Method, encoder: Encoder, parts: Parts) -> Parts:
    """The parts of a method's composer: `parts`, with the method's rewriter unless they have one."""
    rewriter = parts.rewriter or (SwapRewriter(parts.vocabulary or default_vocabulary(encoder)) if method.swap else None)
    return replace(parts, rewriter=rewriter)
