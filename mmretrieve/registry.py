"""Composers, score rules and rewriters by name: built-in ones first, then those that a program or an installed package registers.

An entry contains what a search must know of a method before it is built; its factory is imported when the method is built. An
unknown name is looked up in the entry points `mmretrieve.composers`, `mmretrieve.rules` and `mmretrieve.rewriters` of installed
packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, Generic, TypeVar

from mmretrieve.errors import OptionError, unknown
from mmretrieve.options import ComposerName, RewriterName, RuleName

E = TypeVar("E", bound="RegistryEntry")
CAPTIONED = frozenset({"captioner", "rewriter", "vocabulary"})
COMPOSER_FACTORIES, RULE_FACTORIES = "mmretrieve.composers.factory", "mmretrieve.rules"
REWRITER_FACTORIES = "mmretrieve.language.rewriters"


@dataclass(frozen=True)
class RegistryEntry:
    """A factory, or where it is as `"module:function"`, and the fields of `Parts` that the method reads.

    Score rules are built by `factory(learned_words)` (see `rules.make_rule`), rewriters by `factory(vocabulary)` (see
    `language.base.Rewriter`).
    """

    factory: Callable[..., Any] | str
    uses: frozenset[str] = frozenset()

    def build(self, *arguments: Any) -> Any:
        """Calls the factory."""
        factory = resolve_name(self.factory) if isinstance(self.factory, str) else self.factory
        return factory(*arguments)


@dataclass(frozen=True)
class ComposerEntry(RegistryEntry):
    """A composer, built by `factory(encoder, parts, score)` (see `composers.make_composer`).

    Parameters
    ----------
    reads_image, reads_prompt : whether a request may have references, and prompts.
    keeps_weights : whether a request that names the composer and no weights keeps the composer's own.
    learned_words : whether pseudo words stand for the image.
    """

    reads_image: bool = True
    reads_prompt: bool = True
    keeps_weights: bool = False
    learned_words: bool = False

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

    >>> colors = Registry("color", "example.colors", {"red": RegistryEntry("colors:red")}, RegistryEntry)
    >>> colors.register("blue", RegistryEntry(dict))
    >>> colors.names
    ('red', 'blue')
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, E], entry_type: type[E]) -> None:
        self._kind, self._group, self._entry_type = kind, group, entry_type
        self._entries = dict(built_in)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(str, self._entries))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def register(self, name: str, entry: E) -> None:
        """Adds an entry. Raises OptionError for a name that is taken."""
        if name in self._entries:
            raise OptionError(f"{self._kind} {name!r} exists already; register yours under another name")
        self._entries[name] = entry

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


def _composer(function: str, *uses: str, **traits: bool) -> ComposerEntry:
    return ComposerEntry(f"{COMPOSER_FACTORIES}:{function}", frozenset(uses), **traits)


def _rule(function: str, *uses: str) -> RegistryEntry:
    return RegistryEntry(f"{RULE_FACTORIES}:{function}", frozenset(uses))


COMPOSERS = Registry(
    "composer",
    "mmretrieve.composers",
    {
        ComposerName.IMAGE: _composer("make_image", reads_prompt=False, keeps_weights=True),
        ComposerName.PROMPT: _composer("make_prompt", reads_image=False, keeps_weights=True),
        ComposerName.SUM: _composer("make_sum", keeps_weights=True),
        ComposerName.SLERP: _composer("make_slerp", keeps_weights=True),
        ComposerName.CAPTIONS: _composer("make_captions", *CAPTIONED),
        ComposerName.LDRE: _composer("make_ldre", *CAPTIONED),
        ComposerName.SEIZE: _composer("make_seize", *CAPTIONED),
        ComposerName.ONE_STEP: _composer("make_one_step", "describer"),
        ComposerName.SDR: _composer("make_sdr", *CAPTIONED, keeps_weights=True),
        ComposerName.ROLES: _composer("make_roles", *CAPTIONED, "compiler", keeps_weights=True),
        ComposerName.PIC2WORD: _composer("make_pic2word", "phi", learned_words=True),
        ComposerName.SEARLE: _composer("make_searle", "phi", learned_words=True),
        ComposerName.SEARLE_OTI: _composer("make_searle_oti", "oti", learned_words=True),
        ComposerName.LINCIR: _composer("make_lincir", "phi", learned_words=True),
    },
    ComposerEntry,
)
RULES = Registry(
    "rule",
    "mmretrieve.rules",
    {
        RuleName.LINEAR: _rule("make_linear"),
        RuleName.HINGE: _rule("make_hinge"),
        RuleName.SOFT: _rule("make_soft", "compiler"),
        RuleName.PRODUCT: _rule("make_product"),
        RuleName.HARRIS: _rule("make_product_harris"),
    },
    RegistryEntry,
)
REWRITERS = Registry(
    "rewriter",
    "mmretrieve.rewriters",
    {
        RewriterName.TEMPLATE: RegistryEntry(f"{REWRITER_FACTORIES}:make_template"),
        RewriterName.SWAP: RegistryEntry(f"{REWRITER_FACTORIES}:SwapRewriter"),
    },
    RegistryEntry,
)


def register_composer(name: str, factory: Callable[..., Any], *, uses: Iterable[str] = (), keeps_weights: bool = False) -> None:
    """Makes a composer available by name in Python, shell, API and evaluation.

    An installed package needs no call: an entry point of that name in the group ``mmretrieve.composers`` is found on first use.

    Parameters
    ----------
    name : str
        Its name, such as ``"mine"``.
    factory : callable
        Called with the encoder, the `Parts` and the gallery's scorer (None outside a gallery); returns a `Composer`.
    uses : iterable of str, optional
        The fields of `Parts` that the composer reads; ``"captioner"`` among them means that requests may give captions.
    keeps_weights : bool, default=False
        Whether a request that names the composer and no weights keeps the composer's own weights.

    Raises
    ------
    OptionError
        The name is taken.

    Examples
    --------
    >>> from mmretrieve.composers.simple import Slerp
    >>> register_composer("slerp-0.2", lambda encoder, parts, score: Slerp(encoder, t=0.2), keeps_weights=True)
    >>> COMPOSERS.check("slerp-0.2")
    'slerp-0.2'
    """
    COMPOSERS.register(name, ComposerEntry(factory, frozenset(uses), keeps_weights=keeps_weights))


def register_rule(name: str, factory: Callable[[bool], Any]) -> None:
    """Makes a score rule available by name in Python, shell, API and evaluation.

    An installed package needs no call: an entry point of that name in the group ``mmretrieve.rules`` is found on first use.

    Parameters
    ----------
    name : str
        Its name, such as ``"mine"``.
    factory : callable
        Called with whether the composer puts pseudo words in the place of the image; returns a `ScoreRule`.

    Raises
    ------
    OptionError
        The name is taken.

    Examples
    --------
    >>> from mmretrieve.rules import Product
    >>> register_rule("my-product", lambda learned_words: Product())
    >>> RULES.check("my-product")
    'my-product'
    """
    RULES.register(name, RegistryEntry(factory))


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
        The name is taken.

    Examples
    --------
    >>> from mmretrieve.language.rewriters import TemplateRewriter
    >>> register_rewriter("my-template", lambda vocabulary: TemplateRewriter())
    >>> REWRITERS.check("my-template")
    'my-template'
    """
    REWRITERS.register(name, RegistryEntry(factory))
