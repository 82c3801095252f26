"""Makes composers by name, from an encoder and the parts that a method needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mmretrieve.composers.base import Composer
from mmretrieve.composers.captions import Captions, Scorer, ldre, sdr, seize
from mmretrieve.composers.inversion import Inversion, Inverter
from mmretrieve.composers.one_step import OneStep
from mmretrieve.composers.roles import Constrained, RoleAware
from mmretrieve.composers.simple import ImageOnly, PromptOnly, Slerp, Sum
from mmretrieve.encoders.base import Encoder, Progress
from mmretrieve.errors import OptionError
from mmretrieve.language.base import Captioner, Describer, Rewriter, RoleCompiler
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.options import (
    BackendName,
    LanguageOptions,
    captioner_from,
    compiler_from,
    describer_from,
    named_rewriter,
    rewriter_from,
)
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.language.vocabulary import Vocabulary, default_vocabulary
from mmretrieve.options import ComposerName, RuleName

if TYPE_CHECKING:
    from mmretrieve.inversion.oti import OTI
    from mmretrieve.inversion.phi import Phi

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What composers are built of besides an encoder. Each takes what it needs; what is not given has a default or is asked for.

    vocabulary: of captions and rewrites; by default the gallery's or the encoder's own, else a general one. captioner: by
    default the fields of the gallery's items where there are any, else the tagger. rewriter: an object, or "swap" (the default
    of searches) or "template" by name. compiler: of roles; by default the rules. describer: has no default.
    phi: a file or a loaded phi; by default `phi.safetensors` in the encoder's own folder. oti: settings of SEARLE-OTI.
    """

    vocabulary: Vocabulary | None = None
    captioner: Captioner | None = None
    rewriter: Rewriter | str | None = None
    compiler: RoleCompiler | None = None
    describer: Describer | None = None
    phi: str | Path | Phi | None = None
    oti: OTI | None = None


def parts_from(
    options: LanguageOptions,
    encoder: Encoder,
    *,
    vocabulary: Vocabulary | None = None,
    phi: str | Path | None = None,
    progress: Progress | None = None,
) -> Parts:
    """The parts that the words of shell and evaluation choose."""
    return Parts(
        vocabulary=vocabulary,
        captioner=None
        if options.captioner is None
        else captioner_from(options, encoder, vocabulary=vocabulary, progress=progress),
        rewriter=None
        if options.rewriter is None
        else rewriter_from(options, encoder, vocabulary=vocabulary, progress=progress),
        compiler=compiler_from(options, progress=progress),
        describer=describer_from(options, progress=progress) if options.describer is not None else None,
        phi=phi,
    )


def make_composer(
    name: ComposerName | str,
    encoder: Encoder,
    parts: Parts | None = None,
    *,
    score: Scorer | None = None,
    rule: RuleName = RuleName.LINEAR,
) -> Composer:
    """The composer of that name. `score` is over the gallery to be searched, which LDRE needs; the soft rule adds its terms.

    OptionError for an unknown name, or where something that the composer needs is not there.
    """
    composer = _make(ComposerName(name), encoder, parts or Parts(), score)
    return Constrained(encoder, composer, (parts or Parts()).compiler or RuleCompiler()) if rule is RuleName.SOFT else composer


def _make(name: ComposerName, encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:
    match name:
        case ComposerName.IMAGE:
            return ImageOnly()
        case ComposerName.PROMPT:
            return PromptOnly(encoder)
        case ComposerName.SUM:
            return Sum(encoder)
        case ComposerName.SLERP:
            return Slerp(encoder)
        case ComposerName.ONE_STEP:
            return OneStep(encoder, _needed(parts.describer, "'one-step' needs a describer: a model that sees the picture"))
        case ComposerName.PIC2WORD:
            return Inversion(encoder, _inverter(encoder, parts, name), joint=",")
        case ComposerName.SEARLE | ComposerName.SEARLE_OTI | ComposerName.LINCIR:
            return Inversion(encoder, _inverter(encoder, parts, name))
    speakers = encoder, parts.captioner or _tagger(encoder, parts), rewriter_of(parts, encoder)
    match name:
        case ComposerName.LDRE:
            return ldre(*speakers, _needed(score, "'ldre' weighs captions by the gallery: give the scores of one"))
        case ComposerName.SEIZE:
            return seize(*speakers)
        case ComposerName.SDR:
            return sdr(*speakers)
        case ComposerName.ROLES:
            return RoleAware(encoder, Captions(*speakers), parts.compiler or RuleCompiler())
        case _:
            return Captions(*speakers)


def rewriter_of(parts: Parts, encoder: Encoder) -> Rewriter:
    """The rewriter of the parts: an object as it is, a built-in one by name, or the template where none is named."""
    if parts.rewriter is not None and not isinstance(parts.rewriter, str):
        return parts.rewriter
    return named_rewriter(parts.rewriter or BackendName.TEMPLATE, parts.vocabulary or default_vocabulary(encoder))


def _tagger(encoder: Encoder, parts: Parts) -> Tagger:
    return Tagger(encoder, parts.vocabulary or default_vocabulary(encoder))


def _inverter(encoder: Encoder, parts: Parts, name: ComposerName) -> Inverter:
    from mmretrieve.encoders.openclip import OpenClipEncoder
    from mmretrieve.inversion.inverter import TokenInverter
    from mmretrieve.inversion.oti import OTI
    from mmretrieve.inversion.phi import FILE, Phi, Pic2WordPhi, SearlePhi, load_phi

    if not isinstance(encoder, OpenClipEncoder):
        raise OptionError(f"{name.value!r} puts pseudo tokens into a text tower: it needs an encoder of load_encoder")
    if name is ComposerName.SEARLE_OTI:
        return TokenInverter(encoder, parts.oti or OTI())
    own = encoder.folder / FILE if encoder.folder is not None else None
    phi = own if parts.phi is None and own is not None and own.is_file() else parts.phi
    if phi is None:
        raise OptionError(
            f"{name.value!r} needs a phi for {encoder.identity.model}: give a checkpoint, or train one with `mmretrieve train-phi`"
        )
    loaded = phi if isinstance(phi, Phi) else load_phi(phi, encoder)
    shape = Pic2WordPhi if name is ComposerName.PIC2WORD else SearlePhi
    if not isinstance(loaded.net, shape):
        raise OptionError(
            f"{name.value!r} needs a {shape.__name__}, this phi is a {type(loaded.net).__name__}: use the composer it was trained for"
        )
    return TokenInverter(encoder, loaded)


def _needed(value: T | None, why: str) -> T:
    if value is None:
        raise OptionError(why)
    return value
