"""The words of a judge's query: those of its reference, and those of the image that it looks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmretrieve.composer_input import ComposerInput
from mmretrieve.encoders.base import Encoder
from mmretrieve.language.captioners.tagger import Tagger
from mmretrieve.language.editing import Sentence
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.vocabulary import Vocabulary, WordGroup


@dataclass(frozen=True)
class QueryWords:
    """Words of a vocabulary by group.

    Parameters
    ----------
    reference : of the caption of the reference; empty without a reference.
    desired : of the desired description.
    """

    reference: Mapping[str, str]
    desired: Mapping[str, str]


@dataclass(frozen=True)
class WordReader:
    """Reads the words of queries: the reference is tagged, and the prompt is applied to its caption.

    Parameters
    ----------
    encoder : encodes references and sentences.
    vocabulary : the words that are known.

    >>> import mmretrieve as mm
    >>> from mmretrieve.images import open_image
    >>> from mmretrieve.language.vocabulary import default_vocabulary
    >>> encoder = mm.load_encoder("wardrobe")
    >>> picture = open_image(mm.wardrobe.pictures_folder() / "red-checked-dress-1815.png")
    >>> words = WordReader(encoder, default_vocabulary(encoder)).read({"image": picture, "text": "in blue"})
    >>> words.reference["colour"], words.desired["colour"], words.desired["garment"]
    ('red', 'blue', 'dress')
    """

    encoder: Encoder
    vocabulary: Vocabulary

    def read(self, query: Mapping[str, Any]) -> QueryWords:
        """The words of a query of `Judge.rank`. A word of the prompt comes before one of the rewritten caption."""
        prompt, caption = query.get("text", ""), self._caption(query)
        (description,) = self.rewriter.rewrite([caption], [prompt]) if caption and prompt else [caption]
        asked = self.rewriter.compiler.desired_text(prompt)
        return QueryWords(self._words_of(caption), self._words_of(description) | self._words_of(asked))

    @cached_property
    def rewriter(self) -> SwapRewriter:
        """Applies prompts to captions."""
        return SwapRewriter(self.vocabulary)

    @cached_property
    def _tagger(self) -> Tagger:
        return Tagger(self.encoder, self.vocabulary)

    def _caption(self, query: Mapping[str, Any]) -> str:
        if "image" not in query:
            return ""
        vector = self.encoder.encode_images([query["image"]])[0]
        (caption,) = self._tagger.captions([ComposerInput(vector=vector)])[0]
        return caption

    def _words_of(self, text: str) -> dict[str, str]:
        """For each group the longest of its words that a text asks for, if there is one."""
        sentence = Sentence(text, self.rewriter.lexicon)
        words = {group.name: _longest_word(group, sentence) for group in self.vocabulary.groups}
        return {name: word for name, word in words.items() if word}


def _longest_word(group: WordGroup, sentence: Sentence) -> str:
    return max((word for word in group.words if word and sentence.contains(word)), key=len, default="")
