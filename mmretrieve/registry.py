"""What can be chosen by name: built-in ones first, then those that a program or an installed package registers.

There is a registry each for composers, score rules, judges, rewriters, paraphrasers, captioners and encoders. An entry contains what a
search must know of a method before it is built; its factory is imported when the method is built. An unknown name is looked up in the
entry points of installed packages: the group `mmretrieve.composers` for composers, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from pkgutil import resolve_name
from typing import Any, Generic, TypeVar

from mmretrieve.errors import OptionError, unknown
from mmretrieve.options import (
    BUILT_IN,
    CaptionerName,
    ComposerName,
    JudgeName,
    Modality,
    ParaphraserName,
    RewriterName,
    RuleName,
)

E = TypeVar("E", bound="RegistryEntry")
CAPTIONED = frozenset({"captioner", "rewriter", "vocabulary"})
COMPOSER_FACTORIES, RULE_FACTORIES = "mmretrieve.composers.factory", "mmretrieve.rules"
REWRITER_FACTORIES, CAPTIONER_FACTORIES = "mmretrieve.language.rewriters", "mmretrieve.language.captioners.tagger"
PARAPHRASER_FACTORIES = "mmretrieve.language.paraphrases"
ENCODER_FACTORIES, JUDGE_FACTORIES = "mmretrieve.encoders.openclip", "mmretrieve.judges"


@dataclass(frozen=True)
class RegistryEntry:
    """A factory, or where it is as `"module:function"`, and the fields of `Parts` that the method reads.

    Rewriters and paraphrasers are built by `factory(vocabulary)`, captioners by `factory(context)` with a `CaptionerContext`, encoders by
    `factory(context)` with an `EncoderContext`, and judges by `factory(context)` with a `ComposerContext`.
    """

    factory: Callable[..., Any] | str
    uses: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RuleEntry(RegistryEntry):
    """A score rule, built by `factory(learned_words)` (see `rules.make_rule`).

    Parameters
    ----------
    add_terms : (context, composer) → the composer with the terms that only this rule reads; None for a rule without any.
    """

    add_terms: Callable[..., Any] | str | None = None


@dataclass(frozen=True)
class ComposerEntry(RegistryEntry):
    """A composer, built by `factory(context)` with a `ComposerContext` (see `composers.make_composer`).

    Parameters
    ----------
    reads_image, reads_prompt : whether a request may have references, and prompts.
    keeps_weights : whether a request that names the composer and no weights keeps the composer's own.
    learned_words : whether pseudo words stand for the image.
    supports_pdv : whether its terms include image, text and composed, which PDV weighs.
    makes_captions : whether it always makes several captions of its own, and ignores those that a benchmark provides.
    averages_prompts : whether the evaluation takes the mean of all wordings of a prompt, as it does with learned words.
    encodes_pairs : whether it encodes an image and a prompt together, which the encoder must support.
    reads_paraphrases : whether it takes the mean over the paraphrases of a prompt.
    published : the method in `directions.PUBLISHED` whose PDV settings fit its terms; None if the paper gives none.
    """

    reads_image: bool = True
    reads_prompt: bool = True
    keeps_weights: bool = False
    learned_words: bool = False
    supports_pdv: bool = True
    makes_captions: bool = False
    averages_prompts: bool = False
    encodes_pairs: bool = False
    reads_paraphrases: bool = False
    published: str | None = None

    @property
    def modality(self) -> Modality | None:
        """What the encoder must encode for the composer, beside references; None if that is nothing."""
        return Modality.PAIR if self.encodes_pairs else Modality.TEXT if self.reads_prompt else None

    @property
    def reads_captions(self) -> bool:
        """Whether the composer describes references in words."""
        return "captioner" in self.uses


class Registry(Generic[E]):
    """Entries by name: the built-in ones, then registered ones, in that order.

    Parameters
    ----------
    kind : the kind of thing that a name stands for, for error messages.
    group : the entry points in which an unknown name is looked up; each loads an entry or a factory.
    built_in : the first entries.
    entry_type : the class of the entries.
    argument : the one argument of a factory.
    members : what the objects have that a factory returns.

    >>> colors = Registry("color", "example.colors", {"red": RegistryEntry("colors:red")}, RegistryEntry, "shade", ["mix"])
    >>> colors.register("blue", RegistryEntry(dict))
    >>> colors.names
    ('red', 'blue')
    """

    def __init__(
        self, kind: str, group: str, built_in: Mapping[str, E], entry_type: type[E], argument: str, members: Sequence[str]
    ) -> None:
        self._kind, self._group, self._entry_type = kind, group, entry_type
        self._argument, self._members = argument, members
        self._entries = dict(built_in)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(str, self._entries))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def register(self, name: str, entry: E) -> None:
        """Adds an entry. Raises OptionError for a name that is taken, a wrong factory, and an unknown part."""
        if name in self._entries:
            raise OptionError(f"{self._kind} {name!r} exists already; register yours under another name")
        if not isinstance(entry.factory, str) and not _takes(entry.factory, 1):
            raise self._factory_error(name, "its factory does not take one argument")
        if isinstance(entry, RuleEntry) and callable(entry.add_terms) and not _takes(entry.add_terms, 2):
            raise OptionError(f"rule {name!r}: expected add_terms(context, composer) that returns a composer")
        names = [part.name for part in fields(resolve_name(f"{COMPOSER_FACTORIES}:Parts"))] if entry.uses else []
        if wrong := sorted(entry.uses - set(names)):
            raise unknown(f"part in the uses of {self._kind} {name!r}:", wrong[0], names)
        self._entries[name] = entry

    def build(self, name: str, argument: Any) -> Any:
        """What the factory of that name returns for its one argument. Raises OptionError if it lacks a member."""
        factory = self[name].factory
        result = (resolve_name(factory) if isinstance(factory, str) else factory)(argument)
        if missing := [member for member in self._members if not hasattr(result, member)]:
            raise self._factory_error(name, f"its factory returned {type(result).__name__} without {missing[0]!r}")
        return result

    def _factory_error(self, name: str, reason: str) -> OptionError:
        return OptionError(
            f"{self._kind} {name!r}: {reason}; expected factory({self._argument}) that returns an object with {', '.join(self._members)}"
        )

    def __contains__(self, name: object) -> bool:
        """Whether there is an entry of that name, in an installed package too."""
        return isinstance(name, str) and (name in self._entries or self._load(name))

    def check(self, name: object) -> str:
        """The name, if there is an entry of that name. Raises OptionError, listing all names, otherwise."""
        if name not in self:
            raise unknown(self._kind, name, self._entries)
        return str(name)

    def __getitem__(self, name: str) -> E:
        return self._entries[self.check(name)]

    def _load(self, name: str) -> bool:
        """Registers the entry point of that name; False if no installed package has one."""
        from importlib.metadata import entry_points  # takes 20 ms, which registered names do not need

        for point in entry_points(group=self._group, name=name):
            try:
                loaded = point.load()
            except Exception as error:  # of a package that others wrote
                raise OptionError(
                    f"{self._kind} {name!r} cannot be loaded from {point.value} ({type(error).__name__}: {error}); fix or uninstall that package"
                ) from error
            self.register(name, loaded if isinstance(loaded, self._entry_type) else self._entry_type(loaded))
            return True
        return False


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments; True if its signature is unknown, as of some builtins."""
    try:
        signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _composer(function: str, *uses: str, **traits: Any) -> ComposerEntry:
    return ComposerEntry(f"{COMPOSER_FACTORIES}:{function}", frozenset(uses), **traits)


def _rule(function: str) -> RuleEntry:
    return RuleEntry(f"{RULE_FACTORIES}:{function}")


COMPOSERS = Registry(
    "composer",
    "mmretrieve.composers",
    {
        ComposerName.IMAGE: _composer("make_image", reads_prompt=False, keeps_weights=True, supports_pdv=False),
        ComposerName.PROMPT: _composer(
            "make_prompt",
            reads_image=False,
            keeps_weights=True,
            supports_pdv=False,
            averages_prompts=True,
            reads_paraphrases=True,
        ),
        ComposerName.SUM: _composer(
            "make_sum", keeps_weights=True, supports_pdv=False, averages_prompts=True, reads_paraphrases=True
        ),
        ComposerName.SLERP: _composer("make_slerp", keeps_weights=True, supports_pdv=False),
        ComposerName.CAPTIONS: _composer("make_captions", *CAPTIONED, reads_paraphrases=True, published="cirevl"),
        ComposerName.LDRE: _composer("make_ldre", *CAPTIONED, reads_paraphrases=True, makes_captions=True, published="ldre"),
        ComposerName.SEIZE: _composer("make_seize", *CAPTIONED, reads_paraphrases=True, makes_captions=True),
        ComposerName.ONE_STEP: _composer("make_one_step", "describer", supports_pdv=False),
        ComposerName.SDR: _composer("make_sdr", *CAPTIONED, reads_paraphrases=True, keeps_weights=True),
        ComposerName.ROLES: _composer("make_roles", *CAPTIONED, "compiler", reads_paraphrases=True, keeps_weights=True),
        ComposerName.JOINT: _composer("make_joint", keeps_weights=True, supports_pdv=False, encodes_pairs=True),
        ComposerName.IMAGINED: _composer("make_imagined", "editor", "describer", keeps_weights=True, supports_pdv=False),
        ComposerName.PIC2WORD: _composer("make_pic2word", "phi", learned_words=True, published="pic2word"),
        ComposerName.SEARLE: _composer("make_searle", "phi", learned_words=True, published="searle"),
        ComposerName.SEARLE_OTI: _composer("make_searle_oti", "oti", learned_words=True, published="searle"),
        ComposerName.LINCIR: _composer(
            "make_lincir", "phi", learned_words=True, published="searle"
        ),  # it has no own, and learns words too
    },
    ComposerEntry,
    "context",
    ["compose"],
)
RULES = Registry(
    "rule",
    "mmretrieve.rules",
    {
        RuleName.LINEAR: _rule("make_linear"),
        RuleName.HINGE: _rule("make_hinge"),
        RuleName.SOFT: RuleEntry(
            f"{RULE_FACTORIES}:make_soft", frozenset({"compiler"}), add_terms=f"{COMPOSER_FACTORIES}:add_constraints"
        ),
        RuleName.PRODUCT: _rule("make_product"),
        RuleName.HARRIS: _rule("make_product_harris"),
    },
    RuleEntry,
    "learned_words",
    ["required_roles", "uses_weights", "slopes"],
)
JUDGES = Registry(
    "judge",
    "mmretrieve.judges",
    {
        JudgeName.ATTRIBUTES: RegistryEntry(f"{JUDGE_FACTORIES}.attributes:AttributeJudge.of"),
        JudgeName.LOCAL: RegistryEntry(f"{JUDGE_FACTORIES}.local:LocalJudge.of"),
    },
    RegistryEntry,
    "context",
    ["rank"],
)
REWRITERS = Registry(
    "rewriter",
    "mmretrieve.rewriters",
    {
        RewriterName.TEMPLATE: RegistryEntry(f"{REWRITER_FACTORIES}:make_template"),
        RewriterName.SWAP: RegistryEntry(f"{REWRITER_FACTORIES}:SwapRewriter"),
    },
    RegistryEntry,
    "vocabulary",
    ["rewrite"],
)
PARAPHRASERS = Registry(
    "paraphraser",
    "mmretrieve.paraphrasers",
    {ParaphraserName.TEMPLATES: RegistryEntry(f"{PARAPHRASER_FACTORIES}:make_templates")},
    RegistryEntry,
    "vocabulary",
    ["paraphrase"],
)
CAPTIONERS = Registry(
    "captioner",
    "mmretrieve.captioners",
    {CaptionerName.TAGGER: RegistryEntry(f"{CAPTIONER_FACTORIES}:make_tagger")},
    RegistryEntry,
    "context",
    ["captions"],
)
ENCODERS = Registry(
    "encoder",
    "mmretrieve.encoders",
    {BUILT_IN: RegistryEntry(f"{ENCODER_FACTORIES}:load_open_clip")},
    RegistryEntry,
    "context",
    ["identity", "dim", "encode_images", "encode_texts"],
)


def register_composer(
    name: str,
    factory: Callable[[Any], Any],
    *,
    uses: Iterable[str] = (),
    reads_image: bool = True,
    reads_prompt: bool = True,
    keeps_weights: bool = False,
    learned_words: bool = False,
    supports_pdv: bool = True,
    makes_captions: bool = False,
    averages_prompts: bool = False,
    encodes_pairs: bool = False,
    reads_paraphrases: bool = False,
    published: str | None = None,
) -> None:
    """Makes a composer available by name in Python, shell, API and evaluation.

    An installed package needs no call: an entry point of that name in the group ``mmretrieve.composers`` is found on first use.

    Parameters
    ----------
    name : str
        Its name, such as ``"mine"``.
    factory : callable
        Called with a `ComposerContext`, which has `encoder`, `parts` and `score`; returns a `Composer`.
    uses : iterable of str, optional
        The fields of `Parts` that the composer reads; ``"captioner"`` among them means that requests may give captions.
    reads_image, reads_prompt : bool, default=True
        Whether a request may have references, and prompts. One that the composer does not read is an error.
    keeps_weights : bool, default=False
        Whether a request that names the composer and no weights keeps the composer's own weights.
    learned_words : bool, default=False
        Whether pseudo words stand for the image, as in textual inversion.
    supports_pdv : bool, default=True
        Whether its terms include image, text and composed, which PDV weighs.
    makes_captions : bool, default=False
        Whether it always makes several captions of its own, so that the evaluation gives it none.
    averages_prompts : bool, default=False
        Whether the evaluation takes the mean of all wordings of a prompt, as it does with learned words.
    encodes_pairs : bool, default=False
        Whether it calls `encode_pairs`. An encoder without it is an error.
    reads_paraphrases : bool, default=False
        Whether it takes the mean over `ComposerInput.paraphrases`. Without it, a request for several is an error.
    published : str, optional
        The method in `PUBLISHED` whose PDV settings fit its terms, such as ``"cirevl"``.

    Raises
    ------
    OptionError
        The name is taken, the factory does not take one argument, or `uses` names something that `Parts` does not have.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> from mmretrieve.composers.simple import Slerp
    >>> mm.register_composer("slerp-0.2", lambda context: Slerp(context.encoder, t=0.2), keeps_weights=True, supports_pdv=False)
    >>> COMPOSERS.check("slerp-0.2")
    'slerp-0.2'
    """
    entry = ComposerEntry(
        factory,
        frozenset(uses),
        reads_image=reads_image,
        reads_prompt=reads_prompt,
        keeps_weights=keeps_weights,
        learned_words=learned_words,
        supports_pdv=supports_pdv,
        makes_captions=makes_captions,
        averages_prompts=averages_prompts,
        encodes_pairs=encodes_pairs,
        reads_paraphrases=reads_paraphrases,
        published=published,
    )
    COMPOSERS.register(name, entry)


def register_rule(
    name: str,
    factory: Callable[[bool], Any],
    *,
    uses: Iterable[str] = (),
    add_terms: Callable[[Any, Any], Any] | None = None,
) -> None:
    """Makes a score rule available by name in Python, shell, API and evaluation.

    An installed package needs no call: an entry point of that name in the group ``mmretrieve.rules`` is found on first use.

    Parameters
    ----------
    name : str
        Its name, such as ``"mine"``.
    factory : callable
        Called with whether the composer puts pseudo words in the place of the image; returns a `ScoreRule`, which gets `name`.
    uses : iterable of str, optional
        The fields of `Parts` that `add_terms` reads.
    add_terms : callable, optional
        Called with the `ComposerContext` and the `Composer` of the search; returns the composer with the terms that only this
        rule reads, as `mmretrieve.composers.factory.add_constraints` does for "soft".

    Raises
    ------
    OptionError
        The name is taken, the factory does not take one argument, or `uses` names something that `Parts` does not have.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> from mmretrieve.rules import Product
    >>> mm.register_rule("my-product", lambda learned_words: Product())
    >>> RULES.check("my-product")
    'my-product'
    """
    RULES.register(name, RuleEntry(factory, frozenset(uses), add_terms))


def register_judge(name: str, factory: Callable[[Any], Any]) -> None:
    """Makes a judge available by name in Python, shell and API.

    An installed package needs no call: an entry point of that name in the group ``mmretrieve.judges`` is found on first use.

    Parameters
    ----------
    name : str
        Its name, such as ``"mine"``.
    factory : callable
        Called with a `ComposerContext`, which has `encoder` and `parts`; returns a `Judge`, which has `rank(query, documents)`.

    Raises
    ------
    OptionError
        The name is taken, or the factory does not take one argument.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> class Undecided:
    ...     def rank(self, query, documents):
    ...         return [{"corpus_id": i, "score": 0.0} for i in range(len(documents))]
    >>> mm.register_judge("undecided", lambda context: Undecided())
    >>> JUDGES.check("undecided")
    'undecided'
    """
    JUDGES.register(name, RegistryEntry(factory))


def register_rewriter(name: str, factory: Callable[..., Any]) -> None:
    """Makes a rewriter available by name: `Parts(rewriter=name)` and ``--rewriter name``.

    An installed package needs no call: an entry point of that name in the group ``mmretrieve.rewriters`` is found on first use.

    Parameters
    ----------
    name : str
        Its name, such as ``"mine"``.
    factory : callable
        Called with the `Vocabulary` of the search; returns a `Rewriter`, which has `rewrite(captions, prompts)`.

    Raises
    ------
    OptionError
        The name is taken, or the factory does not take one argument.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> from mmretrieve.language.rewriters import TemplateRewriter
    >>> mm.register_rewriter("my-template", lambda vocabulary: TemplateRewriter())
    >>> REWRITERS.check("my-template")
    'my-template'
    """
    REWRITERS.register(name, RegistryEntry(factory))


def register_paraphraser(name: str, factory: Callable[..., Any]) -> None:
    """Makes a paraphraser available by name: `Parts(paraphraser=name)` and ``--paraphraser name``.

    An installed package needs no call: an entry point of that name in the group ``mmretrieve.paraphrasers`` is found on first use.

    Parameters
    ----------
    name : str
        Its name, such as ``"mine"``.
    factory : callable
        Called with the `Vocabulary` of the search; returns a `Paraphraser`, which has `paraphrase(prompts, count)`.

    Raises
    ------
    OptionError
        The name is taken, or the factory does not take one argument.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> from mmretrieve.language.paraphrases import TemplateParaphraser
    >>> mm.register_paraphraser("my-templates", lambda vocabulary: TemplateParaphraser())
    >>> PARAPHRASERS.check("my-templates")
    'my-templates'
    """
    PARAPHRASERS.register(name, RegistryEntry(factory))


def register_captioner(name: str, factory: Callable[[Any], Any]) -> None:
    """Makes a captioner available by name: `Parts(captioner=name)` and ``--captioner name``.

    An installed package needs no call: an entry point of that name in the group ``mmretrieve.captioners`` is found on first use.

    Parameters
    ----------
    name : str
        Its name, such as ``"mine"``.
    factory : callable
        Called with a `CaptionerContext`, which has the `encoder` and the `vocabulary` of the search; returns a `Captioner`, which has
        `captions(inputs, count)`.

    Raises
    ------
    OptionError
        The name is taken, or the factory does not take one argument.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> from mmretrieve.language.captioners.tagger import Tagger
    >>> mm.register_captioner("one-round", lambda context: Tagger(context.encoder, context.vocabulary, rounds=1))
    >>> CAPTIONERS.check("one-round")
    'one-round'
    """
    CAPTIONERS.register(name, RegistryEntry(factory))


def register_encoder(name: str, factory: Callable[[Any], Any]) -> None:
    """Makes an encoder available by name: `load_encoder(name)` and ``--encoder name``, and to galleries that store its name.

    An installed package needs no call: an entry point of that name in the group ``mmretrieve.encoders`` is found on first use.
    `mmretrieve.testing.check_encoder` checks what it returns.

    Parameters
    ----------
    name : str
        Its name, such as ``"mine"``. The identity of the encoder has it as `model`.
    factory : callable
        Called with an `EncoderContext`, which has the `name`, `device`, `dtype` and `preprocessing` of `load_encoder`; returns an
        `Encoder`.

    Raises
    ------
    OptionError
        The name is taken, or the factory does not take one argument.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> class Renamed:
    ...     def __init__(self, encoder, name):
    ...         self.identity = mm.EncoderIdentity(name, encoder.identity.weights, encoder.identity.preprocessing)
    ...         self.dim, self.encode_images, self.encode_texts = encoder.dim, encoder.encode_images, encoder.encode_texts
    >>> mm.register_encoder("my-clip", lambda context: Renamed(mm.load_encoder("wardrobe"), context.name))
    >>> mm.load_encoder("my-clip").encode_texts(["a red dress"]).shape
    (1, 128)
    """
    ENCODERS.register(name, RegistryEntry(factory))
