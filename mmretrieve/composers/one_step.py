"""OSrCIR (CVPR 2025): a model sees the reference image and the prompt, and describes the target in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers.fitting import cut_remarks
from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.language.base import Describer


@dataclass(frozen=True)
class OneStep:
    """The terms image, composed and prompt, and `text` if the model also describes the reference, which PDV needs."""

    encoder: Encoder
    describer: Describer

    def compose(self, queries: Sequence[ComposerInput]) -> list[Composition]:
        descriptions = [
            {Term.TEXT: d.reference, Term.COMPOSED: d.target or query.words(), Term.PROMPT: query.words()}
            for d, query in zip(self.describer.describe(queries), queries, strict=True)
        ]
        words = [{term: sentence for term, sentence in own.items() if sentence is not None} for own in descriptions]
        rows = iter(self.encoder.encode_texts([sentence for own in words for sentence in own.values()]))
        return [
            Composition(
                (Term.IMAGE, *own),
                np.stack([query.reference(), *(next(rows) for _ in own)]),
                (0.0, *(float(term is Term.COMPOSED) for term in own)),
                {str(term): sentence for term, sentence in own.items()},
            ).with_remarks(*_cut_texts(self.encoder, own))
            for own, query in zip(words, queries, strict=True)
        ]


def _cut_texts(encoder: Encoder, words: Mapping[Term, str]) -> list[str | None]:
    """A remark for each text of a query that is cut. A description that equals the prompt is reported once."""
    labels = {Term.TEXT: "the description of the reference", Term.COMPOSED: "the description of the target"}
    prompt = words[Term.PROMPT]
    named = [(labels.get(term, "the prompt"), text) for term, text in words.items() if term is Term.PROMPT or text != prompt]
    return [remark for name, text in named for remark in cut_remarks(encoder, [text], name)]
