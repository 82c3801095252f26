"""Makes composers by name, from an encoder and the parts that a method needs (the names are in `registry`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, cast

from mmretrieve.composers.base import Composer
from mmretrieve.composers.captions import Captions, OneStep, Scorer, ldre_shares, sdr_weights
from mmretrieve.composers.imagined import Imagined
from mmretrieve.composers.inversion import Inversion, SentenceEncoder
from mmretrieve.composers.roles import Constrained, RoleAware
from mmretrieve.composers.simple import ImageOnly, Joint, PromptOnly, Slerp, Sum
from mmretrieve.encoders.base import Encoder, Progress, check_supports
from mmretrieve.errors import OptionError, checks_keywords
from mmretrieve.images import ImageLike
from mmretrieve.language.base import Captioner, Describer, Editor, Paraphraser, Rewriter, RoleCompiler
from mmretrieve.language.options import (
    REGISTRIES,
    LanguageOptions,
    captioner_from,
    compiler_from,
    describer_from,
    editor_from,
    named_captioner,
    paraphraser_from,
    rewriter_from,
)
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.language.vocabulary import Vocabulary, default_vocabulary
from mmretrieve.options import CaptionerName, ComposerName, RewriterName, RuleName
from mmretrieve.registry import COMPOSERS, REWRITERS, RULES
from mmretrieve.rules import Hinge
from mmretrieve.vectors import Float32

if TYPE_CHECKING:
    from mmretrieve.encoders.openclip import OpenClipEncoder
    from mmretrieve.inversion.oti import OTI
    from mmretrieve.inversion.phi import Phi

CAPTIONS_PER_IMAGE = 15  # in LDRE and SEIZE


METHODS = {
    "captioner": "captions",
    "rewriter": "rewrite",
    "paraphraser": "paraphrase",
    "compiler": "compile",
    "describer": "describe",
    "editor": "edit",
}
"""The method of the objects that fill a part."""


@checks_keywords
@dataclass(frozen=True, kw_only=True)
class Parts:
    """What composers are built of besides an encoder. A composer takes what it needs.

    Parameters
    ----------
    vocabulary : Vocabulary, optional
        The words of captions and rewrites. Default: the gallery's or the encoder's own, else a general one.
    captioner : Captioner or str, optional
        Describes references: an object with `captions(inputs, count)`, or "tagger" or a registered name. Default: the fields of the
        gallery's items where there are any, else the tagger.
    rewriter : Rewriter or str, optional
        Applies prompts to captions: an object with `rewrite(captions, prompts)`, or "swap", "template" or a registered name.
        Default: "swap" in searches, "template" in the evaluation.
    paraphraser : Paraphraser or str, optional
        Says prompts in other words: an object with `paraphrase(prompts, count)`, or "templates" or a registered name. Default:
        "templates".
    compiler : RoleCompiler, optional
        Sorts prompts into what is desired, kept and forbidden. Default: rules.
    describer : Describer, optional
        Describes targets from reference and prompt, for "one-step" and "imagined". It has no default.
    editor : Editor, optional
        Edits references after prompts, for "imagined": an object with `edit(inputs)`. It has no default.
    phi : str, Path or Phi, optional
        The network of textual inversion, or its file. Default: `phi.safetensors` in the encoder's own folder.
    oti : OTI, optional
        Settings of "searle-oti".

    Raises
    ------
    OptionError
        A part has not the method of its role.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> retriever = mm.Retriever.open(mm.wardrobe.gallery_folder(), parts=mm.Parts(rewriter="template"))
    >>> query = retriever.compose(reference_id="red-checked-dress-1815.png", prompt="in blue", caption="a red dress")
    >>> query.words["composed"]
    'a red dress, in blue'
    """

    vocabulary: Vocabulary | None = None
    captioner: Captioner | str | None = None
    rewriter: Rewriter | str | None = None
    paraphraser: Paraphraser | str | None = None
    compiler: RoleCompiler | None = None
    describer: Describer | None = None
    editor: Editor | None = None
    phi: str | Path | Phi | None = None
    oti: OTI | None = None

    def __post_init__(self) -> None:
        for name, method in METHODS.items():
            part = getattr(self, name)
            if part is not None and not hasattr(part, method) and not (name in REGISTRIES and isinstance(part, str)):
                raise OptionError(f"{name} must be an object with {method}(…), got {part!r:.80}")


@dataclass(frozen=True)
class ComposerContext:
    """What the factory of a composer gets.

    Parameters
    ----------
    encoder : Encoder
        Encodes texts.
    parts : Parts
        What composers are built of besides; a part that is None has its default.
    score : callable, optional
        (n, d) queries → (n, items) scores over the gallery to be searched; None outside a gallery.
    """

    encoder: Encoder
    parts: Parts
    score: Scorer | None = None

    @property
    def compiler(self) -> RoleCompiler:
        """The compiler of the parts, or the default: rules."""
        return self.parts.compiler or RuleCompiler()


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
        Captioner, rewriter, paraphraser, compiler, describer and editor.
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
        captioner=captioner_from(options, encoder, vocabulary=vocabulary, progress=progress),
        rewriter=rewriter_from(options, encoder, vocabulary=vocabulary, progress=progress),
        paraphraser=paraphraser_from(options, encoder, vocabulary=vocabulary, progress=progress),
        compiler=compiler_from(options, progress=progress),
        describer=describer_from(options, progress=progress),
        editor=editor_from(options, progress=progress),
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
        The rule of the search; a rule such as "soft" adds terms of its own.

    Returns
    -------
    Composer
        The composer.

    Raises
    ------
    OptionError
        The name is unknown, a part that the composer needs is missing, or the encoder does not encode what it needs.

    Examples
    --------
    >>> from mmretrieve import load_encoder
    >>> from mmretrieve.composer_input import ComposerInput
    >>> composer = make_composer("prompt", load_encoder("wardrobe"))
    >>> composer.compose([ComposerInput(prompt="a red dress")])[0].names
    ('prompt',)
    """
    if (modality := COMPOSERS[name].modality) is not None:
        check_supports(encoder, modality, f"the composer {str(name)!r}")
    context = ComposerContext(encoder, parts or Parts(), score)
    composer: Composer = COMPOSERS.build(name, context)
    add_terms = RULES[rule].add_terms
    if add_terms is None:
        return composer
    extended: Composer = (resolve_name(add_terms) if isinstance(add_terms, str) else add_terms)(context, composer)
    return extended


def add_constraints(context: ComposerContext, composer: Composer) -> Composer:
    """The composer with the terms `reward` and `penalty` of SoFT's rule."""
    return Constrained(context.encoder, composer, context.compiler)


def make_image(_context: ComposerContext) -> Composer:
    return ImageOnly()


def make_prompt(context: ComposerContext) -> Composer:
    return PromptOnly(context.encoder)


def make_sum(context: ComposerContext) -> Composer:
    return Sum(context.encoder)


def make_slerp(context: ComposerContext) -> Composer:
    return Slerp(context.encoder)


def make_joint(context: ComposerContext) -> Composer:
    return Joint(context.encoder)


def make_captions(context: ComposerContext) -> Captions:
    return _captions(context)


def make_ldre(context: ComposerContext) -> Composer:
    if context.score is None:
        raise OptionError("'ldre' weighs captions by a gallery: use it in a Retriever, or give score")
    remark = "the captions' weights were chosen by looking at the gallery (transductive, as in LDRE)"
    return _captions(context, count=CAPTIONS_PER_IMAGE, shares=partial(ldre_shares, context.score), remark=remark)


def make_seize(context: ComposerContext) -> Composer:
    return _captions(context, count=CAPTIONS_PER_IMAGE, rule=Hinge())


def make_sdr(context: ComposerContext) -> Composer:
    return _captions(context, base=sdr_weights())


def make_roles(context: ComposerContext) -> Composer:
    return RoleAware(context.encoder, _captions(context), context.compiler)


def make_one_step(context: ComposerContext) -> Composer:
    if context.parts.describer is None:
        raise OptionError(
            "'one-step' needs a describer: give --describer endpoint or --describer FILE, or Parts(describer=...)"
        )
    return OneStep(context.encoder, context.parts.describer)


def make_imagined(context: ComposerContext) -> Composer:
    if context.parts.editor is None:
        raise OptionError("'imagined' needs an editor: give --editor endpoint or --editor FILE, or Parts(editor=...)")
    return Imagined(context.encoder, context.parts.editor, context.parts.describer)


def make_pic2word(context: ComposerContext) -> Composer:
    return Inversion(context.encoder, _sentence_encoder(context, ComposerName.PIC2WORD), joint=",")


def make_searle(context: ComposerContext) -> Composer:
    return Inversion(context.encoder, _sentence_encoder(context, ComposerName.SEARLE))


def make_searle_oti(context: ComposerContext) -> Composer:
    return Inversion(context.encoder, _sentence_encoder(context, ComposerName.SEARLE_OTI))


def make_lincir(context: ComposerContext) -> Composer:
    return Inversion(context.encoder, _sentence_encoder(context, ComposerName.LINCIR))


def _captions(context: ComposerContext, **settings: Any) -> Captions:
    """`Captions` with the captioner and the rewriter of the parts, or their defaults: the tagger and the template."""
    encoder, parts = context.encoder, context.parts
    vocabulary = parts.vocabulary or default_vocabulary(encoder)
    captioner = parts.captioner or CaptionerName.TAGGER
    if isinstance(captioner, str):
        captioner = named_captioner(captioner, encoder, vocabulary)
    rewriter = parts.rewriter or RewriterName.TEMPLATE
    if isinstance(rewriter, str):
        rewriter = cast(Rewriter, REWRITERS.build(rewriter, vocabulary))
    return Captions(encoder, captioner, rewriter, **settings)


def _sentence_encoder(context: ComposerContext, name: ComposerName) -> SentenceEncoder:
    """Encodes sentences with the pseudo token that the method of that name makes of an image."""
    from mmretrieve.encoders.openclip import require_open_clip
    from mmretrieve.inversion.oti import OTI

    encoder, parts = require_open_clip(context.encoder, repr(name.value)), context.parts
    predictor = (parts.oti or OTI()) if name is ComposerName.SEARLE_OTI else _load_phi(encoder, parts.phi, name)

    def encode(images: Sequence[ImageLike], sentences: Sequence[Sequence[Sequence[str]]]) -> Float32:
        tokens = predictor.tokens(encoder.image_features(images), encoder)
        return encoder.pseudo_tokens.encode(sentences, tokens)

    return encode


def _load_phi(encoder: OpenClipEncoder, phi: str | Path | Phi | None, name: ComposerName) -> Phi:
    """The phi that is given, else that of the encoder's folder. Raises OptionError if there is none or it has the wrong type."""
    from mmretrieve.inversion.phi import FILE, Phi, Pic2WordPhi, load_phi

    default = encoder.folder / FILE if encoder.folder is not None else None
    if phi is None and default is not None and default.is_file():
        phi = default
    if phi is None:
        raise OptionError(
            f"{name.value!r} needs a phi for {encoder.identity.model}: give Parts(phi=FILE), in the shell --phi FILE, or train one with `mmretrieve train-phi`"
        )
    loaded = phi if isinstance(phi, Phi) else load_phi(phi, encoder)
    is_pic2word, needs_pic2word = isinstance(loaded.net, Pic2WordPhi), name is ComposerName.PIC2WORD
    if is_pic2word != needs_pic2word:
        made_for = "'pic2word'" if is_pic2word else "'searle' and 'lincir'"
        raise OptionError(
            f"{name.value!r} cannot use this phi, which was trained for {made_for}: use that composer, or give another phi"
        )
    return loaded
