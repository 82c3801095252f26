"""The captions composer: `text` is the reference said in words, `composed` the same words with the prompt applied.

This is the shape of CIReVL (arXiv 2310.09291); which captioner and which rewriter it uses is a choice. Here are the
two that need nothing but the encoder: a zero-shot tagger and a template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmretrieve.composers.base import Captioner, Query, Rewriter
from mmretrieve.composers.vocabulary import Group, Vocabulary
from mmretrieve.composition import Composition, Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.vectors import Float32


@dataclass(frozen=True)
class TemplateRewriter:
    """`"{caption}, {prompt}"`."""

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        return [f"{caption}, {prompt}" for caption, prompt in zip(captions, prompts, strict=True)]


@dataclass
class Tagger:
    """Builds a caption group by group: of each the word whose sentence, with all that is chosen so far, lies nearest to the image.

    After the first round every group is chosen again in the light of all the others.
    """

    encoder: Encoder
    vocabulary: Vocabulary
    rounds: int = 2
    _vectors: dict[str, Float32] = field(default_factory=dict, repr=False)

    def captions(self, queries: Sequence[Query]) -> list[str]:
        """One caption a query, from its reference vector. OptionError where a query has no reference."""
        chosen: list[dict[str, str]] = [{} for _ in queries]
        for group in self.vocabulary.groups * self.rounds:
            said = [self._candidates(group, words) for words in chosen]
            self._remember({sentence for sentences in said for sentence in sentences})
            for i, (query, sentences) in enumerate(zip(queries, said, strict=True)):
                if sentences:
                    scores = [float(query.reference() @ self._vectors[sentence]) for sentence in sentences]
                    word = group.words[int(np.argmax(scores))]
                    chosen[i] = self.vocabulary.consistent({**chosen[i], group.name: word})
        return [self.vocabulary.say(words) for words in chosen]

    def _candidates(self, group: Group, chosen: dict[str, str]) -> list[str]:
        if not group.applies(chosen):
            return []
        tried = ({**chosen, group.name: word} for word in group.words)
        return [self.vocabulary.say(self.vocabulary.consistent(words)) for words in tried]

    def _remember(self, sentences: set[str]) -> None:
        if new := sorted(sentences - set(self._vectors)):
            self._vectors.update(zip(new, self.encoder.encode_texts(new), strict=True))


@dataclass(frozen=True)
class Captions:
    """Four terms: image, text, composed and prompt; the base weights are `composed` alone. A given caption is taken as it is."""

    encoder: Encoder
    captioner: Captioner
    rewriter: Rewriter = field(default_factory=TemplateRewriter)

    def compose(self, queries: Sequence[Query]) -> list[Composition]:
        prompts = [query.words() for query in queries]
        captions = self._captions(queries)
        composed = self.rewriter.rewrite(captions, prompts)
        text_rows, composed_rows, prompt_rows = np.split(self.encoder.encode_texts([*captions, *composed, *prompts]), 3)
        return [
            Composition(
                (Term.IMAGE, Term.TEXT, Term.COMPOSED, Term.PROMPT),
                np.stack([query.reference(), text_rows[i], composed_rows[i], prompt_rows[i]]),
                (0.0, 0.0, 1.0, 0.0),
                {Term.TEXT: captions[i], Term.COMPOSED: composed[i], Term.PROMPT: prompts[i]},
            )
            for i, query in enumerate(queries)
        ]

    def _captions(self, queries: Sequence[Query]) -> list[str]:
        unsaid = [query for query in queries if query.caption is None]
        told = iter(self.captioner.captions(unsaid))
        return [next(told) if query.caption is None else query.caption for query in queries]
