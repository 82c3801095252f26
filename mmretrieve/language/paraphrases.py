"""Paraphrases of prompts from templates: "in red" as "make it red". To add a paraphraser, implement `base.Paraphraser`.

To give it a name, add an entry to `registry.PARAPHRASERS`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmretrieve.language.answers import paraphrases_of
from mmretrieve.language.base import Paraphraser
from mmretrieve.language.lexicon import Lexicon, Match, general_lexicon
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.role_compiler import DEGREES, POLITE, SAME, RuleCompiler
from mmretrieve.language.tokens import exact_key, tokenize, word_list
from mmretrieve.language.vocabulary import THING, Vocabulary
from mmretrieve.options import ParaphraserName
from mmretrieve.registry import PARAPHRASERS
from mmretrieve.request import normalized

COLOR_TEMPLATES = ("in {}", "make it {}", "the same but in {}", "a {} one", "change the color to {}", "I want it in {}")
ADJECTIVE_TEMPLATES = ("{}", "make it {}", "the same but {}", "I want it {}", "this one, but {}", "like this but {}")
ONE_ADJECTIVE_TEMPLATES = (*ADJECTIVE_TEMPLATES[:3], "a {} one", *ADJECTIVE_TEMPLATES[3:])
PHRASE_TEMPLATES = ("{}", "the same but {}", "one {}", "I want it {}", "this one, but {}", "show me one {}")
NOUN_TEMPLATES = ("{}", "make it {}", "I want {}", "how about {}", "change it to {}", "show me {}")
COLOR = "colour"  # the name of a class
NOT_ADJECTIVES = (THING, "number", "room", "season", "time of day")  # classes whose first forms are nouns or numbers
COLOR_FILLERS = frozenset({"in", "the", "one", "colour", "coloured", "version", "shade", "of", "as"})

FRAME = re.compile(  # what people put around a wish
    rf"^(?:{'|'.join(POLITE)}|(?:{SAME}|this(?: one)?),? but|make it|(?:change|turn) (?:it|the colou?r) (?:in)?to|but|please|is)\b,?\s+"
    r"|,?\s+(?:please|instead)$|[\s.!?]+$",
    re.IGNORECASE,
)
NOUN = re.compile(r"(?:as )?(?=an? (?!bit|little|lot))", re.IGNORECASE)
DEGREE = re.compile(rf"{DEGREES}(?:(?:even|more)\s+)?", re.IGNORECASE)
PREPOSITION = re.compile(r"(?:in|with|without|for|at|on|from|under|made of)\s", re.IGNORECASE)
CONTINUED = re.compile(r",|\s+(?:and|but|in|with|without|for)\s", re.IGNORECASE)


@dataclass(frozen=True)
class TemplateParaphraser:
    """Puts the wish of a prompt into other templates: "in red" becomes "make it red", "the same but in red", "a red one".

    The wish keeps its words, with negations and comparatives. A prompt of another form has no paraphrases, and a paraphrase in
    which the compiler reads another wish is left out.

    Parameters
    ----------
    lexicon : the classes of words, which tell colors and other adjectives.
    compiler : reads wishes.

    >>> TemplateParaphraser().paraphrase(["in red", "longer", "without dots", "swap the bag"], 2)
    [['make it red', 'the same but in red'], ['make it longer', 'the same but longer'], ['the same but without dots', 'one without dots'], []]
    """

    lexicon: Lexicon = field(default_factory=general_lexicon)
    compiler: RuleCompiler = field(default_factory=RuleCompiler)

    def paraphrase(self, prompts: Sequence[str], count: int) -> list[list[str]]:
        """Up to `count` paraphrases of each prompt, in order."""
        return [self._paraphrase(" ".join(prompt.split()))[:count] for prompt in prompts]

    def _paraphrase(self, prompt: str) -> list[str]:
        meaning, words = self._meaning(prompt), exact_key(prompt)
        texts = self._fill_templates(_remove_frame(prompt))
        return [text for text in texts if exact_key(text) != words and self._meaning(text) == meaning]

    def _fill_templates(self, wish: str) -> list[str]:
        """The wish in each template of its form; [] for an unknown form."""
        if noun := NOUN.match(wish):
            return [template.format(wish[noun.end() :]) for template in NOUN_TEMPLATES]
        if color := self._color(wish):
            return [_correct_article(template.format(color)) for template in COLOR_TEMPLATES]
        if PREPOSITION.match(wish):
            return [template.format(wish) for template in PHRASE_TEMPLATES]
        return [_correct_article(template.format(wish)) for template in self._adjective_templates(wish)]

    def _color(self, wish: str) -> str | None:
        """The color that a wish consists of: "red" for "in the color red"; None if it is about more than a color."""
        match, words = self.lexicon.meaning(wish), tokenize(wish)
        if match is None or not self._is_adjective(match, COLOR):
            return None
        others = {word.exact for word in (*words[: match.start], *words[match.end :])}
        return wish[words[match.start].start : words[match.end - 1].end] if others <= COLOR_FILLERS else None

    def _adjective_templates(self, wish: str) -> tuple[str, ...]:
        """The templates for a wish that begins with an adjective: "longer", "a bit longer", "striped with long sleeves"."""
        match, words = next(iter(self.lexicon.find(wish)), None), tokenize(wish)
        if match is None or not self._is_adjective(match):
            return ()
        before, rest = wish[: words[match.start].start], wish[words[match.end - 1].end :]
        if not before and not rest:
            return ONE_ADJECTIVE_TEMPLATES
        return ADJECTIVE_TEMPLATES if DEGREE.fullmatch(before) and (not rest or CONTINUED.match(rest)) else ()

    def _is_adjective(self, match: Match, name: str | None = None) -> bool:
        """Whether a phrase is an adjective, of the class of that name and no comparative if there is a name."""
        readings = {self.lexicon.classes[c].name: reading for c, reading in match.readings.items()}
        if name is not None:
            return name in readings and not readings[name].step
        return any(own not in NOT_ADJECTIVES and not reading.kind for own, reading in readings.items())

    def _meaning(self, prompt: str) -> tuple[frozenset[str], ...]:
        """The stems of what a prompt desires, preserves and forbids, without fillers."""
        roles = self.compiler.roles(prompt)
        return tuple(_stems(phrases) for phrases in (roles.desired, roles.preserve, roles.forbidden))


def make_templates(vocabulary: Vocabulary) -> TemplateParaphraser:
    """The factory of the templates: prompts are read as the rewriter "swap" reads them."""
    swap = SwapRewriter(vocabulary)
    return TemplateParaphraser(swap.lexicon, swap.compiler)


def make_paraphraser(paraphraser: Paraphraser | str | None, vocabulary: Vocabulary) -> Paraphraser:
    """The paraphraser of that name, which reads prompts by a vocabulary; an object as it is; templates for None."""
    named = paraphraser or ParaphraserName.TEMPLATES
    return PARAPHRASERS.build(named, vocabulary) if isinstance(named, str) else named


def paraphrase_prompts(paraphraser: Paraphraser, prompts: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """Up to `count` paraphrases of each prompt, each once and other than the prompt. Raises OptionError for a wrong answer."""
    answers = paraphrases_of(paraphraser, prompts, count)
    return [_distinct(prompt, texts)[:count] for prompt, texts in zip(prompts, answers, strict=True)]


def _distinct(prompt: str, texts: Sequence[str]) -> tuple[str, ...]:
    """The texts that have words, each once and other than the prompt."""
    by_words: dict[str, str] = {}
    for text in texts:
        if text.strip():
            by_words.setdefault(normalized(text), text.strip())
    return tuple(text for words, text in by_words.items() if words != normalized(prompt))


def _remove_frame(prompt: str) -> str:
    """The wish of a prompt: "the same but in red, please" → "in red"."""
    while (shorter := FRAME.sub("", prompt)) != prompt:
        prompt = shorter
    return prompt


def _correct_article(text: str) -> str:
    """ "a orange one" → "an orange one"."""
    return re.sub(r"^a (?=[aeiou])", "an ", text, flags=re.IGNORECASE)


def _stems(phrases: Sequence[str]) -> frozenset[str]:
    words = (word for phrase in phrases for word in tokenize(phrase))
    return frozenset(word.stem for word in words if word.is_word and word.exact not in word_list("fillers"))
