"""OSrCIR's one step (CVPR 2025): a model sees the picture and the prompt and describes the target at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.language.base import Describer
from mmretrieve.query import Query


@dataclass(frozen=True)
class OneStep:
    """Terms image, composed and prompt, and `text` too where the model also says what the reference shows: PDV needs it."""

    encoder: Encoder
    describer: Describer

    def compose(self, queries: Sequence[Query]) -> list[Composition]:
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
            )
            for one, query in zip(words, queries, strict=True)
        ]
