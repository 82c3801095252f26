"""Makes composers by name, from an encoder and the parts that a method needs (the names are in `registry`)."""

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
    LanguageOptions,
    captioner_from,
    compiler_from,
    describer_from,
    rewriter_from,
)
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.language.vocabulary import Vocabulary, default_vocabulary
from mmretrieve.options import ComposerName, RewriterName, RuleName
from mmretrieve.registry import COMPOSERS, REWRITERS

if TYPE_CHECKING:
    from mmretrieve.inversion.oti import OTI
    from mmretrieve.inversion.phi import Phi

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What composers are built of besides an encoder. A composer takes what it needs.

    Parameters
    ----------
    vocabulary : Vocabulary, optional
        The words of captions and rewrites. Default: the gallery's or the encoder's own, else a general one.
    captioner : Captioner, optional
        Describes references. Default: the fields of the gallery's items where there are any, else the tagger.
    rewriter : Rewriter or str, optional
        Applies prompts to captions: an object with `rewrite(captions, prompts)`, or "swap", "template" or a registered name.
        Default: "swap" in searches, "template" in the evaluation.
    compiler : RoleCompiler, optional
        Sorts prompts into what is desired, kept and forbidden. Default: rules.
    describer : Describer, optional
        Describes targets from reference and prompt, for "one-step". It has no default.
    phi : str, Path or Phi, optional
        The network of textual inversion, or its file. Default: `phi.safetensors` in the encoder's own folder.
    oti : OTI, optional
        Settings of "searle-oti".

    Examples
    --------
    >>> import mmretrieve as mm
    >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder(), parts=mm.Parts(rewriter="template"))
    >>> query = retriever.compose(reference_id="red-checked-dress-1815.png", prompt="in blue", caption="a red dress")
    >>> query.words["composed"]
    'a red dress, in blue'
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
    """Makes parts from the options of shell and evaluation. A part without an option has its default.

    Parameters
    ----------
    options : LanguageOptions
        Captioner, rewriter, compiler and describer.
    encoder : Encoder
        The encoder of the tagger.
    vocabulary : Vocabulary, optional
        The words of captions and rewrites.
    phi : str or Path, optional
        The file of a phi.
    progress : callable, optional
        Called with the number of answers that a model has just given.

    Returns
    -------
    Parts
        The parts.

    Raises
    ------
    OptionError, MMRetrieveError
        A file or a model cannot be read or used.
    """
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
    name: str,
    encoder: Encoder,
    parts: Parts | None = None,
    *,
    score: Scorer | None = None,
    rule: str = RuleName.LINEAR,
) -> Composer:
    """Makes a composer by name.

    Parameters
    ----------
    name : str
        A name in `COMPOSERS`, registered ones included.
    encoder : Encoder
        Encodes texts.
    parts : Parts, optional
        What the composer is built of; by default the default of each part.
    score : callable, optional
        (n, d) queries → (n, items) scores over the gallery to be searched; "ldre" needs it.
    rule : str, default="linear"
        The rule of the search; "soft" adds terms of its own.

    Returns
    -------
    Composer
        The composer.

    Raises
    ------
    OptionError
        The name is unknown, or a part that the composer needs is missing.

    Examples
    --------
    >>> from mmretrieve import load_encoder
    >>> from mmretrieve.composer_input import ComposerInput
    >>> composer = make_composer("prompt", load_encoder("wardrobe"))
    >>> composer.compose([ComposerInput(prompt="a red dress")])[0].names
    ('prompt',)
    """
    parts = parts or Parts()
    composer: Composer = COMPOSERS[name].build(encoder, parts, score)
    return Constrained(encoder, composer, parts.compiler or RuleCompiler()) if rule == RuleName.SOFT else composer


def make_image(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:  # noqa: ARG001
    return ImageOnly()


def make_prompt(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:  # noqa: ARG001
    return PromptOnly(encoder)


def make_sum(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:  # noqa: ARG001
    return Sum(encoder)


def make_slerp(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:  # noqa: ARG001
    return Slerp(encoder)


def make_captions(encoder: Encoder, parts: Parts, score: Scorer | None) -> Captions:  # noqa: ARG001
    return Captions(encoder, _captioner_of(parts, encoder), rewriter_of(parts, encoder))


def make_ldre(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:
    scorer = _required(score, "'ldre' weighs captions by a gallery: use it in a Retriever, or give score")
    return ldre(encoder, _captioner_of(parts, encoder), rewriter_of(parts, encoder), scorer)


def make_seize(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:  # noqa: ARG001
    return seize(encoder, _captioner_of(parts, encoder), rewriter_of(parts, encoder))


def make_sdr(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:  # noqa: ARG001
    return sdr(encoder, _captioner_of(parts, encoder), rewriter_of(parts, encoder))


def make_roles(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:
    return RoleAware(encoder, make_captions(encoder, parts, score), parts.compiler or RuleCompiler())


def make_one_step(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:  # noqa: ARG001
    return OneStep(
        encoder,
        _required(parts.describer, "'one-step' needs a describer: choose 'endpoint' or a file, or give Parts(describer=...)"),
    )


def make_pic2word(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:  # noqa: ARG001
    return Inversion(encoder, _inverter(encoder, parts, ComposerName.PIC2WORD), joint=",")


def make_searle(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:  # noqa: ARG001
    return Inversion(encoder, _inverter(encoder, parts, ComposerName.SEARLE))


def make_searle_oti(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:  # noqa: ARG001
    return Inversion(encoder, _inverter(encoder, parts, ComposerName.SEARLE_OTI))


def make_lincir(encoder: Encoder, parts: Parts, score: Scorer | None) -> Composer:  # noqa: ARG001
    return Inversion(encoder, _inverter(encoder, parts, ComposerName.LINCIR))


def rewriter_of(parts: Parts, encoder: Encoder) -> Rewriter:
    """The rewriter of the parts: an object as it is, one of `REWRITERS` by name, or the template where none is named."""
    if parts.rewriter is not None and not isinstance(parts.rewriter, str):
        return parts.rewriter
    entry = REWRITERS[parts.rewriter or RewriterName.TEMPLATE]
    rewriter: Rewriter = entry.build(parts.vocabulary or default_vocabulary(encoder))
    return rewriter


def _captioner_of(parts: Parts, encoder: Encoder) -> Captioner:
    return parts.captioner or Tagger(encoder, parts.vocabulary or default_vocabulary(encoder))


def _inverter(encoder: Encoder, parts: Parts, name: ComposerName) -> Inverter:
    from mmretrieve.encoders.openclip import OpenClipEncoder
    from mmretrieve.inversion.inverter import TokenInverter
    from mmretrieve.inversion.oti import OTI
    from mmretrieve.inversion.phi import FILE, Phi, Pic2WordPhi, SearlePhi, load_phi

    if not isinstance(encoder, OpenClipEncoder):
        raise OptionError(
            f"{name.value!r} puts pseudo tokens into a text tower: it needs an encoder of load_encoder, got a {type(encoder).__name__}"
        )
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


def _required(value: T | None, why: str) -> T:
    if value is None:
        raise OptionError(why)
    return value
