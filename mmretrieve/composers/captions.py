"""Composers of words: `text` is the reference said in words, `composed` the same words with the prompt applied.

One caption is CIReVL (arXiv 2310.09291), fifteen are LDRE (SIGIR 2024) and SEIZE (ACM MM 2024), and other weights on
the same terms are SDR-CIR. Who speaks, and who rewrites, is a choice (see `language`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composers.fitting import FittedCaption, cut_remarks, fit_captions, fitting_remark
from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.encoders.base import Encoder
from mmretrieve.language.base import Captioner, Rewriter
from mmretrieve.language.rewriters import TemplateRewriter
from mmretrieve.query import Query
from mmretrieve.rules import LINEAR, Hinge, ScoreRule
from mmretrieve.vectors import Float32, unit

MANY = 15  # captions an image, in LDRE and SEIZE
Scorer = Callable[[Float32], Float32]
"""(m, d) unit vectors → (m, items) scores over the gallery that will be searched."""
Shares = Callable[[Float32, Float32], NDArray[np.float64]]
"""(m, d) captions and (m, d) rewrites → (m,) shares that sum to 1."""


def even(captions: Float32, rewrites: Float32) -> NDArray[np.float64]:  # noqa: ARG001
    """Each caption counts the same."""
    return np.full(len(captions), 1 / len(captions))


def ldre_shares(
    score: Scorer, captions: Float32, rewrites: Float32, *, depth: int = 5, temperature: float = 0.04
) -> NDArray[np.float64]:
    """LDRE's weights: softmax((d / max d) / temperature), d the sum of the 5 largest gains of a rewrite over its caption.

    Gains are measured over the gallery, so this is transductive. Where no rewrite gains anything, all count the same.
    """
    gains = score(rewrites).astype(np.float64) - score(captions)
    divergence = np.sort(gains, axis=1)[:, -depth:].sum(axis=1)
    if divergence.max() <= 0:
        return even(captions, rewrites)
    powers = np.exp((divergence / divergence.max() - 1) / temperature)
    return np.asarray(powers / powers.sum())


def sdr_weights(a: float = 0.15, b: float = 0.35) -> dict[str, float]:
    """SDR-CIR: (1+b) · ((1−a) · composed + a · image) − b · (composed − prompt). (a, b) for CIRCO; CIRR .05/.5, FashionIQ .2/.4."""
    return {Term.COMPOSED: (1 + b) * (1 - a) - b, Term.IMAGE: (1 + b) * a, Term.PROMPT: b}


@dataclass(frozen=True)
class Captions:
    """Four terms: image, text, composed and prompt. `text` and `composed` are means of `count` captions and their rewrites.

    A given caption is taken as it is and stands alone; where a rewriter says nothing, the prompt stands for its rewrite.
    A caption that does not fit into the encoder's context together with its prompt is shortened (see `fitting`).
    A query with words but no picture has no `image`.
    """

    encoder: Encoder
    captioner: Captioner
    rewriter: Rewriter = field(default_factory=TemplateRewriter)
    count: int = 1
    shares: Shares = even
    base: Mapping[str, float] = field(default_factory=lambda: {Term.COMPOSED: 1.0})
    rule: ScoreRule = LINEAR
    remark: str | None = None

    def compose(self, queries: Sequence[Query]) -> list[Composition]:
        prompts, captions = [query.words() for query in queries], self._captions(queries)
        told = [caption for several in captions for caption in several]
        asked = [prompt for prompt, several in zip(prompts, captions, strict=True) for _ in several]
        said = self.rewriter.rewrite(told, asked)
        rewrites = [rewrite or prompt for rewrite, prompt in zip(said, asked, strict=True)]
        pairs = fit_captions(self.encoder, self.rewriter, told, asked, rewrites)
        texts = [*(pair.caption for pair in pairs), *(pair.rewrite for pair in pairs), *prompts]
        text_rows, rewrite_rows, prompt_rows = np.split(self.encoder.encode_texts(texts), [len(told), 2 * len(told)])
        places = [slice(*ends) for ends in pairwise(accumulate(map(len, captions), initial=0))]
        cut = cut_remarks(self.encoder, prompts)
        return [
            self._composition(query, pairs[place], text_rows[place], rewrite_rows[place], prompt_row).remarked(
                _silence(said[place]), fitting_remark(self.encoder, pairs[place]), prompt_cut
            )
            for query, place, prompt_row, prompt_cut in zip(queries, places, prompt_rows, cut, strict=True)
        ]

    def _composition(
        self, query: Query, pairs: Sequence[FittedCaption], text: Float32, rewritten: Float32, prompt: Float32
    ) -> Composition:
        shares = self.shares(text, rewritten)
        means = unit([shares @ text.astype(np.float64), shares @ rewritten.astype(np.float64)], "the mean of the captions")
        best = pairs[int(shares.argmax())]
        seen = {} if query.vector is None else {Term.IMAGE: query.vector}
        terms = seen | dict(zip((Term.TEXT, Term.COMPOSED, Term.PROMPT), (*means, prompt), strict=True))
        return Composition(
            tuple(terms),
            np.stack(list(terms.values())),
            (0.0,) * len(terms),
            {Term.TEXT: best.caption, Term.COMPOSED: best.rewrite, Term.PROMPT: query.words()},
            self.rule,
            remark=self.remark,
        ).weighted(self.base)

    def _captions(self, queries: Sequence[Query]) -> list[list[str]]:
        unsaid = [query for query in queries if query.caption is None]
        told = iter(self.captioner.captions(unsaid, self.count) if unsaid else [])
        return [next(told) if query.caption is None else [query.caption] for query in queries]


def _silence(said: Sequence[str]) -> str | None:
    """How many rewrites are missing: the prompt alone stands for them."""
    if all(said):
        return None
    return f"{sum(not rewrite for rewrite in said)} of {len(said)} captions have no rewrite: the prompt alone stands for it"


def ldre(encoder: Encoder, captioner: Captioner, rewriter: Rewriter, score: Scorer) -> Captions:
    """LDRE: many captions, weighed by what their rewrites gain over the gallery."""
    remark = "the captions' weights were chosen by looking at the gallery (transductive, as in LDRE)"
    return Captions(encoder, captioner, rewriter, MANY, partial(ldre_shares, score), remark=remark)


def seize(encoder: Encoder, captioner: Captioner, rewriter: Rewriter) -> Captions:
    """SEIZE: the means of many captions, folded by the hinge rule."""
    return Captions(encoder, captioner, rewriter, MANY, rule=Hinge())


def sdr(encoder: Encoder, captioner: Captioner, rewriter: Rewriter) -> Captions:
    """SDR-CIR: one caption, with the image and the prompt beside its rewrite."""
    return Captions(encoder, captioner, rewriter, base=sdr_weights())
