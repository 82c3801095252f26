"""OSrCIR's one step (CVPR 2025): a model sees the picture and the prompt and describes the target at once."""

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
    """Terms image, composed and prompt, and `text` too where the model also says what the reference shows: PDV needs it."""

    encoder: Encoder
    describer: Describer

    def compose(self, queries: Sequence[ComposerInput]) -> list[Composition]:
        said = [
            {Term.TEXT: d.reference, Term.COMPOSED: d.target or query.words(), Term.PROMPT: query.words()}
            for d, query in zip(self.describer.describe(queries), queries, strict=True)
        ]
        words = [{term: sentence for term, sentence in one.items() if sentence is not None} for one in said]
        rows = iter(self.encoder.encode_texts([sentence for one in words for sentence in one.values()]))
        return [
            Composition(
                (Term.IMAGE, *one),
                np.stack([query.reference(), *(next(rows) for _ in one)]),
                (0.0, *(float(term is Term.COMPOSED) for term in one)),
                {str(term): sentence for term, sentence in one.items()},
            ).with_remarks(*_cut(self.encoder, one))
            for one, query in zip(words, queries, strict=True)
        ]


def _cut(encoder: Encoder, words: Mapping[Term, str]) -> list[str | None]:
    """What is cut of the words of a query. A description that is the prompt itself is told once."""
    what = {Term.TEXT: "the description of the reference", Term.COMPOSED: "the description of the target"}
    prompt = words[Term.PROMPT]
    own = [(what.get(term, "the prompt"), text) for term, text in words.items() if term is Term.PROMPT or text != prompt]
    return [remark for name, text in own for remark in cut_remarks(encoder, [text], name)]
